//! The outside world of the steps with an effect: a server that answers every POST at once, on the load generator's thread.
//! Who asks for [`LATER`] is told to come again long after the bench.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, StatusCode, body::Incoming, header::HeaderValue, server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// The path whose answer is 503 with a `Retry-After`.
pub(crate) const LATER: &str = "/later";
/// That answer's `Retry-After`, seconds.
const LATER_S: u32 = 36_000;

/// A server that runs until the process ends.
#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    put_off: Arc<AtomicU64>,
}

impl Upstream {
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let put_off = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&put_off);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let counter = Arc::clone(&counter);
                let service = service_fn(move |request| answer(request, Arc::clone(&counter)));
                // A connection that breaks concerns its client alone.
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Self { address, put_off })
    }

    /// How many calls were told to come again later.
    pub(crate) fn put_off(&self) -> u64 {
        self.put_off.load(Ordering::Relaxed)
    }
}

async fn answer(
    request: Request<Incoming>,
    put_off: Arc<AtomicU64>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let later = request.uri().path() == LATER;
    // Whatever was sent is read, as a real receiver would.
    let _ = request.into_body().collect().await;
    let mut response = Response::new(Full::new(Bytes::from_static(b"{\"done\":true}")));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    if later {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response.headers_mut().insert("retry-after", HeaderValue::from(LATER_S));
        put_off.fetch_add(1, Ordering::Relaxed);
    }
    Ok(response)
}
