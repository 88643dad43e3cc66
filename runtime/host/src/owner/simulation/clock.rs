//! A machine's clocks as the world sets them. What passes, passes on tokio's paused clock; the wall clock jumps besides.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use reipaz_core::time::Timestamp;
use tokio::{runtime::Handle, time::Instant};

use crate::clock::Clock;

/// When every story begins, microseconds.
const BEGIN: i64 = 1_800_000_000_000_000;

pub(super) struct SimulatedClock {
    /// Whose time it is: outside of it tokio tells the real one.
    runtime: Handle,
    began: Instant,
    /// How far the wall clock was set forward, microseconds.
    ahead: AtomicI64,
}

impl SimulatedClock {
    /// To be called within the runtime.
    pub(super) fn new() -> Self {
        Self { runtime: Handle::current(), began: Instant::now(), ahead: AtomicI64::new(0) }
    }

    pub(super) fn jump(&self, micros: i64) {
        self.ahead.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Clock for SimulatedClock {
    fn wall(&self) -> Timestamp {
        let elapsed = self.boot_time().as_micros() as i64;
        Timestamp((BEGIN + elapsed + self.ahead.load(Ordering::Relaxed)).max(0) as u64)
    }

    fn boot_time(&self) -> Duration {
        let _entered = self.runtime.enter();
        self.began.elapsed()
    }
}
