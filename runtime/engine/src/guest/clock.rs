//! A guest's clocks: virtual, so that the same attempt reads the same times, and moving, so that a loop that waits for a
//! time ends.
//!
//! The rule: time starts where the attempt's journal says. Every look at a clock, and every question whether a sleep is over,
//! moves it by [`LOOK`]. A sleep really sleeps, and when it is over the time is at least its end; sleeps that run side by
//! side end one after another in the order of their ends, never two in one poll, whatever the machine's timers do.
//! Real time never comes in, not even with an answer from outside: an attempt that is executed again after its host was lost
//! reads what it read before.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;
use wasmtime::component::{HasData, Resource, ResourceTable};
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

/// What one look at a clock takes of virtual time: about what a host call takes of real time.
const LOOK: Duration = Duration::from_micros(1);

/// The clocks of one attempt.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    shared: Arc<Mutex<Time>>,
    start: Duration,
    really_started: Instant,
}

#[derive(Debug, Default)]
struct Time {
    since_start: Duration,
    /// Sleeps that somebody waits for, by their end and then their age.
    awaited: BTreeSet<(Duration, u64)>,
    wakers: Vec<(u64, Waker)>,
    sleeps: u64,
    /// How many sleeps have ended.
    ended: u64,
}

impl Clock {
    /// Clocks that start at so many microseconds since 1970.
    pub(crate) fn new(start_us: u64) -> Self {
        Self {
            shared: Arc::default(),
            start: Duration::from_micros(start_us),
            really_started: Instant::now(),
        }
    }

    /// The real time of this attempt's log lines: its start and what has really passed since.
    pub(crate) fn real_us(&self) -> u64 {
        let now = self.start + self.really_started.elapsed();
        u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
    }

    fn look(&self) -> Duration {
        let mut time = self.time();
        time.since_start += LOOK;
        time.since_start
    }

    fn time(&self) -> MutexGuard<'_, Time> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sleep_until(&self, end: Duration) -> Sleep {
        let now = self.look();
        let really = Instant::now().checked_add(end.saturating_sub(now));
        let mut time = self.time();
        time.sleeps += 1;
        Sleep { clock: self.clone(), end, really, age: time.sleeps }
    }
}

/// The clocks as WASI's interfaces see them.
pub(crate) struct ClockView<'a> {
    pub(crate) clock: &'a Clock,
    pub(crate) table: &'a mut ResourceTable,
}

/// Says to the linker where the clocks are.
pub(crate) struct Clocks;

impl HasData for Clocks {
    type Data<'a> = ClockView<'a>;
}

impl wall_clock::Host for ClockView<'_> {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        let now = self.clock.start + self.clock.look();
        Ok(wall_clock::Datetime { seconds: now.as_secs(), nanoseconds: now.subsec_nanos() })
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime { seconds: 0, nanoseconds: LOOK.subsec_nanos() })
    }
}

impl monotonic_clock::Host for ClockView<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(nanos(self.clock.look()))
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(nanos(LOOK))
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let sleep = self.clock.sleep_until(Duration::from_nanos(when));
        let sleep = self.table.push(sleep)?;
        subscribe(self.table, sleep)
    }

    fn subscribe_duration(&mut self, duration: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let end = self.clock.time().since_start.saturating_add(Duration::from_nanos(duration));
        let sleep = self.clock.sleep_until(end);
        let sleep = self.table.push(sleep)?;
        subscribe(self.table, sleep)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A sleep that a guest has subscribed to.
struct Sleep {
    clock: Clock,
    /// In virtual time since the start.
    end: Duration,
    /// In real time; none when it is too far off to be told.
    really: Option<Instant>,
    age: u64,
}

#[async_trait::async_trait]
impl Pollable for Sleep {
    async fn ready(&mut self) {
        if self.clock.look() >= self.end {
            return;
        }
        let turn = Turn { clock: self.clock.clone(), end: self.end, age: self.age, seen: None };
        turn.clock.time().awaited.insert((self.end, self.age));
        match self.really {
            Some(instant) => tokio::time::sleep_until(instant).await,
            None => std::future::pending().await,
        }
        turn.await;
    }
}

/// Waits until this sleep's end is the next and no other has ended in this poll.
struct Turn {
    clock: Clock,
    end: Duration,
    age: u64,
    /// How many sleeps had ended when this was last polled.
    seen: Option<u64>,
}

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let clock = self.clock.clone();
        let mut time = clock.time();
        if time.awaited.first() != Some(&(self.end, self.age)) {
            // Somebody before it is still sleeping; its end, or its being dropped, wakes this one.
            let age = self.age;
            time.wakers.retain(|(of, _)| *of != age);
            time.wakers.push((age, cx.waker().clone()));
            return Poll::Pending;
        }
        if self.seen != Some(time.ended) {
            self.seen = Some(time.ended);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        time.ended += 1;
        time.since_start = time.since_start.max(self.end);
        Poll::Ready(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut time = self.clock.time();
        time.awaited.remove(&(self.end, self.age));
        let age = self.age;
        time.wakers.retain(|(of, _)| *of != age);
        for (_, waker) in time.wakers.drain(..) {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn two_clocks_of_one_attempt_read_the_same() {
        let read = || {
            let clock = Clock::new(1_700_000_000_000_000);
            let mut table = ResourceTable::new();
            let mut view = ClockView { clock: &clock, table: &mut table };
            let wall = wall_clock::Host::now(&mut view).expect("a time");
            let monotonic: Vec<u64> =
                (0..3).map(|_| monotonic_clock::Host::now(&mut view).expect("a time")).collect();
            (wall.seconds, wall.nanoseconds, monotonic)
        };
        assert_eq!(read(), (1_700_000_000, 1_000, vec![2_000, 3_000, 4_000]));
        assert_eq!(read(), read());
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleep_moves_the_clock_to_its_end() {
        let clock = Clock::new(0);
        let before = Instant::now();
        clock.sleep_until(Duration::from_millis(20)).ready().await;
        assert!(before.elapsed() >= Duration::from_millis(19), "it really slept");
        assert_eq!(clock.look(), Duration::from_millis(20) + LOOK);
    }

    #[tokio::test(start_paused = true)]
    async fn sleeps_side_by_side_end_one_after_another_in_their_order() {
        // Given two sleeps whose real time has passed, polled in the wrong order.
        let clock = Clock::new(0);
        let mut late = clock.sleep_until(Duration::from_millis(11));
        let mut early = clock.sleep_until(Duration::from_millis(10));
        tokio::time::advance(Duration::from_millis(50)).await;
        let (mut late, mut early) = (late.ready(), early.ready());
        // When they are polled, as often as it takes.
        let mut order = Vec::new();
        while order.len() < 2 {
            std::future::poll_fn(|cx| {
                let ended = order.len();
                if !order.contains(&"late") && late.poll_unpin(cx).is_ready() {
                    order.push("late");
                }
                if !order.contains(&"early") && early.poll_unpin(cx).is_ready() {
                    order.push("early");
                }
                assert!(order.len() <= ended + 1, "never two in one poll");
                if order.len() > ended { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
        // Then
        assert_eq!(order, ["early", "late"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleep_that_nobody_awaits_any_more_holds_up_no_other() {
        let clock = Clock::new(0);
        let mut abandoned = clock.sleep_until(Duration::from_millis(1));
        let mut other = clock.sleep_until(Duration::from_millis(5));
        assert!(abandoned.ready().now_or_never().is_none());
        other.ready().await;
        assert!(clock.look() >= Duration::from_millis(5));
    }

    #[test]
    fn asking_often_enough_ends_a_sleep() {
        let clock = Clock::new(0);
        let mut sleep = clock.sleep_until(Duration::from_micros(100));
        let asked = (0..1_000).position(|_| clock.look() >= sleep.end);
        assert!(asked.is_some());
        assert!(sleep.ready().now_or_never().is_some());
    }
}
