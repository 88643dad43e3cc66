//! Every route of the API in one table, which is what `openapi.json` is compared with.

use std::sync::Arc;

use axum::routing::{MethodRouter, get, post};
use http::{Method, Uri};

use super::{
    Shared, alerts, attempts, breakers, bulk, events, flow, kinds, logs, operations, plugins,
    problem::Problem, runs, sql, submit, workflows,
};

/// One path and what it does.
pub(super) struct Route {
    /// As axum writes it: `/v1/runs/{id}`.
    pub(super) path: &'static str,
    /// The methods that it takes; `HEAD` comes with `GET`.
    #[cfg_attr(not(test), allow(dead_code, reason = "what openapi.json is compared with"))]
    pub(super) methods: &'static [&'static str],
    /// What answers them.
    pub(super) handler: MethodRouter<Arc<Shared>>,
}

/// The table.
pub(super) fn all() -> Vec<Route> {
    const GET: &[&str] = &["get"];
    const POST: &[&str] = &["post"];
    const BOTH: &[&str] = &["get", "post"];
    let route = |path, methods, handler| Route { path, methods, handler };
    vec![
        route("/v1/workflows", BOTH, get(workflows::list).post(workflows::publish)),
        route("/v1/workflows/validate", POST, post(workflows::validate)),
        route("/v1/workflows/{name}", GET, get(workflows::newest)),
        route("/v1/workflows/{name}/versions/{version}", GET, get(workflows::version)),
        route("/v1/workflows/{name}/runs", POST, post(submit::submit)),
        route("/v1/runs", GET, get(runs::list)),
        route("/v1/runs/bulk", POST, post(bulk::change)),
        route("/v1/runs/{id}", GET, get(runs::read)),
        route("/v1/runs/{id}/events", GET, get(events::read)),
        route("/v1/runs/{id}/attempts", GET, get(attempts::list)),
        route("/v1/runs/{id}/logs", GET, get(logs::read)),
        route("/v1/runs/{id}/cancel", POST, post(runs::cancel)),
        route("/v1/runs/{id}/pause", POST, post(runs::pause)),
        route("/v1/runs/{id}/resume", POST, post(runs::resume)),
        route("/v1/runs/{id}/retry", POST, post(runs::retry)),
        route("/v1/plugins", BOTH, get(plugins::list).post(plugins::install)),
        route("/v1/plugins/{*name}", GET, get(plugins::read)),
        route("/v1/alerts", GET, get(alerts::list)),
        route("/v1/alerts/test", POST, post(alerts::test)),
        route("/v1/breakers", GET, get(breakers::list)),
        route("/v1/breakers/open", POST, post(breakers::open)),
        route("/v1/breakers/close", POST, post(breakers::close)),
        route("/v1/limits", GET, get(flow::list)),
        route("/v1/sql", POST, post(sql::query)),
        route("/healthz", GET, get(operations::alive)),
        route("/readyz", GET, get(operations::ready)),
        route("/metrics", GET, get(operations::metrics)),
        route("/openapi.json", GET, get(operations::openapi)),
        route("/problems", GET, get(operations::problems)),
        route("/problems/{slug}", GET, get(operations::problem)),
    ]
}

/// What no route matches.
pub(super) async fn path_not_found(uri: Uri) -> Problem {
    Problem::new(
        &kinds::PATH_NOT_FOUND,
        format!("nothing is at {}; /openapi.json lists all paths", uri.path()),
    )
}

/// A path with another method; axum adds `Allow`.
pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    Problem::new(&kinds::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
}
