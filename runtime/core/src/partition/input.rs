//! What goes into a partition and what comes out: the types that its owner exchanges with it.

use std::{sync::Arc, time::Duration};

use crate::{
    event::{AttemptResult, Event, LogLine, Progress, RunError, Usage},
    ids::{AttemptId, Digest, RunId},
    json::Json,
    limit::LimitMessage,
    plan::{Plan, StepIndex},
    time::Timestamp,
};

/// Something that the partition must decide about.
#[derive(Debug)]
pub enum Input {
    /// A task: start a run.
    Submit(Box<Submit>),
    /// An attempt ended.
    AttemptDone(Box<AttemptDone>),
    /// An attempt reported.
    AttemptReport(AttemptReport),
    /// An [`Effect::EvaluateOutput`] ended.
    OutputDone(OutputDone),
    /// End the run; its running attempts are interrupted.
    Cancel(RunId, Option<Arc<str>>),
    /// Start no further attempts.
    Pause(RunId, Option<Arc<str>>),
    /// Start attempts again.
    Resume(RunId, Option<Arc<str>>),
    /// Go on with a failed or cancelled run, or with one that is paused and has failed steps.
    Retry(RunId, Again),
    /// A partition, maybe this one, said something about a limit.
    Limit(LimitMessage),
    /// Time passed: everything due at `now` happens (at most [`super::PartitionConfig::due_per_tick`]).
    Tick,
    /// The host stops in an orderly way; these attempts did not end in time.
    ShutDown,
    /// All rows up to this journal position (inclusive) are stored; terminal runs below it may be forgotten.
    Stored(u64),
}

/// From where a run goes on, and with what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Again {
    /// Where.
    pub from: StartFrom,
    /// Its input from then on; the one that it has when absent.
    pub input: Option<Json>,
}

/// Which steps start afresh; those that depend on them do too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StartFrom {
    /// Those that failed or were cancelled.
    #[default]
    Failed,
    /// Those, and this one (its path or name).
    Step(Arc<str>),
    /// All.
    Start,
}

/// A task.
#[derive(Debug)]
pub struct Submit {
    /// Drawn by the host, or [`RunId::from_key`].
    pub run: RunId,
    /// The workflow version to run.
    pub plan: Arc<Plan>,
    /// [`crate::plan::PinnedWorkflow`] as canonical JSON text, journalled when the partition sees it first.
    pub pinned: Json,
    /// Its number.
    pub version: u32,
    /// Already checked against the plan's schema.
    pub input: Json,
    /// The key that `run` was derived from, if any.
    pub idempotency_key: Option<Arc<str>>,
    /// Carried along.
    pub metadata: Vec<(Arc<str>, Arc<str>)>,
    /// For `$trigger`.
    pub trigger: Option<Json>,
    /// 32 random bytes.
    pub seed: [u8; 32],
    /// Somebody was told that the run is accepted, but it cannot start: it fails at once, with this.
    pub refused: Option<RunError>,
}

/// How an attempt ended.
#[derive(Debug)]
pub struct AttemptDone {
    /// Which. One that is not the step's current attempt is ignored.
    pub id: AttemptId,
    /// What came out.
    pub outcome: AttemptOutcome,
    /// Digest of the evaluated `with`, where evaluating succeeded.
    pub input_digest: Option<Digest>,
    /// What it cost.
    pub usage: Usage,
    /// What it logged since its last report.
    pub logs: Vec<LogLine>,
    /// Over the limit.
    pub logs_dropped_bytes: u64,
}

/// What an attempt came to.
#[derive(Debug)]
pub enum AttemptOutcome {
    /// The step's `if` was false: nothing ran.
    ConditionFalse,
    /// It ran, or failed before it could.
    Result(AttemptResult),
    /// A circuit breaker is open: it did not run, or came to nothing.
    Parked {
        /// Which, in the host's words.
        breaker: Arc<str>,
        /// When to look again.
        recheck: Duration,
    },
}

/// What a running attempt tells.
#[derive(Debug)]
pub struct AttemptReport {
    /// Which.
    pub id: AttemptId,
    /// How far it is, if it said so since the last report.
    pub progress: Option<Progress>,
    /// What it logged since the last report.
    pub logs: Vec<LogLine>,
}

/// The run's output, or why it could not be computed (the run then fails with that).
#[derive(Debug)]
pub struct OutputDone {
    /// Which run.
    pub run: RunId,
    /// As it stood in the effect: a result of an earlier evaluation is ignored.
    pub seq: u32,
    /// [`AttemptResult::Output`] or the failure.
    pub result: AttemptResult,
}

/// What answers one input: atomic. State has already moved; the effects and the reply wait until the events are
/// durable (the owner may start silent attempts earlier).
#[derive(Debug, Default)]
#[must_use]
pub struct Decision {
    /// To be journalled, in this order.
    pub events: Vec<Arc<Event>>,
    /// To other partitions, in order; they commit with the events.
    pub messages: Vec<Message>,
    /// To be done outside.
    pub effects: Vec<Effect>,
    /// To whoever gave the input.
    pub reply: Reply,
}

/// A message to another partition.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Which.
    pub to: u32,
    /// What.
    pub message: LimitMessage,
}

/// Work outside the core.
#[derive(Debug)]
pub enum Effect {
    /// Execute an attempt and give back an [`Input::AttemptDone`].
    StartAttempt(Box<StartAttempt>),
    /// Interrupt it; its outcome no longer matters.
    CancelAttempt(AttemptId),
    /// Evaluate the plan's output template and give back an [`Input::OutputDone`].
    EvaluateOutput(Box<EvaluateOutput>),
}

/// All that an attempt needs.
#[derive(Clone, Debug)]
pub struct StartAttempt {
    /// Which.
    pub id: AttemptId,
    /// The compiled workflow.
    pub plan: Arc<Plan>,
    /// Its version number.
    pub version: u32,
    /// Which of its steps.
    pub step: StepIndex,
    /// When it was decided: where the attempt's clock starts.
    pub started_at: Timestamp,
    /// How long it may run: the step's timeout, cut to what the run has left.
    pub timeout: Duration,
    /// What the step has left for it in all, waits included ([`crate::plan::StepPlan::total_timeout`]).
    pub left: Option<Duration>,
    /// Secret; randomness of the attempt is HMAC(seed, path, attempt).
    pub run_seed: [u8; 32],
    /// What its expressions may see.
    pub scope: Scope,
    /// Carried along by the submitter.
    pub metadata: Vec<(Arc<str>, Arc<str>)>,
}

/// What expressions may see.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// `$input`.
    pub input: Json0,
    /// `$trigger`.
    pub trigger: Option<Json>,
    /// `$error`, inside an `on_failure`.
    pub error: Option<Json>,
    /// `$steps`, those that the expressions read.
    pub steps: Vec<ScopeStep>,
}

/// A [`Json`] that defaults to null.
#[derive(Clone, Debug)]
pub struct Json0(pub Json);

impl Default for Json0 {
    fn default() -> Self {
        Self(crate::json::null())
    }
}

/// One step in [`Scope::steps`].
#[derive(Clone, Debug)]
pub struct ScopeStep {
    /// Its name.
    pub name: Arc<str>,
    /// `completed`, `failed` or `skipped`.
    pub status: StepStatus,
    /// Its output; null unless completed.
    pub output: Json,
    /// `{"class", "code", "message"}` of a failed step.
    pub error: Option<Json>,
}

/// See [`Effect::EvaluateOutput`].
#[derive(Clone, Debug)]
pub struct EvaluateOutput {
    /// Which run.
    pub run: RunId,
    /// Tells evaluations of one run apart: the number of the event that made the output due.
    pub seq: u32,
    /// Whose output template.
    pub plan: Arc<Plan>,
    /// What it may see.
    pub scope: Scope,
    /// Secret seed, for the engine's deterministic randomness.
    pub run_seed: [u8; 32],
    /// When it was decided.
    pub at: Timestamp,
}

/// Where a step of a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// For steps that it depends on, or for the run to be resumed.
    Waiting,
    /// An attempt is being executed.
    Running,
    /// For the time of its next attempt.
    Retrying,
    /// It has an output.
    Completed,
    /// Its last attempt failed for good.
    Failed,
    /// It will not run.
    Skipped,
    /// The run ended first.
    Cancelled,
}

/// The answer to an input.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Reply {
    /// Nothing to say.
    #[default]
    None,
    /// The run exists: made by this very input, or before (same key, same input).
    Accepted {
        /// Which.
        run: RunId,
        /// Whether it was there already.
        existing: bool,
    },
    /// Done, or already so.
    Done,
    /// Not done.
    Refused(Refusal),
}

/// Why an input was refused. Nothing was journalled.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Same key, other input (or other workflow version's input).
    #[error("the idempotency key was already used with other input, for run {0}")]
    KeyReused(RunId),
    /// The id was chosen by the submitter and is taken.
    #[error("run {0} exists already")]
    RunExists(RunId),
    /// Not in this partition's memory (it may be in ClickHouse).
    #[error("run {0} is not known here")]
    UnknownRun(RunId),
    /// What was asked does not fit the run's status.
    #[error("the run is {0}")]
    WrongStatus(super::RunStatus),
    /// It was refused when it was taken up: there is nothing to go on from.
    #[error("the run never started: its task was refused; submit it again, under another key")]
    NeverStarted(RunId),
    /// `retry` would start steps afresh that are being executed.
    #[error("the step {0} is still being executed: wait for its end, or cancel the run first")]
    StepRunning(crate::ids::StepPath),
    /// The new input does not satisfy the workflow's schema, or does not fit the place that the run has.
    #[error("the new input is refused: {}", .0.first().map_or("it is wrong", |mistake| &mistake.message))]
    BadInput(Vec<crate::plan::InputMistake>),
    /// `retry` named a step that the workflow does not have.
    #[error("the workflow has no step {0:?}")]
    UnknownStep(Arc<str>),
    /// The bound on live runs is reached.
    #[error("this partition already has its {limit} live runs")]
    TooManyRuns {
        /// The bound.
        limit: usize,
    },
}
