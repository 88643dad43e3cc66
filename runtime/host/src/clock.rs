//! A partition's time: the wall clock, never behind what is journalled. Setting the wall clock back neither repeats
//! nor loses a moment; setting it forward is taken as it is.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use reipaz_core::time::Timestamp;

/// max(wall clock, last journalled time + monotonic time since).
#[derive(Debug)]
pub(crate) struct PartitionClock {
    floor: Timestamp,
    since: Instant,
}

impl PartitionClock {
    /// A clock for a partition whose last journalled time is `floor`.
    pub(crate) fn new(floor: Timestamp) -> Self {
        Self { floor, since: Instant::now() }
    }

    /// Now.
    pub(crate) fn now(&mut self) -> Timestamp {
        let elapsed = self.since.elapsed();
        let now = wall().max(self.floor.plus(elapsed));
        // Re-anchoring keeps what was handed out as the floor.
        self.floor = now;
        self.since = Instant::now();
        now
    }

    /// How long until `moment`; zero if it has passed.
    pub(crate) fn until(&mut self, moment: Timestamp) -> std::time::Duration {
        moment.since(self.now())
    }
}

/// Time since the machine started, which goes on while it or this process stands still.
pub(crate) fn boot_time() -> std::time::Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    std::time::Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
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
        let ahead = wall().plus(std::time::Duration::from_secs(3600));
        let mut clock = PartitionClock::new(ahead);
        let first = clock.now();
        assert!(first >= ahead);
        assert!(clock.now() >= first);
    }
}
