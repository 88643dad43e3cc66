//! Drives one guest from its permit to its end, whatever that is.
//!
//! Three things end a guest early, and each covers what the others cannot. The epoch callback, every millisecond of its own
//! code, looks at the deadline and the cancel token and otherwise gives the thread to the next guest (`threads.rs`: to which). A timer and the cancel
//! token, beside it, cut calls to the host (a sleep, a request), where no guest code runs. And whoever drops the future
//! interrupts the guest at its next look.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wasmtime::{Store, UpdateDeadline};

use crate::attempt::{Failure, LogLine, Reports, Usage};
use crate::engine::Inner;
use crate::guest::clock::Clock;
use crate::guest::limiter::Limiter;
use crate::guest::notebook::Notebook;
use crate::guest::state::{Denials, State, Wanted, World};
use crate::http::Outbound;
use crate::limits;
use crate::verdict::{self, Interrupted};

/// What bounds one guest.
pub(crate) struct Bounds {
    pub(crate) timeout: Duration,
    /// How long it may go on without telling progress.
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) memory_bytes: usize,
    pub(crate) log_bytes: usize,
    pub(crate) cancel: CancellationToken,
}

/// What a guest's world is made of, beside its bounds.
pub(crate) struct Given {
    pub(crate) seed: [u8; 32],
    pub(crate) clock_start_us: u64,
    pub(crate) reports: Option<Arc<dyn Reports>>,
    pub(crate) draining: Arc<AtomicBool>,
}

/// What a guest left behind.
pub(crate) struct Ended<T> {
    /// What its function returned, or what it died of.
    pub(crate) returned: Result<T, Failure>,
    pub(crate) denials: Denials,
    pub(crate) usage: Usage,
    pub(crate) logs: Vec<LogLine>,
    pub(crate) logs_dropped_bytes: u64,
}

/// Tells a guest that reports its progress whether to go on.
struct GoOn {
    cancel: CancellationToken,
    draining: Arc<AtomicBool>,
}

impl Wanted for GoOn {
    fn wanted(&self) -> bool {
        !self.cancel.is_cancelled() && !self.draining.load(Ordering::Relaxed)
    }
}

/// Says that the guest is cut unless it has come back by then. It must go before the store does, in which lies the guest's
/// half of what it sends: `wasi:http` takes a half that is gone for the end of the body.
struct CutUnlessBack {
    denials: Denials,
    back: bool,
}

impl Drop for CutUnlessBack {
    fn drop(&mut self) {
        if !self.back {
            self.denials.cut();
        }
    }
}

/// Runs what `call` makes of a fresh store, within bounds. `outbound` makes the way out once the place for denials
/// is there.
pub(crate) async fn drive<T>(
    inner: &Inner,
    bounds: Bounds,
    given: Given,
    outbound: impl FnOnce(Denials) -> Outbound,
    call: impl AsyncFnOnce(&mut Store<State>) -> wasmtime::Result<T>,
) -> Ended<T> {
    let began = Instant::now();
    let _ticking = inner.ticker.begin();
    let clock = Clock::new(given.clock_start_us);
    let notebook = Notebook::new(bounds.log_bytes, clock.clone());
    let deadline = began.checked_add(bounds.timeout);
    let watch = Watch { deadline, heartbeat: bounds.heartbeat.map(|within| (within, notebook.clone())) };
    let denials = Denials::default();
    let mut cpu = Duration::ZERO;
    let (returned, peak_bytes) = {
        let world = World {
            seed: given.seed,
            memory_bytes: bounds.memory_bytes,
            outbound: outbound(denials.clone()),
            clock,
            notebook: notebook.clone(),
            denials: denials.clone(),
            wanted: Arc::new(GoOn { cancel: bounds.cancel.clone(), draining: given.draining }),
        };
        let guest = async {
            let denials = world.denials.clone();
            let mut store = store(&inner.machine, world, watch.clone(), bounds.cancel.clone());
            let mut cut = CutUnlessBack { denials, back: false };
            let returned = {
                let calling = std::pin::pin!(call(&mut store));
                let calling = std::pin::pin!(inner.threads.in_turns(calling));
                supervise(calling, &watch, &bounds.cancel, given.reports.as_deref(), &notebook).await
            };
            cut.back = returned.is_ok();
            let limiter = &store.data().limiter;
            (settle(returned, limiter, &bounds), limiter.peak_bytes())
        };
        Metered { guest: std::pin::pin!(guest), cpu: &mut cpu }.await
    };
    let (logs, logs_dropped_bytes) = notebook.close();
    let usage = Usage {
        cpu_us: micros(cpu),
        wall_us: micros(began.elapsed()),
        memory_peak_bytes: peak_bytes,
        queued_us: 0,
    };
    Ended { returned, denials, usage, logs, logs_dropped_bytes }
}

/// The guest's time: until its deadline, and since it last told progress.
#[derive(Clone)]
struct Watch {
    deadline: Option<Instant>,
    heartbeat: Option<(Duration, Notebook)>,
}

impl Watch {
    /// When its time is over, as things stand, and which.
    fn next(&self) -> Option<(Instant, Interrupted)> {
        let silent = self.heartbeat.as_ref().and_then(|(within, notebook)| {
            Some((notebook.last_beat().checked_add(*within)?, Interrupted::Silent(*within)))
        });
        let deadline = self.deadline.map(|deadline| (deadline, Interrupted::Deadline));
        [deadline, silent].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Which time is over, if one is.
    fn over(&self) -> Option<Interrupted> {
        self.next().filter(|(at, _)| *at <= Instant::now()).map(|(_, over)| over)
    }

    /// Until one is.
    async fn wait(&self) -> Interrupted {
        loop {
            match self.next() {
                Some((at, _)) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
            if let Some(over) = self.over() {
                return over;
            }
        }
    }
}

fn store(engine: &wasmtime::Engine, world: World, watch: Watch, cancel: CancellationToken) -> Store<State> {
    let mut store = Store::new(engine, State::new(world));
    store.limiter(|state| &mut state.limiter);
    store.set_hostcall_fuel(limits::HOSTCALL_BYTES);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |_| {
        if cancel.is_cancelled() {
            Err(Interrupted::Cancelled.into())
        } else if let Some(over) = watch.over() {
            Err(over.into())
        } else {
            Ok(UpdateDeadline::Yield(1))
        }
    });
    store
}

/// Waits for the guest, its deadline or its cancellation, and reports meanwhile what it says.
async fn supervise<T>(
    mut calling: Pin<&mut impl Future<Output = wasmtime::Result<T>>>,
    watch: &Watch,
    cancel: &CancellationToken,
    reports: Option<&dyn Reports>,
    notebook: &Notebook,
) -> wasmtime::Result<T> {
    // Most guests are done before there is anything to wait for, and need no timers.
    if let Some(returned) = poll_once(calling.as_mut()).await {
        return returned;
    }
    tokio::select! {
        biased;
        returned = calling => returned,
        () = cancel.cancelled() => Err(Interrupted::Cancelled.into()),
        over = watch.wait() => Err(over.into()),
        () = report(reports, notebook) => unreachable!("reporting never ends"),
    }
}

async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

async fn report(reports: Option<&dyn Reports>, notebook: &Notebook) {
    let Some(reports) = reports else { return std::future::pending().await };
    loop {
        tokio::time::sleep(limits::REPORT_INTERVAL).await;
        if let Some(report) = notebook.report()
            && let Err(report) = reports.take(report)
        {
            notebook.put_back(report);
        }
    }
}

/// What is known of why it died, best first: its interruption, a limit, a trap.
fn settle<T>(returned: wasmtime::Result<T>, limiter: &Limiter, bounds: &Bounds) -> Result<T, Failure> {
    returned.map_err(|error| match limiter.refused() {
        Some(refused) if error.downcast_ref::<Interrupted>().is_none() => {
            verdict::refused(refused, bounds.memory_bytes)
        }
        _ => verdict::died(&error, bounds.timeout),
    })
}

/// Counts the CPU time of the thread around each poll.
struct Metered<'a, F> {
    guest: Pin<&'a mut F>,
    cpu: &'a mut Duration,
}

impl<F: Future> Future for Metered<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let before = thread_time();
        let polled = self.guest.as_mut().poll(cx);
        *self.cpu += thread_time().saturating_sub(before);
        polled
    }
}

/// Processor time of this thread.
pub(crate) fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
