//! The guests' threads: fast ones, where every guest begins, and slow ones, where those go on that take long.
//!
//! Every guest gives its thread up after a millisecond of its own code. That alone would have a short one wait for its turn
//! behind all that spin, and the host's own threads for the processor. So a guest that has used its share of a fast thread
//! moves to the slow ones, which run when nobody else wants the processor (they are nicer, as the scheduler calls it). Nothing
//! is idle for that: without others the slow threads have the whole machine.
//!
//! There, as many guests go on at one time as there are threads, in turns. One whose turn has not come is in no thread's queue;
//! its deadline and its cancellation stand beside its turn, and end it without one, however many others there are.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::PollSemaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::driver::thread_time;
use crate::limits;

/// How often threads look for input and timers, in polls. A poll of a spinning guest takes a millisecond, so tokio's usual 61
/// would make an answer or a deadline wait that long.
const EVENT_INTERVAL: u32 = 2;

/// Threads for names that are looked up; the system's resolver blocks.
const RESOLVER_THREADS: usize = 32;

/// How much nicer the slow threads are: each has a tenth of the processor that an ordinary thread has which wants all of it.
const NICER: i32 = 10;

/// No thread is nicer.
const NICEST: i32 = 19;

/// See the module.
pub(crate) struct Threads {
    /// Taken when they end.
    fast: Option<Runtime>,
    slow: Option<Runtime>,
    turns: Arc<Semaphore>,
}

impl Threads {
    /// So many of each.
    pub(crate) fn start(count: usize) -> std::io::Result<Self> {
        let count = count.max(1);
        let builder = |name: &str| {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(count).max_blocking_threads(RESOLVER_THREADS);
            builder.event_interval(EVENT_INTERVAL).thread_name(name).enable_all();
            builder
        };
        // Of a thread alone, elsewhere of the whole process. Where it is forbidden, all are alike.
        let be_nicer = || {
            if cfg!(target_os = "linux")
                && let Ok(nice) = rustix::process::getpriority_process(None)
            {
                let _ = rustix::process::setpriority_process(None, (nice + NICER).min(NICEST));
            }
        };
        Ok(Self {
            fast: Some(builder("reipaz-guest").build()?),
            slow: Some(builder("reipaz-slow").on_thread_start(be_nicer).build()?),
            turns: Arc::new(Semaphore::new(count)),
        })
    }

    /// The fast ones.
    pub(crate) fn fast(&self) -> &Handle {
        self.fast.as_ref().expect("taken in drop only").handle()
    }

    fn slow(&self) -> &Handle {
        self.slow.as_ref().expect("taken in drop only").handle()
    }

    /// Runs guest code, as a task of its own unless the caller is on a fast thread already. None: the engine stops.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        guest: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let share = Share { guest: Some(Box::pin(guest)), used: Duration::ZERO };
        let ended = match Handle::try_current() {
            Ok(current) if current.id() == self.fast().id() => share.await,
            _ => awaited(self.fast().spawn(share)).await?,
        };
        match ended {
            Ended::Done(done) => Some(done),
            Ended::TakesLong(guest) => {
                let slow = Slow { guest, fast: self.fast().clone() };
                awaited(self.slow().spawn(slow)).await
            }
        }
    }

    /// Runs what is no guest's, and starts threads or processes, on the fast threads to its end. None: the engine stops.
    pub(crate) async fn run_fast<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        awaited(self.fast().spawn(work)).await
    }

    /// Has a guest's code wait for its turn, once it takes long.
    pub(crate) fn in_turns<'g, F>(&self, guest: Pin<&'g mut F>) -> Turns<'g, F> {
        Turns { guest, used: Duration::ZERO, turn: PollSemaphore::new(Arc::clone(&self.turns)) }
    }
}

/// They end without waiting: the engine may be dropped in another runtime.
impl Drop for Threads {
    fn drop(&mut self) {
        for runtime in [self.fast.take(), self.slow.take()].into_iter().flatten() {
            runtime.shutdown_background();
        }
    }
}

/// A guest, for as long as it has not used its share of the fast threads.
struct Share<F> {
    guest: Option<Pin<Box<F>>>,
    used: Duration,
}

enum Ended<F: Future> {
    Done(F::Output),
    TakesLong(Pin<Box<F>>),
}

impl<F: Future> Future for Share<F> {
    type Output = Ended<F>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let began = thread_time();
        let guest = self.guest.as_mut().expect("not polled after its end");
        if let Poll::Ready(done) = guest.as_mut().poll(cx) {
            return Poll::Ready(Ended::Done(done));
        }
        self.used += thread_time().saturating_sub(began);
        if self.used < limits::FAST_SHARE {
            return Poll::Pending;
        }
        Poll::Ready(Ended::TakesLong(self.guest.take().expect("it was there")))
    }
}

/// A guest's code, in turns with others once it takes long.
pub(crate) struct Turns<'g, F> {
    guest: Pin<&'g mut F>,
    used: Duration,
    turn: PollSemaphore,
}

impl<F: Future> Future for Turns<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        if this.used >= limits::FAST_SHARE {
            // The semaphore is never closed.
            let _turn = ready!(this.turn.poll_acquire(cx));
            return this.guest.as_mut().poll(cx);
        }
        let began = thread_time();
        let polled = this.guest.as_mut().poll(cx);
        this.used += thread_time().saturating_sub(began);
        polled
    }
}

/// A guest on the slow threads. Only it is there: timers, connections and tasks that it causes are the fast threads', which
/// other guests' connections share.
struct Slow<F> {
    guest: Pin<Box<F>>,
    fast: Handle,
}

impl<F: Future> Future for Slow<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let _entered = this.fast.enter();
        this.guest.as_mut().poll(cx)
    }
}

/// What the task returns; none when the runtime ended it or it panicked. It ends with whoever waits for it.
async fn awaited<T>(task: JoinHandle<T>) -> Option<T> {
    AbortOnDropHandle::new(task)
        .await
        .inspect_err(|error| tracing::error!(%error, "a guest's task ended without an answer"))
        .ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test's failure is its panic")]

    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Waker;
    use std::time::Instant;

    use futures_util::future::join_all;

    use super::*;

    /// Takes a millisecond of its thread at a time, so often; gives the names of the threads.
    async fn spin(times: u32) -> Vec<String> {
        let mut names = Vec::new();
        for _ in 0..times {
            names.push(std::thread::current().name().unwrap_or_default().to_owned());
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(1) {}
            tokio::task::yield_now().await;
        }
        names
    }

    #[tokio::test]
    async fn one_that_takes_long_goes_on_on_the_slow_threads() {
        let threads = Threads::start(2).unwrap();
        assert_eq!(threads.run(spin(1)).await.unwrap(), ["reipaz-guest"]);
        let names = threads.run(spin(50)).await.unwrap();
        assert_eq!((&*names[0], &*names[49]), ("reipaz-guest", "reipaz-slow"));
        // What it spawns is not there.
        let spawning = async {
            spin(50).await;
            tokio::spawn(spin(1)).await.unwrap()
        };
        assert_eq!(threads.run(spawning).await.unwrap(), ["reipaz-guest"]);
        // A caller that is there already, too, and it comes back.
        let threads = Arc::new(threads);
        let there = Arc::clone(&threads);
        let ran = threads.fast().spawn(async move {
            let names = there.run(spin(50)).await.unwrap();
            (names, std::thread::current().name().unwrap_or_default().to_owned())
        });
        let (names, back) = ran.await.unwrap();
        assert_eq!((&*names[49], &*back), ("reipaz-slow", "reipaz-guest"));
    }

    #[tokio::test]
    async fn no_more_take_turns_than_there_are_threads() {
        let threads = Arc::new(Threads::start(2).unwrap());
        let counts: Arc<(AtomicUsize, AtomicUsize)> = Arc::default();
        let spinning = (0..6).map(|_| {
            let (threads, counts) = (Arc::clone(&threads), Arc::clone(&counts));
            tokio::task::spawn(async move {
                let guest = async {
                    for _ in 0..20 {
                        counts.1.fetch_max(counts.0.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(1));
                        counts.0.fetch_sub(1, Ordering::SeqCst);
                        tokio::task::yield_now().await;
                    }
                };
                let guest = std::pin::pin!(guest);
                let mut turns = threads.in_turns(guest);
                turns.used = limits::FAST_SHARE;
                turns.await;
            })
        });
        join_all(spinning).await.into_iter().for_each(Result::unwrap);
        assert!(counts.1.load(Ordering::SeqCst) <= 2);
        assert_eq!(threads.turns.available_permits(), 2, "all went back");
    }

    #[tokio::test]
    async fn one_who_leaves_while_it_waits_takes_no_turn() {
        let threads = Threads::start(1).unwrap();
        let held = Arc::clone(&threads.turns).try_acquire_owned().unwrap();
        let mut guest = std::pin::pin!(async {});
        let mut turns = threads.in_turns(guest.as_mut());
        turns.used = limits::FAST_SHARE;
        assert!(Pin::new(&mut turns).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(held);
        drop(turns);
        assert_eq!(threads.turns.available_permits(), 1);
    }
}
