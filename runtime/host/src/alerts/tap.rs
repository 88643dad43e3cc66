//! Where owners tell of what went wrong. An owner pays a look at each event, and for those that matter a few counted
//! references and a place in a bounded queue; whatever does not fit is dropped and counted. Everything else happens
//! elsewhere (`watch`).

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use reipaz_core::{
    event::{AttemptResult, Event, Fact, RunEvent},
    failure::{ErrorClass, Failure, STEP_TIMEOUT},
    ids::{RunId, StepPath},
    partition::Partition,
    plan::Plan,
};
use tokio::sync::mpsc;

/// Cases that wait to be looked at. A case is a few hundred bytes.
const QUEUED: usize = 4_096;

/// Longer details of a failure are not read for the authority.
const DETAILS_BYTES: usize = 8 << 10;

/// The code of a run that the host ended for its time.
const RUN_TIMEOUT: &str = "run_timeout";

/// Something that went wrong, durably.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) run: RunId,
    pub(super) partition: u32,
    pub(super) plan: Arc<Plan>,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// An attempt of this step failed.
    Attempt { path: StepPath, failure: Failure },
    /// A step's, or the run's, time was over.
    Late { step: Option<StepPath>, message: Arc<str> },
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Tap {
    queue: mpsc::Sender<Wrong>,
    dropped: Arc<AtomicU64>,
}

/// Tells of it; to be called once the event is durable.
pub(crate) type Tell = Box<dyn FnOnce() + Send>;

impl Tap {
    /// One that nobody listens to.
    #[cfg(test)]
    pub(crate) fn unheard() -> Self {
        Self::new(Arc::default()).0
    }

    pub(super) fn new(dropped: Arc<AtomicU64>) -> (Self, mpsc::Receiver<Wrong>) {
        let (queue, receiver) = mpsc::channel(QUEUED);
        (Self { queue, dropped }, receiver)
    }

    /// What there is to tell of an event that `core` has just decided.
    pub(crate) fn look(&self, partition: u32, event: &Event, core: &Partition) -> Option<Tell> {
        let Event::Run(RunEvent { run, fact, .. }) = event else { return None };
        let what = what(fact)?;
        let plan = Arc::clone(core.run(*run)?.plan());
        let (this, wrong) = (self.clone(), Wrong { run: *run, partition, plan, what });
        Some(Box::new(move || {
            if this.queue.try_send(wrong).is_err() {
                this.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }))
    }
}

fn what(fact: &Fact) -> Option<What> {
    match fact {
        Fact::AttemptFinished(finished) => match &finished.result {
            // Somebody's wish is nobody's fault.
            AttemptResult::Output(_) | AttemptResult::Error(Failure { class: ErrorClass::Cancelled, .. }) => {
                None
            }
            AttemptResult::Error(failure) if &*failure.code == STEP_TIMEOUT => {
                Some(What::Late { step: Some(finished.path.clone()), message: Arc::clone(&failure.message) })
            }
            AttemptResult::Error(failure) => {
                let mut failure = failure.clone();
                failure.details.take_if(|details| details.len() > DETAILS_BYTES);
                Some(What::Attempt { path: finished.path.clone(), failure })
            }
        },
        Fact::RunFinished(finished) => {
            let error = finished.error.as_ref().filter(|error| &*error.code == RUN_TIMEOUT)?;
            Some(What::Late { step: None, message: Arc::clone(&error.message) })
        }
        _ => None,
    }
}
