//! The one layer around every route: request id, access, bounds on the request line, the time to answer, metrics, and
//! the writing of problem documents. One layer, because each costs an allocation on the submit path.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    middleware::Next,
};
use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, Method, Response, header};

use super::{access::Access, kinds, limits, problem::Problem};

/// Identifies one request in answers and logs.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the layer keeps.
#[derive(Debug)]
pub(super) struct Outermost {
    access: Access,
    /// Tells ids of one process from those of another.
    process: u32,
    requests: AtomicU64,
}

impl Outermost {
    /// For one process; `process` should differ between processes.
    pub(super) fn new(access: Access, process: u32) -> Arc<Self> {
        Arc::new(Self { access, process, requests: AtomicU64::new(0) })
    }

    fn request_id(&self, given: Option<&HeaderValue>) -> HeaderValue {
        let sound = |value: &&HeaderValue| {
            (1..=limits::REQUEST_ID_BYTES).contains(&value.len())
                && value.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte))
        };
        match given.filter(sound) {
            Some(value) => value.clone(),
            None => {
                let number = self.requests.fetch_add(1, Ordering::Relaxed);
                HeaderValue::try_from(format!("{:08x}-{number:x}", self.process))
                    .unwrap_or(HeaderValue::from_static("unknown"))
            }
        }
    }

    fn check(&self, request: &Request) -> Result<(), Problem> {
        let length = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
        if length > limits::TARGET_BYTES {
            let detail = format!("path and query have {length} bytes");
            return Err(
                Problem::new(&kinds::TARGET_TOO_LONG, detail).with("limit_bytes", limits::TARGET_BYTES)
            );
        }
        self.access.check(request.method(), request.uri(), request.headers())
    }
}

/// The layer.
pub(super) async fn layer(
    State(this): State<Arc<Outermost>>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let started = Instant::now();
    let id = this.request_id(request.headers().get(REQUEST_ID));
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let waits = request.headers().contains_key("prefer") || wants_stream(request.headers());

    let mut response = match this.check(&request) {
        Ok(()) => answer(request, next, time_for(&method, &path)).await,
        Err(problem) => axum::response::IntoResponse::into_response(problem),
    };

    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        log(&problem, &method, &path, &id);
        problem.write(&mut response, &path, id.to_str().unwrap_or(""));
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    measure(method, route.as_ref(), response.status().as_u16(), waits, started.elapsed());
    response
}

/// Whether the caller asks for server-sent events.
pub(super) fn wants_stream(headers: &http::HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .any(|accept| accept.to_str().is_ok_and(|accept| accept.contains("text/event-stream")))
}

fn time_for(method: &Method, path: &str) -> Duration {
    let installs = *method == Method::POST && path == "/v1/plugins";
    if installs { limits::INSTALL_TIMEOUT } else { limits::ANSWER_TIMEOUT }
}

async fn answer(request: Request, next: Next, time: Duration) -> Response<Body> {
    use axum::response::IntoResponse;
    let guarded = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(time, guarded).await {
        Ok(Ok(response)) => response,
        Ok(Err(_panic)) => Problem::new(&kinds::INTERNAL, "the host's log says more under this request id")
            .internal("a handler panicked")
            .into_response(),
        Err(_) => Problem::new(&kinds::ANSWER_TIMEOUT, format!("no answer within {} s", time.as_secs()))
            .retry_after(Duration::from_secs(1))
            .into_response(),
    }
}

fn log(problem: &Problem, method: &Method, path: &str, id: &HeaderValue) {
    let (kind, id) = (problem.kind(), id.to_str().unwrap_or(""));
    if kind.status >= 500 && kind.status != 503 {
        let internal = problem.internal_words().unwrap_or("");
        tracing::error!(%method, path, request_id = id, problem = kind.slug, internal, detail = problem.detail());
    } else {
        tracing::debug!(%method, path, request_id = id, problem = kind.slug, detail = problem.detail());
    }
}

fn measure(method: Method, route: Option<&MatchedPath>, status: u16, waits: bool, took: Duration) {
    // A path that no route matches is not a label: there is no bound on them.
    let route = route.map_or_else(|| "unmatched".to_owned(), |route| route.as_str().to_owned());
    let method = match method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    };
    if !waits {
        metrics::histogram!("reipaz_http_request_duration_seconds", "method" => method, "path" => route.clone())
            .record(took.as_secs_f64());
    }
    let status = STATUSES.iter().find(|(number, _)| *number == status).map_or("other", |(_, text)| text);
    metrics::counter!("reipaz_http_requests_total", "method" => method, "path" => route, "status" => status)
        .increment(1);
}

/// The statuses that the API answers with, as label texts.
const STATUSES: &[(u16, &str)] = &[
    (200, "200"),
    (201, "201"),
    (202, "202"),
    (204, "204"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (408, "408"),
    (409, "409"),
    (413, "413"),
    (414, "414"),
    (415, "415"),
    (421, "421"),
    (422, "422"),
    (429, "429"),
    (500, "500"),
    (503, "503"),
    (507, "507"),
];

/// Names and explains the API's metrics to the recorder.
pub fn describe_metrics() {
    metrics::describe_counter!(
        "reipaz_http_requests_total",
        "Requests answered, by method, route and status."
    );
    metrics::describe_histogram!(
        "reipaz_http_request_duration_seconds",
        metrics::Unit::Seconds,
        "Time to answer, by method and route; requests that ask to wait are left out."
    );
}
