//! How each event changes state. Nothing else does, and nothing here decides or evaluates anything; what cannot have
//! been decided in this state is an error, not a guess.

use std::{num::NonZeroU32, sync::Arc};

use thin_vec::ThinVec;

use super::{
    Partition, PinnedInUse, ReplayError,
    run::{Phase, Pinned, PlannedOutput, Run, Step},
    slots::{Admission, Slot},
    timers::{Timer, Timers, retry},
};
use crate::{
    event::{
        AttemptResult, Event, Fact, KeyExpired, RunAccepted, RunEvent, RunForgotten, RunRetried, SkipReason,
        WorkflowPinned,
    },
    fault,
    ids::{RunId, StepPath},
    plan::{Handles, Plan, StepIndex},
};

impl Partition {
    /// The one way in which state changes.
    pub(super) fn apply(&mut self, event: &Arc<Event>) -> Result<(), ReplayError> {
        self.position += 1;
        match &**event {
            Event::WorkflowPinned(pinned) => self.pin(event, pinned)?,
            Event::Run(about) => match &about.fact {
                Fact::RunAccepted(accepted) => self.accept(event, about, accepted)?,
                _ => self.change(event, about)?,
            },
            Event::RunForgotten(forgotten) => self.forget(forgotten),
            Event::KeyExpired(expired) => self.expire(expired),
            Event::Limit(about) => self.limit(about)?,
        }
        self.last_time = self.last_time.max(event.at());
        Ok(())
    }

    /// Lets a decoded event use the texts of its plan, as a decided one does: most of a small event is its step's path.
    pub(super) fn share_texts(&self, event: &mut Arc<Event>) {
        let Some(Event::Run(about)) = Arc::get_mut(event) else { return };
        let path = match &mut about.fact {
            Fact::RunAccepted(accepted) => {
                if let (Some(in_use), Some(accepted)) =
                    (self.plans.get(&accepted.plan), Arc::get_mut(accepted))
                {
                    accepted.workflow = Arc::clone(&in_use.pinned.plan.name);
                }
                return;
            }
            Fact::LimitLeft(it) => &mut it.path,
            Fact::LimitAsked(it) => match &mut it.path {
                Some(path) => path,
                None => return,
            },
            Fact::RunAdmitted(_) => return,
            Fact::AttemptStarted(it) => &mut it.path,
            Fact::AttemptInterrupted(it) => &mut it.path,
            Fact::AttemptFinished(it) => &mut it.path,
            Fact::AttemptReported(it) => &mut it.path,
            Fact::AttemptParked(it) => &mut it.path,
            Fact::RetryScheduled(it) => {
                it.reason = crate::retry::Reason::share(&it.reason);
                &mut it.path
            }
            Fact::StepSkipped(it) => &mut it.path,
            Fact::StepContinued(it) => &mut it.path,
            Fact::HandlingEnded(it) => &mut it.path,
            Fact::HandlingStarted(it) => match &mut it.path {
                Some(path) => path,
                None => return,
            },
            Fact::RunPaused(_) | Fact::RunResumed(_) | Fact::RunFinished(_) | Fact::RunRetried(_) => return,
        };
        let Some(run) = self.runs.get(&about.run) else { return };
        if let Some(index) = run.pinned.index(path) {
            *path = run.plan().steps[index].path.clone();
        }
    }

    fn pin(&mut self, event: &Arc<Event>, pinned: &WorkflowPinned) -> Result<(), ReplayError> {
        if self.plans.contains_key(&pinned.digest) {
            return Ok(());
        }
        let plan = match self.offered.get(&pinned.digest) {
            Some(plan) => Arc::clone(plan),
            None => Arc::new(compile(pinned)?),
        };
        let pinned_plan = Arc::new(Pinned::new(plan));
        let in_use = PinnedInUse { pinned: pinned_plan, event: Arc::clone(event), runs: 0 };
        self.plans.insert(pinned.digest, in_use);
        Ok(())
    }

    fn accept(
        &mut self,
        event: &Arc<Event>,
        about: &RunEvent,
        accepted: &Arc<RunAccepted>,
    ) -> Result<(), ReplayError> {
        let impossible = |reason| ReplayError::Impossible { run: about.run, seq: about.seq, reason };
        if about.seq != 1 {
            return Err(impossible("a run's first event has number 1"));
        }
        if self.runs.contains_key(&about.run) {
            return Err(impossible("the run exists already"));
        }
        let in_use = self
            .plans
            .get_mut(&accepted.plan)
            .ok_or(ReplayError::UnknownPlan { run: about.run, plan: accepted.plan })?;
        in_use.runs += 1;
        let mut run = Run::new(about, Arc::clone(accepted), Arc::clone(&in_use.pinned));
        run.record(event, self.position);
        if let Some(deadline) = run.deadline {
            self.timers.set(deadline, run.id, Timer::Deadline);
        }
        self.live += 1;
        self.bytes += run.bytes;
        self.drop_key(about.run);
        self.runs.insert(about.run, Box::new(run));
        Ok(())
    }

    fn change(&mut self, event: &Arc<Event>, about: &RunEvent) -> Result<(), ReplayError> {
        let run = self
            .runs
            .get_mut(&about.run)
            .ok_or(ReplayError::UnknownRun { run: about.run, seq: about.seq })?;
        let expected = run.seq() + 1;
        if about.seq != expected {
            return Err(ReplayError::Sequence { run: run.id, expected, found: about.seq });
        }
        let (bytes, before) = (run.bytes, run.end_of());
        run.apply(event, about, &mut self.timers)?;
        run.record(event, self.position);
        self.bytes += run.bytes - bytes;
        let (id, bytes_now) = (run.id, run.bytes);
        match (before, run.end_of()) {
            (None, Some((at, completed))) => {
                self.live -= 1;
                self.ended(completed).insert(at, id, bytes_now);
            }
            (Some((at, completed)), None) => {
                self.live += 1;
                self.ended(completed).remove(at, id, bytes);
            }
            _ => {}
        }
        Ok(())
    }

    fn forget(&mut self, forgotten: &RunForgotten) {
        if let Some(run) = self.runs.remove(&forgotten.run) {
            self.bytes -= run.bytes;
            match run.end_of() {
                Some((at, completed)) => self.ended(completed).remove(at, run.id, run.bytes),
                None => self.live -= 1,
            }
            if let Some(in_use) = self.plans.get_mut(&run.accepted.plan) {
                in_use.runs -= 1;
                if in_use.runs == 0 {
                    self.plans.remove(&run.accepted.plan);
                }
            }
        }
        // From a checkpoint this comes for runs that were forgotten before it: the key is all that is left of them.
        if let Some(key) = forgotten.key {
            self.drop_key(forgotten.run);
            self.keys.insert(forgotten.run, key);
            self.expiries.insert((key.expires, forgotten.run));
        }
    }

    fn expire(&mut self, expired: &KeyExpired) {
        if expired.run == super::retain::CHECKPOINT_END {
            if fault::is_made("timers dropped at a checkpoint") {
                self.timers = Timers::default();
            }
            self.position = 0;
            self.runs.values_mut().for_each(|run| run.position = 0);
        } else {
            self.drop_key(expired.run);
        }
    }

    fn drop_key(&mut self, run: RunId) {
        if let Some(key) = self.keys.remove(&run) {
            self.expiries.remove(&(key.expires, run));
        }
    }
}

fn compile(pinned: &WorkflowPinned) -> Result<Plan, ReplayError> {
    let refuse = |reason: String| ReplayError::Plan { plan: pinned.digest, reason };
    let workflow: crate::plan::PinnedWorkflow =
        serde_json::from_str(&pinned.pinned).map_err(|error| refuse(error.to_string()))?;
    workflow.compile().map_err(|error| refuse(error.to_string()))
}

impl Run {
    fn new(about: &RunEvent, accepted: Arc<RunAccepted>, pinned: Arc<Pinned>) -> Self {
        let steps: Box<[Step]> = pinned.plan.steps.iter().map(|plan| Step::new(plan)).collect();
        let open = open_steps(&steps);
        Self {
            id: about.run,
            accepted_at: about.at,
            deadline: accepted.deadline,
            input: Arc::clone(&accepted.input),
            accepted,
            pinned,
            started_at: None,
            paused: false,
            end: None,
            output_due: None,
            first_failure: None,
            failing: None,
            open,
            in_flight: 0,
            bytes: (size_of::<Self>() + size_of_val(&*steps)) as u64,
            steps,
            slots: ThinVec::new(),
            history: Vec::new(),
            position: 0,
        }
    }

    /// Keeps the event, and sees whether it made the output due.
    fn record(&mut self, event: &Arc<Event>, position: u64) {
        self.history.push(Arc::clone(event));
        self.bytes += super::retain::weight(event);
        self.position = position;
        let failed = self.first_failure.is_some() || self.failing.is_some();
        let admitted = matches!(self.admission(), Admission::Open);
        let due = self.end.is_none() && self.open == 0 && !failed && admitted;
        if !due {
            self.output_due = None;
        } else if self.output_due.is_none()
            && !self.paused
            && matches!(self.pinned.output, PlannedOutput::Evaluated)
        {
            self.output_due = Some(self.seq());
        }
    }

    fn apply(
        &mut self,
        event: &Arc<Event>,
        about: &RunEvent,
        timers: &mut Timers,
    ) -> Result<(), ReplayError> {
        let impossible = |reason| ReplayError::Impossible { run: about.run, seq: about.seq, reason };
        if self.end.is_some() && !matches!(about.fact, Fact::RunRetried(_)) {
            return Err(impossible("the run is over"));
        }
        let find = |path: &StepPath| {
            self.pinned.index(path).ok_or_else(|| ReplayError::UnknownStep {
                run: about.run,
                seq: about.seq,
                step: path.clone(),
            })
        };
        match &about.fact {
            Fact::RunAccepted(_) => return Err(impossible("the run exists already")),
            Fact::AttemptStarted(started) => {
                let index = find(&started.path)?;
                let step = &mut self.steps[index];
                match (&step.phase, step.phase.due()) {
                    (Phase::Waiting | Phase::Queued { until: None }, _) => {}
                    (_, Some(due)) => timers.clear(due, self.id, retry(index)),
                    _ => return Err(impossible("the step cannot start")),
                }
                if started.attempt != step.attempts + 1 {
                    return Err(impossible("attempts count without gaps"));
                }
                step.phase = Phase::Running { since: about.at };
                step.attempts = started.attempt;
                step.first_started.get_or_insert(about.at);
                if let Some(slot) = self.slots.iter_mut().find(|slot| slot.step == Some(index)) {
                    slot.granted = true;
                }
                (step.reports, step.reported) = (0, None);
                self.in_flight += 1;
                self.started_at.get_or_insert(about.at);
            }
            Fact::AttemptInterrupted(interrupted) => {
                let index = find(&interrupted.path)?;
                self.running(index, interrupted.attempt).ok_or_else(|| impossible(NOT_RUNNING))?.lost =
                    interrupted.times_lost;
            }
            Fact::AttemptFinished(finished) => {
                let index = find(&finished.path)?;
                let step = self.running(index, finished.attempt).ok_or_else(|| impossible(NOT_RUNNING))?;
                match &finished.result {
                    AttemptResult::Output(output) => {
                        step.phase = Phase::Completed { output: Arc::clone(output), despite: None }
                    }
                    AttemptResult::Error(_) => {
                        step.phase = Phase::Failed { by: Arc::clone(event) };
                        self.failed(index);
                    }
                }
                self.drop_slot(index);
                self.in_flight -= 1;
                self.open -= 1;
            }
            Fact::AttemptReported(reported) => {
                let index = find(&reported.path)?;
                let step = self.running(index, reported.attempt).ok_or_else(|| impossible(NOT_RUNNING))?;
                step.reports += 1;
                if reported.progress.is_some() {
                    step.reported = Some(Arc::clone(event));
                }
            }
            Fact::AttemptParked(parked) => {
                let index = find(&parked.path)?;
                let step = self.running(index, parked.attempt).ok_or_else(|| impossible(NOT_RUNNING))?;
                step.phase = Phase::Parked { due: parked.due, by: Arc::clone(event) };
                // It does not count towards the retry rule's.
                step.attempts_before += 1;
                self.drop_slot(index);
                self.in_flight -= 1;
                if !self.paused {
                    timers.set(parked.due, self.id, retry(index));
                }
            }
            Fact::RetryScheduled(scheduled) => {
                let index = find(&scheduled.path)?;
                let step = &mut self.steps[index];
                if !matches!(step.phase, Phase::Failed { .. }) || scheduled.attempt != step.attempts + 1 {
                    return Err(impossible("only the attempt that just failed is followed by a retry"));
                }
                match &*scheduled.reason {
                    "immediate" => step.immediate += 1,
                    "backoff" => step.backoffs += 1,
                    _ => {}
                }
                step.phase = Phase::Retrying { due: scheduled.due };
                self.open += 1;
                self.first_failure = self.first_failure.filter(|&first| first != index);
                if !self.paused {
                    timers.set(scheduled.due, self.id, retry(index));
                }
            }
            Fact::StepSkipped(skipped) => {
                let index = find(&skipped.path)?;
                let after_failure = match &skipped.reason {
                    SkipReason::UpstreamFailed(_) | SkipReason::UpstreamSkipped(_) => {
                        self.failed_before(index)
                    }
                    SkipReason::ConditionFalse | SkipReason::NothingFailed => false,
                };
                match self.steps[index].phase {
                    Phase::Waiting => {}
                    Phase::Running { .. } => self.in_flight -= 1,
                    _ => return Err(impossible("the step cannot be skipped")),
                }
                self.drop_slot(index);
                self.steps[index].phase = Phase::Skipped { by: Arc::clone(event), after_failure };
                self.open -= 1;
            }
            Fact::StepContinued(continued) => {
                let index = find(&continued.path)?;
                let by = match &self.steps[index].phase {
                    Phase::Failed { by } => by,
                    Phase::Handling { by } => {
                        self.open -= 1;
                        by
                    }
                    _ => return Err(impossible("only a step that has failed is continued")),
                };
                let (output, despite) = (Arc::clone(&continued.output), Some(Arc::clone(by)));
                self.steps[index].phase = Phase::Completed { output, despite };
                self.first_failure = self.first_failure.filter(|&first| first != index);
            }
            Fact::HandlingStarted(started) => match &started.path {
                Some(path) => {
                    let index = find(path)?;
                    let Phase::Failed { by } = &self.steps[index].phase else {
                        return Err(impossible("only a step that has failed is handled"));
                    };
                    self.steps[index].phase = Phase::Handling { by: Arc::clone(by) };
                    self.first_failure = self.first_failure.filter(|&first| first != index);
                    self.open += 1;
                    self.call(Handles::Step(index));
                }
                None if self.failing.is_some() => return Err(impossible("the run has failed before")),
                None => {
                    self.cancel_steps(timers);
                    self.wait_no_longer();
                    if let Some(deadline) = std::mem::replace(&mut self.deadline, started.deadline) {
                        timers.clear(deadline, self.id, Timer::Deadline);
                    }
                    if let Some(deadline) = self.deadline {
                        timers.set(deadline, self.id, Timer::Deadline);
                    }
                    self.failing = NonZeroU32::new(about.seq);
                    // A pause was for what is cancelled now.
                    self.paused = false;
                    self.call(Handles::Run);
                }
            },
            Fact::HandlingEnded(ended) => {
                let index = find(&ended.path)?;
                let Phase::Handling { by } = &self.steps[index].phase else {
                    return Err(impossible("the step's failure is not being handled"));
                };
                self.steps[index].phase = Phase::Failed { by: Arc::clone(by) };
                self.open -= 1;
                self.failed(index);
            }
            Fact::LimitAsked(asked) => {
                let step = asked.path.as_ref().map(&find).transpose()?;
                if self.slot(step).is_some() {
                    return Err(impossible("it was asked for before"));
                }
                if let Some(index) = step {
                    let state = &mut self.steps[index];
                    match (&state.phase, state.phase.due()) {
                        (Phase::Waiting, _) => {}
                        (Phase::Retrying { .. } | Phase::Parked { .. }, Some(due)) => {
                            timers.clear(due, self.id, retry(index));
                        }
                        _ => return Err(impossible("the step is not about to start")),
                    }
                    state.phase = Phase::Queued { until: asked.until };
                    if let Some(until) = asked.until {
                        timers.set(until, self.id, retry(index));
                    }
                }
                let (limit, at) = (asked.limit.clone(), about.at);
                self.slots.push(Slot { limit, step, asked: about.seq, at, granted: false });
            }
            Fact::RunAdmitted(_) => match self.slots.iter_mut().find(|slot| slot.step.is_none()) {
                Some(slot) => slot.granted = true,
                None => return Err(impossible("it did not ask for a place")),
            },
            Fact::LimitLeft(left) => {
                let index = find(&left.path)?;
                let step = &mut self.steps[index];
                if !matches!(step.phase, Phase::Queued { .. }) {
                    return Err(impossible("the step does not wait for a place"));
                }
                if let Some(until) = step.phase.due() {
                    timers.clear(until, self.id, retry(index));
                }
                step.phase = Phase::Waiting;
                self.drop_slot(index);
            }
            Fact::RunPaused(_) => {
                self.paused = true;
                self.wait_no_longer();
                for (due, timer) in self.retries() {
                    timers.clear(due, self.id, timer);
                }
            }
            Fact::RunResumed(_) => {
                self.paused = false;
                for (due, timer) in self.retries() {
                    timers.set(due, self.id, timer);
                }
            }
            Fact::RunFinished(_) => self.end(event, timers),
            Fact::RunRetried(retried) => {
                let from = retried.steps.iter().map(find).collect::<Result<Vec<_>, _>>()?;
                if self.end.is_none() && !self.paused {
                    return Err(impossible("the run goes on"));
                }
                self.start_afresh(&from, retried, timers);
            }
        }
        Ok(())
    }

    /// A step has failed for good. The run's error is that of the first, and never that of a step which was there to deal
    /// with another's.
    fn failed(&mut self, index: StepIndex) {
        if self.pinned.plan.steps[index].handles.is_none() {
            self.first_failure.get_or_insert(index);
        }
    }

    /// The steps that are there for this wait for their turn.
    fn call(&mut self, handles: Handles) {
        let plans = self.pinned.plan.steps.iter();
        for (step, _) in self.steps.iter_mut().zip(plans).filter(|(_, plan)| plan.handles == Some(handles)) {
            step.phase = Phase::Waiting;
            self.open += 1;
        }
    }

    fn end(&mut self, event: &Arc<Event>, timers: &mut Timers) {
        self.cancel_steps(timers);
        if let Some(deadline) = self.deadline {
            timers.clear(deadline, self.id, Timer::Deadline);
        }
        self.paused = false;
        self.slots = ThinVec::new();
        self.end = Some(Arc::clone(event));
    }

    fn drop_slot(&mut self, step: StepIndex) {
        self.slots.retain(|slot| slot.step != Some(step));
    }

    /// The run leaves the queue for its own place.
    fn wait_no_longer(&mut self) {
        self.slots.retain(|slot| slot.step.is_some() || slot.granted);
    }

    fn cancel_steps(&mut self, timers: &mut Timers) {
        for (due, timer) in self.retries() {
            timers.clear(due, self.id, timer);
        }
        for step in self.steps.iter_mut().filter(|step| !step.phase.is_over()) {
            step.phase = Phase::Cancelled;
        }
        self.slots.retain(|slot| slot.step.is_none());
        (self.open, self.in_flight) = (0, 0);
    }

    fn start_afresh(&mut self, from: &[StepIndex], retried: &RunRetried, timers: &mut Timers) {
        if let Some(input) = &retried.input {
            self.input = Arc::clone(input);
        }
        for index in self.begun_again(from) {
            let (step, plan) = (&mut self.steps[index], &self.pinned.plan.steps[index]);
            *step = Step { attempts: step.attempts, attempts_before: step.attempts, ..Step::new(plan) };
            self.slots.retain(|slot| slot.step != Some(index));
        }
        self.open = open_steps(&self.steps);
        let plans = &self.pinned.plan.steps;
        self.first_failure =
            self.steps.iter().zip(plans).position(|(step, plan)| {
                matches!(step.phase, Phase::Failed { .. }) && plan.handles.is_none()
            });
        (self.end, self.output_due, self.failing) = (None, None, None);
        if let Some(deadline) = std::mem::replace(&mut self.deadline, retried.deadline) {
            timers.clear(deadline, self.id, Timer::Deadline);
        }
        if let Some(deadline) = self.deadline
            && !fault::is_made("no deadline timer after a retry")
        {
            timers.set(deadline, self.id, Timer::Deadline);
        }
    }

    /// These steps, all that depend on them, and all that are there for a failure of one of these or of the run, ascending.
    pub(super) fn begun_again(&self, from: &[StepIndex]) -> Vec<StepIndex> {
        let mut chosen = vec![false; self.steps.len()];
        from.iter().for_each(|&index| chosen[index] = true);
        // In dependency order one pass is enough.
        for (index, step) in self.pinned.plan.steps.iter().enumerate() {
            chosen[index] |= match step.handles {
                None => step.upstream.iter().any(|&before| chosen[before]),
                Some(Handles::Step(failed)) => chosen[failed],
                Some(Handles::Run) => true,
            };
        }
        (0..chosen.len()).filter(|&index| chosen[index]).collect()
    }

    /// Whether a step that this one depends on, however far up, failed.
    pub(super) fn failed_before(&self, index: StepIndex) -> bool {
        let upstream = &self.pinned.plan.steps[index].upstream;
        upstream.iter().any(|&before| self.steps[before].phase.carries_failure())
    }

    /// The step, if this is its attempt that is being executed.
    fn running(&mut self, index: StepIndex, attempt: u32) -> Option<&mut Step> {
        let step = &mut self.steps[index];
        (matches!(step.phase, Phase::Running { .. }) && step.attempts == attempt).then_some(step)
    }

    /// Times of attempts that start by themselves.
    pub(super) fn retries(&self) -> impl Iterator<Item = (crate::time::Timestamp, Timer)> {
        self.steps.iter().enumerate().filter_map(|(index, step)| Some((step.phase.due()?, retry(index))))
    }
}

/// How many of them are not over. A workflow has few.
fn open_steps(steps: &[Step]) -> u32 {
    steps.iter().filter(|step| !step.phase.is_over()).count() as u32
}

const NOT_RUNNING: &str = "the attempt is not being executed";
