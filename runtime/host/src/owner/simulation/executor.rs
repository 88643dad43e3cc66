//! What executes attempts: it takes as long as the world wants, and checks what it is asked to do against what is durable.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    task::Poll,
    time::Duration,
};

use reipaz_core::{
    event::AttemptResult,
    failure::{ErrorClass, Failure},
    ids::{AttemptId, RunId},
    partition::{EvaluateOutput, Input, OutputDone, StartAttempt},
    plan::Condition,
};
use reipaz_simulation::{QUIET, Random};
use tokio::{task::JoinHandle, time::Instant};

use super::journal::SimulatedJournal;
use crate::owner::{Executor, QUIET_AFTER_UNCLEAN_STOP};

/// One owner's attempts.
#[derive(Clone)]
pub(super) struct SimulatedExecutor {
    journal: SimulatedJournal,
    inner: Arc<Mutex<Inner>>,
}

pub(super) struct Inner {
    random: Random,
    /// Nothing starts early before.
    early_from: Instant,
    pub(super) executing: BTreeMap<AttemptId, Execution>,
    /// By run, seq and the run's seed, which tells runs of one id apart.
    pub(super) evaluating: BTreeSet<(RunId, u32, [u8; 32])>,
    /// Told once, and able to come again.
    pub(super) past: Vec<AttemptId>,
    stopping: bool,
    one_ended: bool,
}

/// What is known of an attempt under way.
#[derive(Clone)]
pub(super) struct Execution {
    /// Its step has a condition.
    pub(super) conditional: bool,
    pub(super) run_seed: [u8; 32],
}

impl SimulatedExecutor {
    pub(super) fn new(journal: &SimulatedJournal, clean_stop: bool, random: Random) -> Self {
        let quiet = if clean_stop { Duration::ZERO } else { QUIET_AFTER_UNCLEAN_STOP };
        let inner = Inner {
            random,
            early_from: Instant::now() + quiet,
            executing: BTreeMap::new(),
            evaluating: BTreeSet::new(),
            past: Vec::new(),
            stopping: false,
            one_ended: false,
        };
        Self { journal: journal.clone(), inner: Arc::new(Mutex::new(inner)) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Its outcome is about to be told.
    pub(super) fn end(&self, id: &AttemptId) {
        let mut inner = self.lock();
        inner.executing.remove(id);
        inner.past.push(id.clone());
        inner.one_ended = true;
    }
}

impl Executor for SimulatedExecutor {
    fn is_silent(&self, start: &StartAttempt) -> bool {
        start.plan.steps[start.step].plugin.name == QUIET
    }

    fn start(&self, start: StartAttempt) {
        let mut inner = self.lock();
        if !self.journal.lock().truth.knows_start(&start) {
            assert!(self.is_silent(&start), "{:?} is seen before its start is durable", start.id);
            let quiet = Instant::now() < inner.early_from;
            assert!(!quiet, "{:?} starts early after an unclean stop", start.id);
        }
        if inner.stopping {
            return;
        }
        let conditional = matches!(start.plan.steps[start.step].condition, Condition::Holds(_));
        let execution = Execution { conditional, run_seed: start.run_seed };
        let doubled = inner.executing.insert(start.id.clone(), execution);
        assert!(doubled.is_none(), "{:?} is executed twice at once", start.id);
    }

    fn cancel(&self, id: &AttemptId) {
        let mut inner = self.lock();
        if inner.executing.remove(id).is_some() {
            inner.past.push(id.clone());
            inner.one_ended = true;
        }
    }

    fn cancel_all(&self) {
        self.lock().executing.clear();
    }

    fn stop_starting(&self) {
        self.lock().stopping = true;
    }

    fn running(&self) -> usize {
        self.lock().executing.len()
    }

    async fn one_ended(&self) {
        std::future::poll_fn(|_| match std::mem::take(&mut self.lock().one_ended) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    fn evaluate_output(&self, ask: EvaluateOutput) -> Option<Input> {
        let mut inner = self.lock();
        if inner.random.percent(30) {
            let failed = inner.random.percent(20);
            drop(inner);
            return Some(self.evaluated(ask.run, ask.seq, failed));
        }
        let first = inner.evaluating.insert((ask.run, ask.seq, ask.run_seed));
        assert!(first, "the output of {} is evaluated twice at once", ask.run);
        None
    }

    fn aside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        // Often done while a commit still lingers.
        let takes = Duration::from_millis(self.lock().random.one_of(&[0, 0, 0, 20]));
        tokio::spawn(async move {
            if !takes.is_zero() {
                tokio::time::sleep(takes).await;
            }
            work()
        })
    }
}

impl SimulatedExecutor {
    /// What came of evaluating an output.
    pub(super) fn evaluated(&self, run: RunId, seq: u32, failed: bool) -> Input {
        let token = self.journal.lock().truth.token_for_output(run, seq);
        let result = if failed {
            AttemptResult::Error(Failure::new(ErrorClass::Resource, "no_output", "there is none"))
        } else {
            AttemptResult::Output(token.to_string().into())
        };
        Input::OutputDone(OutputDone { run, seq, result })
    }
}
