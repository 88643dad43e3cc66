//! The outside world: a local HTTP server whose answers a test decides, and which remembers who called.

use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Method, Request};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};

/// A body above this is refused.
const BODY_BYTES: usize = 8 << 20;

/// One request that came.
#[derive(Clone, Debug)]
pub struct Call {
    /// Counts from 0, in order of arrival.
    pub number: usize,
    /// Its method.
    pub method: Method,
    /// Its path, without the query.
    pub path: String,
    /// Its query, empty without one.
    pub query: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: String,
    /// When it came.
    pub at: Instant,
    /// The same, on the clock that hosts use.
    pub wall: SystemTime,
}

impl Call {
    /// A header's text, empty when it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

type Answering = Pin<Box<dyn Future<Output = Response> + Send>>;

struct State {
    calls: Mutex<Vec<Call>>,
    under_way: AtomicUsize,
    handler: Box<dyn Fn(Call) -> Answering + Send + Sync>,
}

/// The server. It ends with its value.
pub struct Upstream {
    address: SocketAddr,
    state: Arc<State>,
    serving: JoinHandle<()>,
}

impl Upstream {
    /// A server whose answers come from `handler`.
    pub async fn start<R, F>(handler: impl Fn(Call) -> F + Send + Sync + 'static) -> Self
    where
        R: IntoResponse,
        F: Future<Output = R> + Send + 'static,
    {
        let state = Arc::new(State {
            calls: Mutex::new(Vec::new()),
            under_way: AtomicUsize::new(0),
            handler: Box::new(move |call| {
                let answering = handler(call);
                Box::pin(async move { answering.await.into_response() })
            }),
        });
        let shared = Arc::clone(&state);
        let router =
            Router::new().fallback(move |request: Request<Body>| answer(Arc::clone(&shared), request));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port on loopback");
        let address = listener.local_addr().expect("a bound listener has an address");
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("serving does not end by itself");
        });
        Self { address, state, serving }
    }

    /// One that answers after 0.2 to 2 s.
    pub async fn slow() -> Self {
        Self::start(|call: Call| async move {
            tokio::time::sleep(Duration::from_millis(200 + (call.number as u64 * 7919) % 1800)).await;
            "done"
        })
        .await
    }

    /// Where it is, followed by `path`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who called so far.
    pub fn calls(&self) -> Vec<Call> {
        self.state.calls.lock().expect("no handler panicked").clone()
    }

    /// How many calls came, by their idempotency keys.
    pub fn calls_by_key(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for call in self.calls() {
            *counts.entry(call.header("idempotency-key").to_owned()).or_default() += 1;
        }
        counts
    }

    /// How many calls came and were not answered yet. A caller that went away without its answer is not counted.
    pub fn under_way(&self) -> usize {
        self.state.under_way.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Counts a call as under way for as long as it lives.
struct UnderWay(Arc<State>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(state: Arc<State>, request: Request<Body>) -> Response {
    let (at, wall) = (Instant::now(), SystemTime::now());
    state.under_way.fetch_add(1, Ordering::SeqCst);
    let under_way = UnderWay(Arc::clone(&state));
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, BODY_BYTES).await.unwrap_or_default();
    let call = {
        let mut calls = state.calls.lock().expect("no handler panicked");
        let call = Call {
            number: calls.len(),
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: parts.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
            at,
            wall,
        };
        calls.push(call.clone());
        call
    };
    let response = (state.handler)(call).await;
    drop(under_way);
    response
}
