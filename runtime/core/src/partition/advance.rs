//! Which steps start, are skipped or tried again, and how a run ends.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Effect, EvaluateOutput, Scope, ScopeStep, StartAttempt, StepStatus,
    decide::Deciding,
    input::Json0,
    run::{Phase, Run},
};
use crate::{
    event::{AttemptStarted, Fact, FinalStatus, RunError, SkipReason, StepSkipped},
    expression::evaluate::{self, View},
    failure::{ErrorClass, Failure},
    ids::{AttemptId, RunId},
    json::Json,
    plan::{Condition, OnFailure, StepIndex},
    time::{Timestamp, format_duration},
};

/// What is to become of a step that waits.
enum Ready {
    NotYet,
    Start,
    Skip(SkipReason),
}

impl Deciding<'_> {
    /// Moves a run as far as it goes by itself. Steps stand in dependency order, so one pass sees what it skips.
    pub(super) fn advance(&mut self, id: RunId) {
        let Some(run) = self.partition.run(id) else { return };
        if run.end.is_some() {
            return;
        }
        if run.deadline.is_some_and(|deadline| deadline <= self.at) {
            let error = timed_out(run);
            return self.end(id, FinalStatus::Failed, None, Some(error));
        }
        if run.paused {
            return;
        }
        for index in 0..run.steps.len() {
            let Some(run) = self.partition.run(id) else { return };
            match run.readiness(index, self.at) {
                Ready::NotYet => {}
                Ready::Start => self.start(id, index),
                Ready::Skip(reason) => {
                    let path = run.plan().steps[index].path.clone();
                    self.tell(id, Fact::StepSkipped(StepSkipped { path, reason }));
                }
            }
        }
        self.conclude(id);
    }

    /// Starts a step's next attempt.
    pub(super) fn start(&mut self, id: RunId, index: StepIndex) {
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
        if run.open > 0 {
            return;
        }
        if let Some(index) = run.first_failure {
            let error = run.error_of(index);
            self.end(id, FinalStatus::Failed, None, Some(error));
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
            Phase::Retrying { due } if due <= now => return Ready::Start,
            Phase::Waiting => {}
            _ => return Ready::NotYet,
        }
        let plan = &self.plan().steps[index];
        let phase = |&before: &StepIndex| &self.steps[before].phase;
        if !plan.upstream.iter().map(phase).all(Phase::is_over) {
            return Ready::NotYet;
        }
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

    /// What the step's current attempt needs; none if it has none.
    fn attempt(&self, index: StepIndex, now: Timestamp) -> Option<StartAttempt> {
        let Phase::Running { since } = self.steps[index].phase else { return None };
        let plan = &self.plan().steps[index];
        let left =
            |deadline: Option<Timestamp>| deadline.map_or(plan.timeout, |deadline| deadline.since(now));
        let (of_run, of_step) = (left(self.deadline), left(self.step_deadline(index)));
        Some(StartAttempt {
            id: AttemptId { run: self.id, path: plan.path.clone(), attempt: self.steps[index].attempts },
            plan: Arc::clone(self.plan()),
            version: self.accepted.version,
            step: index,
            started_at: since,
            timeout: plan.timeout.min(of_run).min(of_step),
            is_last: of_step <= plan.timeout && self.step_deadline(index).is_some(),
            run_seed: self.accepted.seed,
            scope: self.scope(&plan.reads),
            metadata: self.accepted.metadata.clone(),
        })
    }

    /// When all attempts of a step must have ended; none before the first has started.
    pub(super) fn step_deadline(&self, index: StepIndex) -> Option<Timestamp> {
        Some(self.steps[index].first_started?.plus(self.plan().steps[index].total_timeout?))
    }

    /// What the step counts as completed with, if its `on_failure` says so and what it names is there.
    pub(super) fn fallback(&self, index: StepIndex) -> Option<Json> {
        let plan = &self.plan().steps[index];
        let OnFailure::ContinueWith(template) = &plan.on_failure else { return None };
        let (scope, secrets) = (self.scope(&plan.reads), BTreeMap::new());
        let view = View { scope: &scope, secrets: &secrets };
        evaluate::render(template, view, &mut std::iter::empty()).ok()
    }

    fn output_evaluation(&self) -> Option<EvaluateOutput> {
        let seq = self.output_due?;
        Some(EvaluateOutput {
            run: self.id,
            seq,
            plan: Arc::clone(self.plan()),
            scope: self.scope(&self.plan().output_reads),
            run_seed: self.accepted.seed,
            at: self.history.get(seq as usize - 1).map_or(self.accepted_at, |event| event.at()),
        })
    }

    fn scope(&self, reads: &[StepIndex]) -> Scope {
        Scope {
            input: Json0(Arc::clone(&self.input)),
            trigger: self.accepted.trigger.clone(),
            steps: reads.iter().map(|&index| self.scope_step(index)).collect(),
        }
    }

    fn scope_step(&self, index: StepIndex) -> ScopeStep {
        let step = &self.steps[index];
        ScopeStep {
            name: Arc::clone(&self.plan().steps[index].name),
            status: step.status(),
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
