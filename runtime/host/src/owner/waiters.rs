//! Who waits for which run. A decision that brings a run so far readies the answer at once; the gate says it when it
//! may be said. Nobody polls.

use std::collections::HashMap;

use reipaz_core::{ids::RunId, partition::Run};
use tokio::sync::oneshot;

use super::command::Submitted;
use crate::{
    facade::{Standing, WaitUntil},
    owner::gate::Answer,
    view,
};

/// Somebody who waits.
pub(crate) enum Waiter {
    /// A long poll.
    Standing(WaitUntil, oneshot::Sender<Option<Standing>>),
    /// A submission that wants the end.
    Submitted { existing: bool, answer: oneshot::Sender<Submitted> },
}

impl Waiter {
    fn until(&self) -> WaitUntil {
        match self {
            Self::Standing(until, _) => *until,
            Self::Submitted { .. } => WaitUntil::Terminal,
        }
    }

    fn has_gone(&self) -> bool {
        match self {
            Self::Standing(_, answer) => answer.is_closed(),
            Self::Submitted { answer, .. } => answer.is_closed(),
        }
    }

    /// The answer that shows `run` as it is now.
    pub(crate) fn answer(self, run: &Run) -> Answer {
        match self {
            Self::Standing(_, answer) => {
                let standing = view::standing(run);
                Box::new(move || {
                    // Whoever waited may have gone.
                    let _ = answer.send(Some(standing));
                })
            }
            Self::Submitted { existing, answer } => {
                let run = Box::new(view::run_view(run));
                Box::new(move || drop(answer.send(Submitted::Accepted { existing, run })))
            }
        }
    }
}

/// Whether `run` has come as far as `until` says.
pub(crate) fn is_met(until: WaitUntil, run: &Run) -> bool {
    run.status().is_terminal()
        || match until {
            WaitUntil::Terminal => false,
            WaitUntil::Beyond(seq) => run.seq() > seq,
        }
}

/// All who wait, by run.
#[derive(Default)]
pub(crate) struct Waiters {
    by_run: HashMap<RunId, Vec<Waiter>>,
}

impl Waiters {
    /// Adds one; those of the same run who have gone leave.
    pub(crate) fn add(&mut self, run: RunId, waiter: Waiter) {
        let waiting = self.by_run.entry(run).or_default();
        waiting.retain(|waiter| !waiter.has_gone());
        waiting.push(waiter);
    }

    /// Takes those whose run has come so far.
    pub(crate) fn take_met(&mut self, run: &Run) -> Vec<Waiter> {
        let Some(waiting) = self.by_run.get_mut(&run.id()) else { return Vec::new() };
        let met = waiting.extract_if(.., |waiter| is_met(waiter.until(), run)).collect();
        if waiting.is_empty() {
            self.by_run.remove(&run.id());
        }
        met
    }

    /// Drops those who have gone.
    pub(crate) fn sweep(&mut self) {
        self.by_run.retain(|_, waiting| {
            waiting.retain(|waiter| !waiter.has_gone());
            !waiting.is_empty()
        });
    }

    /// Drops everybody: their channels close, which tells them to look elsewhere.
    pub(crate) fn clear(&mut self) {
        self.by_run.clear();
    }
}
