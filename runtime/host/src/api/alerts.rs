//! Alerts: what fires, what is over, and whether webhooks can be reached.

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;

use super::{
    Shared,
    respond::{self, Answer},
};

/// `GET /v1/alerts`: of the host that is asked.
pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Answer {
    respond::json(StatusCode::OK, &shared.facade.alerts())
}

/// `POST /v1/alerts/test`: 200 whatever the webhooks say; what each said is in the answer.
pub(super) async fn test(State(shared): State<Arc<Shared>>) -> Answer {
    respond::json(StatusCode::OK, &shared.facade.test_alerts().await)
}
