//! ClickHouse's HTTP interface on loopback, as far as the `clickhouse` crate and curl need it: statements in the body,
//! in `query=` or in a form, data behind an INSERT, parameters, settings, formats, and exceptions with their code.
//!
//! Only who knows the token is answered: other users of this machine can reach the port too.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, task::spawn_blocking};

use super::{
    chdb::Output,
    request::{self, BadRequest, Statement},
    sessions::{Outcome, Sessions},
};

/// The largest statement with its data. The store's inserts stay far below.
const BODY_BYTES_MAX: usize = 256 << 20;
/// Requests that may wait for a session or run; further ones are refused at once.
const REQUESTS_MAX: usize = 256;

/// ClickHouse's exception codes that are made here.
mod code {
    pub(super) const BAD_ARGUMENTS: u32 = 36;
    pub(super) const TOO_MANY_SIMULTANEOUS_QUERIES: u32 = 202;
    pub(super) const NOT_ENOUGH_SPACE: u32 = 243;
    pub(super) const AUTHENTICATION_FAILED: u32 = 516;
    pub(super) const UNKNOWN_EXCEPTION: u32 = 1002;
}

/// What every connection shares.
pub(super) struct Server {
    pub(super) sessions: Sessions,
    pub(super) token: String,
    pub(super) version: String,
    places: tokio::sync::Semaphore,
}

impl Server {
    pub(super) fn new(sessions: Sessions, token: String, version: String) -> Self {
        Self { sessions, token, version, places: tokio::sync::Semaphore::new(REQUESTS_MAX) }
    }
}

/// Accepts connections until the process ends.
pub(super) async fn serve(listener: TcpListener, server: Arc<Server>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: give the open connections time to end.
                eprintln!("cannot accept a connection: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let server = Arc::clone(&server);
        let service = service_fn(move |request| {
            let server = Arc::clone(&server);
            async move { Ok::<_, Infallible>(answer(&server, request).await) }
        });
        tokio::spawn(async move {
            let mut http = hyper::server::conn::http1::Builder::new();
            // A client that goes away in the middle of a request is its own business.
            let _ = http.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(server: &Arc<Server>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if request.uri().path() == "/ping" {
        return Response::new(Full::new(Bytes::from_static(b"Ok.\n")));
    }
    let (parts, body) = request.into_parts();
    let query_string = parts.uri.query().unwrap_or_default();
    if !is_authentic(&parts.headers, query_string, &server.token) {
        let message = "the token is missing or wrong; send it as X-ClickHouse-Key";
        return exception(StatusCode::FORBIDDEN, code::AUTHENTICATION_FAILED, message);
    }
    let Ok(_place) = server.places.try_acquire() else {
        let message = format!("more than {REQUESTS_MAX} requests at once");
        return exception(StatusCode::SERVICE_UNAVAILABLE, code::TOO_MANY_SIMULTANEOUS_QUERIES, &message);
    };
    let body = match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            return exception(StatusCode::PAYLOAD_TOO_LARGE, code::BAD_ARGUMENTS, &error.to_string());
        }
    };
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let mut statement = match request::read(query_string, header, &body) {
        Ok(statement) => statement,
        Err(error) => {
            let status = match error {
                BadRequest::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
                _ => StatusCode::BAD_REQUEST,
            };
            return exception(status, code::BAD_ARGUMENTS, &error.to_string());
        }
    };
    drop(body);
    if parts.method == Method::GET {
        // As over HTTP everywhere: what is asked with GET must not change anything.
        statement.session.settings.entry("readonly".to_owned()).or_insert_with(|| "1".to_owned());
    }
    run(server, statement).await
}

async fn run(server: &Arc<Server>, statement: Statement) -> Response<Full<Bytes>> {
    let turn = server.sessions.turn(&statement.session).await;
    let format = statement.format.clone();
    let engine = Arc::clone(server);
    let outcome = spawn_blocking(move || engine.sessions.run(&statement)).await;
    drop(turn);
    match outcome {
        Ok(Outcome::Done(output)) => match output.error() {
            None => result(server, &format, output),
            Some(message) => {
                let code = exception_code(&message);
                exception(status_of(code), code, &message)
            }
        },
        Ok(Outcome::NoSession(error)) => {
            exception(StatusCode::INTERNAL_SERVER_ERROR, code::UNKNOWN_EXCEPTION, &error.to_string())
        }
        Ok(Outcome::NoSpace(error)) => {
            let message = format!("the data cannot be handed to the engine: {error}");
            exception(StatusCode::INTERNAL_SERVER_ERROR, code::NOT_ENOUGH_SPACE, &message)
        }
        Err(panic) => {
            exception(StatusCode::INTERNAL_SERVER_ERROR, code::UNKNOWN_EXCEPTION, &panic.to_string())
        }
    }
}

fn result(server: &Server, format: &str, output: Output) -> Response<Full<Bytes>> {
    let (read, written) = output.rows();
    let summary = format!(r#"{{"read_rows":"{read}","written_rows":"{written}"}}"#);
    let mut response = Response::new(Full::new(Bytes::from_owner(output)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(format)));
    for (name, value) in [
        ("x-clickhouse-format", format),
        ("x-clickhouse-summary", &summary),
        ("x-clickhouse-server-display-name", "reipaz-embedded"),
        ("x-clickhouse-version", &server.version),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    response
}

fn content_type(format: &str) -> &'static str {
    match format {
        "JSON" | "JSONCompact" => "application/json; charset=UTF-8",
        "JSONEachRow" | "JSONLines" | "NDJSON" => "application/x-ndjson; charset=UTF-8",
        "CSV" | "CSVWithNames" => "text/csv; charset=UTF-8; header=absent",
        "TabSeparated" | "TSV" | "TSVWithNames" => "text/tab-separated-values; charset=UTF-8",
        "RowBinary" | "RowBinaryWithNamesAndTypes" | "Native" => "application/octet-stream",
        _ => "text/plain; charset=UTF-8",
    }
}

fn exception(status: StatusCode, code: u32, message: &str) -> Response<Full<Bytes>> {
    let message = if message.starts_with("Code: ") {
        format!("{message}\n")
    } else {
        format!("Code: {code}. DB::Exception: {message}\n")
    };
    let mut response = Response::new(Full::new(Bytes::from(message)));
    *response.status_mut() = status;
    response.headers_mut().insert("x-clickhouse-exception-code", HeaderValue::from(code));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
    response
}

/// The number in `Code: 60. DB::Exception: ...`.
fn exception_code(message: &str) -> u32 {
    let digits = message.strip_prefix("Code: ").and_then(|rest| rest.split('.').next());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(code::UNKNOWN_EXCEPTION)
}

/// As ClickHouse's server maps the codes that matter to a client.
fn status_of(code: u32) -> StatusCode {
    match code {
        // Unknown function, identifier, type; bad arguments; cannot parse; syntax; unknown setting or parameter.
        6 | 26 | 27 | 36 | 38 | 41 | 43 | 46 | 47 | 50 | 53 | 62 | 70 | 115 | 456 | 457 => {
            StatusCode::BAD_REQUEST
        }
        // Unknown table, database.
        60 | 81 => StatusCode::NOT_FOUND,
        // Readonly, not enough privileges.
        164 | 497 => StatusCode::FORBIDDEN,
        // Timeout exceeded.
        159 => StatusCode::REQUEST_TIMEOUT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The token as `X-ClickHouse-Key`, as a bearer token, or as `password=`.
fn is_authentic(headers: &HeaderMap, query_string: &str, token: &str) -> bool {
    let key = headers.get("x-clickhouse-key").map(HeaderValue::as_bytes);
    let bearer = headers.get("authorization").and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let offered = key.or(bearer).map(<[u8]>::to_vec).or_else(|| {
        let mut pairs = form_urlencoded::parse(query_string.as_bytes());
        pairs.find(|(name, _)| name == "password").map(|(_, value)| value.as_bytes().to_vec())
    });
    offered.is_some_and(|offered| same(&offered, token.as_bytes()))
}

/// Takes as long wherever the two differ.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}
