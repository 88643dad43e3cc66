//! The owner and its surroundings.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use reipaz_core::{
    codec,
    event::{AttemptResult, Event, Progress, RunError},
    failure::ErrorClass,
    failure::Failure,
    ids::{AttemptId, RunId},
    partition::{
        Again, AttemptOutcome, AttemptReport, Decision, Effect, Input, OutputDone, Partition,
        PartitionConfig, Reply, Run, RunStatus, StartFrom, Submit,
    },
    plan::{Condition, Plan},
    time::Timestamp,
};

use reipaz_simulation::{Audit, Random, explain, plan, plugin_limits};

use crate::support::{BEGIN, done, failure, run_id, submission};

/// What a decision waits with until it is durable.
struct Held {
    events: Vec<Arc<Event>>,
    effects: Vec<Effect>,
    reply: Reply,
}

pub(crate) struct World {
    random: Random,
    config: PartitionConfig,
    plans: Vec<Arc<Plan>>,
    partition: Partition,
    now: Timestamp,
    /// Durable records.
    journal: Vec<Vec<u8>>,
    /// The newest checkpoint: how many records it covers, and its own.
    checkpoint: Option<(usize, Vec<Vec<u8>>)>,
    /// Not durable yet.
    held: VecDeque<Held>,
    /// Being executed, with the plan that says whether the step has a condition.
    executing: BTreeMap<AttemptId, bool>,
    evaluating: BTreeSet<(RunId, u32)>,
    /// Over, and able to come again.
    past: Vec<AttemptId>,
    /// Runs whose acceptance was answered.
    answered: BTreeSet<RunId>,
    next_run: u128,
    audit: Audit,
    /// Outcomes are kind and nothing breaks.
    calm: bool,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let config = PartitionConfig {
            max_live_runs: random.one_of(&[3, 20, 1000]),
            due_per_tick: random.one_of(&[1, 2, 256]),
            host_losses_max: random.one_of(&[0, 1, 5]),
            max_progress_reports: 3,
            max_kept_keys: random.one_of(&[2, 1000]),
            max_terminal_runs: random.one_of(&[2, 1000]),
            max_failed_runs: random.one_of(&[2, 1000]),
            failed_min_age: Duration::from_secs(random.one_of(&[1, 600, 200_000])),
            max_unstored_runs: random.one_of(&[5, 1000]),
            plugin_limits: plugin_limits(&mut random),
            ..PartitionConfig::default()
        };
        let plans: Vec<_> = (0..4).map(|number| plan(&mut random, number)).collect();
        Self {
            partition: Partition::new(config.clone()),
            audit: Audit::new(&plans, &config),
            config,
            plans,
            random,
            now: BEGIN,
            journal: Vec::new(),
            checkpoint: None,
            held: VecDeque::new(),
            executing: BTreeMap::new(),
            evaluating: BTreeSet::new(),
            past: Vec::new(),
            answered: BTreeSet::new(),
            next_run: 1,
            calm: false,
        }
    }

    pub(crate) fn something_happens(&mut self) {
        match self.random.below(100) {
            0..14 => self.submit(),
            14..40 => self.an_attempt_ends(),
            40..45 => self.an_output_is_evaluated(),
            45..48 => self.something_comes_late(),
            48..52 => self.an_attempt_reports(),
            52..66 => self.time_passes(),
            66..82 => self.commit(),
            82..86 => self.ask(|run| Input::Cancel(run, None)),
            86..88 => self.ask(|run| Input::Pause(run, None)),
            88..91 => self.ask(|run| Input::Resume(run, None)),
            91..94 => self.retry(),
            94..96 => self.rows_are_stored(),
            96..97 => self.take_checkpoint(),
            97..99 => self.crash(),
            _ => self.stop_in_order(),
        }
    }

    /// The faults stop; every run must end.
    pub(crate) fn settle(&mut self) {
        self.calm = true;
        for _ in 0..100_000 {
            while !self.held.is_empty() {
                self.commit();
            }
            let paused: Vec<RunId> = self
                .partition
                .runs()
                .filter(|run| run.status() == RunStatus::Paused)
                .map(|run| run.id())
                .collect();
            if let Some(&run) = paused.iter().min() {
                self.give(Input::Resume(run, None));
            } else if !self.executing.is_empty() {
                self.an_attempt_ends();
            } else if !self.evaluating.is_empty() {
                self.an_output_is_evaluated();
            } else if self.partition.live_runs() == 0 {
                break;
            } else {
                let due = self.partition.next_timer();
                let due = due.unwrap_or_else(|| panic!("nothing goes on: {:#?}", self.partition));
                self.now = self.now.max(due);
                self.give(Input::Tick);
            }
        }
        assert_eq!(self.partition.live_runs(), 0, "a run does not end: {:?}", self.partition.runs().next());
        assert_eq!(self.audit.unended(), []);
        let left = self.partition.limits().find(|limit| limit.held > 0 || limit.queued > 0);
        assert!(left.is_none(), "a place is never let go: {left:?}");
        self.compare_with_the_fold();
    }

    fn give(&mut self, input: Input) {
        let decision = self.partition.handle(input, self.now);
        self.hold(decision);
    }

    fn hold(&mut self, decision: Decision) {
        let Decision { events, effects, reply, messages } = decision;
        assert_eq!(messages, []);
        self.partition.check_invariants().unwrap();
        let touched: BTreeSet<RunId> = events.iter().filter_map(|event| event.run()).collect();
        touched.iter().filter_map(|&run| self.partition.run(run)).for_each(explain);
        for event in &events {
            // Its id may come again with its key, a day later; by then nothing of the first is being evaluated.
            if let Event::RunForgotten(forgotten) = &**event {
                self.evaluating.retain(|&(run, _)| run != forgotten.run);
            }
        }
        // A silent attempt starts before its decision is durable, but not before a cancel of the same attempt that waits:
        // of a run that has been forgotten since, and whose id was accepted again.
        let waits = |id: &AttemptId| {
            let effects = self.held.iter().flat_map(|held| &held.effects);
            effects
                .into_iter()
                .any(|effect| matches!(effect, Effect::CancelAttempt(cancelled) if cancelled == id))
        };
        let (early, effects) = effects.into_iter().partition(|effect| match effect {
            Effect::StartAttempt(start) => !waits(&start.id) && self.random.percent(30),
            Effect::EvaluateOutput(_) => self.random.percent(30),
            Effect::CancelAttempt(_) => false,
        });
        self.perform(early);
        self.held.push_back(Held { events, effects, reply });
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::StartAttempt(start) => {
                    let step = &start.plan.steps[start.step];
                    assert_eq!(step.path, start.id.path);
                    assert!(
                        start
                            .scope
                            .steps
                            .iter()
                            .all(|step| step.status != reipaz_core::partition::StepStatus::Running)
                    );
                    let conditional = matches!(step.condition, Condition::Holds(_));
                    let doubled = self.executing.insert(start.id, conditional);
                    assert_eq!(doubled, None, "one host executes an attempt once at a time");
                }
                Effect::CancelAttempt(id) => {
                    if self.executing.remove(&id).is_some() {
                        self.past.push(id);
                    }
                }
                Effect::EvaluateOutput(evaluate) => {
                    assert!(self.evaluating.insert((evaluate.run, evaluate.seq)), "evaluated once at a time");
                }
            }
        }
    }

    /// One or several decisions become durable together.
    fn commit(&mut self) {
        for _ in 0..=self.random.below(self.held.len()) {
            let Some(held) = self.held.pop_front() else { return };
            for event in &held.events {
                self.audit.see(event);
                self.journal.push(codec::encode(event));
            }
            if let Reply::Accepted { run, .. } = held.reply {
                self.answered.insert(run);
            }
            self.perform(held.effects);
        }
    }

    fn submit(&mut self) {
        let plan = self.random.below(self.plans.len());
        let plan = Arc::clone(&self.plans[plan]);
        let again = self.next_run > 1 && self.random.percent(30);
        let number =
            if again { 1 + self.random.below(self.next_run as usize - 1) as u128 } else { self.next_run };
        self.next_run = self.next_run.max(number + 1);
        let keyed = number.is_multiple_of(2);
        let mut submit =
            Submit { idempotency_key: keyed.then(|| number.to_string().into()), ..submission(&plan, number) };
        if self.random.percent(10) {
            submit.input = "\"other\"".into();
        }
        if self.random.percent(3) {
            let (code, message) = ("unknown_workflow".into(), "there is none".into());
            let class = ErrorClass::Permanent;
            submit.refused = Some(RunError { class, code, message, step: None, attempt: None });
        }
        // A key is free again after a day, though its failed run may still be there.
        let free_from = self.now.max(self.partition.last_time());
        let retention = self.config.idempotency_retention;
        let stands = |run: &&Run| !keyed || run.finished_at().is_none_or(|at| at.plus(retention) > free_from);
        let known = self.partition.run(run_id(number)).filter(stands).map(Run::seq);
        let decision = self.partition.handle(Input::Submit(Box::new(submit)), self.now);
        match (&decision.reply, known) {
            (Reply::Accepted { existing: true, .. } | Reply::Refused(_), _) => {
                assert!(decision.effects.is_empty());
                assert!(decision.events.iter().all(|event| matches!(**event, Event::KeyExpired(_))));
            }
            (Reply::Accepted { existing: false, .. }, known) => assert_eq!(known, None, "one key, one run"),
            (reply, _) => panic!("{reply:?} to a submission"),
        }
        self.hold(decision);
    }

    fn an_attempt_ends(&mut self) {
        let ids: Vec<AttemptId> = self.executing.keys().cloned().collect();
        if ids.is_empty() {
            return;
        }
        let id = self.random.one_of(&ids);
        let conditional = self.executing.remove(&id).unwrap();
        self.past.push(id.clone());
        let outcome = if self.random.percent(8) {
            let recheck = Duration::from_millis(self.random.below(20_000) as u64);
            AttemptOutcome::Parked { breaker: "plugin a@1.0.0".into(), recheck }
        } else {
            self.outcome(conditional)
        };
        self.give(done(id, outcome));
    }

    fn outcome(&mut self, conditional: bool) -> AttemptOutcome {
        if conditional && self.random.percent(30) {
            return AttemptOutcome::ConditionFalse;
        }
        let fails = self.random.percent(if self.calm { 10 } else { 35 });
        AttemptOutcome::Result(if fails {
            let retry_after_ms = self.random.percent(20).then(|| self.random.below(2_000_000) as u64);
            AttemptResult::Error(Failure { retry_after_ms, ..failure(self.random.class()) })
        } else {
            AttemptResult::Output(self.random.below(1000).to_string().into())
        })
    }

    fn an_output_is_evaluated(&mut self) {
        let Some(&(run, seq)) = self.evaluating.first() else { return };
        self.evaluating.remove(&(run, seq));
        let AttemptOutcome::Result(result) = self.outcome(false) else { return };
        self.give(Input::OutputDone(OutputDone { run, seq, result }));
    }

    /// An outcome comes again, or of an attempt that nobody waits for any more.
    fn something_comes_late(&mut self) {
        if self.past.is_empty() {
            return;
        }
        let id = self.random.one_of(&self.past);
        if self.is_in_flight(&id) {
            // Of the same attempt in an earlier life of the host: hosts tell those apart by dying, and what they had to tell
            // dies with them.
            return;
        }
        let before = self.partition.position();
        let outcome = self.outcome(true);
        self.give(done(id, outcome));
        assert_eq!(self.partition.position(), before, "a late outcome changed something");
    }

    fn is_in_flight(&self, id: &AttemptId) -> bool {
        let Some(run) = self.partition.run(id.run) else { return false };
        run.steps().any(|step| {
            *step.path == id.path
                && step.attempts == id.attempt
                && step.status == reipaz_core::partition::StepStatus::Running
        })
    }

    fn an_attempt_reports(&mut self) {
        let Some(id) = self.executing.keys().next().cloned() else { return };
        let progress = Some(Progress { done: 1, total: None, note: "on".into() });
        self.give(Input::AttemptReport(AttemptReport { id, progress, logs: Vec::new() }));
    }

    fn time_passes(&mut self) {
        let millis = match self.random.below(10) {
            0..6 => self.random.below(3_000),
            6..8 => self.random.below(120_000),
            8 => self.random.below(30 * 3_600_000),
            _ => 0,
        };
        self.now = if millis == 0 {
            Timestamp(self.now.0 - self.random.below(7_200_000_000) as u64)
        } else {
            self.now.plus(Duration::from_millis(millis as u64))
        };
        self.give(Input::Tick);
    }

    fn ask(&mut self, input: impl FnOnce(RunId) -> Input) {
        let run = run_id(1 + self.random.below(self.next_run as usize) as u128);
        self.give(input(run));
    }

    fn retry(&mut self) {
        let from = match self.random.below(10) {
            0..5 => StartFrom::Failed,
            5..9 => StartFrom::Step(format!("s{}", self.random.below(8)).into()),
            _ => StartFrom::Start,
        };
        let input = self.random.percent(20).then(|| "[2]".into());
        self.ask(|run| Input::Retry(run, Again { from, input }));
    }

    fn rows_are_stored(&mut self) {
        let stored = self.random.below(self.journal.len() + 1) as u64;
        self.give(Input::Stored(stored));
    }

    fn take_checkpoint(&mut self) {
        while !self.held.is_empty() {
            self.commit();
        }
        assert_eq!(self.partition.position(), self.journal.len() as u64);
        let records = self.partition.checkpoint().iter().map(|event| codec::encode(event)).collect();
        self.checkpoint = Some((self.journal.len(), records));
    }

    /// What is not durable is lost, with everything that was being executed.
    fn crash(&mut self) {
        if self.random.percent(70) {
            self.held.clear();
        } else {
            // Durable, but nobody was told any more.
            while let Some(held) = self.held.pop_front() {
                for event in &held.events {
                    self.audit.see(event);
                    self.journal.push(codec::encode(event));
                }
            }
        }
        self.take_over(false);
    }

    fn stop_in_order(&mut self) {
        self.give(Input::ShutDown);
        while !self.held.is_empty() {
            self.commit();
        }
        self.take_over(true);
    }

    fn take_over(&mut self, clean_stop: bool) {
        self.past.extend(std::mem::take(&mut self.executing).into_keys());
        self.evaluating.clear();
        let records = match &self.checkpoint {
            Some((covers, records)) => [&records[..], &self.journal[*covers..]].concat(),
            None => self.journal.clone(),
        };
        self.partition = self.fold(&records);
        self.partition.set_position(self.journal.len() as u64);
        self.compare_with_the_fold();
        let decision = self.partition.resume(self.now, clean_stop);
        self.hold(decision);
        for run in &self.answered {
            let is_there = self.partition.run(*run).is_some();
            assert!(is_there || self.audit.forgotten.contains(run), "run {run} was answered for and is lost");
        }
    }

    fn compare_with_the_fold(&mut self) {
        while !self.held.is_empty() {
            self.commit();
        }
        assert_eq!(self.fold(&self.journal), self.partition, "the fold of everything is the state");
    }

    fn fold(&self, records: &[Vec<u8>]) -> Partition {
        let mut partition = Partition::new(self.config.clone());
        self.plans.iter().for_each(|plan| partition.offer_plan(Arc::clone(plan)));
        for record in records {
            partition.replay(Arc::new(codec::decode(record).unwrap())).unwrap();
        }
        partition
    }
}
