//! Which steps start, are skipped or tried again, and how a run ends.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Effect, EvaluateOutput, Scope, ScopeStep, StartAttempt, StepStatus,
    decide::Deciding,
    input::Json0,
    run::{Phase, Run},
    slots::Admission,
};
use crate::{
    event::{
        AttemptStarted, Fact, FinalStatus, HandlingEnded, RunError, SkipReason, StepContinued, StepSkipped,
    },
    expression::evaluate::{self, View},
    failure::{ErrorClass, Failure},
    ids::{AttemptId, RunId},
    json::Json,
    plan::{Condition, Handles, OnFailure, StepIndex},
    time::{Timestamp, format_duration},
};

/// What is to become of a step that waits.
enum Ready {
    NotYet,
    Start,
    Skip(SkipReason),
    /// The steps of its `on_failure` are over.
    Handled,
    /// It may not wait for its place any longer.
    QueuedTooLong,
}

impl Deciding<'_> {
    /// Moves a run as far as it goes by itself. Steps stand in dependency order, so one pass sees what it skips.
    pub(super) fn advance(&mut self, id: RunId) {
        let Some(run) = self.partition.run(id) else { return };
        if run.end.is_some() {
            return;
        }
        if run.deadline.is_some_and(|deadline| deadline <= self.at) {
            let error = run.failing().cloned().unwrap_or_else(|| timed_out(run));
            return self.fail(id, error);
        }
        if run.paused {
            return;
        }
        match run.admission() {
            Admission::Open => {}
            Admission::Awaited => return,
            Admission::Needed => return self.ask_for_run(id),
        }
        while self.pass(id) {}
        self.conclude(id);
    }

    /// One look at each step. True: another is needed, since a step was put right, or failed, behind one that depends on it.
    fn pass(&mut self, id: RunId) -> bool {
        let steps = self.partition.run(id).map_or(0, |run| run.steps.len());
        for index in 0..steps {
            // A step that has waited for too long may have paused it.
            let Some(run) = self.partition.run(id).filter(|run| !run.paused) else { return false };
            match run.readiness(index, self.at) {
                Ready::NotYet => {}
                Ready::Start => self.start(id, index),
                Ready::Skip(reason) => {
                    let path = run.plan().steps[index].path.clone();
                    self.tell(id, Fact::StepSkipped(StepSkipped { path, reason }));
                }
                Ready::Handled => self.handled(id, index),
                Ready::QueuedTooLong => self.queued_too_long(id, index),
            }
        }
        // The steps of an `on_failure` stand behind all others.
        self.partition.run(id).is_some_and(|run| {
            run.steps.iter().enumerate().any(|(index, step)| {
                matches!(step.phase, Phase::Handling { .. }) && run.awaited_are_over(index)
            })
        })
    }

    /// The steps of a step's `on_failure` are over.
    fn handled(&mut self, id: RunId, index: StepIndex) {
        let Some(run) = self.partition.run(id) else { return };
        let path = run.plan().steps[index].path.clone();
        let went_well = run.awaited(index).iter().all(|&step| !run.steps[step].phase.carries_failure());
        let fact = match run.fallback(index).filter(|_| went_well) {
            Some(output) => Fact::StepContinued(StepContinued { path, output }),
            None => Fact::HandlingEnded(HandlingEnded { path }),
        };
        self.tell(id, fact);
    }

    /// Starts a step's next attempt, or has it wait for its place.
    fn start(&mut self, id: RunId, index: StepIndex) {
        if !self.ask_for_step(id, index) {
            self.start_now(id, index);
        }
    }

    /// Starts a step's next attempt.
    pub(super) fn start_now(&mut self, id: RunId, index: StepIndex) {
        let Some(run) = self.partition.run(id) else { return };
        let path = run.plan().steps[index].path.clone();
        let attempt = run.steps[index].attempts + 1;
        self.tell(id, Fact::AttemptStarted(AttemptStarted { path, attempt }));
        self.execute(id, index);
    }

    /// Has a step's current attempt executed.
    pub(super) fn execute(&mut self, id: RunId, index: StepIndex) {
        let effect = self.partition.run(id).and_then(|run| run.attempt(index, self.at));
        self.decision.effects.extend(effect.map(|start| Effect::StartAttempt(Box::new(start))));
    }

    /// Ends the run, or has its output evaluated, if no step is left.
    fn conclude(&mut self, id: RunId) {
        let Some(run) = self.partition.run(id) else { return };
        if run.open > 0 || run.paused {
            return;
        }
        if let Some(error) = run.failing().cloned() {
            self.end(id, FinalStatus::Failed, None, Some(error));
        } else if let Some(index) = run.first_failure {
            let error = run.error_of(index);
            self.fail(id, error);
        } else if let Some(output) = run.plain_output() {
            self.end(id, FinalStatus::Completed, Some(output), None);
        } else if run.output_due == Some(run.seq()) {
            // Made due by this decision's last fact; otherwise it is being evaluated already.
            self.evaluate_output(id);
        }
    }

    /// Has a run's output evaluated.
    pub(super) fn evaluate_output(&mut self, id: RunId) {
        let effect = self.partition.run(id).and_then(Run::output_evaluation);
        self.decision.effects.extend(effect.map(|evaluate| Effect::EvaluateOutput(Box::new(evaluate))));
    }
}

fn timed_out(run: &Run) -> RunError {
    let limit = run.plan().timeout.map(format_duration).unwrap_or_default();
    RunError {
        class: ErrorClass::Timeout,
        code: Arc::from("run_timeout"),
        message: format!("the run did not end within its timeout of {limit}").into(),
        step: None,
        attempt: None,
    }
}

impl Run {
    fn readiness(&self, index: StepIndex, now: Timestamp) -> Ready {
        match self.steps[index].phase {
            Phase::Retrying { due } | Phase::Parked { due, .. } if due <= now => return Ready::Start,
            Phase::Queued { until } if until.is_some_and(|until| until <= now) => {
                return Ready::QueuedTooLong;
            }
            Phase::Waiting | Phase::Handling { .. } if !self.awaited_are_over(index) => return Ready::NotYet,
            Phase::Handling { .. } => return Ready::Handled,
            Phase::Waiting => {}
            _ => return Ready::NotYet,
        }
        let plan = &self.plan().steps[index];
        let phase = |&before: &StepIndex| &self.steps[before].phase;
        match plan.condition {
            Condition::Always => Ready::Start,
            Condition::Failed if self.failed_before(index) => Ready::Start,
            Condition::Failed => Ready::Skip(SkipReason::NothingFailed),
            Condition::Succeeded | Condition::Holds(_) => {
                let completed = |before: &&StepIndex| matches!(phase(before), Phase::Completed { .. });
                match plan.upstream.iter().find(|before| !completed(before)) {
                    None => Ready::Start,
                    Some(before) => {
                        let path = self.plan().steps[*before].path.clone();
                        Ready::Skip(match phase(before) {
                            Phase::Failed { .. } => SkipReason::UpstreamFailed(path),
                            _ => SkipReason::UpstreamSkipped(path),
                        })
                    }
                }
            }
        }
    }

    fn awaited_are_over(&self, index: StepIndex) -> bool {
        self.awaited(index).iter().all(|&step| self.steps[step].phase.is_over())
    }

    /// What the step's current attempt needs; none if it has none.
    fn attempt(&self, index: StepIndex, now: Timestamp) -> Option<StartAttempt> {
        let Phase::Running { since } = self.steps[index].phase else { return None };
        let plan = &self.plan().steps[index];
        let left = |deadline: Option<Timestamp>| deadline.map(|deadline| deadline.since(now));
        Some(StartAttempt {
            id: AttemptId { run: self.id, path: plan.path.clone(), attempt: self.steps[index].attempts },
            plan: Arc::clone(self.plan()),
            version: self.accepted.version,
            step: index,
            started_at: since,
            timeout: left(self.deadline).map_or(plan.timeout, |of_run| of_run.min(plan.timeout)),
            left: left(self.step_deadline(index)),
            run_seed: self.accepted.seed,
            scope: self.scope(&plan.reads, self.error_for(plan.handles)),
            metadata: self.accepted.metadata.clone(),
        })
    }

    /// When all attempts of a step must have ended; none before the first has started.
    pub(super) fn step_deadline(&self, index: StepIndex) -> Option<Timestamp> {
        Some(self.steps[index].first_started?.plus(self.plan().steps[index].total_timeout?))
    }

    /// How long a step may wait for circuit breakers: as long as its rule would have it tried again, and no longer than its
    /// attempts may take in all. None before the first has started.
    pub(super) fn parked_until(&self, index: StepIndex) -> Option<Timestamp> {
        let window = self.steps[index].first_started?.plus(self.plan().steps[index].retry.within);
        Some(self.step_deadline(index).map_or(window, |deadline| deadline.min(window)))
    }

    /// What the step counts as completed with, if its `on_failure` says so and what it names is there.
    pub(super) fn fallback(&self, index: StepIndex) -> Option<Json> {
        let plan = &self.plan().steps[index];
        let (template, reads) = match &plan.on_failure {
            OnFailure::ContinueWith(template) => (template, &plan.reads),
            OnFailure::Steps { output: Some((template, reads)), .. } => (template, reads),
            _ => return None,
        };
        let scope = self.scope(reads, self.error_for(Some(Handles::Step(index))));
        let secrets = BTreeMap::new();
        let view = View { scope: &scope, secrets: &secrets };
        evaluate::render(template, view, &mut std::iter::empty()).ok()
    }

    fn output_evaluation(&self) -> Option<EvaluateOutput> {
        let seq = self.output_due?;
        Some(EvaluateOutput {
            run: self.id,
            seq,
            plan: Arc::clone(self.plan()),
            scope: self.scope(&self.plan().output_reads, None),
            run_seed: self.accepted.seed,
            at: self.history.get(seq as usize - 1).map_or(self.accepted_at, |event| event.at()),
        })
    }

    /// `$error` for what is there for a failure.
    fn error_for(&self, handles: Option<Handles>) -> Option<Json> {
        let (error, details) = match handles? {
            Handles::Run => (self.failing()?.clone(), None),
            Handles::Step(index) => {
                let failure = self.steps[index].phase.failure()?;
                (self.error_of(index), failure.details.clone())
            }
        };
        let mut fields = serde_json::to_value(error).ok()?;
        if let (Some(fields), Some(details)) = (fields.as_object_mut(), details) {
            fields.insert("details".to_owned(), serde_json::from_str(&details).unwrap_or_default());
        }
        Some(Json::from(fields.to_string()))
    }

    pub(super) fn scope(&self, reads: &[StepIndex], error: Option<Json>) -> Scope {
        Scope {
            error,
            input: Json0(Arc::clone(&self.input)),
            trigger: self.accepted.trigger.clone(),
            steps: reads.iter().map(|&index| self.scope_step(index)).collect(),
        }
    }

    fn scope_step(&self, index: StepIndex) -> ScopeStep {
        let step = &self.steps[index];
        ScopeStep {
            name: Arc::clone(&self.plan().steps[index].name),
            status: match step.phase {
                Phase::Handling { .. } => StepStatus::Failed,
                _ => step.status(),
            },
            output: match &step.phase {
                Phase::Completed { output, .. } => Arc::clone(output),
                _ => crate::json::null(),
            },
            error: step.phase.failure().map(error_json),
        }
    }

    /// Attempts that are being executed.
    pub(super) fn attempts_in_flight(&self) -> impl Iterator<Item = AttemptId> {
        let running = self.steps.iter().enumerate().filter(|(_, step)| step.status() == StepStatus::Running);
        running.map(|(index, step)| AttemptId {
            run: self.id,
            path: self.plan().steps[index].path.clone(),
            attempt: step.attempts,
        })
    }

    fn error_of(&self, index: StepIndex) -> RunError {
        let unknown = || Failure::new(ErrorClass::Permanent, "step_failed", "the step failed");
        let Failure { class, code, message, .. } =
            self.steps[index].phase.failure().cloned().unwrap_or_else(unknown);
        RunError {
            class,
            code,
            message,
            step: Some(self.plan().steps[index].path.clone()),
            attempt: Some(self.steps[index].attempts),
        }
    }
}

fn error_json(failure: &Failure) -> Json {
    let fields = serde_json::json!({
        "class": failure.class.as_str(),
        "code": &*failure.code,
        "message": &*failure.message,
    });
    Json::from(fields.to_string())
}
