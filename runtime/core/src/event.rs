//! The facts that the journal holds. They are all that there is: a partition's state is the fold of its events, and
//! whatever was evaluated or drawn (a condition, a delay, a seed, resolved versions) stands in one, so that replay
//! evaluates nothing.
//!
//! Encoded as CBOR with numbered fields behind one format byte ([`FORMAT`]); a field may be added with a new number
//! and must then be optional; numbers are never reused. `codec.rs` holds the framing.

use std::sync::Arc;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{
    failure::{ErrorClass, Failure},
    ids::{Digest, RunId, StepPath},
    json::Json,
    limit::{LimitEvent, LimitId},
    time::Timestamp,
};

/// The first byte of every encoded event.
pub const FORMAT: u8 = 1;

/// One journalled fact of a partition.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Event {
    /// The partition learnt a workflow version; runs refer to it by digest.
    #[n(0)]
    WorkflowPinned(#[n(0)] WorkflowPinned),
    /// Something happened to a run.
    #[n(1)]
    Run(#[n(0)] RunEvent),
    /// A terminal run left the partition's memory (its rows are stored, its retention is over, or the bound on
    /// terminal runs was reached).
    #[n(2)]
    RunForgotten(#[n(0)] RunForgotten),
    /// An idempotency key's retention ended.
    #[n(3)]
    KeyExpired(#[n(0)] KeyExpired),
    /// Something happened to a limit whose home the partition is.
    #[n(4)]
    Limit(#[n(0)] Box<LimitEvent>),
}

impl Event {
    /// Partition time of the decision that it belongs to.
    pub fn at(&self) -> Timestamp {
        match self {
            Self::WorkflowPinned(event) => event.at,
            Self::Run(event) => event.at,
            Self::RunForgotten(event) => event.at,
            Self::KeyExpired(event) => event.at,
            Self::Limit(event) => event.at,
        }
    }

    /// Which run it is about, if it is about one.
    pub fn run(&self) -> Option<RunId> {
        match self {
            Self::WorkflowPinned(_) | Self::Limit(_) => None,
            Self::Run(event) => Some(event.run),
            Self::RunForgotten(event) => Some(event.run),
            Self::KeyExpired(event) => Some(event.run),
        }
    }
}

/// See [`Event::WorkflowPinned`].
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct WorkflowPinned {
    /// The pinned workflow's digest.
    #[n(0)]
    pub digest: Digest,
    /// [`crate::plan::PinnedWorkflow`] as JSON text.
    #[n(1)]
    #[cbor(with = "crate::cbor::text")]
    pub pinned: Json,
    /// When.
    #[n(2)]
    pub at: Timestamp,
}

/// See [`Event::RunForgotten`].
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct RunForgotten {
    /// Which run.
    #[n(0)]
    pub run: RunId,
    /// When.
    #[n(1)]
    pub at: Timestamp,
    /// Set when the run had an idempotency key whose retention goes on: what a repeated submission is compared with.
    #[n(2)]
    pub key: Option<KeptKey>,
}

/// What remains of a forgotten run that had an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct KeptKey {
    /// Digest of the run's input.
    #[n(0)]
    pub input: Digest,
    /// When the key is free again.
    #[n(1)]
    pub expires: Timestamp,
}

/// See [`Event::KeyExpired`].
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct KeyExpired {
    /// The run that the key stood for.
    #[n(0)]
    pub run: RunId,
    /// When.
    #[n(1)]
    pub at: Timestamp,
}

/// A fact about one run.
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize)]
pub struct RunEvent {
    /// Which run.
    #[n(0)]
    pub run: RunId,
    /// Counts from 1 within the run, without gaps.
    #[n(1)]
    pub seq: u32,
    /// Partition time of the decision.
    #[n(2)]
    pub at: Timestamp,
    /// What happened.
    #[n(3)]
    #[serde(flatten)]
    pub fact: Fact,
}

/// What can happen to a run. In JSON: `{"type": "attempt_started", ...fields}`. The larger ones are boxed: runs keep
/// their history in memory, and most of it is small.
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Fact {
    /// The run exists from here on.
    #[n(0)]
    RunAccepted(
        #[n(0)]
        #[cbor(with = "crate::cbor::shared")]
        Arc<RunAccepted>,
    ),
    /// An attempt is to be executed; its effect follows.
    #[n(1)]
    AttemptStarted(#[n(0)] AttemptStarted),
    /// The attempt's host stopped before there was an outcome. The same attempt is executed again (same number, same
    /// seed, same start of its clock) unless an `AttemptFinished` with a failure of class `host` follows.
    #[n(2)]
    AttemptInterrupted(#[n(0)] AttemptInterrupted),
    /// The attempt's outcome. If it failed, a `RetryScheduled` may follow; if none does, the step has failed.
    #[n(3)]
    AttemptFinished(#[n(0)] Box<AttemptFinished>),
    /// A running attempt told how far it is, or wrote log lines that should not wait for its end.
    #[n(4)]
    AttemptReported(#[n(0)] Box<AttemptReported>),
    /// The step will be tried again.
    #[n(5)]
    RetryScheduled(#[n(0)] Box<RetryScheduled>),
    /// The step will not run.
    #[n(6)]
    StepSkipped(#[n(0)] StepSkipped),
    /// No new attempts start until `RunResumed`.
    #[n(7)]
    RunPaused(#[n(0)] Asked),
    /// Attempts start again.
    #[n(8)]
    RunResumed(#[n(0)] Asked),
    /// The run is over (until somebody retries it).
    #[n(9)]
    RunFinished(#[n(0)] Box<RunFinished>),
    /// A failed or cancelled run goes on, or one that was paused after a failure: the named steps, and all that depend on
    /// them, start afresh.
    #[n(10)]
    RunRetried(#[n(0)] RunRetried),
    /// The step has failed for good, and its `on_failure` has the run go on as if it had completed.
    #[n(11)]
    StepContinued(#[n(0)] StepContinued),
    /// The steps of an `on_failure` start.
    #[n(12)]
    HandlingStarted(#[n(0)] Box<HandlingStarted>),
    /// The steps of a step's `on_failure` are over, and did not put it right: it has failed.
    #[n(13)]
    HandlingEnded(#[n(0)] HandlingEnded),
    /// The attempt came to nothing because a circuit breaker is open; it does not count, and another follows.
    #[n(14)]
    AttemptParked(#[n(0)] Box<AttemptParked>),
    /// The run, or a step before its next attempt, asked for a place under a limit, and waits for it.
    #[n(15)]
    LimitAsked(#[n(0)] Box<LimitAsked>),
    /// The run has its place: its steps start. (Of a step, `AttemptStarted` says so.)
    #[n(16)]
    RunAdmitted(#[n(0)] RunAdmitted),
    /// The step does not wait for its place any more, since the run was paused.
    #[n(17)]
    LimitLeft(#[n(0)] LimitLeft),
}

/// How a run came to be; everything about it that never changes.
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize)]
pub struct RunAccepted {
    /// The workflow's name.
    #[n(0)]
    #[cbor(with = "crate::cbor::text")]
    pub workflow: Arc<str>,
    /// Its version, counted from 1.
    #[n(1)]
    pub version: u32,
    /// Digest of the pinned workflow (document and plugin digests).
    #[n(2)]
    pub plan: Digest,
    /// The run's input.
    #[n(3)]
    #[serde(with = "crate::json::raw")]
    #[cbor(with = "crate::cbor::text")]
    pub input: Json,
    /// Digest of the input's text.
    #[n(4)]
    pub input_digest: Digest,
    /// The submitter's idempotency key.
    #[n(5)]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cbor(with = "crate::cbor::maybe_text", has_nil)]
    pub idempotency_key: Option<Arc<str>>,
    /// What the submitter wants carried along (correlation ids), shown to every step.
    #[n(6)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cbor(with = "crate::cbor::pairs")]
    pub metadata: Vec<(Arc<str>, Arc<str>)>,
    /// What started the run, for `$trigger`.
    #[n(7)]
    #[serde(skip_serializing_if = "Option::is_none", with = "crate::json::optional_raw")]
    #[cbor(with = "crate::cbor::maybe_text", has_nil)]
    pub trigger: Option<Json>,
    /// The run's secret seed: randomness of its attempts and the jitter of its retries come from it. Never shown.
    #[n(8)]
    #[serde(skip)]
    #[cbor(with = "minicbor::bytes")]
    pub seed: [u8; 32],
    /// When the run fails as a timeout.
    #[n(9)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// Why it cannot start, if it was accepted before anybody saw that. It has failed with this, for good.
    #[n(10)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<RunError>,
}

/// See [`Fact::AttemptStarted`]. The event's `at` is where the attempt's clock starts.
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize)]
pub struct AttemptStarted {
    /// The step.
    #[n(0)]
    #[serde(rename = "step")]
    pub path: StepPath,
    /// Counts from 1.
    #[n(1)]
    pub attempt: u32,
}

/// Why an attempt has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum InterruptCause {
    /// The host stopped without saying so (killed, crashed, power). Counts towards the bound.
    #[n(0)]
    HostLost,
    /// The host was asked to stop and the attempt did not end in time. Does not count.
    #[n(1)]
    Shutdown,
}

/// See [`Fact::AttemptInterrupted`].
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize)]
pub struct AttemptInterrupted {
    /// The step.
    #[n(0)]
    #[serde(rename = "step")]
    pub path: StepPath,
    /// Which attempt.
    #[n(1)]
    pub attempt: u32,
    /// Why.
    #[n(2)]
    pub cause: InterruptCause,
    /// How often this step's hosts were lost so far, this one included.
    #[n(3)]
    pub times_lost: u32,
}

/// What an attempt cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Usage {
    /// Thread CPU time spent in the guest, microseconds.
    #[n(0)]
    pub cpu_us: u64,
    /// From instantiation to outcome, microseconds.
    #[n(1)]
    pub wall_us: u64,
    /// Peak of the guest's linear memories, bytes.
    #[n(2)]
    pub memory_peak_bytes: u64,
    /// From the decision to the instantiation (waiting for a place), microseconds.
    #[n(3)]
    pub queued_us: u64,
}

/// A line that a guest logged.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct LogLine {
    /// The attempt's own clock.
    #[n(0)]
    pub at: Timestamp,
    /// How grave.
    #[n(1)]
    pub level: LogLevel,
    /// The text.
    #[n(2)]
    #[cbor(with = "crate::cbor::text")]
    pub message: Arc<str>,
    /// Structured fields.
    #[n(3)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cbor(with = "crate::cbor::pairs")]
    pub fields: Vec<(Arc<str>, Arc<str>)>,
}

/// How grave a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
#[allow(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    #[n(0)]
    Trace,
    #[n(1)]
    Debug,
    #[n(2)]
    Info,
    #[n(3)]
    Warn,
    #[n(4)]
    Error,
}

/// See [`Fact::AttemptFinished`].
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize)]
pub struct AttemptFinished {
    /// The step.
    #[n(0)]
    #[serde(rename = "step")]
    pub path: StepPath,
    /// Which attempt.
    #[n(1)]
    pub attempt: u32,
    /// When it was decided to start.
    #[n(2)]
    pub started_at: Timestamp,
    /// What came out.
    #[n(3)]
    #[serde(flatten)]
    pub result: AttemptResult,
    /// Digest of the evaluated `with`, absent when evaluating failed.
    #[n(4)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_digest: Option<Digest>,
    /// What it cost.
    #[n(5)]
    pub usage: Usage,
    /// What it logged since its last report.
    #[n(6)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<LogLine>,
    /// Bytes of log that were over the limit and dropped.
    #[n(7)]
    #[serde(skip_serializing_if = "is_zero")]
    pub logs_dropped_bytes: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Output or failure.
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptResult {
    /// The step's output.
    #[n(0)]
    Output(
        #[n(0)]
        #[cbor(with = "crate::cbor::text")]
        #[serde(with = "crate::json::raw")]
        Json,
    ),
    /// Why there is none.
    #[n(1)]
    Error(#[n(0)] Failure),
}

/// See [`Fact::AttemptReported`].
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize)]
pub struct AttemptReported {
    /// The step.
    #[n(0)]
    #[serde(rename = "step")]
    pub path: StepPath,
    /// Which attempt.
    #[n(1)]
    pub attempt: u32,
    /// How far it is.
    #[n(2)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// What it logged since its last report.
    #[n(3)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<LogLine>,
}

/// How far an attempt says it is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Progress {
    /// Units done.
    #[n(0)]
    pub done: u64,
    /// Units in all, where known.
    #[n(1)]
    pub total: Option<u64>,
    /// In words.
    #[n(2)]
    #[cbor(with = "crate::cbor::text")]
    pub note: Arc<str>,
}

/// See [`Fact::RetryScheduled`].
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize)]
pub struct RetryScheduled {
    /// The step.
    #[n(0)]
    #[serde(rename = "step")]
    pub path: StepPath,
    /// The number that the next attempt will have.
    #[n(1)]
    pub attempt: u32,
    /// When it is due.
    #[n(2)]
    pub due: Timestamp,
    /// How long from now, milliseconds.
    #[n(3)]
    pub delay_ms: u64,
    /// Class of the failure that is retried.
    #[n(4)]
    pub class: ErrorClass,
    /// Its code.
    #[n(5)]
    #[cbor(with = "crate::cbor::text")]
    pub code: Arc<str>,
    /// Which part of the rule gave the delay: `immediate`, `backoff`, `retry_after`.
    #[n(6)]
    #[cbor(with = "crate::cbor::text")]
    pub reason: Arc<str>,
}

/// See [`Fact::StepSkipped`].
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize)]
pub struct StepSkipped {
    /// The step.
    #[n(0)]
    #[serde(rename = "step")]
    pub path: StepPath,
    /// Why.
    #[n(1)]
    #[serde(flatten)]
    pub reason: SkipReason,
}

/// Why a step does not run.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(tag = "reason", content = "because_of", rename_all = "snake_case")]
pub enum SkipReason {
    /// Its `if` was false.
    #[n(0)]
    ConditionFalse,
    /// This step, which it depends on, was skipped.
    #[n(1)]
    UpstreamSkipped(#[n(0)] StepPath),
    /// This step, which it depends on, failed.
    #[n(2)]
    UpstreamFailed(#[n(0)] StepPath),
    /// Its `if` is `failed` and nothing that it depends on did.
    #[n(3)]
    NothingFailed,
}

/// Somebody asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Asked {
    /// In their words, where they gave any.
    #[n(0)]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cbor(with = "crate::cbor::maybe_text", has_nil)]
    pub reason: Option<Arc<str>>,
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
#[allow(missing_docs, reason = "the names say it")]
pub enum FinalStatus {
    #[n(0)]
    Completed,
    #[n(1)]
    Failed,
    #[n(2)]
    Cancelled,
}

/// See [`Fact::RunFinished`].
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize)]
pub struct RunFinished {
    /// How.
    #[n(0)]
    pub status: FinalStatus,
    /// The run's output; null unless completed.
    #[n(1)]
    #[serde(with = "crate::json::raw")]
    #[cbor(with = "crate::cbor::text")]
    pub output: Json,
    /// What made it fail.
    #[n(2)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
    /// When the first attempt was decided, if one was.
    #[n(3)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
}

/// The error of a failed run.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct RunError {
    /// What kind.
    #[n(0)]
    pub class: ErrorClass,
    /// Stable code.
    #[n(1)]
    #[cbor(with = "crate::cbor::text")]
    pub code: Arc<str>,
    /// For a person.
    #[n(2)]
    #[cbor(with = "crate::cbor::text")]
    pub message: Arc<str>,
    /// The step that failed first, if a step did.
    #[n(3)]
    pub step: Option<StepPath>,
    /// Its last attempt.
    #[n(4)]
    pub attempt: Option<u32>,
}

/// See [`Fact::RunRetried`].
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize)]
pub struct RunRetried {
    /// The steps that start afresh (their dependents do too).
    #[n(0)]
    pub steps: Vec<StepPath>,
    /// The run's new deadline.
    #[n(1)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// The run's input from here on, where it is another.
    #[n(2)]
    #[serde(skip_serializing_if = "Option::is_none", with = "crate::json::optional_raw")]
    #[cbor(with = "crate::cbor::maybe_text", has_nil)]
    pub input: Option<Json>,
}

/// See [`Fact::StepContinued`].
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize)]
pub struct StepContinued {
    /// The step.
    #[n(0)]
    #[serde(rename = "step")]
    pub path: StepPath,
    /// What counts as its output.
    #[n(1)]
    #[cbor(with = "crate::cbor::text")]
    #[serde(with = "crate::json::raw")]
    pub output: Json,
}

/// See [`Fact::HandlingStarted`].
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize)]
pub struct HandlingStarted {
    /// The step that has failed; none: the run has, and whatever else went on in it is cancelled.
    #[n(0)]
    #[serde(rename = "step", skip_serializing_if = "Option::is_none")]
    pub path: Option<StepPath>,
    /// What the run will end with.
    #[n(1)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
    /// When it ends with that whatever still goes on.
    #[n(2)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
}

/// See [`Fact::HandlingEnded`].
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize)]
pub struct HandlingEnded {
    /// The step.
    #[n(0)]
    #[serde(rename = "step")]
    pub path: StepPath,
}

/// See [`Fact::AttemptParked`].
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize)]
pub struct AttemptParked {
    /// The step.
    #[n(0)]
    #[serde(rename = "step")]
    pub path: StepPath,
    /// Which attempt.
    #[n(1)]
    pub attempt: u32,
    /// The breaker, as hosts name it: `authority https://shop.example`, `plugin acme/score@1.2.0`.
    #[n(2)]
    #[cbor(with = "crate::cbor::text")]
    pub breaker: Arc<str>,
    /// When the next attempt looks again.
    #[n(3)]
    pub due: Timestamp,
}

/// See [`Fact::LimitAsked`].
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize)]
pub struct LimitAsked {
    /// The step; none: the run.
    #[n(0)]
    #[serde(rename = "step", skip_serializing_if = "Option::is_none")]
    pub path: Option<StepPath>,
    /// The limit. In JSON: its name.
    #[n(1)]
    pub limit: LimitId,
    /// When the step has waited for too long.
    #[n(2)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// See [`Fact::RunAdmitted`].
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize)]
pub struct RunAdmitted {
    /// How long it waited, milliseconds.
    #[n(0)]
    pub waited_ms: u64,
}

/// See [`Fact::LimitLeft`].
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize)]
pub struct LimitLeft {
    /// The step.
    #[n(0)]
    #[serde(rename = "step")]
    pub path: StepPath,
}
