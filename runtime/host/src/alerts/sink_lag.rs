//! How far ClickHouse is behind one partition's journal. Pure.
//!
//! How old the oldest row is that is missing cannot be read off two positions. So a mark is set: the journal's end at some
//! moment. Until rows are stored up to the mark, something is missing that is at least as old as it; once they are, that is
//! how long it took, and a new mark is set. What is told is the larger of both, which follows a steady backlog without
//! falling to zero at each mark.

use std::time::Duration;

use reipaz_core::time::Timestamp;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct SinkLag {
    mark: Option<(Timestamp, u64)>,
    /// How long it took to reach the last mark.
    took: Duration,
}

/// What is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Missing {
    /// Journal records.
    pub(super) records: u64,
    /// For how long the oldest of them is missing, about.
    pub(super) since: Duration,
}

impl SinkLag {
    /// The journal's end is at `durable`, and rows are stored up to `stored`.
    pub(super) fn look(&mut self, now: Timestamp, durable: u64, stored: u64) -> Missing {
        if stored >= durable {
            *self = Self::default();
            return Missing::default();
        }
        if let Some((at, _)) = self.mark.take_if(|(_, position)| stored >= *position) {
            self.took = now.since(at);
        }
        let (at, _) = *self.mark.get_or_insert((now, durable));
        Missing { records: durable - stored, since: now.since(at).max(self.took) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn missing(records: u64, seconds: u64) -> Missing {
        Missing { records, since: Duration::from_secs(seconds) }
    }

    #[test]
    fn a_sink_that_stands_still_is_behind_for_as_long_as_it_does() {
        let mut lag = SinkLag::default();
        assert_eq!(lag.look(at(0), 10, 10), missing(0, 0));
        assert_eq!(lag.look(at(1), 12, 10), missing(2, 0));
        assert_eq!(lag.look(at(31), 900, 10), missing(890, 30));
        assert_eq!(lag.look(at(32), 900, 900), missing(0, 0), "it has caught up");
        assert_eq!(lag.look(at(33), 901, 900), missing(1, 0));
    }

    #[test]
    fn a_steady_backlog_shows_its_age_all_the_time() {
        // 10 records a second, stored 30 s later.
        let mut lag = SinkLag::default();
        let mut least = Duration::MAX;
        for second in 0..300 {
            let now = lag.look(at(second), second * 10 + 10, second.saturating_sub(30) * 10 + 5);
            if second > 60 {
                least = least.min(now.since);
            }
            assert!(now.since <= Duration::from_secs(32), "{now:?} at {second}");
        }
        assert!(least >= Duration::from_secs(29), "{least:?}");
    }

    #[test]
    fn a_busy_sink_that_keeps_up_is_not_behind() {
        let mut lag = SinkLag::default();
        for second in 0..100 {
            // Never quite at the end, since more comes all the time.
            let now = lag.look(at(second), second * 1_000, (second * 1_000).saturating_sub(400));
            assert!(now.since <= Duration::from_secs(1), "{now:?}");
        }
    }
}
