//! Runs that have left memory, as ClickHouse has them. Its answers are shown and decide nothing.

use std::collections::BTreeMap;

use bytes::Bytes;
use reipaz_core::{
    event::RunError,
    failure::{ErrorClass, Failure},
    ids::{RunId, StepPath},
    partition::{RunStatus, StepStatus},
};
use reipaz_store::{AttemptRow, LogFilter, RunFilter, RunHead, RunRow, Status, Store, StoreError};
use serde::{Deserialize, de::value::StrDeserializer};

use crate::facade::{
    EventView, FacadeError, LogPosition, LogQuery, LogView, RunPage, RunQuery, RunSummary, RunView, StepView,
};

/// See the module.
pub(crate) struct History {
    store: Option<Store>,
}

impl History {
    /// Without a store, whatever has left memory is unknown.
    pub(crate) fn new(store: Option<Store>) -> Self {
        Self { store }
    }

    /// In a sentence.
    pub(crate) fn status(&self) -> String {
        self.store.as_ref().map_or_else(|| "switched off".to_owned(), |store| store.status().to_string())
    }

    /// Whether it can be asked.
    pub(crate) fn is_ready(&self) -> bool {
        self.store.as_ref().is_some_and(|store| store.status().is_ready())
    }

    fn ready(&self) -> Result<&Store, FacadeError> {
        let unavailable = |why: String| Err(FacadeError::StoreUnavailable { why });
        match &self.store {
            None => unavailable("it is switched off (clickhouse.mode = \"off\")".to_owned()),
            Some(store) => match store.status() {
                Status::Ready { .. } => Ok(store),
                other => unavailable(other.to_string()),
            },
        }
    }

    /// A run is unknown only if everybody who could know it was asked.
    fn ready_for(&self, run: RunId) -> Result<&Store, FacadeError> {
        match &self.store {
            None => Err(FacadeError::UnknownRun(run)),
            Some(store) if matches!(store.status(), Status::Absent { .. }) => {
                Err(FacadeError::UnknownRun(run))
            }
            Some(_) => self.ready(),
        }
    }

    /// A run, whole.
    pub(crate) async fn run(&self, id: RunId) -> Result<RunView, FacadeError> {
        let store = self.ready_for(id)?;
        let row = store.run(id).await.map_err(store_error)?.ok_or(FacadeError::UnknownRun(id))?;
        let attempts = store.attempts(id).await.map_err(store_error)?;
        run_view(id, row, &attempts)
    }

    /// Its events.
    pub(crate) async fn events(
        &self,
        id: RunId,
        after: u32,
        limit: usize,
    ) -> Result<Vec<EventView>, FacadeError> {
        let store = self.ready_for(id)?;
        let rows = store.events(id, after, limit).await.map_err(store_error)?;
        if rows.is_empty() && store.run(id).await.map_err(store_error)?.is_none() {
            return Err(FacadeError::UnknownRun(id));
        }
        Ok(rows.into_iter().map(|row| EventView { seq: row.seq, json: row.event }).collect())
    }

    /// Its log lines.
    pub(crate) async fn logs(&self, id: RunId, query: &LogQuery) -> Result<Vec<LogView>, FacadeError> {
        let store = self.ready_for(id)?;
        let filter = LogFilter {
            after: query.after.map(|after| (after.seq, after.index)),
            step: query.step.clone(),
            level: query.level,
        };
        let rows = store.logs(id, &filter, query.limit).await.map_err(store_error)?;
        if rows.is_empty() && store.run(id).await.map_err(store_error)?.is_none() {
            return Err(FacadeError::UnknownRun(id));
        }
        let lines = rows.into_iter().map(|row| LogView {
            position: LogPosition { seq: row.seq, index: row.line },
            at: row.at,
            step: StepPath(row.step),
            attempt: row.attempt,
            level: row.level,
            message: row.message,
            fields: row.fields.into_iter().collect(),
        });
        Ok(lines.collect())
    }

    /// One page of runs; a partial one when ClickHouse cannot be asked.
    pub(crate) async fn list(&self, query: &RunQuery) -> RunPage {
        let partial = RunPage { partial: self.store.is_some(), ..RunPage::default() };
        let Ok(store) = self.ready() else { return partial };
        let filter = RunFilter {
            workflow: query.workflow.clone(),
            version: query.version,
            status: query.status.clone(),
            created_from: query.created_from,
            created_before: query.created_before,
            after: query.after.map(|after| (after.created_at, after.id)),
        };
        let heads = match store.list_runs(&filter, query.limit + 1).await {
            Ok(heads) => heads,
            Err(error) => {
                tracing::warn!(%error, "runs are listed without those in ClickHouse");
                return partial;
            }
        };
        let more = heads.len() > query.limit;
        let runs = heads.into_iter().take(query.limit).filter_map(|head| summary(head).ok()).collect();
        RunPage { runs, more, partial: false }
    }

    /// A user's own statement.
    pub(crate) async fn sql(&self, query: &str, format: &str) -> Result<Bytes, FacadeError> {
        self.ready()?.sql(query, format).await.map_err(store_error)
    }
}

fn store_error(error: StoreError) -> FacadeError {
    match error {
        StoreError::Refused(message) => FacadeError::Sql { message },
        StoreError::Busy { .. } => {
            FacadeError::Overloaded { why: error.to_string(), retry_after: std::time::Duration::from_secs(1) }
        }
        StoreError::Row(_) => FacadeError::Internal(error.to_string()),
        StoreError::Unavailable(_) | StoreError::Timeout { .. } => {
            FacadeError::StoreUnavailable { why: error.to_string() }
        }
    }
}

fn run_view(id: RunId, row: RunRow, attempts: &[AttemptRow]) -> Result<RunView, FacadeError> {
    let status = word::<RunStatus>(&row.status)?;
    let error =
        run_error(&row.error_class, row.error_code, row.error_message, row.error_step, row.error_attempt)?;
    let mut steps: BTreeMap<StepPath, StepView> = BTreeMap::new();
    for attempt in attempts {
        let step = steps.entry(StepPath(attempt.step.clone())).or_insert_with(|| StepView {
            status: StepStatus::Waiting,
            attempts: 0,
            output: None,
            error: None,
            waiting_for: None,
            progress: None,
            started_at: attempt.started_at,
            finished_at: None,
        });
        if attempt.attempt >= step.attempts {
            step.status = step_status(&attempt.status);
            step.attempts = attempt.attempt;
            step.output = (step.status == StepStatus::Completed).then(|| attempt.output.clone());
            step.error = failure(attempt)?;
            step.finished_at = attempt.finished_at;
        }
    }
    Ok(RunView {
        id,
        workflow: row.workflow,
        version: row.workflow_version,
        status,
        seq: row.seq,
        input: row.input,
        output: (status == RunStatus::Completed).then_some(row.output),
        error,
        steps,
        idempotency_key: Some(row.idempotency_key).filter(|key| !key.is_empty()),
        metadata: row.metadata.into_iter().collect(),
        created_at: row.created_at,
        started_at: row.started_at,
        finished_at: row.finished_at,
    })
}

fn summary(head: RunHead) -> Result<RunSummary, FacadeError> {
    let error = run_error(
        &head.error_class,
        head.error_code,
        head.error_message,
        head.error_step,
        head.error_attempt,
    )?;
    Ok(RunSummary {
        id: RunId(head.run),
        workflow: head.workflow,
        version: head.workflow_version,
        status: word(&head.status)?,
        seq: head.seq,
        error,
        created_at: head.created_at,
        started_at: head.started_at,
        finished_at: head.finished_at,
    })
}

fn run_error(
    class: &str,
    code: std::sync::Arc<str>,
    message: std::sync::Arc<str>,
    step: std::sync::Arc<str>,
    attempt: u32,
) -> Result<Option<RunError>, FacadeError> {
    if class.is_empty() {
        return Ok(None);
    }
    Ok(Some(RunError {
        class: word(class)?,
        code,
        message,
        step: Some(step).filter(|step| !step.is_empty()).map(StepPath),
        attempt: Some(attempt).filter(|attempt| *attempt > 0),
    }))
}

fn failure(row: &AttemptRow) -> Result<Option<Failure>, FacadeError> {
    if row.error_class.is_empty() {
        return Ok(None);
    }
    Ok(Some(Failure {
        class: word::<ErrorClass>(&row.error_class)?,
        code: row.error_code.clone(),
        message: row.error_message.clone(),
        retry_after_ms: row.retry_after_ms,
        details: Some(row.error_details.clone()).filter(|details| !details.is_empty()),
    }))
}

/// An attempt's word for where it stands, as a step's.
fn step_status(word: &str) -> StepStatus {
    match word {
        "completed" | "continued" => StepStatus::Completed,
        "failed" => StepStatus::Failed,
        "cancelled" => StepStatus::Cancelled,
        "skipped" => StepStatus::Skipped,
        "scheduled" => StepStatus::Retrying,
        "running" => StepStatus::Running,
        _ => StepStatus::Waiting,
    }
}

/// A snake_case word out of a column, as the enum that wrote it.
fn word<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, FacadeError> {
    T::deserialize(StrDeserializer::<serde::de::value::Error>::new(text))
        .map_err(|error| FacadeError::Internal(format!("ClickHouse has {text:?}: {error}")))
}
