//! Which things happen more often than is tolerated. Pure: times are arguments, and never go back.
//!
//! Of each pattern the newest times are kept, as many as its threshold: it is over the threshold when the oldest of them lies
//! within the window. It is over with when that was not so for a whole window, so a rate around the threshold is one alert
//! and not many. What a guest says (a code) is part of a key, so the patterns are bounded: the one that was seen the
//! longest ago makes room.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    time::Duration,
};

use reipaz_core::time::Timestamp;

/// Patterns that are watched at one time.
pub(super) const PATTERNS_MAX: usize = 1_024;

/// See the module.
#[derive(Debug)]
pub(super) struct Patterns<K> {
    window: Duration,
    threshold: usize,
    max: usize,
    tracked: HashMap<K, Tracked>,
}

#[derive(Debug)]
struct Tracked {
    /// The newest times, at most the threshold.
    recent: VecDeque<Timestamp>,
    /// When it was over the threshold last, while it counts as that.
    over_at: Option<Timestamp>,
    /// Since it is over the threshold, those that brought it there included.
    count: u64,
    seen_at: Timestamp,
}

/// What one more case makes of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rate {
    /// Still tolerated.
    Below,
    /// Over the threshold, or not long enough below it again; seen so often since then.
    Over(u64),
    /// All patterns that fit are over the threshold: this one is not watched.
    Untracked,
}

impl<K: Eq + Hash + Clone> Patterns<K> {
    /// `threshold` (at least 1) within `window` is too much; at most `max` patterns.
    pub(super) fn new(threshold: u32, window: Duration, max: usize) -> Self {
        Self { window, threshold: threshold.max(1) as usize, max, tracked: HashMap::new() }
    }

    /// It has happened.
    pub(super) fn observe(&mut self, key: &K, now: Timestamp) -> Rate {
        if !self.tracked.contains_key(key) && self.tracked.len() >= self.max && !self.make_room() {
            return Rate::Untracked;
        }
        let (threshold, window) = (self.threshold, self.window);
        let tracked = self.tracked.entry(key.clone()).or_insert_with(|| Tracked {
            recent: VecDeque::new(),
            over_at: None,
            count: 0,
            seen_at: now,
        });
        tracked.seen_at = now;
        if tracked.recent.len() == threshold {
            tracked.recent.pop_front();
        }
        tracked.recent.push_back(now);
        let is_full = tracked.recent.len() == threshold;
        let over = is_full && tracked.recent.front().is_some_and(|first| now.since(*first) < window);
        if over {
            if tracked.over_at.is_none() {
                tracked.count = threshold as u64 - 1;
            }
            tracked.over_at = Some(now);
        }
        if tracked.over_at.is_none() {
            return Rate::Below;
        }
        tracked.count += 1;
        Rate::Over(tracked.count)
    }

    /// Those that are over with, and forgets what was not seen for a window.
    pub(super) fn ended(&mut self, now: Timestamp) -> Vec<K> {
        let window = self.window;
        let mut ended = Vec::new();
        for (key, tracked) in &mut self.tracked {
            if tracked.over_at.take_if(|over_at| now.since(*over_at) >= window).is_some() {
                tracked.count = 0;
                ended.push(key.clone());
            }
        }
        self.tracked.retain(|_, tracked| tracked.over_at.is_some() || now.since(tracked.seen_at) < window);
        ended
    }

    /// False: each is over the threshold.
    fn make_room(&mut self) -> bool {
        let below = self.tracked.iter().filter(|(_, tracked)| tracked.over_at.is_none());
        let oldest = below.min_by_key(|(_, tracked)| tracked.seen_at).map(|(key, _)| key.clone());
        oldest.is_some_and(|key| self.tracked.remove(&key).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn three_a_minute() -> Patterns<&'static str> {
        Patterns::new(3, Duration::from_secs(60), 4)
    }

    #[test]
    fn the_threshold_within_the_window_is_too_much_and_one_less_is_not() {
        let mut patterns = three_a_minute();
        assert_eq!(patterns.observe(&"a", at(0)), Rate::Below);
        assert_eq!(patterns.observe(&"a", at(30)), Rate::Below);
        assert_eq!(patterns.observe(&"b", at(31)), Rate::Below, "others count for themselves");
        assert_eq!(patterns.observe(&"a", at(60)), Rate::Below, "the first is a window old");
        assert_eq!(patterns.observe(&"a", at(61)), Rate::Over(3));
        assert_eq!(patterns.observe(&"a", at(62)), Rate::Over(4));
    }

    #[test]
    fn it_ends_a_whole_window_after_it_was_last_over() {
        let mut patterns = three_a_minute();
        for second in [0, 1, 2] {
            patterns.observe(&"a", at(second));
        }
        assert!(patterns.ended(at(61)).is_empty());
        // One a minute is tolerated, and does not keep the alert alive.
        assert_eq!(patterns.observe(&"a", at(61)), Rate::Over(4));
        assert_eq!(patterns.ended(at(62)), ["a"]);
        assert!(patterns.ended(at(63)).is_empty(), "it ends once");
        assert_eq!(patterns.observe(&"a", at(64)), Rate::Below);
    }

    #[test]
    fn a_rate_around_the_threshold_is_one_alert() {
        let mut patterns = three_a_minute();
        let mut ends = 0;
        for second in (0..600).step_by(25) {
            patterns.observe(&"a", at(second));
            ends += patterns.ended(at(second)).len();
        }
        assert_eq!(ends, 0);
    }

    #[test]
    fn what_is_seen_the_longest_ago_makes_room_and_what_is_over_stays() {
        let mut patterns = three_a_minute();
        for _ in 0..3 {
            patterns.observe(&"over", at(0));
        }
        for (second, key) in (1..).zip(["a", "b", "c", "d"]) {
            patterns.observe(&key, at(second));
            patterns.observe(&key, at(second));
        }
        assert_eq!(patterns.tracked.len(), 4);
        assert_eq!(patterns.observe(&"over", at(5)), Rate::Over(4));
        assert_eq!(patterns.observe(&"d", at(5)), Rate::Over(3), "the newest is still known");
        assert_eq!(patterns.observe(&"a", at(5)), Rate::Below, "it made room, and begins anew");
    }

    #[test]
    fn a_flood_of_patterns_that_are_all_over_is_told_apart() {
        let mut patterns = Patterns::new(1, Duration::from_secs(60), 2);
        assert_eq!(patterns.observe(&"a", at(0)), Rate::Over(1));
        assert_eq!(patterns.observe(&"b", at(0)), Rate::Over(1));
        assert_eq!(patterns.observe(&"c", at(0)), Rate::Untracked);
        assert_eq!(patterns.ended(at(60)).len(), 2);
        assert!(patterns.tracked.is_empty(), "nothing is kept of what is over with");
    }
}
