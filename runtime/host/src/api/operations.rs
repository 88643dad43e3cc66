//! What operators and tools ask: is it alive, is it ready, its metrics, the API's own description, its problem types.

use std::{fmt::Write, sync::Arc};

use axum::extract::{Path, State};
use http::StatusCode;
use serde_json::json;

use super::{
    Shared,
    kinds::{self, Kind},
    problem::Problem,
    respond::{self, Answer},
};

/// The API's description, as it is served.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

/// `GET /healthz`: the process answers.
pub(super) async fn alive() -> Answer {
    respond::json(StatusCode::OK, &json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}))
}

/// `GET /readyz`: 200 when the host takes work, else 503; either way with what each part says.
pub(super) async fn ready(State(shared): State<Arc<Shared>>) -> Answer {
    let readiness = shared.facade.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    respond::json(status, &readiness)
}

/// `GET /metrics`, in Prometheus' text format.
pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Answer {
    respond::text("text/plain; version=0.0.4; charset=utf-8", (shared.metrics)())
}

/// `GET /openapi.json`.
pub(super) async fn openapi() -> Answer {
    respond::text("application/json", OPENAPI)
}

/// `GET /problems`: every type of problem document.
pub(super) async fn problems() -> Answer {
    let mut page = String::from("Every `type` of a problem document that this API answers with:\n\n");
    for kind in kinds::ALL {
        let _infallible = writeln!(page, "{}  {}  {}", kind.status, kind.path(), kind.title);
    }
    respond::text("text/plain; charset=utf-8", page)
}

/// `GET /problems/{slug}`: one of them.
pub(super) async fn problem(Path(slug): Path<String>) -> Answer {
    let Some(Kind { status, title, advice, .. }) = Kind::find(&slug) else {
        return Err(Problem::new(
            &kinds::PATH_NOT_FOUND,
            format!("no problem is called {slug:?}; /problems lists all"),
        ));
    };
    respond::text("text/plain; charset=utf-8", format!("{title}\n\nHTTP status {status}. {advice}\n"))
}
