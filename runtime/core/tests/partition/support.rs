//! An owner that makes everything durable at once, for tests that tell one story. After each input it checks the
//! invariants, and that folding the journal gives the state.

use std::{sync::Arc, time::Duration};

use reipaz_core::{
    codec,
    event::{AttemptResult, Event, Fact, RunEvent, Usage},
    failure::{ErrorClass, Failure},
    ids::{AttemptId, RunId},
    json::Json,
    partition::{
        Again, AttemptDone, AttemptOutcome, Decision, Effect, Input, OutputDone, Partition, PartitionConfig,
        Reply, Run, RunStatus, StartAttempt, StartFrom, StepStatus, StepView, Submit,
    },
    plan::Plan,
    time::Timestamp,
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
/// When every story begins.
pub(crate) const BEGIN: Timestamp = Timestamp(1_800_000_000_000_000);

pub(crate) struct Owner {
    pub(crate) partition: Partition,
    pub(crate) now: Timestamp,
    /// All events, encoded.
    pub(crate) journal: Vec<Vec<u8>>,
    /// Effects that nobody took yet.
    pub(crate) effects: Vec<Effect>,
    config: PartitionConfig,
    plans: Vec<Arc<Plan>>,
}

pub(crate) fn run_id(number: u128) -> RunId {
    RunId(uuid::Uuid::from_u128(number))
}

pub(crate) fn submission(plan: &Arc<Plan>, number: u128) -> Submit {
    Submit {
        run: run_id(number),
        plan: Arc::clone(plan),
        pinned: "{}".into(),
        version: 1,
        input: r#"{"n":1}"#.into(),
        idempotency_key: None,
        metadata: Vec::new(),
        trigger: None,
        seed: [7; 32],
        refused: None,
    }
}

pub(crate) fn failure(class: ErrorClass) -> Failure {
    Failure::new(class, "it_failed", "it failed")
}

pub(crate) fn done(id: AttemptId, outcome: AttemptOutcome) -> Input {
    Input::AttemptDone(Box::new(AttemptDone {
        id,
        outcome,
        input_digest: None,
        usage: Usage::default(),
        logs: Vec::new(),
        logs_dropped_bytes: 0,
    }))
}

impl Owner {
    pub(crate) fn new() -> Self {
        Self::with(PartitionConfig::default())
    }

    pub(crate) fn with(config: PartitionConfig) -> Self {
        Self {
            partition: Partition::new(config.clone()),
            now: BEGIN,
            journal: Vec::new(),
            effects: Vec::new(),
            config,
            plans: Vec::new(),
        }
    }

    pub(crate) fn give(&mut self, input: Input) -> Reply {
        let decision = self.partition.handle(input, self.now);
        self.take(decision)
    }

    fn take(&mut self, decision: Decision) -> Reply {
        self.journal.extend(decision.events.iter().map(|event| codec::encode(event)));
        self.effects.extend(decision.effects);
        self.partition.check_invariants().unwrap();
        assert_eq!(self.replayed(), self.partition, "folding the journal gives the state");
        decision.reply
    }

    /// The journal, folded.
    pub(crate) fn replayed(&self) -> Partition {
        self.fold(&self.journal)
    }

    pub(crate) fn fold(&self, records: &[Vec<u8>]) -> Partition {
        let mut partition = Partition::new(self.config.clone());
        self.plans.iter().for_each(|plan| partition.offer_plan(Arc::clone(plan)));
        for record in records {
            partition.replay(Arc::new(codec::decode(record).unwrap())).unwrap();
        }
        partition
    }

    /// The host stops and another takes over.
    pub(crate) fn restart(&mut self, clean_stop: bool) {
        if clean_stop {
            self.give(Input::ShutDown);
        }
        self.effects.clear();
        self.partition = self.replayed();
        let decision = self.partition.resume(self.now, clean_stop);
        self.take(decision);
    }

    pub(crate) fn submit(&mut self, plan: &Arc<Plan>, number: u128) -> RunId {
        let reply = self.offer(submission(plan, number));
        assert_eq!(reply, Reply::Accepted { run: run_id(number), existing: false });
        run_id(number)
    }

    pub(crate) fn offer(&mut self, submit: Submit) -> Reply {
        self.plans.push(Arc::clone(&submit.plan));
        self.give(Input::Submit(Box::new(submit)))
    }

    /// Time passes, and whatever is due happens.
    pub(crate) fn pass(&mut self, time: Duration) {
        let until = self.now.plus(time);
        while let Some(due) = self.partition.next_timer().filter(|&due| due <= until) {
            self.now = self.now.max(due);
            self.give(Input::Tick);
        }
        self.now = until;
        self.give(Input::Tick);
    }

    pub(crate) fn run(&self, run: RunId) -> &Run {
        self.partition.run(run).unwrap()
    }

    pub(crate) fn status(&self, run: RunId) -> RunStatus {
        self.run(run).status()
    }

    pub(crate) fn step(&self, run: RunId, name: &str) -> StepView<'_> {
        self.run(run).steps().find(|step| &**step.name == name).unwrap()
    }

    pub(crate) fn step_status(&self, run: RunId, name: &str) -> StepStatus {
        self.step(run, name).status
    }

    /// Takes the effect that starts the step's attempt.
    pub(crate) fn started(&mut self, run: RunId, step: &str) -> StartAttempt {
        let is_it = |effect: &Effect| matches!(effect, Effect::StartAttempt(start) if start.id.run == run && *start.plan.steps[start.step].name == *step);
        let index = self.effects.iter().position(is_it).unwrap_or_else(|| panic!("{step} was not started"));
        match self.effects.remove(index) {
            Effect::StartAttempt(start) => *start,
            _ => unreachable!(),
        }
    }

    /// The effect that starts the step's attempt, left where it is.
    pub(crate) fn starting_of(&self, run: RunId, step: &str) -> StartAttempt {
        let start = self.effects.iter().find_map(|effect| match effect {
            Effect::StartAttempt(start)
                if start.id.run == run && *start.plan.steps[start.step].name == *step =>
            {
                Some((**start).clone())
            }
            _ => None,
        });
        start.unwrap_or_else(|| panic!("{step} was not started"))
    }

    /// Names of the steps whose attempts were started and not taken.
    pub(crate) fn starting(&self) -> Vec<&str> {
        self.effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::StartAttempt(start) => Some(start.id.path.as_str()),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn complete(&mut self, run: RunId, step: &str, output: &str) {
        let start = self.started(run, step);
        self.complete_this(&start, output);
    }

    pub(crate) fn complete_this(&mut self, start: &StartAttempt, output: &str) {
        let result = AttemptResult::Output(Json::from(output));
        self.give(done(start.id.clone(), AttemptOutcome::Result(result)));
    }

    pub(crate) fn fail(&mut self, run: RunId, step: &str, class: ErrorClass) {
        self.fail_with(run, step, failure(class));
    }

    pub(crate) fn fail_with(&mut self, run: RunId, step: &str, failure: Failure) {
        let start = self.started(run, step);
        self.fail_this(&start, failure);
    }

    pub(crate) fn fail_this(&mut self, start: &StartAttempt, failure: Failure) {
        self.give(done(start.id.clone(), AttemptOutcome::Result(AttemptResult::Error(failure))));
    }

    pub(crate) fn output_done(&mut self, run: RunId, seq: u32, output: &str) {
        let result = AttemptResult::Output(output.into());
        self.give(Input::OutputDone(OutputDone { run, seq, result }));
    }

    /// Goes on from a step.
    pub(crate) fn retry_from(&mut self, run: RunId, step: &str) -> Reply {
        self.give(Input::Retry(run, Again { from: StartFrom::Step(step.into()), input: None }))
    }

    /// The run's facts by name, `attempt_started /a 1`, in order.
    pub(crate) fn story(&self, run: RunId) -> Vec<String> {
        self.run(run).history().iter().filter_map(|event| run_event(event)).map(tell).collect()
    }
}

pub(crate) fn run_event(event: &Event) -> Option<&RunEvent> {
    match event {
        Event::Run(event) => Some(event),
        _ => None,
    }
}

fn tell(event: &RunEvent) -> String {
    match &event.fact {
        Fact::RunAccepted(_) => "accepted".into(),
        Fact::AttemptStarted(it) => format!("{} {} started", it.path, it.attempt),
        Fact::AttemptInterrupted(it) => format!("{} {} interrupted {:?}", it.path, it.attempt, it.cause),
        Fact::AttemptFinished(it) => match &it.result {
            AttemptResult::Output(_) => format!("{} {} completed", it.path, it.attempt),
            AttemptResult::Error(failure) => {
                format!("{} {} failed {}", it.path, it.attempt, failure.class.as_str())
            }
        },
        Fact::AttemptReported(it) => format!("{} {} reported", it.path, it.attempt),
        Fact::RetryScheduled(it) => {
            format!("{} {} due in {} ms: {}", it.path, it.attempt, it.delay_ms, it.reason)
        }
        Fact::StepSkipped(it) => format!("{} skipped {:?}", it.path, it.reason),
        Fact::RunPaused(_) => "paused".into(),
        Fact::RunResumed(_) => "resumed".into(),
        Fact::RunFinished(it) => format!("{:?}", it.status).to_lowercase(),
        Fact::RunRetried(it) => format!("retried {:?}", it.steps),
        Fact::StepContinued(it) => format!("{} continued with {}", it.path, it.output),
        Fact::HandlingStarted(it) => match &it.path {
            Some(path) => format!("{path} being handled"),
            None => "failing".into(),
        },
        Fact::AttemptParked(it) => format!("{} {} parked for {}", it.path, it.attempt, it.breaker),
        Fact::HandlingEnded(it) => format!("{} failed", it.path),
        Fact::LimitAsked(it) => match &it.path {
            Some(path) => format!("{path} waits for {}", it.limit),
            None => format!("waits for {}", it.limit),
        },
        Fact::RunAdmitted(it) => format!("admitted after {} ms", it.waited_ms),
        Fact::LimitLeft(it) => format!("{} does not wait", it.path),
    }
}
