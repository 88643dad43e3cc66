//! Limits: who has a place, who waits.

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;

use super::{
    Shared,
    respond::{self, Answer},
};

/// `GET /v1/limits`: those that the host which is asked counts.
pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Answer {
    respond::json(StatusCode::OK, &shared.facade.limits().await?)
}
