//! The places that a run and its steps have or await under limits. A limit's home decides (`limits.rs`); here is what a run
//! asks for, and what the answers lead to. Whatever ends what a place was for lets it go in the same decision.

use std::{collections::BTreeMap, sync::Arc};

use thin_vec::ThinVec;

use super::{Json0, Run, Scope, decide::Deciding, run::Phase};
use crate::{
    event::{
        AttemptFinished, AttemptResult, AttemptStarted, Fact, LimitAsked, LimitLeft, RunAdmitted, RunError,
        Usage,
    },
    expression::evaluate::{self, View},
    failure::{ErrorClass, Failure, LIMIT_FULL, QUEUE_TIMEOUT, STEP_TIMEOUT},
    fault,
    ids::RunId,
    json::Json,
    limit::{Holder, LimitId, LimitMessage, LimitRule},
    plan::{InputMistake, StepIndex},
    time::Timestamp,
};

/// A place that a run has or awaits.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Slot {
    pub(super) limit: LimitId,
    /// For which of its steps; none: for itself.
    pub(super) step: Option<StepIndex>,
    /// The number and the time of the `LimitAsked`.
    pub(super) asked: u32,
    pub(super) at: Timestamp,
    pub(super) granted: bool,
}

impl Slot {
    fn is_of(&self, holder: &Holder) -> bool {
        (self.asked, self.at) == (holder.asked, holder.at)
    }
}

/// Where a run stands with its workflow's limit.
pub(super) enum Admission {
    /// Its steps may start.
    Open,
    /// It has asked.
    Awaited,
    /// It has to ask.
    Needed,
}

impl Run {
    pub(super) fn admission(&self) -> Admission {
        // The steps of its `on_failure` run in any case.
        if self.plan().concurrency.is_none() || self.failing.is_some() {
            return Admission::Open;
        }
        match self.slots.iter().find(|slot| slot.step.is_none()) {
            None => Admission::Needed,
            Some(slot) if slot.granted => Admission::Open,
            Some(_) => Admission::Awaited,
        }
    }

    /// The place that the run itself, or this step, has or awaits.
    pub(super) fn slot(&self, step: Option<StepIndex>) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.step == step)
    }

    /// The workflow's limit that the run is under, and its rule.
    fn own_limit(&self) -> Option<(LimitId, LimitRule)> {
        self.limit_with(&self.input)
    }

    /// A run that goes on keeps its place, so another input must not make it one of another key's runs.
    pub(super) fn holds_place_of_other_key(&self, input: &Json) -> Option<InputMistake> {
        let held = &self.slot(None)?.limit;
        let (limit, _) = self.limit_with(input)?;
        let message = format!(
            "the run has its place under the limit of {held}, and this input is for that of {limit}: cancel the run, \
             then retry it with this input"
        );
        (limit != *held).then(|| InputMistake { pointer: String::new(), message })
    }

    fn limit_with(&self, input: &Json) -> Option<(LimitId, LimitRule)> {
        let concurrency = self.plan().concurrency.as_ref()?;
        let key = concurrency.key.as_ref().map(|key| {
            let scope = Scope { input: Json0(Arc::clone(input)), ..self.scope(&[], None) };
            let secrets = BTreeMap::new();
            let view = View { scope: &scope, secrets: &secrets };
            // It is made of paths and values only; a path that leads nowhere is null.
            evaluate::render(key, view, &mut std::iter::empty()).unwrap_or_else(|_| crate::json::null())
        });
        let rule = LimitRule { version: self.accepted.version, ..concurrency.rule };
        Some((LimitId::workflow(&self.plan().name, key), rule))
    }
}

impl Deciding<'_> {
    /// Asks for the run's own place.
    pub(super) fn ask_for_run(&mut self, id: RunId) {
        let Some((limit, rule)) = self.partition.run(id).and_then(Run::own_limit) else { return };
        self.ask(id, LimitAsked { path: None, limit, until: None }, rule);
    }

    /// Asks for a place for the step's next attempt, if its plugin has a limit. False: it has none.
    pub(super) fn ask_for_step(&mut self, id: RunId, index: StepIndex) -> bool {
        if self.partition.config.plugin_limits.is_empty() {
            return false;
        }
        let Some(run) = self.partition.run(id) else { return false };
        let plan = &run.plan().steps[index];
        let Some(rule) = self.partition.config.plugin_limits.get(&*plan.plugin.name).copied() else {
            return false;
        };
        let queued = plan.queue_timeout.map(|time| self.at.plus(time));
        let until = [queued, run.step_deadline(index)].into_iter().flatten().min();
        let limit = LimitId::plugin(&plan.plugin.name);
        let path = Some(plan.path.clone());
        self.ask(id, LimitAsked { path, limit, until }, rule);
        true
    }

    /// Lets none of the run's steps wait for a place.
    pub(super) fn leave_queues(&mut self, id: RunId) {
        let Some(run) = self.partition.run(id) else { return };
        let queued = |index: &StepIndex| matches!(run.steps[*index].phase, Phase::Queued { .. });
        let path = |index: StepIndex| run.plan().steps[index].path.clone();
        let left: Vec<_> = (0..run.steps.len()).filter(queued).map(path).collect();
        for path in left {
            self.tell(id, Fact::LimitLeft(LimitLeft { path }));
        }
    }

    fn ask(&mut self, run: RunId, asked: LimitAsked, rule: LimitRule) {
        let limit = asked.limit.clone();
        self.tell(run, Fact::LimitAsked(Box::new(asked)));
        let seq = self.partition.run(run).map_or(0, Run::seq);
        let holder = self.holder(run, seq, self.at);
        let home = limit.home(self.partition.config.partitions);
        self.tell_partition(home, LimitMessage::Asked { limit, holder, rule });
    }

    fn holder(&self, run: RunId, asked: u32, at: Timestamp) -> Holder {
        Holder { partition: self.partition.config.partition, run, asked, at }
    }

    /// Lets go of places that a run has no more.
    pub(super) fn let_slots_go(&mut self, run: RunId, before: ThinVec<Slot>) {
        let after = self.partition.run(run).map(|run| run.slots.as_slice()).unwrap_or_default();
        let gone = |slot: &Slot| !after.iter().any(|left| (left.asked, left.at) == (slot.asked, slot.at));
        let gone: Vec<Slot> = before.into_iter().filter(gone).collect();
        for slot in gone {
            if fault::is_made("a place not let go") {
                continue;
            }
            let home = slot.limit.home(self.partition.config.partitions);
            let holder = self.holder(run, slot.asked, slot.at);
            self.tell_partition(home, LimitMessage::LetGo { limit: slot.limit, holder });
        }
    }

    /// The home has answered. An answer that nobody waits for comes too late: the place was let go already.
    pub(super) fn place_answered(&mut self, holder: Holder, granted: bool) {
        let id = holder.run;
        let Some(run) = self.partition.run(id) else { return };
        let Some(slot) = run.slots.iter().find(|slot| slot.is_of(&holder) && !slot.granted) else { return };
        match (slot.step, granted) {
            (None, true) => {
                let waited_ms = u64::try_from(self.at.since(slot.at).as_millis()).unwrap_or(u64::MAX);
                self.tell(id, Fact::RunAdmitted(RunAdmitted { waited_ms }));
            }
            (None, false) => {
                let limit = &slot.limit;
                let message = format!("as many runs wait as may under the limit of {limit}");
                let (class, code) = (ErrorClass::RateLimited, Arc::from(LIMIT_FULL));
                let error = RunError { class, code, message: message.into(), step: None, attempt: None };
                return self.fail(id, error);
            }
            (Some(index), true) if run.paused => {
                let path = run.plan().steps[index].path.clone();
                self.tell(id, Fact::LimitLeft(LimitLeft { path }));
            }
            (Some(index), true) => {
                self.start_now(id, index);
            }
            (Some(index), false) => {
                let message = format!("as many attempts wait as may under the limit of {}", slot.limit);
                let failure = Failure::new(ErrorClass::RateLimited, LIMIT_FULL, message);
                self.fail_unstarted(id, index, failure);
            }
        }
        self.advance(id);
    }

    /// The step has waited for its place for as long as it may.
    pub(super) fn queued_too_long(&mut self, id: RunId, index: StepIndex) {
        let Some(run) = self.partition.run(id) else { return };
        let limit = run.slot(Some(index)).map(|slot| slot.limit.to_string()).unwrap_or_default();
        let out_of_time = run.step_deadline(index).is_some_and(|deadline| deadline <= self.at);
        let (code, which) = match out_of_time {
            true => (STEP_TIMEOUT, "the time of all its attempts"),
            false => (QUEUE_TIMEOUT, "its `queue_timeout`"),
        };
        let message =
            format!("the attempt waited for a place under the limit of {limit} until {which} was over");
        self.fail_unstarted(id, index, Failure::new(ErrorClass::Timeout, code, message));
    }

    /// An attempt fails that never ran.
    fn fail_unstarted(&mut self, id: RunId, index: StepIndex, failure: Failure) {
        let Some(run) = self.partition.run(id) else { return };
        let (path, attempt) = (run.plan().steps[index].path.clone(), run.steps[index].attempts + 1);
        self.tell(id, Fact::AttemptStarted(AttemptStarted { path: path.clone(), attempt }));
        let finished = AttemptFinished {
            path,
            attempt,
            started_at: self.at,
            result: AttemptResult::Error(failure.clone()),
            input_digest: None,
            usage: Usage::default(),
            logs: Vec::new(),
            logs_dropped_bytes: 0,
        };
        self.tell(id, Fact::AttemptFinished(Box::new(finished)));
        if !self.schedule_retry(id, index, &failure) {
            self.used_up(id, index, &failure);
        }
    }
}

/// Since when the step waits for its place, and under which limit.
pub(super) fn queued(run: &Run, index: StepIndex) -> Option<&Slot> {
    match run.steps[index].phase {
        Phase::Queued { .. } => run.slot(Some(index)),
        _ => None,
    }
}
