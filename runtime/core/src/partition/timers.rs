//! The ordered index of what happens by itself when its time comes.

use std::collections::BTreeSet;

use crate::{ids::RunId, plan::StepIndex, time::Timestamp};

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The run fails as a timeout.
    Deadline,
    /// The step's next attempt starts.
    Retry(u32),
}

/// All timers of a partition.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Timers(BTreeSet<(Timestamp, RunId, Timer)>);

impl Timers {
    pub(super) fn set(&mut self, due: Timestamp, run: RunId, timer: Timer) {
        self.0.insert((due, run, timer));
    }

    pub(super) fn clear(&mut self, due: Timestamp, run: RunId, timer: Timer) {
        self.0.remove(&(due, run, timer));
    }

    pub(super) fn has(&self, due: Timestamp, run: RunId, timer: Timer) -> bool {
        self.0.contains(&(due, run, timer))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn first(&self) -> Option<Timestamp> {
        self.0.first().map(|&(due, ..)| due)
    }

    /// The run whose timer comes first, if that is due at `now`; it stays until its event clears it.
    pub(super) fn due(&self, now: Timestamp) -> Option<RunId> {
        self.0.first().filter(|&&(due, ..)| due <= now).map(|&(_, run, _)| run)
    }
}

/// A step's retry timer.
pub(super) fn retry(step: StepIndex) -> Timer {
    Timer::Retry(u32::try_from(step).unwrap_or(u32::MAX))
}
