//! The other hosts of a deployment: which of them owns what, as far as is known, and requests to them.
//!
//! Who takes a partition over announces its own address in the catalogue. That is a hint: it may be out of date, so whoever is
//! asked because of it looks whether the partition is its own, and says so if not (421). The asker then looks again, within
//! the time that its own caller has.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use reipaz_core::ids::RunId;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::Instant;

use crate::{catalog::OWNER, owner::OwnerStatus};

/// Says that a request was passed on by another host: it is answered here or not at all.
pub(crate) const FORWARDED: HeaderName = HeaderName::from_static("reipaz-forwarded");

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Between two looks for an owner.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// An answer of another host that this one reads, bytes.
const ANSWER_BYTES: usize = 64 << 20;

#[derive(Serialize, Deserialize)]
struct Announced {
    url: String,
}

/// See the module.
pub(crate) struct Peers {
    url: String,
    catalog: Arc<dyn reipaz_journal::Catalog>,
    statuses: Vec<Arc<OwnerStatus>>,
    client: Client<HttpConnector, Full<Bytes>>,
    /// For this host's own questions.
    token: Option<HeaderValue>,
}

/// Nobody could be asked in time.
#[derive(Debug, thiserror::Error)]
#[error("partition {partition} has no owner that answers")]
pub(crate) struct NoOwner {
    partition: u32,
}

impl Peers {
    /// `url` is where other hosts reach this one.
    pub(crate) fn new(
        url: String,
        catalog: Arc<dyn reipaz_journal::Catalog>,
        statuses: Vec<Arc<OwnerStatus>>,
        token: Option<&str>,
    ) -> Arc<Self> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        let token = token.and_then(|token| HeaderValue::try_from(format!("Bearer {token}")).ok());
        Arc::new(Self { url, catalog, statuses, client, token })
    }

    /// Tells the others that this host owns the partition.
    pub(crate) fn announce(self: &Arc<Self>, partition: u32) {
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let record = serde_json::to_vec(&Announced { url: this.url.clone() }).unwrap_or_default();
            if let Err(error) = this.catalog.put(&key(partition), Bytes::from(record)).await {
                tracing::warn!(partition, %error, "other hosts do not learn that this one owns the partition");
            }
        });
    }

    /// Whether this host owns the run's partition, as far as it knows.
    pub(crate) fn is_here(&self, partition: u32) -> bool {
        self.statuses[partition as usize].owned.load(Ordering::Acquire)
    }

    /// The run's partition.
    pub(crate) fn home(&self, run: RunId) -> u32 {
        run.partition(self.statuses.len() as u32)
    }

    /// Where the partition's owner was announced, unless that is this host.
    fn owner(&self, partition: u32) -> Option<String> {
        let record = self.catalog.get(&key(partition))?;
        let announced: Announced = serde_json::from_slice(&record).ok()?;
        (announced.url != self.url).then_some(announced.url)
    }

    /// Every other host that was announced.
    pub(crate) fn others(&self) -> BTreeSet<String> {
        let remote = (0..self.statuses.len() as u32).filter(|partition| !self.is_here(*partition));
        remote.filter_map(|partition| self.owner(partition)).collect()
    }

    /// Passes a request on to the partition's owner and gives back its answer as it comes; looks for another owner while
    /// there is none, until `deadline`. None: the partition has become this host's own.
    pub(crate) async fn pass_on(
        &self,
        partition: u32,
        request: &Passed,
        deadline: Instant,
    ) -> Result<Option<Response<Body>>, NoOwner> {
        loop {
            if self.is_here(partition) {
                return Ok(None);
            }
            if let Some(url) = self.owner(partition) {
                match tokio::time::timeout_at(deadline, self.send(&url, request)).await {
                    Ok(Ok(response)) if !is_elsewhere(response.status()) => return Ok(Some(response)),
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => tracing::debug!(partition, url, %error, "an owner does not answer"),
                    Err(_) => return Err(NoOwner { partition }),
                }
            }
            if Instant::now() + LOOK_AGAIN_AFTER >= deadline {
                return Err(NoOwner { partition });
            }
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
    }

    /// Asks one host; its answer's JSON.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, url: &str, request: &Passed) -> Option<T> {
        read(self.send(url, request).await.ok()?).await
    }

    async fn send(
        &self,
        url: &str,
        passed: &Passed,
    ) -> Result<Response<Body>, Box<dyn std::error::Error + Send + Sync>> {
        let uri = format!("{}{}", url.trim_end_matches('/'), passed.target);
        let mut request =
            Request::builder().method(&passed.method).uri(uri).body(Full::new(passed.body.clone()))?;
        for (name, value) in &passed.headers {
            if !matches!(*name, header::HOST | header::CONNECTION | header::CONTENT_LENGTH | header::ORIGIN) {
                request.headers_mut().append(name, value.clone());
            }
        }
        if let Some(token) = &self.token {
            request.headers_mut().entry(header::AUTHORIZATION).or_insert_with(|| token.clone());
        }
        request.headers_mut().insert(FORWARDED, HeaderValue::from_static("1"));
        Ok(self.client.request(request).await?.map(Body::new))
    }
}

/// A request that can be sent more than once.
pub(crate) struct Passed {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Passed {
    /// A question without a body.
    pub(crate) fn get(target: String) -> Self {
        Self { method: Method::GET, target, headers: HeaderMap::new(), body: Bytes::new() }
    }
}

/// A successful answer's JSON.
pub(crate) async fn read<T: DeserializeOwned>(response: Response<Body>) -> Option<T> {
    if !response.status().is_success() {
        return None;
    }
    let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await.ok()?;
    serde_json::from_slice(&body.to_bytes()).ok()
}

/// The asked host does not own the partition, or has just let it go.
pub(crate) fn is_elsewhere(status: StatusCode) -> bool {
    status == StatusCode::MISDIRECTED_REQUEST
}

fn key(partition: u32) -> String {
    format!("{OWNER}{partition:04}")
}
