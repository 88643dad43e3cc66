//! What the parts of the embedded journal share: the segments, how far the log is durable, and for each partition how
//! far it is, where its records lie and which checkpoints it has. All of it can be rebuilt from the files.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::watch;

use super::{
    directory::Layout,
    disk::Disk,
    frame::{CLOSED, Header},
    inbox::Inbox,
    mailbox::Mailbox,
    mark::MarkFile,
    segment::{Segment, Stand},
    stats::Counters,
};
use crate::ports::{Cursor, Position};

/// A partition's index has an entry for every so many bytes of its own: finding a record reads no more than that.
const INDEX_OWN_BYTES: u64 = 32 << 10;
/// And for every so many bytes of the whole log, for partitions that seldom write.
const INDEX_LOG_BYTES: u64 = 512 << 10;

/// The embedded journal's state.
pub(crate) struct Shared {
    pub(crate) layout: Layout,
    pub(crate) log_id: u32,
    pub(crate) disk: Disk,
    pub(crate) partitions: Vec<Partition>,
    /// By base address. The last one is written to.
    pub(crate) segments: RwLock<BTreeMap<u64, Arc<Segment>>>,
    durable_end: AtomicU64,
    pub(crate) mark: Mutex<MarkFile>,
    /// One deletion at a time.
    pub(crate) trimming: Mutex<()>,
    pub(crate) mailbox: Mailbox,
    pub(crate) counters: Counters,
}

/// What is found when a data directory is opened, from which the state is made.
pub(crate) struct Found {
    pub(crate) segments: BTreeMap<u64, Arc<Segment>>,
    pub(crate) partitions: Vec<Progress>,
    pub(crate) durable_end: u64,
}

impl Shared {
    pub(crate) fn new(layout: Layout, log_id: u32, disk: Disk, mark: MarkFile, found: Found) -> Self {
        let partitions = found.partitions.into_iter().map(|progress| Partition {
            durable: watch::Sender::new(progress.last().0),
            generation: AtomicU64::new(0),
            inbox: Inbox::starting_at(progress.consumed),
            progress: Mutex::new(progress),
        });
        Self {
            layout,
            log_id,
            disk,
            partitions: partitions.collect(),
            segments: RwLock::new(found.segments),
            durable_end: AtomicU64::new(found.durable_end),
            mark: Mutex::new(mark),
            trimming: Mutex::default(),
            mailbox: Mailbox::default(),
            counters: Counters::default(),
        }
    }

    /// Everything below this address is durable, and nothing at or above it may be seen.
    pub(crate) fn durable_end(&self) -> u64 {
        self.durable_end.load(Ordering::Acquire)
    }

    pub(crate) fn set_durable_end(&self, end: u64) {
        self.durable_end.store(end, Ordering::Release);
    }

    /// The segment that holds `lsn`, and the address where the next one begins, if there is one.
    pub(crate) fn segment_at(&self, lsn: u64) -> Option<(Arc<Segment>, Option<u64>)> {
        let segments = self.segments.read().expect("no holder of the segments panics");
        let (base, segment) = segments.range(..=lsn).next_back()?;
        let next = segments.range(base + 1..).next().map(|(base, _)| *base);
        Some((segment.clone(), next))
    }

    /// The address of the oldest kept byte.
    pub(crate) fn first_lsn(&self) -> u64 {
        let segments = self.segments.read().expect("no holder of the segments panics");
        segments.keys().next().copied().unwrap_or_default()
    }

    /// The partition, which the caller has checked to exist.
    pub(crate) fn partition(&self, partition: u32) -> &Partition {
        &self.partitions[partition as usize]
    }
}

/// One partition's state.
pub(crate) struct Partition {
    /// The last durable position.
    pub(crate) durable: watch::Sender<u64>,
    /// Which owner is the present one; older ones are fenced.
    pub(crate) generation: AtomicU64,
    pub(crate) inbox: Inbox,
    progress: Mutex<Progress>,
}

impl Partition {
    pub(crate) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().expect("no holder of a partition's progress panics")
    }
}

/// A checkpoint's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointFile {
    pub(crate) at: u64,
    pub(crate) path: PathBuf,
    /// It was written by this process or read as a whole.
    pub(crate) checked: bool,
}

/// Where a frame of the partition lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// The position of the frame's first record.
    pub(crate) first: u64,
    pub(crate) lsn: u64,
    /// The bytes of the partition's frames before it.
    own_bytes: u64,
}

/// How far a partition is.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// The position of the next record.
    next: u64,
    /// The position of the oldest kept record (or of the next one, if none is kept).
    pub(crate) first: u64,
    /// Records below this may be deleted.
    pub(crate) keep_from: u64,
    pub(crate) consumed: Cursor,
    /// Whether the last thing that happened was an orderly stop.
    pub(crate) clean: bool,
    /// By position, oldest first.
    pub(crate) checkpoints: Vec<CheckpointFile>,
    /// The bytes of this partition's frames that were seen.
    own_bytes: u64,
    index: VecDeque<Entry>,
}

impl Progress {
    /// A partition whose oldest kept record comes next.
    pub(crate) fn starting_at(stand: &Stand) -> Self {
        Self {
            next: stand.next,
            first: stand.next,
            keep_from: 1,
            consumed: stand.consumed,
            clean: stand.clean,
            checkpoints: Vec::new(),
            own_bytes: 0,
            index: VecDeque::new(),
        }
    }

    /// Where the partition stands.
    pub(crate) fn stand(&self) -> Stand {
        Stand { next: self.next, consumed: self.consumed, clean: self.clean }
    }

    /// The position of the next record.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The last durable record's position.
    pub(crate) fn last(&self) -> Position {
        Position(self.next - 1)
    }

    /// Takes in one durable frame, in log order.
    pub(crate) fn apply(&mut self, header: &Header, cursor: Option<Cursor>) {
        let far = |entry: &Entry| {
            self.own_bytes - entry.own_bytes >= INDEX_OWN_BYTES || header.lsn - entry.lsn >= INDEX_LOG_BYTES
        };
        if header.records > 0 && self.index.back().is_none_or(far) {
            let own_bytes = self.own_bytes;
            self.index.push_back(Entry { first: header.first, lsn: header.lsn, own_bytes });
        }
        self.next = header.first + u64::from(header.records);
        self.own_bytes += header.frame_bytes();
        self.clean = header.flags & CLOSED != 0;
        if let Some(cursor) = cursor {
            self.consumed.advance(cursor);
        }
    }

    /// Where to start looking for the record at `position`; `None` if no record is indexed.
    pub(crate) fn entry(&self, position: u64) -> Option<Entry> {
        let after = self.index.partition_point(|entry| entry.first <= position);
        self.index.get(after.saturating_sub(1)).copied()
    }

    /// Forgets what lies before `lsn`; the oldest kept record is `first` now.
    pub(crate) fn cut(&mut self, lsn: u64, first: u64) {
        self.first = first;
        while self.index.front().is_some_and(|entry| entry.lsn < lsn) {
            self.index.pop_front();
        }
    }

    /// How much log a recovery reads for this partition's sake: its own bytes since the newest checkpoint, or, if that is
    /// more, its share of the log that those hold back (or a partition that seldom writes would keep the log for ever).
    pub(crate) fn bytes_since_checkpoint(&self, durable_end: u64, partitions: u32) -> u64 {
        let needed = self.checkpoints.last().map_or(self.first, |checkpoint| checkpoint.at + 1);
        if needed >= self.next {
            return 0;
        }
        let Some(entry) = self.entry(needed) else { return 0 };
        let own = self.own_bytes - entry.own_bytes;
        let share = durable_end.saturating_sub(entry.lsn) / u64::from(partitions.max(1));
        own.max(share)
    }
}
