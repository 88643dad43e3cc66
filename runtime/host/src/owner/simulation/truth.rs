//! What is durable, and so what may be known: the fold of all that the journal ever took, and what was told with it. Each batch
//! is checked as it becomes durable.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use reipaz_core::{
    codec,
    event::{AttemptResult, Event, Fact, RunEvent},
    ids::{AttemptId, RunId, StepPath},
    limit::LimitMessage,
    partition::{Partition, PartitionConfig, StartAttempt, StepStatus},
    plan::Plan,
};
use reipaz_journal::{Batch, Cursor, NewTask, Outlet, Published};
use reipaz_simulation::Audit;

use crate::message::PeerMessage;

/// The n-th message brings a task of another partition, at this offset and n.
pub(super) const FROM_ELSEWHERE: u64 = 1_000_000;

/// What must become of a task, exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// A run.
    Run,
    /// A run, or nothing because there is one with its key.
    RunOrNothing,
    /// The reason why not.
    Rejection,
    /// A message to its home.
    Message,
    /// A change of a run, which leaves no mark; a rejection, if it cannot be done.
    Change,
}

/// Who may tell an outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Nobody,
    Attempt(AttemptId),
    Output(RunId, u32),
}

/// See the module.
pub(super) struct Truth {
    pub(super) partition: Partition,
    pub(super) audit: Audit,
    /// Attempts whose start is durable, by their run's seed: ids may come again.
    started: HashSet<([u8; 32], StepPath, u32)>,
    /// What every outcome carries that was ever told.
    tokens: Vec<(Token, bool)>,
    /// By offset.
    pub(super) tasks: BTreeMap<u64, Expected>,
    taken: HashMap<u64, usize>,
    /// Results are told to readers outside.
    shared: bool,
    /// What the other partition was told about limits.
    pub(super) to_peer: Vec<LimitMessage>,
    /// Tasks that came as messages and now stand among the tasks of this partition.
    pub(super) to_tasks: Vec<NewTask>,
    moved: HashSet<u64>,
    /// By their offset there: where they came from.
    pub(super) stood_first: HashMap<u64, u64>,
}

impl Truth {
    pub(super) fn new(plans: &[Arc<Plan>], config: &PartitionConfig, shared: bool) -> Self {
        let mut partition = Partition::new(config.clone());
        plans.iter().for_each(|plan| partition.offer_plan(Arc::clone(plan)));
        Self {
            partition,
            audit: Audit::new(plans, config),
            started: HashSet::new(),
            // A workflow's own 0 is nobody's outcome.
            tokens: vec![(Token::Nobody, true)],
            tasks: BTreeMap::new(),
            taken: HashMap::new(),
            shared,
            to_peer: Vec::new(),
            to_tasks: Vec::new(),
            moved: HashSet::new(),
            stood_first: HashMap::new(),
        }
    }

    pub(super) fn token_for_attempt(&mut self, id: &AttemptId) -> usize {
        self.token(Token::Attempt(id.clone()))
    }

    pub(super) fn token_for_output(&mut self, run: RunId, seq: u32) -> usize {
        self.token(Token::Output(run, seq))
    }

    fn token(&mut self, token: Token) -> usize {
        self.tokens.push((token, false));
        self.tokens.len() - 1
    }

    /// Whether it is durable that this attempt was started.
    pub(super) fn knows_start(&self, start: &StartAttempt) -> bool {
        self.started.contains(&(start.run_seed, start.id.path.clone(), start.id.attempt))
    }

    /// Whether the run stands there, or has stood there.
    pub(super) fn has(&self, run: RunId, seq: u32) -> bool {
        let known = self.partition.run(run).is_some_and(|run| run.seq() >= seq);
        known || self.audit.forgotten.contains(&run)
    }

    /// Whether something of the kind has happened to the run, as far as it is still known.
    pub(super) fn told(&self, run: RunId, is_it: fn(&Fact) -> bool) -> bool {
        let told = |event: &Arc<Event>| matches!(&**event, Event::Run(event) if is_it(&event.fact));
        self.audit.forgotten.contains(&run)
            || self.partition.run(run).is_some_and(|run| run.history().iter().any(told))
    }

    /// What becomes durable together, on top of what was consumed before.
    pub(super) fn see(&mut self, batch: &Batch, before: Cursor) {
        // One id may end, be forgotten and accepted again, and end again.
        let mut ended = Vec::new();
        let consumed = batch.consumed.unwrap_or(before);
        let mut taken = Vec::new();
        for record in &batch.records {
            let event: Arc<Event> = Arc::new(codec::decode(record).unwrap());
            self.audit.see(&event);
            self.partition.replay(Arc::clone(&event)).unwrap();
            if let Event::Run(event) = &*event {
                self.see_run(event);
                match &event.fact {
                    Fact::RunFinished(_) => ended.push(format!("{}/{}", event.run, event.seq)),
                    Fact::RunAccepted(accepted) => {
                        let from = accepted.metadata.iter().find(|(name, _)| &**name == "task");
                        taken.extend(from.map(|(_, offset)| (offset.parse().unwrap(), Expected::Run)));
                    }
                    _ => {}
                }
            }
        }
        for message in &batch.messages {
            assert_eq!(message.to, 1);
            match crate::message::read(&message.bytes) {
                Some(PeerMessage::Limit(message)) => self.to_peer.push(message),
                other => panic!("{other:?} is no message of this version"),
            }
        }
        for (to, task) in &batch.tasks {
            let offset = forwarded_from(task);
            if *to == 1 {
                taken.push((offset, Expected::Message));
            } else {
                assert!(offset >= FROM_ELSEWHERE, "it stands among the tasks already");
                self.to_tasks.push(task.clone());
                let again = !self.moved.insert(offset);
                assert!(!again, "task {offset} was taken twice");
            }
        }
        for published in &batch.published {
            match published.to {
                Outlet::Results => {
                    let told: serde_json::Value = serde_json::from_slice(&published.body).unwrap();
                    let id = told["id"].as_str().unwrap();
                    let told = ended.iter().position(|ended| ended == id).map(|index| ended.remove(index));
                    assert!(told.is_some(), "{id} is told of, and has not just ended");
                }
                Outlet::Rejected => taken.push((source_of(published), Expected::Rejection)),
            }
        }
        assert!(!self.shared || ended.is_empty(), "nobody is told of {ended:?}");
        for (offset, what) in taken {
            self.take(offset, what);
            let below =
                if offset < FROM_ELSEWHERE { consumed.tasks } else { FROM_ELSEWHERE + consumed.messages };
            assert!(offset < below, "task {offset} was taken, and would be again: {consumed:?}");
        }
        let elsewhere = FROM_ELSEWHERE + before.messages..FROM_ELSEWHERE + consumed.messages;
        let elsewhere_is = |offset: &u64| elsewhere.contains(offset);
        for offset in (before.tasks..consumed.tasks).chain(elsewhere.clone()) {
            let offset = self.stood_first.get(&offset).copied().unwrap_or(offset);
            let Some(expected) = self.tasks.get(&offset) else { continue };
            if elsewhere_is(&offset) && self.moved.remove(&offset) {
                continue;
            }
            let must = matches!(expected, Expected::Run | Expected::Rejection | Expected::Message);
            assert!(!must || self.taken.contains_key(&offset), "task {offset} was passed over: {expected:?}");
        }
    }

    fn take(&mut self, offset: u64, what: Expected) {
        let expected = self.tasks[&offset];
        let fits = match what {
            Expected::Run => matches!(expected, Expected::Run | Expected::RunOrNothing),
            // A key that was used with other input.
            Expected::Rejection => !matches!(expected, Expected::Run | Expected::Message),
            _ => what == expected,
        };
        assert!(fits, "{what:?} came of task {offset}: {expected:?}");
        let times = self.taken.entry(offset).or_default();
        *times += 1;
        assert_eq!(*times, 1, "task {offset} was taken twice");
    }

    fn see_run(&mut self, event: &RunEvent) {
        match &event.fact {
            Fact::AttemptStarted(it) => {
                let seed = self.partition.run(event.run).unwrap().accepted().seed;
                self.started.insert((seed, it.path.clone(), it.attempt));
            }
            Fact::AttemptFinished(finished) => {
                let told = match &finished.result {
                    AttemptResult::Output(output) => output.parse().ok(),
                    AttemptResult::Error(failure) => failure.message.parse().ok(),
                };
                if let Some(token) = told {
                    let (path, attempt) = (finished.path.clone(), finished.attempt);
                    self.spend(token, &Token::Attempt(AttemptId { run: event.run, path, attempt }));
                }
            }
            Fact::RunFinished(finished) => {
                let token = finished.output.parse().ok();
                if let Some(token) = token
                    && let Some((Token::Output(run, seq), _)) = self.tokens.get::<usize>(token)
                {
                    let due = (*run, *seq);
                    assert_eq!(due.0, event.run);
                    let since = self.partition.run(event.run).unwrap().history_after(due.1);
                    // The end itself is the last.
                    let went_on = since[..since.len() - 1].iter().any(|event| {
                        matches!(&**event, Event::Run(event)
                            if !matches!(event.fact, Fact::RunPaused(_) | Fact::RunResumed(_)))
                    });
                    assert!(!went_on, "the output of {} is a stale one: {since:?}", event.run);
                }
            }
            _ => {}
        }
    }

    fn spend(&mut self, token: usize, by: &Token) {
        let (of, spent) = &mut self.tokens[token];
        assert_eq!(of, by, "an outcome of another attempt was applied");
        assert!(!std::mem::replace(spent, true), "an outcome was applied twice: {by:?}");
    }
}

/// Whether the partition waits for this attempt's outcome.
pub(super) fn is_in_flight(partition: &Partition, run: RunId, path: &StepPath, attempt: u32) -> bool {
    partition.run(run).is_some_and(|run| {
        run.steps()
            .any(|step| step.path == path && step.attempts == attempt && step.status == StepStatus::Running)
    })
}

pub(super) fn forwarded_from(task: &NewTask) -> u64 {
    let (_, source) = task.headers.iter().find(|(name, _)| name == "reipaz-forwarded").unwrap();
    std::str::from_utf8(source).unwrap().split('/').nth(2).unwrap().parse().unwrap()
}

fn source_of(published: &Published) -> u64 {
    let source = published.headers.iter().find(|(name, _)| name == "reipaz-source").unwrap();
    std::str::from_utf8(&source.1).unwrap().rsplit('/').next().unwrap().parse().unwrap()
}

impl Truth {
    /// A task below this offset of which nothing is durable that must come of it.
    pub(super) fn tasks_below(&self, offset: u64) -> Option<u64> {
        let taken = |(offset, expected): &(&u64, &Expected)| {
            **expected != Expected::Run || self.taken.contains_key(*offset)
        };
        self.tasks.range(..offset).find(|task| !taken(task)).map(|(&offset, _)| offset)
    }
}
