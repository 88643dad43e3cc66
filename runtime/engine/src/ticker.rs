//! The millisecond that interrupts guests: one thread that advances wasmtime's epoch while a guest runs, and sleeps while
//! none does, so that an idle host wakes for nothing.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use wasmtime::EngineWeak;

use crate::limits;

/// How many ticks without a guest pass before the thread sleeps: waking it for each of many short guests would cost more
/// than the ticks.
const LINGER_TICKS: u32 = 100;

/// Counts running guests and ticks for them.
#[derive(Clone)]
pub(crate) struct Ticker {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    guests: AtomicUsize,
    /// Whether the thread waits to be woken. Written under `lock`.
    asleep: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

/// While it lives, the epoch advances.
pub(crate) struct Ticking {
    shared: Arc<Shared>,
}

impl Ticker {
    /// Starts the thread; it ends with the engine.
    pub(crate) fn start(engine: EngineWeak) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::downgrade(&shared);
        std::thread::Builder::new().name("reipaz-tick".to_owned()).spawn(move || {
            let mut idle_ticks = 0;
            while let Some(shared) = of_thread.upgrade() {
                idle_ticks = if shared.guests.load(Ordering::SeqCst) == 0 { idle_ticks + 1 } else { 0 };
                if idle_ticks > LINGER_TICKS {
                    shared.rest();
                    idle_ticks = 0;
                }
                drop(shared);
                std::thread::sleep(limits::TICK);
                match engine.upgrade() {
                    Some(engine) => engine.increment_epoch(),
                    None => return,
                }
            }
        })?;
        Ok(Self { shared })
    }

    /// A guest begins.
    pub(crate) fn begin(&self) -> Ticking {
        self.shared.guests.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst) {
            let _held = self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.shared.wake.notify_one();
        }
        Ticking { shared: self.shared.clone() }
    }
}

impl Shared {
    /// Waits for a guest, a second at most: the engine may be gone meanwhile.
    fn rest(&self) {
        let held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.asleep.store(true, Ordering::SeqCst);
        // A guest that begins now either is seen here or sees `asleep` and waits for the lock to wake us.
        if self.guests.load(Ordering::SeqCst) == 0 {
            let _ = self.wake.wait_timeout(held, std::time::Duration::from_secs(1));
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.shared.guests.fetch_sub(1, Ordering::SeqCst);
    }
}
