//! One run's state, and what others may see of it. It changes in `apply.rs` alone.

use std::{fmt, num::NonZeroU32, sync::Arc};

use rustc_hash::FxHashMap;
use thin_vec::ThinVec;

use super::{
    RunStatus, StepStatus, StepView, WaitingFor,
    slots::{Admission, Slot, queued},
};
use crate::{
    event::{
        AttemptResult, Event, Fact, FinalStatus, Progress, RunAccepted, RunError, RunFinished, SkipReason,
    },
    expression::{ExpressionKind, Root, Segment, Template},
    failure::Failure,
    ids::{RunId, StepPath},
    json::Json,
    plan::{OnFailure, Plan, StepIndex, StepPlan},
    time::Timestamp,
};

/// A workflow version that runs of this partition use.
#[derive(Debug)]
pub(super) struct Pinned {
    /// Compiled.
    pub(super) plan: Arc<Plan>,
    by_path: FxHashMap<StepPath, StepIndex>,
    pub(super) output: PlannedOutput,
}

/// Where a run's output comes from.
#[derive(Debug)]
pub(super) enum PlannedOutput {
    /// It is this, whatever happens.
    Literal(Json),
    /// It is the input.
    Input,
    /// It is this step's output.
    Step(StepIndex),
    /// Expressions have to be evaluated.
    Evaluated,
}

impl PlannedOutput {
    fn of(plan: &Plan) -> Self {
        let expression = match &plan.output {
            None => return Self::Literal(crate::json::null()),
            Some(Template::Literal(value)) => return Self::Literal(Json::from(value.to_string())),
            Some(Template::Whole(expression)) => expression,
            Some(Template::Text(_) | Template::Array(_) | Template::Object(_)) => return Self::Evaluated,
        };
        let (root, segments) = match &expression.kind {
            ExpressionKind::Path(root, segments) => (root, segments.as_slice()),
            ExpressionKind::Literal(value) => return Self::Literal(Json::from(value.to_string())),
            ExpressionKind::Jq(_) => return Self::Evaluated,
        };
        match (root, segments) {
            (Root::Input, []) => Self::Input,
            (Root::Steps, [Segment::Key(name), Segment::Key(field)]) if &**field == "output" => {
                plan.steps.iter().position(|step| step.name == *name).map_or(Self::Evaluated, Self::Step)
            }
            _ => Self::Evaluated,
        }
    }
}

impl Pinned {
    pub(super) fn new(plan: Arc<Plan>) -> Self {
        let by_path = plan.steps.iter().enumerate().map(|(index, step)| (step.path.clone(), index)).collect();
        let output = PlannedOutput::of(&plan);
        Self { plan, by_path, output }
    }

    pub(super) fn index(&self, path: &StepPath) -> Option<StepIndex> {
        self.by_path.get(path).copied()
    }
}

/// A run: everything that is known of it, and its whole history.
pub struct Run {
    pub(super) id: RunId,
    pub(super) accepted: Arc<RunAccepted>,
    pub(super) accepted_at: Timestamp,
    /// As it was accepted, or as a retry changed it.
    pub(super) input: Json,
    pub(super) pinned: Arc<Pinned>,
    pub(super) deadline: Option<Timestamp>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) paused: bool,
    /// Its `RunFinished`, while it is terminal.
    pub(super) end: Option<Arc<Event>>,
    /// Set while its output is to be evaluated: the number of the event that made it due.
    pub(super) output_due: Option<u32>,
    pub(super) first_failure: Option<StepIndex>,
    /// The number of the `HandlingStarted` of its own `on_failure`, once the run has failed.
    pub(super) failing: Option<NonZeroU32>,
    /// Steps that are not over.
    pub(super) open: u32,
    /// Attempts that are being executed.
    pub(super) in_flight: u32,
    pub(super) steps: Box<[Step]>,
    /// Under limits: its own, and those of its steps.
    pub(super) slots: ThinVec<Slot>,
    pub(super) history: Vec<Arc<Event>>,
    /// Estimated memory, bytes.
    pub(super) bytes: u64,
    /// Journal position of its newest event. No part of the state that a journal determines.
    pub(super) position: u64,
}

/// A step of a run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    pub(super) phase: Phase,
    /// Attempts started, over all retries of the run.
    pub(super) attempts: u32,
    /// Of these, before the run was last retried.
    pub(super) attempts_before: u32,
    /// Immediate retries and backoffs since then.
    pub(super) immediate: u32,
    pub(super) backoffs: u32,
    /// How often hosts were lost under it since then.
    pub(super) lost: u32,
    /// When its first attempt since then started.
    pub(super) first_started: Option<Timestamp>,
    /// Reports of the current attempt.
    pub(super) reports: u32,
    /// The newest of them that told progress.
    pub(super) reported: Option<Arc<Event>>,
}

/// Where a step stands, with what belongs to that.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Phase {
    Waiting,
    /// For a place under a limit: until then at most, where it may not wait for ever.
    Queued {
        until: Option<Timestamp>,
    },
    Running {
        since: Timestamp,
    },
    Retrying {
        due: Timestamp,
    },
    /// `despite` the failure in this `AttemptFinished`, if its `on_failure` made it so.
    Completed {
        output: Json,
        despite: Option<Arc<Event>>,
    },
    /// Until a circuit breaker may let it through (in this `AttemptParked`).
    Parked {
        due: Timestamp,
        by: Arc<Event>,
    },
    /// A step of an `on_failure` that nobody has called for.
    Dormant,
    /// Its last attempt has failed for good (in this `AttemptFinished`), and the steps of its `on_failure` are not over.
    Handling {
        by: Arc<Event>,
    },
    /// By this `AttemptFinished`.
    Failed {
        by: Arc<Event>,
    },
    /// By this `StepSkipped`; `after_failure` if a step that it depends on, however far up, failed.
    Skipped {
        by: Arc<Event>,
        after_failure: bool,
    },
    Cancelled,
}

impl Phase {
    pub(super) fn is_over(&self) -> bool {
        !matches!(
            self,
            Self::Waiting
                | Self::Queued { .. }
                | Self::Running { .. }
                | Self::Retrying { .. }
                | Self::Parked { .. }
                | Self::Handling { .. }
        )
    }

    /// When the step is to be looked at: its next attempt starts, or it has waited for too long.
    pub(super) fn due(&self) -> Option<Timestamp> {
        match self {
            Self::Retrying { due } | Self::Parked { due, .. } => Some(*due),
            Self::Queued { until } => *until,
            _ => None,
        }
    }

    /// Whether the step failed, or was skipped because one before it did.
    pub(super) fn carries_failure(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::Skipped { after_failure: true, .. })
    }

    /// Its last attempt's failure, if that was for good.
    pub(super) fn failure(&self) -> Option<&Failure> {
        let (Self::Failed { by } | Self::Handling { by } | Self::Completed { despite: Some(by), .. }) = self
        else {
            return None;
        };
        match fact(by) {
            Some(Fact::AttemptFinished(finished)) => match &finished.result {
                AttemptResult::Error(failure) => Some(failure),
                AttemptResult::Output(_) => None,
            },
            _ => None,
        }
    }

    fn skip_reason(&self) -> Option<&SkipReason> {
        if matches!(self, Self::Dormant) {
            return Some(&SkipReason::NothingFailed);
        }
        let Self::Skipped { by, .. } = self else { return None };
        match fact(by) {
            Some(Fact::StepSkipped(skipped)) => Some(&skipped.reason),
            _ => None,
        }
    }
}

fn fact(event: &Event) -> Option<&Fact> {
    match event {
        Event::Run(event) => Some(&event.fact),
        _ => None,
    }
}

impl Step {
    /// As it stands before anything has happened.
    pub(super) fn new(plan: &StepPlan) -> Self {
        Self {
            phase: if plan.handles.is_some() { Phase::Dormant } else { Phase::Waiting },
            attempts: 0,
            attempts_before: 0,
            immediate: 0,
            backoffs: 0,
            lost: 0,
            first_started: None,
            reports: 0,
            reported: None,
        }
    }

    pub(super) fn status(&self) -> StepStatus {
        match self.phase {
            Phase::Waiting | Phase::Queued { .. } | Phase::Parked { .. } | Phase::Handling { .. } => {
                StepStatus::Waiting
            }
            Phase::Running { .. } => StepStatus::Running,
            Phase::Retrying { .. } => StepStatus::Retrying,
            Phase::Completed { .. } => StepStatus::Completed,
            Phase::Failed { .. } => StepStatus::Failed,
            Phase::Skipped { .. } | Phase::Dormant => StepStatus::Skipped,
            Phase::Cancelled => StepStatus::Cancelled,
        }
    }

    fn progress(&self) -> Option<&Progress> {
        match fact(self.reported.as_deref()?) {
            Some(Fact::AttemptReported(reported)) => reported.progress.as_ref(),
            _ => None,
        }
    }
}

impl Run {
    /// Its identity.
    pub fn id(&self) -> RunId {
        self.id
    }

    /// What it was accepted as.
    pub fn accepted(&self) -> &Arc<RunAccepted> {
        &self.accepted
    }

    /// Its input: as it was accepted, or as a retry changed it.
    pub fn input(&self) -> &Json {
        &self.input
    }

    /// The workflow version that it runs.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.pinned.plan
    }

    /// Where it stands.
    pub fn status(&self) -> RunStatus {
        match self.finished().map(|finished| finished.status) {
            Some(FinalStatus::Completed) => RunStatus::Completed,
            Some(FinalStatus::Failed) => RunStatus::Failed,
            Some(FinalStatus::Cancelled) => RunStatus::Cancelled,
            None if self.paused => RunStatus::Paused,
            None if self.in_flight > 0 || self.output_due.is_some() => RunStatus::Running,
            None if self.started_at.is_none() => RunStatus::Pending,
            None => RunStatus::Waiting,
        }
    }

    /// The number of its newest event.
    pub fn seq(&self) -> u32 {
        u32::try_from(self.history.len()).unwrap_or(u32::MAX)
    }

    /// Its output, once completed.
    pub fn output(&self) -> Option<&Json> {
        self.finished().filter(|end| end.status == FinalStatus::Completed).map(|end| &end.output)
    }

    /// Why it failed (or is about to, while the steps of its `on_failure` run), or in whose words it was cancelled.
    pub fn error(&self) -> Option<&RunError> {
        match self.finished() {
            Some(finished) => finished.error.as_ref(),
            None => self.failing(),
        }
    }

    /// What it will end with, once it has failed.
    pub(super) fn failing(&self) -> Option<&RunError> {
        match fact(self.history.get(self.failing?.get() as usize - 1)?) {
            Some(Fact::HandlingStarted(started)) => started.error.as_ref(),
            _ => None,
        }
    }

    /// When it was accepted.
    pub fn created_at(&self) -> Timestamp {
        self.accepted_at
    }

    /// When its first attempt was decided.
    pub fn started_at(&self) -> Option<Timestamp> {
        self.started_at
    }

    /// When it ended.
    pub fn finished_at(&self) -> Option<Timestamp> {
        self.end.as_ref().map(|end| end.at())
    }

    /// When it ended, and whether it completed.
    pub(super) fn end_of(&self) -> Option<(Timestamp, bool)> {
        Some((self.finished_at()?, self.status() == RunStatus::Completed))
    }

    /// When it fails as a timeout.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.deadline
    }

    /// All its events, in order; the n-th has number n.
    pub fn history(&self) -> &[Arc<Event>] {
        &self.history
    }

    /// Its events with numbers above `seq`.
    pub fn history_after(&self, seq: u32) -> &[Arc<Event>] {
        self.history.get(seq as usize..).unwrap_or_default()
    }

    /// What the run as a whole waits for; where this says nothing and the run is not over, its steps do.
    pub fn waiting_for(&self) -> Option<WaitingFor> {
        if self.end.is_some() {
            None
        } else if self.paused {
            Some(WaitingFor::Resume)
        } else if matches!(self.admission(), Admission::Awaited) {
            self.slot(None).map(waiting_for)
        } else {
            self.output_due.map(|_| WaitingFor::Output)
        }
    }

    /// Its steps, in the plan's order.
    pub fn steps(&self) -> impl ExactSizeIterator<Item = StepView<'_>> {
        (0..self.steps.len()).map(|index| self.step(index))
    }

    /// One step. Panics when the plan has no such index.
    pub fn step(&self, index: StepIndex) -> StepView<'_> {
        let (step, plan) = (&self.steps[index], &self.plan().steps[index]);
        StepView {
            path: &plan.path,
            name: &plan.name,
            status: step.status(),
            called: !matches!(step.phase, Phase::Dormant),
            attempts: step.attempts,
            output: match &step.phase {
                Phase::Completed { output, .. } => Some(output),
                _ => None,
            },
            error: step.phase.failure(),
            skipped: step.phase.skip_reason(),
            waiting_for: self.step_waiting_for(index),
            progress: step.progress().filter(|_| matches!(step.phase, Phase::Running { .. })),
        }
    }

    fn step_waiting_for(&self, index: StepIndex) -> Option<WaitingFor> {
        let step = &self.steps[index];
        match &step.phase {
            &Phase::Running { since } => Some(WaitingFor::Attempt { attempt: step.attempts, since }),
            &Phase::Retrying { due } => Some(WaitingFor::Retry { attempt: step.attempts + 1, due }),
            Phase::Parked { due, by } => match fact(by) {
                Some(Fact::AttemptParked(parked)) => {
                    Some(WaitingFor::Breaker { breaker: Arc::clone(&parked.breaker), due: *due })
                }
                _ => None,
            },
            Phase::Queued { .. } => queued(self, index).map(waiting_for),
            Phase::Waiting if !self.paused && matches!(self.admission(), Admission::Awaited) => {
                self.slot(None).map(waiting_for)
            }
            Phase::Waiting | Phase::Handling { .. } => {
                let plan = self.plan();
                let steps: Vec<_> = self
                    .awaited(index)
                    .iter()
                    .filter(|&&before| !self.steps[before].phase.is_over())
                    .map(|&before| plan.steps[before].path.clone())
                    .collect();
                Some(if steps.is_empty() { WaitingFor::Resume } else { WaitingFor::Steps { steps } })
            }
            Phase::Completed { .. }
            | Phase::Failed { .. }
            | Phase::Skipped { .. }
            | Phase::Dormant
            | Phase::Cancelled => None,
        }
    }

    /// The steps that must be over before this one goes on.
    pub(super) fn awaited(&self, index: StepIndex) -> &[StepIndex] {
        let plan = &self.plan().steps[index];
        match (&self.steps[index].phase, &plan.on_failure) {
            (Phase::Handling { .. }, OnFailure::Steps { steps, .. }) => steps,
            _ => &plan.upstream,
        }
    }

    pub(super) fn finished(&self) -> Option<&RunFinished> {
        match fact(self.end.as_deref()?) {
            Some(Fact::RunFinished(finished)) => Some(finished),
            _ => None,
        }
    }

    /// The output, where no expression has to be evaluated for it.
    pub(super) fn plain_output(&self) -> Option<Json> {
        match &self.pinned.output {
            PlannedOutput::Literal(json) => Some(Arc::clone(json)),
            PlannedOutput::Input => Some(Arc::clone(&self.input)),
            PlannedOutput::Step(index) => Some(match &self.steps[*index].phase {
                Phase::Completed { output, .. } => Arc::clone(output),
                _ => crate::json::null(),
            }),
            PlannedOutput::Evaluated => None,
        }
    }
}

fn waiting_for(slot: &Slot) -> WaitingFor {
    WaitingFor::Limit { limit: slot.limit.to_string().into(), since: slot.at }
}

/// Equal when the journal would say the same: the plan by its digest, and not where in the journal it stands.
impl PartialEq for Run {
    fn eq(&self, other: &Self) -> bool {
        let facts = |run: &Self| {
            (run.id, run.accepted_at, run.deadline, run.started_at, run.paused, run.output_due, run.bytes)
        };
        let counts = |run: &Self| (run.first_failure, run.open, run.in_flight, run.failing);
        facts(self) == facts(other)
            && counts(self) == counts(other)
            && self.accepted == other.accepted
            && self.input == other.input
            && self.end == other.end
            && self.steps == other.steps
            && self.slots == other.slots
            && self.history == other.history
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("id", &self.id)
            .field("status", &self.status())
            .field("seq", &self.seq())
            .field("deadline", &self.deadline)
            .field("output_due", &self.output_due)
            .field("open", &self.open)
            .field("in_flight", &self.in_flight)
            .field("steps", &self.steps)
            .field("slots", &self.slots)
            .finish_non_exhaustive()
    }
}
