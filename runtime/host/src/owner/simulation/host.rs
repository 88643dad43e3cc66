//! One host's owner of the partition, turned by hand: it does what it can until it waits.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::FutureExt;
use reipaz_core::{
    ids::{AttemptId, RunId},
    partition::{Input, PartitionConfig, StepStatus},
};
use reipaz_journal::Journal;
use reipaz_simulation::explain;
use tokio::sync::{mpsc, watch};

use super::{
    clock::SimulatedClock, executor::SimulatedExecutor, intake::SimulatedIntake, intake::Topics,
    journal::SimulatedJournal,
};
use crate::alerts::Tap;
use crate::owner::{Executor, Owner, OwnerError, OwnerParts, OwnerStatus, TaskRules, Turned};

/// An owner that does not come to rest within so many turns goes round in circles.
const TURNS: usize = 20_000;

/// What all hosts have in common.
pub(super) struct Shared {
    pub(super) journal: SimulatedJournal,
    pub(super) topics: Arc<Mutex<Topics>>,
    pub(super) clock: Arc<SimulatedClock>,
    pub(super) config: PartitionConfig,
    pub(super) checkpoint_bytes: u64,
    pub(super) rules: Option<TaskRules>,
}

/// See the module.
pub(super) struct Host {
    life: Life,
    pub(super) epoch: u64,
    pub(super) intake: SimulatedIntake,
    pub(super) executor: SimulatedExecutor,
    outcomes: mpsc::Sender<Input>,
    stored: watch::Sender<u64>,
    stop: watch::Sender<Option<Duration>>,
    /// It is not scheduled: a paused machine, a stopped process.
    pub(super) stands_still: bool,
    /// It was replaced while it stood still for longer than it may without proving itself: after so many questions. It answers
    /// none that comes later.
    pub(super) replaced_at: Option<u64>,
    seen: HashMap<RunId, u32>,
}

type Turning<'o> = Pin<Box<dyn Future<Output = Result<Turned, OwnerError>> + 'o>>;

/// A turn that goes on while time passes.
pub(super) struct Turn<'o> {
    future: Option<Turning<'o>>,
    turned: Option<Result<Turned, OwnerError>>,
}

impl Turn<'_> {
    /// Whether it has come to an end.
    pub(super) fn look(&mut self) {
        if let Some(turned) = self.future.as_mut().and_then(FutureExt::now_or_never) {
            (self.future, self.turned) = (None, Some(turned));
        }
    }

    pub(super) fn turned(self) -> Option<Result<Turned, OwnerError>> {
        self.turned
    }
}

type Draining = Pin<Box<dyn Future<Output = Result<(), OwnerError>>>>;

enum Life {
    Running(Box<Owner<SimulatedExecutor>>),
    Stopping(Draining),
    Over,
}

impl Host {
    /// Takes the partition over.
    pub(super) fn take_over(shared: &Shared) -> Self {
        let (outcomes, received) = mpsc::channel(4_096);
        let (stored, is_stored) = watch::channel(0);
        let (stop, stopped) = watch::channel(None);
        let mut intake = SimulatedIntake::new(&shared.topics);
        let (clean_stop, random) = {
            let mut durable = shared.journal.lock();
            (durable.clean_stop(), durable.fork())
        };
        let executor = SimulatedExecutor::new(&shared.journal, clean_stop, random);
        let parts = OwnerParts {
            partition: 0,
            journal: Arc::new(shared.journal.clone()) as Arc<dyn Journal>,
            attempts: executor.clone(),
            clock: Arc::clone(&shared.clock) as Arc<dyn crate::clock::Clock>,
            outcomes: received,
            stored: is_stored,
            config: shared.config.clone(),
            checkpoint_bytes: shared.checkpoint_bytes,
            status: Arc::<OwnerStatus>::default(),
            stop: stopped,
            alerts: Tap::unheard(),
            tasks: shared.rules.clone(),
        };
        let recovered = Owner::recover(parts, &mut intake).now_or_never();
        let owner = recovered.expect("the journal is at hand").unwrap();
        let epoch = shared.journal.lock().epoch;
        Self {
            life: Life::Running(Box::new(owner)),
            epoch,
            intake,
            executor,
            outcomes,
            stored,
            stop,
            stands_still: false,
            replaced_at: None,
            seen: HashMap::new(),
        }
    }

    /// The owner, unless it is stopping.
    pub(super) fn owner(&self) -> Option<&Owner<SimulatedExecutor>> {
        match &self.life {
            Life::Running(owner) => Some(owner),
            Life::Stopping(_) | Life::Over => None,
        }
    }

    /// One turn, to be looked at while time passes.
    pub(super) fn turn(&mut self) -> Turn<'_> {
        match &mut self.life {
            Life::Running(owner) if !self.stands_still => {
                Turn { future: Some(Box::pin(owner.turn(&mut self.intake))), turned: None }
            }
            _ => Turn { future: None, turned: None },
        }
    }

    /// What came of a turn.
    pub(super) fn has_turned(&mut self, turned: Result<Turned, OwnerError>, shared: &Shared) {
        match turned {
            Ok(Turned::GoOn) => self.check(shared),
            Ok(Turned::Stop) => {
                if let Life::Running(mut owner) = std::mem::replace(&mut self.life, Life::Over) {
                    self.life = Life::Stopping(Box::pin(async move { owner.drain().await }));
                }
            }
            Err(_) => self.is_over(),
        }
    }

    /// Turns until it waits. False: it is gone.
    pub(super) fn goes_on(&mut self, shared: &Shared) -> bool {
        if self.stands_still {
            return true;
        }
        for _ in 0..TURNS {
            match &mut self.life {
                Life::Running(owner) => {
                    let Some(turned) = owner.turn(&mut self.intake).now_or_never() else { return true };
                    self.has_turned(turned, shared);
                }
                Life::Stopping(draining) => match draining.now_or_never() {
                    None => return true,
                    Some(_) => self.is_over(),
                },
                Life::Over => return false,
            }
        }
        panic!("the owner goes round in circles");
    }

    /// As whoever runs an owner does when it has ended.
    fn is_over(&mut self) {
        self.life = Life::Over;
        self.executor.cancel_all();
    }

    pub(super) fn give(&self, input: Input) {
        assert!(self.outcomes.try_send(input).is_ok(), "the queue of outcomes is long");
    }

    pub(super) fn store(&self, position: u64) {
        self.stored.send_replace(position);
    }

    pub(super) fn stop(&self, patience: Duration) {
        self.stop.send_replace(Some(patience));
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop.borrow().is_some()
    }

    /// What must hold after every turn.
    fn check(&mut self, shared: &Shared) {
        let Life::Running(owner) = &self.life else { return };
        owner.core.check_invariants().unwrap();
        for run in owner.core.runs() {
            if self.seen.insert(run.id(), run.seq()) != Some(run.seq()) {
                explain(run);
            }
        }
        let durable = shared.journal.lock();
        if durable.epoch != self.epoch || !owner.gate.is_idle() {
            return;
        }
        assert!(owner.core == durable.truth.partition, "the state is the fold of the journal");
        drop(durable);
        self.nothing_is_executed_in_vain(owner);
        self.nothing_is_forgotten(owner);
    }

    /// Everything decided is durable: what is executed is waited for.
    fn nothing_is_executed_in_vain(&self, owner: &Owner<SimulatedExecutor>) {
        for (id, execution) in &self.executor.lock().executing {
            let wanted = super::truth::is_in_flight(&owner.core, id.run, &id.path, id.attempt)
                && owner.core.run(id.run).is_some_and(|run| run.accepted().seed == execution.run_seed);
            assert!(wanted, "{id:?} is executed and nobody waits for it");
        }
    }

    /// And what is waited for is executed, once everything is taken up.
    fn nothing_is_forgotten(&self, owner: &Owner<SimulatedExecutor>) {
        let all_taken_up = owner.core.next_timer().is_none_or(|due| due > owner.core.last_time());
        if !all_taken_up || self.outcomes.capacity() < self.outcomes.max_capacity() {
            return;
        }
        let executor = self.executor.lock();
        for run in owner.core.runs() {
            let running = run.steps().filter(|step| step.status == StepStatus::Running);
            for step in running {
                let id = AttemptId { run: run.id(), path: step.path.clone(), attempt: step.attempts };
                assert!(executor.executing.contains_key(&id), "{id:?} is waited for and not executed");
            }
        }
    }
}
