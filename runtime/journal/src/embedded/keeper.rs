//! A thread that keeps one file of zeros ready, so that the writer never waits for an allocation.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::JoinHandle,
};

use super::{segment::Spare, state::Shared};

/// Where the next segment stands.
enum Slot {
    /// Nobody asked for one.
    Empty,
    /// This sequence number is to be allocated.
    Wanted(u64),
    /// It is being allocated.
    Working,
    Ready(Spare),
    Failed(io::Error),
    /// The thread is to end.
    Closed,
}

/// The writer's end of the thread.
pub(crate) struct Keeper {
    slot: Arc<(Mutex<Slot>, Condvar)>,
    segment_bytes: u64,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the thread; `spare` is what an earlier process left ready.
    pub(crate) fn start(shared: Arc<Shared>, segment_bytes: u64, spare: Option<Spare>) -> io::Result<Self> {
        let slot = Arc::new((Mutex::new(spare.map_or(Slot::Empty, Slot::Ready)), Condvar::new()));
        let theirs = slot.clone();
        let dir: PathBuf = shared.layout.log.clone();
        let thread = std::thread::Builder::new().name("journal-keeper".into()).spawn(move || {
            while let Some(sequence) = next_wanted(&theirs) {
                let outcome = Spare::allocate(&shared.disk, &dir, sequence, segment_bytes);
                let mut slot = lock(&theirs);
                if !matches!(*slot, Slot::Closed) {
                    *slot = outcome.map_or_else(Slot::Failed, Slot::Ready);
                }
                theirs.1.notify_all();
            }
        })?;
        Ok(Self { slot, segment_bytes, thread: Some(thread) })
    }

    /// Asks for segment `sequence` ahead of time; costs nothing when it was asked for already.
    pub(crate) fn prepare(&self, sequence: u64) {
        let mut slot = lock(&self.slot);
        if matches!(*slot, Slot::Empty) {
            *slot = Slot::Wanted(sequence);
            self.slot.1.notify_all();
        }
    }

    /// Takes segment `sequence` with room for `bytes`; waits for it if it is not ready. A failure that lies back is tried
    /// again: there may be room now.
    pub(crate) fn take(&self, shared: &Shared, sequence: u64, bytes: u64) -> io::Result<Spare> {
        let mut slot = lock(&self.slot);
        if matches!(*slot, Slot::Empty | Slot::Failed(_)) {
            *slot = Slot::Wanted(sequence);
            self.slot.1.notify_all();
        }
        while matches!(*slot, Slot::Wanted(_) | Slot::Working) {
            slot = self.slot.1.wait(slot).expect("no holder of the slot panics");
        }
        let spare = match std::mem::replace(&mut *slot, Slot::Empty) {
            Slot::Ready(spare) => spare,
            Slot::Failed(error) => return Err(error),
            Slot::Empty | Slot::Wanted(_) | Slot::Working | Slot::Closed => {
                return Err(io::Error::other("the journal is closing"));
            }
        };
        drop(slot);
        if spare.capacity >= bytes {
            return Ok(spare);
        }
        // One batch larger than a segment: rare, so the writer pays for it.
        match Spare::allocate(&shared.disk, &shared.layout.log, sequence, bytes) {
            Ok(larger) => Ok(larger),
            Err(error) => {
                *lock(&self.slot) = Slot::Ready(spare);
                Err(error)
            }
        }
    }

    /// The usual size of a segment.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        *lock(&self.slot) = Slot::Closed;
        self.slot.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of that thread was printed already; there is nothing to add.
            let _ = thread.join();
        }
    }
}

fn lock(slot: &(Mutex<Slot>, Condvar)) -> MutexGuard<'_, Slot> {
    slot.0.lock().expect("no holder of the slot panics")
}

fn next_wanted(slot: &(Mutex<Slot>, Condvar)) -> Option<u64> {
    let mut state = lock(slot);
    loop {
        match *state {
            Slot::Wanted(sequence) => {
                *state = Slot::Working;
                return Some(sequence);
            }
            Slot::Closed => return None,
            _ => state = slot.1.wait(state).expect("no holder of the slot panics"),
        }
    }
}
