//! A partition's time: the wall clock, never behind what is journalled. Setting the wall clock back neither repeats
//! nor loses a moment; setting it forward is taken as it is.
//!
//! What a machine tells of the time is a port, [`Clock`], so that tests can have it jump and stand still; how long something
//! takes is told by tokio's clock.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use reipaz_core::time::Timestamp;
use tokio::time::Instant;

/// A machine's clocks.
pub(crate) trait Clock: Send + Sync {
    /// The wall clock, which may be set forward and back.
    fn wall(&self) -> Timestamp;

    /// Time since the machine started, which goes on while it or this process stands still.
    fn boot_time(&self) -> Duration;
}

/// The clocks of the machine that this runs on.
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        wall()
    }

    fn boot_time(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    }
}

/// max(wall clock, last journalled time + monotonic time since).
pub(crate) struct PartitionClock {
    clock: Arc<dyn Clock>,
    floor: Timestamp,
    since: Instant,
}

impl PartitionClock {
    /// A clock for a partition whose last journalled time is `floor`.
    pub(crate) fn new(clock: Arc<dyn Clock>, floor: Timestamp) -> Self {
        Self { clock, floor, since: Instant::now() }
    }

    /// Now.
    pub(crate) fn now(&mut self) -> Timestamp {
        let elapsed = self.since.elapsed();
        let now = self.clock.wall().max(self.floor.plus(elapsed));
        // Re-anchoring keeps what was handed out as the floor.
        self.floor = now;
        self.since = Instant::now();
        now
    }

    /// How long until `moment`; zero if it has passed.
    pub(crate) fn until(&mut self, moment: Timestamp) -> Duration {
        moment.since(self.now())
    }
}

/// The wall clock.
pub(crate) fn wall() -> Timestamp {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    Timestamp(u64::try_from(micros).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_goes_behind_the_journal() {
        let ahead = wall().plus(Duration::from_secs(3600));
        let mut clock = PartitionClock::new(Arc::new(SystemClock), ahead);
        let first = clock.now();
        assert!(first >= ahead);
        assert!(clock.now() >= first);
    }
}
