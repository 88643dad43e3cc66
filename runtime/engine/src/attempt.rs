//! What goes into the execution of one step and what comes out. Plain data: no wasmtime here, so that a reader of the
//! host sees at one glance what an attempt is.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::breaker::Parked;
use crate::grants::Grants;

/// What a guest is told about the attempt that it is (`context` in `wit/step.wit`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The run's id.
    pub run: String,
    /// The workflow's name.
    pub workflow: String,
    /// The step's path.
    pub step: String,
    /// Counts from 1.
    pub attempt: u32,
    /// The same for every attempt of this step of this run.
    pub idempotency_key: String,
    /// What came with the run's submission.
    pub metadata: Vec<(String, String)>,
}

/// One execution of one step.
#[derive(Clone)]
pub struct Attempt {
    /// The plugin: SHA-256 of its binary. It must be installed or loaded.
    pub digest: [u8; 32],
    /// The plugin's name and version, by which its circuit breaker goes; without it, it has none.
    pub plugin: Option<Arc<str>>,
    /// What the guest is told.
    pub context: Context,
    /// JSON.
    pub input: Arc<str>,
    /// What the guest may do outside.
    pub grants: Arc<Grants>,
    /// Where the placeholders in outgoing headers get their values.
    pub secrets: Arc<dyn Secrets>,
    /// All of the guest's randomness comes from it. The same seed and `clock_start_us` give a silent guest the same run.
    pub seed: [u8; 32],
    /// Where the guest's clocks start: microseconds since 1970-01-01T00:00:00Z.
    pub clock_start_us: u64,
    /// From the moment that a permit is held; waiting for one is not the guest's time.
    pub timeout: Duration,
    /// When it must have a permit.
    pub start_by: Option<Instant>,
    /// When it must have ended, whatever it waited for.
    pub end_by: Option<Instant>,
    /// How long it may run without reporting progress.
    pub heartbeat_timeout: Option<Duration>,
    /// Interrupts the guest wherever it is.
    pub cancel: CancellationToken,
    /// Gets progress and logs while the guest runs; without it they come with the outcome.
    pub reports: Option<Arc<dyn Reports>>,
}

/// What came of an attempt.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// JSON, or why there is none.
    pub result: Result<String, Failure>,
    /// Set if a circuit breaker is why there is none: the attempt should be made again later.
    pub parked: Option<Parked>,
    /// What it took.
    pub usage: Usage,
    /// Log lines that were not reported before.
    pub logs: Vec<LogLine>,
    /// How much of the log was over its bound, in bytes.
    pub logs_dropped_bytes: u64,
}

/// What an attempt took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of the guest and of the host's work for it.
    pub cpu_us: u64,
    /// From its start, which the wait for a permit precedes, to its end.
    pub wall_us: u64,
    /// The most linear memory and tables that it had at once.
    pub memory_peak_bytes: u64,
    /// How long it waited for a permit.
    pub queued_us: u64,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Decides about retries.
    pub class: Class,
    /// Stable, snake_case.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// How long the other side asked to be left alone.
    pub retry_after_ms: Option<u64>,
    /// JSON.
    pub details: Option<String>,
}

impl Failure {
    /// A failure without details.
    pub fn new(class: Class, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { class, code: code.into(), message: message.into(), retry_after_ms: None, details: None }
    }
}

/// What kind of failure it was. The first five can come from a guest, the others from the engine alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Trying again would give the same.
    Permanent,
    /// The other side may recover.
    Transient,
    /// No answer.
    Network,
    /// Its time ran out, or the other side's.
    Timeout,
    /// The other side asked for patience.
    RateLimited,
    /// Over a limit: memory, table, stack, handles, output.
    Resource,
    /// It trapped or exited.
    Trap,
    /// It asked for what it was not granted.
    Denied,
    /// Somebody cancelled it.
    Cancelled,
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Every detail.
    Trace,
    /// For whoever looks for a mistake.
    Debug,
    /// What happened. Standard output has this level.
    Info,
    /// What may need a look. Standard error has this level.
    Warn,
    /// What went wrong.
    Error,
}

/// One line of a guest's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// The attempt's `clock_start_us` and the real time since then.
    pub at_us: u64,
    /// How much it matters.
    pub level: Level,
    /// The text.
    pub message: String,
    /// More, by name.
    pub fields: Vec<(String, String)>,
}

/// How far a guest says it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// How much is done.
    pub done: u64,
    /// Of how much.
    pub total: Option<u64>,
    /// In words.
    pub note: String,
}

/// What a running guest had to say since its last report; at most two a second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The latest, if there is a new one.
    pub progress: Option<Progress>,
    /// New lines.
    pub logs: Vec<LogLine>,
}

/// Where a running guest's reports go.
pub trait Reports: Send + Sync {
    /// Takes a report without waiting, or gives it back: then it comes again with a later one, or with the outcome.
    fn take(&self, report: Report) -> Result<(), Report>;
}

impl Reports for mpsc::Sender<Report> {
    fn take(&self, report: Report) -> Result<(), Report> {
        self.try_send(report).map_err(mpsc::error::TrySendError::into_inner)
    }
}

/// Turns placeholders into secrets, on the way out and nowhere else: the guest never holds a secret.
pub trait Secrets: Send + Sync {
    /// The header value to send to `host` instead of `header_value`; `None` leaves it as it is.
    fn substitute(&self, header_value: &str, host: &str) -> Option<String>;
}

/// No secrets.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSecrets;

impl Secrets for NoSecrets {
    fn substitute(&self, _header_value: &str, _host: &str) -> Option<String> {
        None
    }
}

/// All expressions of one step.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// A JSON object: `input`, `steps`, ...
    pub scope: Arc<str>,
    /// Evaluated first; when it is false, nothing else is.
    pub condition: Option<Arc<str>>,
    /// jq, each giving one value.
    pub filters: Vec<Arc<str>>,
    /// Like an attempt's; jq has no randomness, but the component's hash tables may draw some.
    pub seed: [u8; 32],
    /// When it must have a permit.
    pub start_by: Option<Instant>,
    /// Interrupts the evaluation.
    pub cancel: CancellationToken,
}

/// What came of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evaluated {
    /// The condition's truth, if there was one.
    pub condition: Option<bool>,
    /// JSON, one value for each filter; none when the condition is false.
    pub values: Vec<String>,
}
