//! What each input leads to. A decision is made step by step: each fact is applied as it is told, and what follows is
//! decided on the state that it left.

use std::sync::Arc;

use super::{
    Again, AttemptDone, AttemptOutcome, AttemptReport, Decision, Effect, Input, OutputDone, Partition,
    Refusal, Reply, Run, RunStatus, StartFrom, Submit, run::Phase,
};
use crate::{
    event::{
        Asked, AttemptFinished, AttemptReported, AttemptResult, Event, Fact, FinalStatus, KeyExpired,
        RetryScheduled, RunAccepted, RunError, RunEvent, RunFinished, RunForgotten, RunRetried, SkipReason,
        StepContinued, StepSkipped, WorkflowPinned,
    },
    failure::{ErrorClass, Failure, STEP_TIMEOUT},
    ids::{AttemptId, Digest, RunId, StepPath},
    plan::{OnFailure, StepIndex},
    retry::{self, Pace, Verdict},
    time::Timestamp,
};

/// A decision in the making.
pub(super) struct Deciding<'p> {
    pub(super) partition: &'p mut Partition,
    pub(super) at: Timestamp,
    pub(super) decision: Decision,
}

impl<'p> Deciding<'p> {
    /// Time does not run backwards: a clock that was set back counts as the last journalled time.
    pub(super) fn new(partition: &'p mut Partition, now: Timestamp) -> Self {
        let at = now.max(partition.last_time);
        Self { partition, at, decision: Decision::default() }
    }

    pub(super) fn finish(self) -> Decision {
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
        let seq = self.partition.run(run).map_or(0, Run::seq) + 1;
        self.emit(Event::Run(RunEvent { run, seq, at: self.at, fact }));
    }

    fn submit(&mut self, submit: Submit) -> Reply {
        let run = submit.run;
        let input_digest = Digest::of(submit.input.as_bytes());
        self.let_go_of_expired(run, &submit);
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
    fn let_go_of_expired(&mut self, id: RunId, submit: &Submit) {
        let Some(run) = self.partition.run(id) else { return };
        let retention = self.partition.config.idempotency_retention;
        let expired = run.finished_at().is_some_and(|at| at.plus(retention) <= self.at);
        let is_stored = run.position <= self.partition.stored;
        if expired && submit.idempotency_key.is_some() && is_stored && self.has_room().is_ok() {
            self.emit(Event::RunForgotten(RunForgotten { run: id, at: self.at, key: None }));
        }
    }

    fn has_room(&self) -> Result<(), Refusal> {
        let limit = self.partition.config.max_live_runs;
        if self.partition.live >= limit { Err(Refusal::TooManyRuns { limit }) } else { Ok(()) }
    }

    /// The step whose current attempt this is; none if the attempt is over, superseded or unknown.
    fn current(&self, id: &AttemptId) -> Option<(StepIndex, Timestamp)> {
        let run = self.partition.run(id.run)?;
        let index = run.pinned.index(&id.path)?;
        match run.steps[index] {
            super::run::Step { phase: Phase::Running { since }, attempts, .. } if attempts == id.attempt => {
                Some((index, since))
            }
            _ => None,
        }
    }

    fn attempt_done(&mut self, done: AttemptDone) {
        let Some((index, started_at)) = self.current(&done.id) else { return };
        let AttemptId { run, path, attempt } = done.id;
        match done.outcome {
            AttemptOutcome::ConditionFalse => {
                self.tell(run, Fact::StepSkipped(StepSkipped { path, reason: SkipReason::ConditionFalse }));
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

    /// Follows a failed attempt with a retry, if the step's rule and its time say so.
    fn schedule_retry(&mut self, id: RunId, index: StepIndex, failure: &Failure) -> bool {
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
        if &*failure.code == STEP_TIMEOUT || run.step_deadline(index).is_some_and(|deadline| deadline <= due)
        {
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
        let (plan, path) = (&run.plan().steps[index], run.plan().steps[index].path.clone());
        match &plan.on_failure {
            OnFailure::Fail => {}
            OnFailure::Pause if run.paused => {}
            OnFailure::Pause => {
                let reason = format!("the step {path} failed ({}): {}", failure.code, failure.message);
                self.tell(id, Fact::RunPaused(Asked { reason: Some(reason.into()) }));
            }
            OnFailure::ContinueWith(_) => {
                if let Some(output) = run.fallback(index) {
                    self.tell(id, Fact::StepContinued(StepContinued { path, output }));
                }
            }
        }
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
        if due != Some(done.seq) {
            return;
        }
        match done.result {
            AttemptResult::Output(output) => self.end(done.run, FinalStatus::Completed, Some(output), None),
            AttemptResult::Error(failure) => {
                let Failure { class, code, message, .. } = failure;
                let error = RunError { class, code, message, step: None, attempt: None };
                self.end(done.run, FinalStatus::Failed, None, Some(error));
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
                self.tell(id, Fact::RunPaused(Asked { reason }));
                Reply::Done
            }
        }
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
        let failed = |index: &StepIndex| {
            let phase = &run.steps[*index].phase;
            phase.carries_failure() || matches!(phase, Phase::Cancelled)
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
            StartFrom::Start => from = (0..run.steps.len()).collect(),
            StartFrom::Step(step) => {
                let path =
                    if step.starts_with('/') { StepPath(Arc::clone(&step)) } else { StepPath::top(&step) };
                match run.pinned.index(&path) {
                    Some(index) if from.contains(&index) => {}
                    Some(index) => from.push(index),
                    None => return Reply::Refused(Refusal::UnknownStep(step)),
                }
            }
        }
        let running = |index: &StepIndex| matches!(run.steps[*index].phase, Phase::Running { .. });
        if let Some(index) = run.with_dependents(&from).into_iter().find(running) {
            return Reply::Refused(Refusal::StepRunning(run.plan().steps[index].path.clone()));
        }
        if let Some(input) = &again.input {
            // Whoever asks has parsed it.
            let value = serde_json::from_str(input).unwrap_or_default();
            if let Err(mistakes) = run.plan().check_input(&value) {
                return Reply::Refused(Refusal::BadInput(mistakes));
            }
        }
        let steps = from.into_iter().map(|index| run.plan().steps[index].path.clone()).collect();
        let (paused, deadline) = match run.end {
            None => (true, run.deadline),
            Some(_) => (false, run.plan().timeout.map(|timeout| self.at.plus(timeout))),
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
        self.recover();
        for _ in 0..self.partition.config.due_per_tick {
            let Some(run) = self.partition.timers.due(self.at) else { break };
            self.advance(run);
        }
        self.let_go();
    }
}
