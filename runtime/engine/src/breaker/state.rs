//! One circuit breaker as a value: asked before each call, told after it, with the time as an argument.
//!
//! Closed, it counts outcomes over a rolling window; at enough failures, and a high enough share of them, it opens. Open, it
//! refuses everything for a while, then lets a few probes through: when all of them pass it closes, when one fails it opens
//! for twice as long (Nygard, "Release It!", 2007, chapter 5).

use std::time::Duration;

use tokio::time::Instant;

/// Parts of the rolling window: one goes at a time.
const SLICES: usize = 10;

/// When breakers open, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerRules {
    /// Whether there are breakers at all.
    pub enabled: bool,
    /// The time over which outcomes are counted.
    pub window: Duration,
    /// So many failures in it, at least, open a breaker...
    pub failures: u32,
    /// ...if they are this share of all outcomes: above 0, at most 1.
    pub share: f64,
    /// How long a breaker stays open the first time; twice as long after each probe that fails.
    pub open_for: Duration,
    /// And never longer than this.
    pub open_for_max: Duration,
    /// So many probes must pass to close it.
    pub probes: u32,
}

impl Default for BreakerRules {
    /// 50 failures in 30 s, half of all outcomes; open for 5 s up to 60 s; three probes.
    fn default() -> Self {
        Self {
            enabled: true,
            window: Duration::from_secs(30),
            failures: 50,
            share: 0.5,
            open_for: Duration::from_secs(5),
            open_for_max: Duration::from_secs(60),
            probes: 3,
        }
    }
}

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Everything goes through.
    Closed,
    /// A few probes go through.
    HalfOpen,
    /// Nothing does.
    Open,
}

impl BreakerState {
    /// The word in JSON, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

/// How a call went, as far as the breaker is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Passed,
    Failed,
    /// It says nothing about the other side.
    Nothing,
}

#[derive(Debug)]
pub(super) struct Breaker {
    rules: BreakerRules,
    phase: Phase,
    /// Calls let through in an earlier phase are not listened to.
    pub(super) phase_number: u64,
    /// How often it has opened since it was last closed.
    openings: u32,
}

#[derive(Debug)]
enum Phase {
    Closed(Window),
    /// Without a time it was opened by hand, and is closed by hand.
    Open {
        until: Option<Instant>,
    },
    HalfOpen {
        out: u32,
        passed: u32,
        /// When one more probe is let through, in case those that are out take long.
        more_at: Instant,
    },
}

/// Outcomes of the last while, in slices.
#[derive(Debug)]
struct Window {
    slices: [Counts; SLICES],
    newest: usize,
    newest_began: Instant,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: u32,
    pub(super) failed: u32,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self { slices: Default::default(), newest: 0, newest_began: now }
    }

    fn turn(&mut self, now: Instant, length: Duration) {
        let slice = (length / SLICES as u32).max(Duration::from_millis(1));
        let past = now.saturating_duration_since(self.newest_began).as_micros() / slice.as_micros();
        let past = u32::try_from(past).unwrap_or(u32::MAX);
        for _ in 0..past.min(SLICES as u32) {
            self.newest = (self.newest + 1) % SLICES;
            self.slices[self.newest] = Counts::default();
        }
        self.newest_began += slice.saturating_mul(past);
    }

    fn counts(&self) -> Counts {
        let add = |sum: Counts, slice: &Counts| Counts {
            passed: sum.passed.saturating_add(slice.passed),
            failed: sum.failed.saturating_add(slice.failed),
        };
        self.slices.iter().fold(Counts::default(), add)
    }
}

impl Breaker {
    pub(super) fn new(rules: BreakerRules, now: Instant) -> Self {
        Self { rules, phase: Phase::Closed(Window::new(now)), phase_number: 0, openings: 0 }
    }

    /// Whether a call may go through; if not, when to ask again.
    pub(super) fn ask(&mut self, now: Instant) -> Result<(), Duration> {
        if let Phase::Open { until: Some(until) } = self.phase
            && until <= now
        {
            let more_at = now + self.rules.open_for;
            self.enter(Phase::HalfOpen { out: 0, passed: 0, more_at });
        }
        match &mut self.phase {
            Phase::Closed(_) => Ok(()),
            Phase::HalfOpen { out, passed, .. } if *out + *passed < self.rules.probes => {
                *out += 1;
                Ok(())
            }
            Phase::HalfOpen { out, more_at, .. } if *more_at <= now => {
                *out += 1;
                *more_at = now + self.rules.open_for;
                Ok(())
            }
            Phase::HalfOpen { .. } => Err(self.rules.open_for),
            Phase::Open { until: None } => Err(self.rules.open_for_max),
            Phase::Open { until: Some(until) } => Err(until.saturating_duration_since(now)),
        }
    }

    /// How a call went that was let through in that phase.
    pub(super) fn tell(&mut self, phase_number: u64, told: Told, now: Instant) {
        if phase_number != self.phase_number {
            return;
        }
        match &mut self.phase {
            Phase::Closed(window) => {
                window.turn(now, self.rules.window);
                let slice = &mut window.slices[window.newest];
                match told {
                    Told::Passed => slice.passed = slice.passed.saturating_add(1),
                    Told::Failed => slice.failed = slice.failed.saturating_add(1),
                    Told::Nothing => {}
                }
                let Counts { passed, failed } = window.counts();
                let share = f64::from(failed) / f64::from(failed.saturating_add(passed).max(1));
                if told == Told::Failed && failed >= self.rules.failures && share >= self.rules.share {
                    self.open(now);
                }
            }
            Phase::HalfOpen { out, passed, .. } => {
                *out = out.saturating_sub(1);
                match told {
                    Told::Failed => return self.open(now),
                    Told::Passed => *passed += 1,
                    Told::Nothing => {}
                }
                if *passed >= self.rules.probes {
                    self.close(now);
                }
            }
            Phase::Open { .. } => {}
        }
    }

    fn open(&mut self, now: Instant) {
        let until = now + self.open_time(self.openings);
        self.openings += 1;
        self.enter(Phase::Open { until: Some(until) });
    }

    /// By hand, until it is closed by hand.
    pub(super) fn hold_open(&mut self) {
        self.enter(Phase::Open { until: None });
    }

    pub(super) fn close(&mut self, now: Instant) {
        self.openings = 0;
        self.enter(Phase::Closed(Window::new(now)));
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.phase_number += 1;
    }

    pub(super) fn state(&self) -> BreakerState {
        match self.phase {
            Phase::Closed(_) => BreakerState::Closed,
            Phase::HalfOpen { .. } => BreakerState::HalfOpen,
            Phase::Open { .. } => BreakerState::Open,
        }
    }

    pub(super) fn is_held(&self) -> bool {
        matches!(self.phase, Phase::Open { until: None })
    }

    /// What it counts now; nothing unless it is closed.
    pub(super) fn counts(&mut self, now: Instant) -> Counts {
        let Phase::Closed(window) = &mut self.phase else { return Counts::default() };
        window.turn(now, self.rules.window);
        window.counts()
    }

    /// For how long what it refuses is spread: as long as it is open at a time.
    pub(super) fn spread(&self) -> Duration {
        match self.phase {
            Phase::Open { until: None } => self.rules.open_for_max,
            _ => self.open_time(self.openings.saturating_sub(1)),
        }
    }

    fn open_time(&self, earlier: u32) -> Duration {
        self.rules.open_for.saturating_mul(1 << earlier.min(16)).min(self.rules.open_for_max)
    }

    /// When it lets probes through.
    pub(super) fn opens_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Open { until } => until,
            _ => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    struct Test {
        breaker: Breaker,
        now: Instant,
    }

    impl Test {
        fn new() -> Self {
            let rules = BreakerRules {
                window: 10 * SECOND,
                failures: 4,
                probes: 2,
                open_for: 5 * SECOND,
                open_for_max: 15 * SECOND,
                ..BreakerRules::default()
            };
            let now = Instant::now();
            Self { breaker: Breaker::new(rules, now), now }
        }

        fn call(&mut self, told: Told) -> Result<(), Duration> {
            self.breaker.ask(self.now)?;
            self.breaker.tell(self.breaker.phase_number, told, self.now);
            Ok(())
        }

        fn calls(&mut self, told: Told, count: usize) {
            (0..count).for_each(|_| self.call(told).unwrap());
        }
    }

    #[test]
    fn it_opens_at_enough_failures_that_are_a_large_enough_share() {
        let mut test = Test::new();
        test.calls(Told::Failed, 3);
        assert_eq!(test.breaker.state(), BreakerState::Closed, "too few");
        test.calls(Told::Passed, 5);
        test.calls(Told::Failed, 1);
        assert_eq!(test.breaker.state(), BreakerState::Closed, "4 of 9");
        test.calls(Told::Nothing, 10);
        test.calls(Told::Failed, 1);
        assert_eq!(test.breaker.state(), BreakerState::Open, "5 of 10");
        assert_eq!(test.call(Told::Passed), Err(5 * SECOND));
    }

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let mut test = Test::new();
        test.calls(Told::Failed, 3);
        test.now += 11 * SECOND;
        test.calls(Told::Failed, 3);
        assert_eq!(test.breaker.state(), BreakerState::Closed);
        test.now += 5 * SECOND;
        assert_eq!(test.breaker.counts(test.now).failed, 3);
        test.calls(Told::Failed, 1);
        assert_eq!(test.breaker.state(), BreakerState::Open, "those of 5 s ago do");
    }

    #[test]
    fn probes_close_it_or_open_it_for_longer_and_longer() {
        let mut test = Test::new();
        test.calls(Told::Failed, 4);
        for longer in [5, 10, 15, 15] {
            test.now += longer * SECOND - Duration::from_millis(1);
            assert_eq!(test.call(Told::Passed), Err(Duration::from_millis(1)));
            test.now += Duration::from_millis(1);
            test.call(Told::Failed).unwrap();
            assert_eq!(test.breaker.state(), BreakerState::Open);
        }
        test.now += 15 * SECOND;
        test.calls(Told::Passed, 1);
        assert_eq!(test.breaker.state(), BreakerState::HalfOpen);
        test.calls(Told::Passed, 1);
        assert_eq!(test.breaker.state(), BreakerState::Closed);
        test.calls(Told::Failed, 4);
        assert_eq!(test.call(Told::Passed), Err(5 * SECOND), "it begins again with the shortest time");
    }

    #[test]
    fn no_more_probes_are_out_than_are_needed() {
        let mut test = Test::new();
        test.calls(Told::Failed, 4);
        test.now += 5 * SECOND;
        let phase = test.breaker.phase_number + 1;
        assert_eq!(
            (0..3).map(|_| test.breaker.ask(test.now).is_ok()).collect::<Vec<_>>(),
            [true, true, false]
        );
        // One that says nothing leaves its place to another.
        test.breaker.tell(phase, Told::Nothing, test.now);
        assert!(test.breaker.ask(test.now).is_ok());
        assert!(test.breaker.ask(test.now).is_err());
    }

    #[test]
    fn a_probe_that_takes_long_does_not_keep_it_half_open() {
        let mut test = Test::new();
        test.calls(Told::Failed, 4);
        test.now += 5 * SECOND;
        let phase = test.breaker.phase_number + 1;
        for _ in 0..2 {
            test.breaker.ask(test.now).unwrap();
        }
        for _ in 0..2 {
            assert_eq!(test.breaker.ask(test.now), Err(5 * SECOND));
            test.now += 5 * SECOND;
            test.breaker.ask(test.now).unwrap();
            test.breaker.tell(phase, Told::Passed, test.now);
        }
        assert_eq!(test.breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn what_was_let_through_before_it_opened_is_not_listened_to() {
        let mut test = Test::new();
        test.breaker.ask(test.now).unwrap();
        let before = test.breaker.phase_number;
        test.calls(Told::Failed, 4);
        test.now += 5 * SECOND;
        test.calls(Told::Passed, 1);
        test.breaker.tell(before, Told::Failed, test.now);
        assert_eq!(test.breaker.state(), BreakerState::HalfOpen);
    }

    #[test]
    fn a_hand_holds_it_open_until_a_hand_closes_it() {
        let mut test = Test::new();
        test.breaker.hold_open();
        test.now += 100 * SECOND;
        assert!(test.call(Told::Passed).is_err());
        test.breaker.close(test.now);
        test.calls(Told::Passed, 1);
    }
}
