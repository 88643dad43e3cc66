//! What each input leads to. A decision is made step by step: each fact is applied as it is told, and what follows is
//! decided on the state that it left.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{
    Again, AttemptDone, AttemptOutcome, AttemptReport, Decision, Effect, Input, OutputDone, Partition,
    Refusal, Reply, Run, RunStatus, StartFrom, Submit, run::Phase,
};
use crate::{
    event::{
        Asked, AttemptFinished, AttemptParked, AttemptReported, AttemptResult, Event, Fact, FinalStatus,
        HandlingStarted, KeyExpired, RetryScheduled, RunAccepted, RunError, RunEvent, RunFinished,
        RunForgotten, RunRetried, SkipReason, StepContinued, StepSkipped, WorkflowPinned,
    },
    failure::{BREAKER_OPEN, ErrorClass, Failure, STEP_TIMEOUT},
    fault,
    ids::{AttemptId, Digest, RunId, StepPath},
    limit::LimitMessage,
    plan::{OnFailure, StepIndex},
    retry::{self, Pace, Verdict},
    time::Timestamp,
};

/// What a breaker asks for at least: whatever its clock says, a run must not turn on the spot.
const RECHECK_AT_LEAST: Duration = Duration::from_millis(100);

/// A decision in the making.
pub(super) struct Deciding<'p> {
    pub(super) partition: &'p mut Partition,
    pub(super) at: Timestamp,
    pub(super) decision: Decision,
    /// What this partition has to say to itself.
    pub(super) to_ourselves: VecDeque<LimitMessage>,
    /// So many places may still be given in this decision.
    pub(super) places_to_give: usize,
}

impl<'p> Deciding<'p> {
    /// Time does not run backwards: a clock that was set back counts as the last journalled time.
    pub(super) fn new(partition: &'p mut Partition, now: Timestamp) -> Self {
        let at = now.max(partition.last_time);
        let places_to_give = partition.config.due_per_tick;
        Self { partition, at, decision: Decision::default(), to_ourselves: VecDeque::new(), places_to_give }
    }

    pub(super) fn finish(mut self) -> Decision {
        while let Some(message) = self.to_ourselves.pop_front() {
            self.limit_message(message);
        }
        self.decision
    }

    pub(super) fn input(&mut self, input: Input) {
        match input {
            Input::Submit(submit) => self.decision.reply = self.submit(*submit),
            Input::AttemptDone(done) => self.attempt_done(*done),
            Input::AttemptReport(report) => self.attempt_report(report),
            Input::OutputDone(done) => self.output_done(done),
            Input::Cancel(run, reason) => self.decision.reply = self.cancel(run, reason),
            Input::Pause(run, reason) => self.decision.reply = self.pause(run, reason),
            Input::Resume(run, reason) => self.decision.reply = self.resume(run, reason),
            Input::Retry(run, again) => self.decision.reply = self.retry(run, again),
            Input::Limit(message) => self.limit_message(message),
            Input::Tick => self.tick(),
            Input::ShutDown => self.shut_down(),
            Input::Stored(position) => self.partition.stored = self.partition.stored.max(position),
        }
    }

    /// Applies an event and makes it part of the decision.
    pub(super) fn emit(&mut self, event: Event) {
        let event = Arc::new(event);
        self.partition.apply(&event).expect("what is decided on a state follows from that state");
        self.decision.events.push(event);
    }

    /// Emits a fact about a run in memory.
    pub(super) fn tell(&mut self, run: RunId, fact: Fact) {
        let known = self.partition.run(run);
        let slots = known.filter(|run| !run.slots.is_empty()).map(|run| run.slots.clone());
        let seq = known.map_or(0, Run::seq) + 1;
        self.emit(Event::Run(RunEvent { run, seq, at: self.at, fact }));
        if let Some(slots) = slots {
            self.let_slots_go(run, slots);
        }
    }

    fn submit(&mut self, submit: Submit) -> Reply {
        let run = submit.run;
        let input_digest = Digest::of(submit.input.as_bytes());
        if let Err(refusal) = self.let_go_of_expired(run, &submit) {
            return Reply::Refused(refusal);
        }
        if let Some(known) = self.partition.run(run) {
            let accepted = &known.accepted;
            let same = accepted.workflow == submit.plan.name && accepted.input_digest == input_digest;
            return if same {
                Reply::Accepted { run, existing: true }
            } else if submit.idempotency_key.is_some() {
                Reply::Refused(Refusal::KeyReused(run))
            } else {
                Reply::Refused(Refusal::RunExists(run))
            };
        }
        if let Some(kept) = self.partition.keys.get(&run) {
            if kept.expires > self.at {
                return if submit.idempotency_key.is_none() {
                    Reply::Refused(Refusal::RunExists(run))
                } else if kept.input == input_digest {
                    Reply::Accepted { run, existing: true }
                } else {
                    Reply::Refused(Refusal::KeyReused(run))
                };
            }
            self.emit(Event::KeyExpired(KeyExpired { run, at: self.at }));
        }
        if let Err(refusal) = self.has_room() {
            return Reply::Refused(refusal);
        }
        if !self.partition.plans.contains_key(&submit.plan.digest) {
            self.partition.offered.insert(submit.plan.digest, Arc::clone(&submit.plan));
            let pinned = WorkflowPinned { digest: submit.plan.digest, pinned: submit.pinned, at: self.at };
            self.emit(Event::WorkflowPinned(pinned));
            self.partition.offered.remove(&submit.plan.digest);
        }
        let accepted = RunAccepted {
            workflow: Arc::clone(&submit.plan.name),
            version: submit.version,
            plan: submit.plan.digest,
            input: submit.input,
            input_digest,
            idempotency_key: submit.idempotency_key,
            metadata: submit.metadata,
            trigger: submit.trigger,
            seed: submit.seed,
            deadline: submit.plan.timeout.map(|timeout| self.at.plus(timeout)),
            refused: submit.refused.clone(),
        };
        self.tell(run, Fact::RunAccepted(Arc::new(accepted)));
        match submit.refused {
            None => self.advance(run),
            Some(error) => self.end(run, FinalStatus::Failed, None, Some(error)),
        }
        Reply::Accepted { run, existing: false }
    }

    /// A key stands for its run for a time. A failed run may stay longer, but not against a new one with the same key.
    fn let_go_of_expired(&mut self, id: RunId, submit: &Submit) -> Result<(), Refusal> {
        let Some(run) = self.partition.run(id) else { return Ok(()) };
        let retention = self.partition.config.idempotency_retention;
        let expired = run.finished_at().is_some_and(|at| at.plus(retention) <= self.at);
        if expired && submit.idempotency_key.is_some() {
            self.has_room()?;
            self.emit(Event::RunForgotten(RunForgotten { run: id, at: self.at, key: None }));
        }
        Ok(())
    }

    fn has_room(&self) -> Result<(), Refusal> {
        let limit = self.partition.config.max_live_runs;
        if self.partition.live >= limit { Err(Refusal::TooManyRuns { limit }) } else { Ok(()) }
    }

    /// The step whose current attempt this is; none if the attempt is over, superseded or unknown.
    fn current(&self, id: &AttemptId) -> Option<(StepIndex, Timestamp)> {
        let run = self.partition.run(id.run)?;
        let index = run.pinned.index(&id.path)?;
        let superseded = fault::is_made("an outcome of a superseded attempt applied");
        match run.steps[index] {
            super::run::Step { phase: Phase::Running { since }, attempts, .. }
                if attempts == id.attempt || superseded =>
            {
                Some((index, since))
            }
            _ if fault::is_made("a doubled outcome applied") => Some((index, self.at)),
            _ => None,
        }
    }

    fn attempt_done(&mut self, done: AttemptDone) {
        let Some((index, started_at)) = self.current(&done.id) else { return };
        let AttemptId { run, path, mut attempt } = done.id;
        if fault::is_made("an outcome of a superseded attempt applied") {
            attempt = self.partition.run(run).map_or(attempt, |run| run.steps[index].attempts);
        }
        match done.outcome {
            AttemptOutcome::ConditionFalse => {
                self.tell(run, Fact::StepSkipped(StepSkipped { path, reason: SkipReason::ConditionFalse }));
            }
            AttemptOutcome::Parked { breaker, recheck } => {
                if let Some(failure) = self.parked_too_long(run, index, &breaker) {
                    let outcome = AttemptOutcome::Result(AttemptResult::Error(failure));
                    let id = AttemptId { run, path, attempt };
                    return self.attempt_done(AttemptDone { id, outcome, ..done });
                }
                let due = self.at.plus(recheck.max(RECHECK_AT_LEAST));
                let until = self.partition.run(run).and_then(|run| run.parked_until(index));
                let due = until.map_or(due, |until| until.min(due));
                if !done.logs.is_empty() {
                    let (path, logs) = (path.clone(), done.logs);
                    let reported = AttemptReported { path, attempt, progress: None, logs };
                    self.tell(run, Fact::AttemptReported(Box::new(reported)));
                }
                let parked = AttemptParked { path, attempt, breaker, due };
                self.tell(run, Fact::AttemptParked(Box::new(parked)));
            }
            AttemptOutcome::Result(result) => {
                let failure = match &result {
                    AttemptResult::Output(_) => None,
                    AttemptResult::Error(failure) => Some(failure.clone()),
                };
                let finished = AttemptFinished {
                    path,
                    attempt,
                    started_at,
                    result,
                    input_digest: done.input_digest,
                    usage: done.usage,
                    logs: done.logs,
                    logs_dropped_bytes: done.logs_dropped_bytes,
                };
                self.tell(run, Fact::AttemptFinished(Box::new(finished)));
                if let Some(failure) = failure
                    && !self.schedule_retry(run, index, &failure)
                {
                    self.used_up(run, index, &failure);
                }
            }
        }
        self.advance(run);
    }

    /// What a step that waits for a breaker fails with, once it has waited for as long as it may.
    fn parked_too_long(&self, id: RunId, index: StepIndex, breaker: &str) -> Option<Failure> {
        let run = self.partition.run(id)?;
        if run.parked_until(index)? > self.at {
            return None;
        }
        let out_of_time = run.step_deadline(index).is_some_and(|deadline| deadline <= self.at);
        let (class, code) = match out_of_time {
            true => (ErrorClass::Timeout, STEP_TIMEOUT),
            false => (ErrorClass::Network, BREAKER_OPEN),
        };
        let message = format!("the circuit breaker of the {breaker} is open, and the step's time is over");
        Some(Failure::new(class, code, message))
    }

    /// Follows a failed attempt with a retry, if the step's rule and its time say so.
    pub(super) fn schedule_retry(&mut self, id: RunId, index: StepIndex, failure: &Failure) -> bool {
        let Some(run) = self.partition.run(id) else { return false };
        let (step, plan) = (&run.steps[index], &run.plan().steps[index]);
        let pace = Pace {
            attempts: step.attempts - step.attempts_before,
            immediate: step.immediate,
            backoffs: step.backoffs,
            first_started: step.first_started.unwrap_or(self.at),
        };
        let draw = retry::draw(&run.accepted.seed, &plan.path, step.attempts);
        let Verdict::Retry { delay, reason } = plan.retry.decide(pace, failure, self.at, draw) else {
            return false;
        };
        let due = self.at.plus(delay);
        // An attempt that has no time left would only say so.
        let is_final = [STEP_TIMEOUT, BREAKER_OPEN].contains(&&*failure.code);
        if is_final || run.step_deadline(index).is_some_and(|deadline| deadline <= due) {
            return false;
        }
        let scheduled = RetryScheduled {
            path: plan.path.clone(),
            attempt: step.attempts + 1,
            due,
            delay_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            class: failure.class,
            code: Arc::clone(&failure.code),
            reason: reason.shared(),
        };
        self.tell(id, Fact::RetryScheduled(Box::new(scheduled)));
        true
    }

    /// What follows when a step has failed for good, by its `on_failure`.
    pub(super) fn used_up(&mut self, id: RunId, index: StepIndex, failure: &Failure) {
        let Some(run) = self.partition.run(id) else { return };
        let plan = &run.plan().steps[index];
        let path = plan.path.clone();
        match &plan.on_failure {
            OnFailure::Fail => {}
            OnFailure::Pause => {
                let reason = format!("the step {path} failed ({}): {}", failure.code, failure.message);
                self.pause_now(id, Some(reason.into()));
            }
            OnFailure::ContinueWith(_) => {
                if let Some(output) = run.fallback(index) {
                    self.tell(id, Fact::StepContinued(StepContinued { path, output }));
                }
            }
            OnFailure::Steps { .. } => {
                let started = HandlingStarted { path: Some(path), error: None, deadline: None };
                self.tell(id, Fact::HandlingStarted(Box::new(started)));
            }
        }
    }

    /// The run has failed: the steps of its `on_failure` have their turn, if it has any, and then it ends.
    pub(super) fn fail(&mut self, id: RunId, error: RunError) {
        let Some(run) = self.partition.run(id) else { return };
        let deadline = match &run.plan().on_failure {
            Some(on_failure) if run.failing.is_none() => Some(self.at.plus(on_failure.timeout)),
            _ => return self.end(id, FinalStatus::Failed, None, Some(error)),
        };
        let interrupted: Vec<_> = run.attempts_in_flight().map(Effect::CancelAttempt).collect();
        let started = HandlingStarted { path: None, error: Some(error), deadline };
        self.tell(id, Fact::HandlingStarted(Box::new(started)));
        self.decision.effects.extend(interrupted);
        self.advance(id);
    }

    fn attempt_report(&mut self, report: AttemptReport) {
        let Some((index, _)) = self.current(&report.id) else { return };
        let max = self.partition.config.max_progress_reports;
        let too_many = self.partition.run(report.id.run).is_some_and(|run| run.steps[index].reports >= max);
        let says_nothing = report.progress.is_none() || too_many;
        if report.logs.is_empty() && says_nothing {
            return;
        }
        let AttemptId { run, path, attempt } = report.id;
        let reported = AttemptReported { path, attempt, progress: report.progress, logs: report.logs };
        self.tell(run, Fact::AttemptReported(Box::new(reported)));
    }

    fn output_done(&mut self, done: OutputDone) {
        let due = self.partition.run(done.run).and_then(|run| run.output_due);
        if due != Some(done.seq) && !(due.is_some() && fault::is_made("a stale output taken")) {
            return;
        }
        match done.result {
            AttemptResult::Output(output) => self.end(done.run, FinalStatus::Completed, Some(output), None),
            AttemptResult::Error(failure) => {
                let Failure { class, code, message, .. } = failure;
                let error = RunError { class, code, message, step: None, attempt: None };
                self.fail(done.run, error);
            }
        }
    }

    /// Ends a run: interrupts what is being executed for it.
    pub(super) fn end(
        &mut self,
        id: RunId,
        status: FinalStatus,
        output: Option<crate::json::Json>,
        error: Option<RunError>,
    ) {
        let Some(run) = self.partition.run(id) else { return };
        let interrupted: Vec<_> = run.attempts_in_flight().map(Effect::CancelAttempt).collect();
        let started_at = run.started_at;
        let output = output.unwrap_or_else(crate::json::null);
        self.tell(id, Fact::RunFinished(Box::new(RunFinished { status, output, error, started_at })));
        self.decision.effects.extend(interrupted);
    }

    /// A run that is not over, or what to answer.
    fn live(&self, id: RunId) -> Result<&Run, Reply> {
        let run = self.partition.run(id).ok_or(Reply::Refused(Refusal::UnknownRun(id)))?;
        match run.status() {
            status if status.is_terminal() => Err(Reply::Refused(Refusal::WrongStatus(status))),
            _ => Ok(run),
        }
    }

    fn cancel(&mut self, id: RunId, reason: Option<Arc<str>>) -> Reply {
        match self.live(id) {
            Err(Reply::Refused(Refusal::WrongStatus(RunStatus::Cancelled))) => Reply::Done,
            Err(refused) => refused,
            Ok(_) => {
                let error = RunError {
                    class: ErrorClass::Cancelled,
                    code: Arc::from("cancelled"),
                    message: reason.unwrap_or_else(|| Arc::from("the run was cancelled on request")),
                    step: None,
                    attempt: None,
                };
                self.end(id, FinalStatus::Cancelled, None, Some(error));
                Reply::Done
            }
        }
    }

    fn pause(&mut self, id: RunId, reason: Option<Arc<str>>) -> Reply {
        match self.live(id).map(|run| run.paused) {
            Err(refused) => refused,
            Ok(true) => Reply::Done,
            Ok(false) => {
                self.pause_now(id, reason);
                Reply::Done
            }
        }
    }

    /// Whatever of the run waits for a place leaves the queue: it asks again when the run goes on.
    fn pause_now(&mut self, id: RunId, reason: Option<Arc<str>>) {
        self.leave_queues(id);
        self.tell(id, Fact::RunPaused(Asked { reason }));
    }

    fn resume(&mut self, id: RunId, reason: Option<Arc<str>>) -> Reply {
        match self.live(id).map(|run| run.paused) {
            Err(refused) => refused,
            Ok(false) => Reply::Done,
            Ok(true) => {
                self.tell(id, Fact::RunResumed(Asked { reason }));
                self.advance(id);
                Reply::Done
            }
        }
    }

    /// Everything that failed, was cancelled, or was skipped because of a failure starts afresh, and the named step
    /// too, with all that depend on them.
    fn retry(&mut self, id: RunId, again: Again) -> Reply {
        let Some(run) = self.partition.run(id) else { return Reply::Refused(Refusal::UnknownRun(id)) };
        if run.accepted.refused.is_some() {
            return Reply::Refused(Refusal::NeverStarted(id));
        }
        let is_main = |index: StepIndex| run.plan().steps[index].handles.is_none();
        let failed = |index: &StepIndex| {
            let phase = &run.steps[*index].phase;
            is_main(*index) && (phase.carries_failure() || matches!(phase, Phase::Cancelled))
        };
        let mut from: Vec<StepIndex> = (0..run.steps.len()).filter(failed).collect();
        let may = match run.status() {
            RunStatus::Failed | RunStatus::Cancelled => true,
            RunStatus::Paused => !from.is_empty(),
            _ => false,
        };
        if !may {
            return Reply::Refused(Refusal::WrongStatus(run.status()));
        }
        match again.from {
            StartFrom::Failed => {}
            StartFrom::Start => from = (0..run.steps.len()).filter(|&index| is_main(index)).collect(),
            StartFrom::Step(step) => {
                let path =
                    if step.starts_with('/') { StepPath(Arc::clone(&step)) } else { StepPath::top(&step) };
                match run.pinned.index(&path) {
                    Some(index) if from.contains(&index) => {}
                    Some(index) if is_main(index) => from.push(index),
                    _ => return Reply::Refused(Refusal::UnknownStep(step)),
                }
            }
        }
        let running = |index: &StepIndex| matches!(run.steps[*index].phase, Phase::Running { .. });
        if let Some(index) = run.begun_again(&from).into_iter().find(running) {
            return Reply::Refused(Refusal::StepRunning(run.plan().steps[index].path.clone()));
        }
        if let Some(input) = &again.input {
            // Whoever asks has parsed it.
            let value = serde_json::from_str(input).unwrap_or_default();
            if let Err(mistakes) = run.plan().check_input(&value) {
                return Reply::Refused(Refusal::BadInput(mistakes));
            }
            if let Some(mistake) = run.holds_place_of_other_key(input) {
                return Reply::Refused(Refusal::BadInput(vec![mistake]));
            }
        }
        let steps = from.into_iter().map(|index| run.plan().steps[index].path.clone()).collect();
        let paused = run.end.is_none();
        let deadline = match paused && run.failing.is_none() {
            true => run.deadline,
            false => run.plan().timeout.map(|timeout| self.at.plus(timeout)),
        };
        if !paused && let Err(refusal) = self.has_room() {
            return Reply::Refused(refusal);
        }
        self.tell(id, Fact::RunRetried(RunRetried { steps, deadline, input: again.input }));
        if paused {
            self.tell(id, Fact::RunResumed(Asked { reason: None }));
        }
        self.advance(id);
        Reply::Done
    }

    fn tick(&mut self) {
        // First, so that no run goes with the decision that ends it: whoever is told of the end is told what it was.
        self.let_go();
        self.recover();
        self.look_at_limits();
        for _ in 0..self.partition.config.due_per_tick {
            let Some(run) = self.partition.timers.due(self.at) else { break };
            self.advance(run);
        }
    }
}
