//! Runs: read (and wait for), list, change.

use std::{str::FromStr, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Path, RawQuery, State},
};
use http::{HeaderMap, StatusCode};
use reipaz_core::{
    ids::RunId,
    partition::{Again, RunStatus, StartFrom},
    time::Timestamp,
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::{
    Shared, body, cursor, kinds, limits, prefer,
    problem::Problem,
    query::{self, Params},
    respond::{self, Answer},
    submit::payload,
};
use crate::facade::{Change, RunPosition, RunQuery, RunSummary, WaitUntil};

/// A run id out of a path. What is no id is no run.
pub(super) fn run_id(text: &str) -> Result<RunId, Problem> {
    RunId::from_str(text)
        .map_err(|_| Problem::new(&kinds::RUN_NOT_FOUND, format!("{text:?} is no run id: ids are UUIDs")))
}

/// Query of [`read`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadParams {
    after: Option<u32>,
}

/// `GET /v1/runs/{id}`: as it stands; with `Prefer: wait=N` once it has ended, with `?after=SEQ` too once it has changed.
pub(super) async fn read(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    Params(params): Params<ReadParams>,
    headers: HeaderMap,
) -> Answer {
    let id = run_id(&id)?;
    let Some(wait) = prefer::wait(&headers) else {
        return respond::json(StatusCode::OK, &shared.facade.run(id).await?);
    };
    let until = params.after.map_or(WaitUntil::Terminal, WaitUntil::Beyond);
    shared.wait(id, until, wait).await?;
    let answer = respond::json(StatusCode::OK, &shared.facade.run(id).await?);
    respond::with_header(answer, prefer::PREFERENCE_APPLIED, prefer::applied(wait))
}

impl Shared {
    /// Waits for a run, and no longer than until the host drains.
    pub(super) async fn wait(
        &self,
        id: RunId,
        until: WaitUntil,
        wait: Duration,
    ) -> Result<crate::facade::Standing, Problem> {
        let draining = self.facade.draining();
        tokio::select! {
            standing = self.facade.wait(id, until, wait) => Ok(standing?),
            () = draining.cancelled(), if !wait.is_zero() => Ok(self.facade.wait(id, until, Duration::ZERO).await?),
        }
    }
}

/// Reads the query of [`list`]. By hand, because `status` may be there more than once.
pub(super) fn run_query(query: &str) -> Result<RunQuery, Problem> {
    let mut parsed = RunQuery::default();
    let mut limit = None;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let refuse = |why: &str| Problem::new(&kinds::INVALID_QUERY, format!("{name}={value}: {why}"));
        let time = || {
            let text = serde_json::Value::String(value.to_string());
            Timestamp::deserialize(text)
                .map_err(|_| refuse("take a time in RFC 3339, as in 2026-01-31T12:00:00Z"))
        };
        let number = || refuse("take a whole number");
        match &*name {
            "workflow" => parsed.workflow = Some(value.to_string()),
            "version" => parsed.version = Some(value.parse().map_err(|_| number())?),
            "status" => parsed.status.extend(statuses(&value)?),
            "created_from" => parsed.created_from = Some(time()?),
            "created_before" => parsed.created_before = Some(time()?),
            "limit" => limit = Some(value.parse().map_err(|_| number())?),
            "cursor" => {
                let cursor = cursor::run(&value);
                parsed.after =
                    Some(cursor.ok_or_else(|| refuse("take it unchanged from `next` of the page before"))?);
            }
            _ => {
                let known = "workflow, version, status, created_from, created_before, limit, cursor";
                return Err(Problem::new(
                    &kinds::INVALID_QUERY,
                    format!("unknown parameter {name:?}; take {known}"),
                ));
            }
        }
    }
    parsed.limit = query::page_limit(limit, limits::RUNS_PAGE)?;
    Ok(parsed)
}

#[derive(Serialize)]
struct Page {
    runs: Vec<RunSummary>,
    next: Option<String>,
    partial: bool,
}

/// `GET /v1/runs`: newest first, a page at a time.
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let text = query.unwrap_or_default();
    let mut query = run_query(&text)?;
    query.only_here = headers.contains_key(crate::peers::FORWARDED);
    query.text = text;
    let page = shared.facade.list_runs(query).await?;
    let next = page
        .runs
        .last()
        .filter(|_| page.more)
        .map(|last| cursor::of_run(RunPosition { created_at: last.created_at, id: last.id }));
    respond::json(StatusCode::OK, &Page { runs: page.runs, next, partial: page.partial })
}

/// `failed,cancelled`.
fn statuses(text: &str) -> Result<Vec<RunStatus>, Problem> {
    const ALL: [RunStatus; 7] = [
        RunStatus::Pending,
        RunStatus::Running,
        RunStatus::Waiting,
        RunStatus::Paused,
        RunStatus::Completed,
        RunStatus::Failed,
        RunStatus::Cancelled,
    ];
    text.split(',')
        .map(|name| {
            ALL.into_iter().find(|status| status.as_str() == name.trim()).ok_or_else(|| {
                let known = ALL.map(RunStatus::as_str).join(", ");
                Problem::new(
                    &kinds::INVALID_QUERY,
                    format!("status: {name:?} is none; take some of: {known}"),
                )
            })
        })
        .collect()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reason {
    reason: Option<Arc<str>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Retry<'a> {
    step: Option<Arc<str>>,
    from: Option<Whence>,
    #[serde(borrow, default, deserialize_with = "present")]
    input: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Whence {
    Failed,
    Start,
}

/// A null that is there is an input; nothing is not.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(value: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(value).map(Some)
}

/// `POST /v1/runs/{id}/cancel`.
pub(super) async fn cancel(
    state: State<Arc<Shared>>,
    id: Path<String>,
    headers: HeaderMap,
    reason: Body,
) -> Answer {
    with_reason(state, id, headers, reason, |reason| Change::Cancel { reason }).await
}

/// `POST /v1/runs/{id}/pause`.
pub(super) async fn pause(
    state: State<Arc<Shared>>,
    id: Path<String>,
    headers: HeaderMap,
    reason: Body,
) -> Answer {
    with_reason(state, id, headers, reason, |reason| Change::Pause { reason }).await
}

/// `POST /v1/runs/{id}/resume`.
pub(super) async fn resume(
    state: State<Arc<Shared>>,
    id: Path<String>,
    headers: HeaderMap,
    reason: Body,
) -> Answer {
    with_reason(state, id, headers, reason, |reason| Change::Resume { reason }).await
}

/// `POST /v1/runs/{id}/retry`.
pub(super) async fn retry(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    again: Body,
) -> Answer {
    let id = run_id(&id)?;
    let payload_bytes = shared.settings.payload_bytes;
    let again = body::read(&headers, again, body::JSON, payload_bytes + limits::SMALL_BODY_BYTES).await?;
    let again = if again.is_empty() { &b"{}"[..] } else { &again };
    let Retry { step, from, input } =
        serde_json::from_slice(again).map_err(|error| body::malformed(&error))?;
    let from = match (step, from) {
        (Some(_), Some(_)) => {
            let detail = "give `step` or `from`, not both".to_owned();
            return Err(Problem::new(&kinds::MALFORMED_BODY, detail));
        }
        (Some(step), None) => StartFrom::Step(step),
        (None, Some(Whence::Start)) => StartFrom::Start,
        (None, Some(Whence::Failed) | None) => StartFrom::Failed,
    };
    let input = input.map(|input| payload(input, payload_bytes)).transpose()?;
    respond::json(StatusCode::OK, &shared.facade.change(id, Change::Retry(Again { from, input })).await?)
}

async fn with_reason(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    reason: Body,
    change: impl FnOnce(Option<Arc<str>>) -> Change,
) -> Answer {
    let id = run_id(&id)?;
    let Reason { reason } =
        body::parse(&body::read(&headers, reason, body::JSON, limits::SMALL_BODY_BYTES).await?)?;
    if reason.as_ref().is_some_and(|reason| reason.len() > limits::REASON_BYTES) {
        let detail = format!("`reason`: at most {} bytes", limits::REASON_BYTES);
        return Err(Problem::new(&kinds::MALFORMED_BODY, detail));
    }
    respond::json(StatusCode::OK, &shared.facade.change(id, change(reason)).await?)
}
