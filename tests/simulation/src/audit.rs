//! What the journal alone must say, whoever wrote it: exactly one end between retries, nothing after it, attempts in
//! order, no retry outside its rule, one run for a key as long as the key stands.

mod places;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use reipaz_core::{
    event::{AttemptResult, Event, Fact, FinalStatus, RunAccepted, RunEvent, RunRetried},
    ids::{RunId, StepPath},
    limit::LimitId,
    partition::PartitionConfig,
    plan::{Handles, Plan},
    time::Timestamp,
};

use self::places::Places;

/// Follows a journal event by event.
pub struct Audit {
    plans: Vec<Arc<Plan>>,
    /// How long a key stands after its run's end.
    retention: Duration,
    /// So many keys of forgotten runs are kept at least.
    max_kept_keys: usize,
    runs: HashMap<RunId, Seen>,
    /// Until when the keys of forgotten runs stand.
    keys: HashMap<RunId, Timestamp>,
    /// Runs that were forgotten at some time.
    pub forgotten: HashSet<RunId>,
    places: Places,
}

#[derive(Default)]
struct Seen {
    plan: Option<Arc<Plan>>,
    keyed: bool,
    seq: u32,
    ended: Option<Timestamp>,
    paused: bool,
    failed: HashSet<StepPath>,
    /// Steps whose `on_failure` runs.
    handled: HashSet<StepPath>,
    /// The run's own runs.
    failing: bool,
    ends: usize,
    retries: usize,
    running: HashMap<StepPath, u32>,
    attempts: HashMap<StepPath, u32>,
    /// What it asked for a place of its own under, and whether it has it.
    limit: Option<(LimitId, bool)>,
    /// When each step's first attempt started, since it last started afresh.
    first_started: HashMap<StepPath, Timestamp>,
}

impl Audit {
    /// Of a journal whose runs are of these plans.
    pub fn new(plans: &[Arc<Plan>], config: &PartitionConfig) -> Self {
        Self {
            plans: plans.to_vec(),
            retention: config.idempotency_retention,
            max_kept_keys: config.max_kept_keys,
            runs: HashMap::new(),
            keys: HashMap::new(),
            forgotten: HashSet::new(),
            places: Places::new(config),
        }
    }

    /// The next event.
    pub fn see(&mut self, event: &Event) {
        self.places.check_before(event);
        match event {
            Event::Run(event) => self.see_run(event),
            Event::RunForgotten(event) => {
                if let Some(seen) = self.runs.remove(&event.run) {
                    let Some(ended) = seen.ended else { panic!("{event:?} before its end") };
                    let stands_until = ended.plus(self.retention);
                    if seen.keyed && stands_until > event.at {
                        self.keys.insert(event.run, stands_until);
                    }
                }
                self.forgotten.insert(event.run);
            }
            Event::KeyExpired(event) => {
                let too_many = self.keys.len() > self.max_kept_keys;
                let stands_until = self.keys.remove(&event.run);
                assert!(too_many || stands_until.is_some_and(|until| until <= event.at), "{event:?} early");
            }
            Event::Limit(event) => self.places.see(event),
            Event::WorkflowPinned(_) => {}
        }
    }

    /// Runs that were accepted, not forgotten, and have not ended.
    pub fn unended(&self) -> Vec<RunId> {
        self.runs.iter().filter(|(_, seen)| seen.ended.is_none()).map(|(run, _)| *run).collect()
    }

    fn accept(&mut self, event: &RunEvent, accepted: &RunAccepted) {
        assert_eq!(event.seq, 1);
        let free = self.keys.remove(&event.run).is_none_or(|until| until <= event.at);
        assert!(free, "{} starts again while its key stands", event.run);
        let plan = self.plans.iter().find(|plan| plan.digest == accepted.plan).cloned();
        let keyed = accepted.idempotency_key.is_some();
        let before = self.runs.insert(event.run, Seen { plan, keyed, ..Seen::default() });
        assert!(before.is_none(), "run {} was accepted twice", event.run);
    }

    fn see_run(&mut self, event: &RunEvent) {
        if let Fact::RunAccepted(accepted) = &event.fact {
            self.accept(event, accepted);
        }
        let seen = self.runs.get_mut(&event.run).unwrap_or_else(|| panic!("{event:?} of no run"));
        assert_eq!(event.seq, seen.seq + 1, "run {} has a gap", event.run);
        seen.seq = event.seq;
        if matches!(event.fact, Fact::RunRetried(_)) {
            assert!(seen.ended.is_some() || seen.paused, "{event:?} before the end");
        } else {
            assert!(seen.ended.is_none(), "{event:?} after the end");
        }
        self.places.see_run(event, seen);
        match &event.fact {
            Fact::RunAccepted(_) | Fact::LimitLeft(_) => {}
            Fact::LimitAsked(it) => {
                if it.path.is_none() {
                    assert_eq!(seen.limit, None, "a run asks once");
                    seen.limit = Some((it.limit.clone(), false));
                }
            }
            Fact::RunAdmitted(_) => {
                let (_, admitted) = seen.limit.as_mut().expect("a run asks before it is admitted");
                assert!(!std::mem::replace(admitted, true), "admitted once");
            }
            Fact::AttemptStarted(it) => {
                assert!(seen.may_start(), "{} has no place", event.run);
                let attempts = seen.attempts.entry(it.path.clone()).or_default();
                *attempts += 1;
                assert_eq!(it.attempt, *attempts, "attempts of {} are numbered in order", it.path);
                let doubled = seen.running.insert(it.path.clone(), it.attempt);
                assert_eq!(doubled, None, "two attempts of {} at once", it.path);
                // Of a retried run: the step starts afresh.
                seen.handled.remove(&it.path);
                seen.first_started.entry(it.path.clone()).or_insert(event.at);
            }
            Fact::AttemptInterrupted(it) => assert_eq!(seen.running.get(&it.path), Some(&it.attempt)),
            Fact::AttemptReported(it) => assert_eq!(seen.running.get(&it.path), Some(&it.attempt)),
            Fact::AttemptFinished(it) => {
                assert_eq!(seen.running.remove(&it.path), Some(it.attempt), "one outcome an attempt");
                if matches!(it.result, AttemptResult::Error(_)) {
                    seen.failed.insert(it.path.clone());
                }
            }
            Fact::RetryScheduled(it) => {
                assert_eq!(seen.attempts[&it.path] + 1, it.attempt);
                assert!(seen.failed.remove(&it.path), "only a failed attempt is tried again");
                assert!(it.due >= event.at);
                seen.is_in_time(&it.path, it.due);
            }
            Fact::StepSkipped(it) => drop(seen.running.remove(&it.path)),
            Fact::RunFinished(it) => {
                (seen.ended, seen.ends, seen.paused) = (Some(event.at), seen.ends + 1, false);
                seen.limit = None;
                assert_eq!(it.status == FinalStatus::Completed, it.error.is_none());
                assert!(!seen.failing || it.status != FinalStatus::Completed, "it had failed");
                seen.running.clear();
            }
            Fact::RunRetried(it) => seen.retry(it),
            Fact::StepContinued(it) => {
                let failed = seen.failed.remove(&it.path) || seen.handled.remove(&it.path);
                assert!(failed, "only a failed step is continued")
            }
            Fact::HandlingStarted(it) => match &it.path {
                Some(path) => {
                    assert!(seen.failed.remove(path), "only a failed step is handled");
                    seen.handled.insert(path.clone());
                }
                None => {
                    assert!(!std::mem::replace(&mut seen.failing, true), "a run fails once between retries");
                    assert!(it.error.is_some() && it.deadline.is_some_and(|deadline| deadline > event.at));
                    seen.running.clear();
                    seen.handled.clear();
                    seen.wait_no_longer();
                }
            },
            Fact::HandlingEnded(it) => assert!(seen.handled.remove(&it.path)),
            Fact::AttemptParked(it) => {
                assert_eq!(seen.running.remove(&it.path), Some(it.attempt), "one outcome an attempt");
                assert!(it.due > event.at);
                seen.is_before_its_end(&it.path, it.due);
            }
            Fact::RunPaused(_) => {
                seen.paused = true;
                seen.wait_no_longer();
            }
            Fact::RunResumed(_) => seen.paused = false,
        }
        let ended = usize::from(seen.ended.is_some());
        assert!(seen.ends == seen.retries + ended, "one end between retries");
    }
}

impl Seen {
    /// It leaves the queue for its own place.
    fn wait_no_longer(&mut self) {
        self.limit.take_if(|(_, admitted)| !*admitted);
    }

    /// Whether its workflow has no limit, or it has its place, or what starts is there for its failure.
    fn may_start(&self) -> bool {
        let limited = self.plan.as_ref().is_some_and(|plan| plan.concurrency.is_some());
        !limited || self.failing || self.limit.as_ref().is_some_and(|(_, admitted)| *admitted)
    }

    /// A retry within the step's rule and times.
    fn is_in_time(&self, path: &StepPath, due: Timestamp) {
        let Some(plan) = &self.plan else { return };
        let step = plan.steps.iter().find(|step| step.path == *path).unwrap();
        let first = self.first_started[path];
        assert!(due <= first.plus(step.retry.within), "a retry of {path} outside its window");
        let in_all = step.total_timeout.is_none_or(|timeout| due < first.plus(timeout));
        assert!(in_all, "a retry of {path} after its total timeout");
    }

    /// No later than when the step's time is over.
    fn is_before_its_end(&self, path: &StepPath, due: Timestamp) {
        let Some(plan) = &self.plan else { return };
        let step = plan.steps.iter().find(|step| step.path == *path).unwrap();
        let first = self.first_started[path];
        let in_all = step.total_timeout.is_none_or(|timeout| due <= first.plus(timeout));
        assert!(in_all && due <= first.plus(step.retry.within), "{path} is parked beyond its time");
    }

    fn retry(&mut self, retried: &RunRetried) {
        self.retries += usize::from(self.ended.is_some());
        self.ended = None;
        self.failed.clear();
        self.failing = false;
        let Some(plan) = &self.plan else { return };
        let mut afresh = vec![false; plan.steps.len()];
        for (index, step) in plan.steps.iter().enumerate() {
            afresh[index] = retried.steps.contains(&step.path)
                || step.upstream.iter().any(|&before| afresh[before])
                || match step.handles {
                    None => false,
                    Some(Handles::Step(failed)) => afresh[failed],
                    Some(Handles::Run) => true,
                };
            if afresh[index] {
                self.first_started.remove(&step.path);
            }
        }
    }
}
