//! What a run's steps logged: a page, or a long poll for more.

use std::{sync::Arc, time::Duration};

use axum::extract::{Path, State};
use http::{HeaderMap, StatusCode};
use reipaz_core::{event::LogLevel, partition::RunStatus};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    Shared, cursor, kinds, limits, prefer,
    problem::Problem,
    query::{self, Params},
    respond::{self, Answer},
    runs::run_id,
};
use crate::facade::{LogQuery, LogView, WaitUntil};

/// Query of [`read`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogParams {
    after: Option<String>,
    step: Option<String>,
    level: Option<LogLevel>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Page {
    logs: Vec<LogView>,
    /// The `after` of the next request; null before the first line.
    next_after: Option<String>,
    status: RunStatus,
}

/// `GET /v1/runs/{id}/logs`.
pub(super) async fn read(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    Params(params): Params<LogParams>,
    headers: HeaderMap,
) -> Answer {
    let id = run_id(&id)?;
    let after = match params.after.as_deref() {
        None => None,
        Some(text) => Some(cursor::log(text).ok_or_else(|| {
            Problem::new(
                &kinds::INVALID_QUERY,
                "after: take it unchanged from `next_after` of the page before",
            )
        })?),
    };
    let step = params.step.as_deref().map(query::step_path);
    let limit = query::page_limit(params.limit, limits::LOGS_PAGE)?;
    let query = LogQuery { after, step, level: params.level, limit };

    let wait = prefer::wait(&headers);
    let deadline = Instant::now() + wait.unwrap_or_default();
    let mut standing = shared.wait(id, WaitUntil::Terminal, Duration::ZERO).await?;
    let logs = loop {
        let logs = shared.facade.logs(id, query.clone()).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let nothing_more =
            standing.status.is_terminal() || left.is_zero() || shared.facade.draining().is_cancelled();
        if !logs.is_empty() || nothing_more {
            break logs;
        }
        standing = shared.wait(id, WaitUntil::Beyond(standing.seq), left).await?;
    };
    let next_after = logs.last().map(|last| last.position).or(query.after).map(cursor::of_log);
    let answer = respond::json(StatusCode::OK, &Page { logs, next_after, status: standing.status });
    match wait {
        Some(wait) => respond::with_header(answer, prefer::PREFERENCE_APPLIED, prefer::applied(wait)),
        None => answer,
    }
}
