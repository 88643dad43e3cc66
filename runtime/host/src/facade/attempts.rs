//! A run's attempts, one by one.

use std::{collections::BTreeMap, sync::Arc};

use reipaz_core::{
    event::{LogLevel, Usage},
    failure::Failure,
    ids::{Digest, StepPath},
    partition::RunStatus,
    plan::PluginPin,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

/// A page of a run's attempts, in the order in which they started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttemptsPage {
    /// These.
    pub attempts: Vec<AttemptView>,
    /// The `after` of the next page, a place among all attempts of the run; none on the last.
    pub next_after: Option<usize>,
    /// Where the run stands.
    pub status: RunStatus,
}

/// One attempt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttemptView {
    /// The step.
    pub step: StepPath,
    /// Counts from 1.
    pub attempt: u32,
    /// What was executed: the very component.
    pub plugin: Option<PluginPin>,
    /// How it ended, if it has.
    pub status: AttemptStatus,
    /// When it was decided.
    pub started_at: Timestamp,
    /// When its end was.
    pub ended_at: Option<Timestamp>,
    /// Why it failed.
    pub error: Option<Failure>,
    /// Of what the step's `with` came to.
    pub input_digest: Option<Digest>,
    /// What it cost.
    pub usage: Option<Usage>,
    /// How often its host was lost while it was executed.
    pub times_lost: u32,
    /// The last lines that it logged, at most 20.
    pub last_logs: Vec<AttemptLine>,
    /// Bytes of log that were over the limit and dropped.
    pub logs_dropped_bytes: u64,
    /// When the step is tried again, if that follows.
    pub next: Option<NextAttempt>,
}

/// How an attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptStatus {
    /// It goes on.
    Running,
    /// It gave an output.
    Completed,
    /// It gave an error, or was ended for one.
    Failed,
    /// A circuit breaker was open; it does not count.
    Parked,
    /// The step's `if` was false.
    Skipped,
    /// It was interrupted, since its run ended, failed or was retried.
    Cancelled,
}

/// A line of its log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttemptLine {
    /// The attempt's own clock.
    pub at: Timestamp,
    /// How grave.
    pub level: LogLevel,
    /// The text.
    pub message: Arc<str>,
    /// Structured fields.
    pub fields: BTreeMap<Arc<str>, Arc<str>>,
}

/// When a step is tried again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NextAttempt {
    /// Then.
    pub due: Timestamp,
    /// That long after this attempt's end, milliseconds.
    pub delay_ms: u64,
    /// What gave the delay: `immediate`, `backoff`, `retry_after`, or the breaker.
    pub reason: String,
}

impl AttemptView {
    /// One that has started.
    pub fn new(step: StepPath, attempt: u32, started_at: Timestamp) -> Self {
        Self {
            step,
            attempt,
            plugin: None,
            status: AttemptStatus::Running,
            started_at,
            ended_at: None,
            error: None,
            input_digest: None,
            usage: None,
            times_lost: 0,
            last_logs: Vec::new(),
            logs_dropped_bytes: 0,
            next: None,
        }
    }
}
