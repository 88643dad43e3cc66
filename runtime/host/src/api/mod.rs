//! The HTTP API, version 1: routes, and between them and the host nothing but [`Facade`].
//!
//! A request passes `outermost` (id, access, metrics, problem documents), is read strictly (`body`, `query`,
//! `prefer`), becomes one call of the facade, and its answer is written from text that is there already wherever it
//! can be. A handler decides nothing about runs.
//!
//! To add a route: write its handler, list it in `routes`, describe it in `openapi.json` (a test compares the two).

mod access;
mod alerts;
mod attempts;
mod body;
mod breakers;
mod bulk;
mod cursor;
mod events;
mod flow;
mod forward;
pub mod kinds;
pub mod limits;
mod logs;
mod operations;
mod outermost;
mod plugins;
mod prefer;
mod problem;
mod query;
mod refusals;
mod respond;
mod routes;
mod runs;
mod server;
mod sql;
mod submit;
#[cfg(test)]
mod tests;
mod workflows;

use std::{fmt, sync::Arc, time::Duration};

use axum::{Router, middleware};
use http::{HeaderName, HeaderValue, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

use self::{access::Access, outermost::Outermost};
pub use self::{outermost::describe_metrics, problem::Problem, server::serve};
use crate::{facade::Facade, peers::Peers};

/// What the operator sets of the API.
#[derive(Clone)]
pub struct Settings {
    /// Bearer tokens; none: only loopback callers are answered.
    pub tokens: Vec<String>,
    /// Web origins that may call (`*`: any); none: no CORS headers.
    pub cors_origins: Vec<String>,
    /// Largest input of a run, bytes.
    pub payload_bytes: usize,
    /// How often a silent event stream shows that it lives.
    pub heartbeat: Duration,
    /// The other hosts, where there can be some.
    pub(crate) peers: Option<Arc<Peers>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tokens: Vec::new(),
            cors_origins: Vec::new(),
            payload_bytes: 1 << 20,
            heartbeat: limits::HEARTBEAT,
            peers: None,
        }
    }
}

/// Gives the text of `/metrics`.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// What every handler sees.
struct Shared {
    facade: Arc<dyn Facade>,
    settings: Settings,
    metrics: MetricsText,
    /// Bulk changes go one at a time.
    bulk: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// The whole API as a service.
pub fn router(facade: Arc<dyn Facade>, settings: Settings, metrics: MetricsText) -> Router {
    let cors = cors(&settings.cors_origins);
    let access = Access::new(&settings.tokens, &settings.cors_origins);
    let process = std::process::id();
    let peers = settings.peers.clone();
    let shared = Arc::new(Shared { facade, settings, metrics, bulk: tokio::sync::Mutex::default() });
    let mut router = Router::new();
    for route in routes::all() {
        router = router.route(route.path, route.handler);
    }
    let router =
        router.fallback(routes::path_not_found).method_not_allowed_fallback(routes::method_not_allowed);
    let router = match peers {
        Some(peers) => router.layer(middleware::from_fn_with_state(peers, forward::layer)),
        None => router,
    };
    let router = router
        .layer(middleware::from_fn_with_state(Outermost::new(access, process), outermost::layer))
        .with_state(shared);
    match cors {
        Some(cors) => router.layer(cors),
        None => router,
    }
}

/// CORS as configured; preflights are answered before a token is asked for, as they carry none.
fn cors(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(
            origins.iter().filter_map(|origin| HeaderValue::try_from(origin.trim_end_matches('/')).ok()),
        )
    };
    let own = |name| HeaderName::from_static(name);
    Some(
        CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods([http::Method::GET, http::Method::POST])
            .allow_headers([
                header::AUTHORIZATION,
                header::CONTENT_TYPE,
                header::ACCEPT,
                own("idempotency-key"),
                own("last-event-id"),
                own("prefer"),
                outermost::REQUEST_ID,
            ])
            .expose_headers([
                header::LOCATION,
                header::RETRY_AFTER,
                header::ALLOW,
                prefer::PREFERENCE_APPLIED,
                own("idempotency-replayed"),
                outermost::REQUEST_ID,
            ])
            .max_age(Duration::from_secs(3_600)),
    )
}
