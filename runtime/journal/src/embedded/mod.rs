//! The embedded journal: one process, files in one data directory, one sync for all partitions.
//!
//! ```text
//! lock            who uses the directory (an flock; the text is for the message)
//! meta            format, partition count, the log's own random number
//! mark            how far the log is known to be durable: a witness outside it
//! log/N.seg       the log of all partitions, in segments
//! checkpoints/    each partition's state as of a position
//! catalog         the catalogue, with its own mark
//! ```
//!
//! A commit is encoded by the owner's task, goes through the `mailbox` to the `writer`'s thread, and comes back
//! when the group that it belongs to is durable: two thread hops and one `fdatasync`. Segments are filled with zeros
//! beforehand (`keeper`), so that the sync writes data only.
//!
//! `recovery` says what is damage and what is a torn tail; `trim` says what may be deleted.
//!
//! # Why segments of our own
//!
//! Because of what the journal must refuse. A storage engine mends what it finds: fjall 3 alone opened *silently short* on
//! one flipped byte. Telling damage from a torn tail takes witnesses that only the log itself can keep: each batch says
//! how far the log was durable when it was written, batches are linked by their checksums, and the mark stands outside.
//! The rest of an engine (keys, sorting, compaction) is nothing that a log needs.
//!
//! The cost of a commit is the sync. Measured with a bare `pwrite` and `fdatasync` on a 2-core virtual machine with a
//! virtio disk and ext4, median of 2,000, in microseconds:
//!
//! ```text
//! bytes written                          320    16384   262144
//! appending to a growing file            152      234      243
//! into space of fallocate                 83      172      243
//! into a file filled with zeros           90      116      220
//! ```
//!
//! Small groups are as fast after `fallocate`; but what grows under load are the groups, so segments are filled with
//! zeros. `benches/storage.rs` measures whole commits (1 and 256 records, and four partitions at once) beside fjall's.

mod catalog;
mod checkpoint;
mod damage;
mod directory;
mod disk;
mod frame;
mod inbox;
mod intake;
mod keeper;
mod mailbox;
mod mark;
mod partition;
mod reader;
mod recovery;
mod scan;
mod segment;
mod state;
mod stats;
mod trim;
mod walk;
mod writer;
mod zeros;

use std::{fs, path::PathBuf, sync::Arc, thread::JoinHandle};

use self::{
    catalog::EmbeddedCatalog,
    directory::{Layout, Lock, Meta},
    disk::{Disk, failed},
    keeper::Keeper,
    mark::{Mark, MarkFile},
    partition::EmbeddedJournal,
    segment::{SegmentHeader, Spare},
    state::Shared,
    writer::Writer,
};
pub use self::{
    catalog::{CATALOG_KEY_BYTES_LIMIT, CATALOG_VALUE_BYTES_LIMIT},
    directory::Holder,
    disk::Faults,
    partition::BATCH_BYTES_LIMIT,
    segment::PARTITIONS_LIMIT,
    stats::{Latency, Stats},
};
use crate::{
    catalog::Catalog,
    error::JournalError,
    intake::{Assignments, Ends, Intake},
    ports::Journal,
    unblock::unblock,
};

/// The smallest segment.
pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// The usual segment: small enough that deleting goes in small steps and that filling one with zeros (20 to 40 ms) is
/// soon over, large enough that one lasts a second under full load.
pub const SEGMENT_BYTES_DEFAULT: u64 = 32 << 20;

/// How an embedded journal is to be kept.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// The data directory; made if it is not there. One process at a time may use it.
    pub dir: PathBuf,
    /// How many partitions there are, 1 to [`PARTITIONS_LIMIT`]. Fixed for the life of the data.
    pub partitions: u32,
    /// The size of a log segment, at least [`SEGMENT_BYTES_MIN`]. May change from start to start.
    pub segment_bytes: u64,
    /// For tests: how the disk fails.
    pub faults: Faults,
}

impl EmbeddedConfig {
    /// The usual configuration for a data directory.
    pub fn new(dir: impl Into<PathBuf>, partitions: u32) -> Self {
        Self { dir: dir.into(), partitions, segment_bytes: SEGMENT_BYTES_DEFAULT, faults: Faults::default() }
    }

    fn check(&self) -> Result<(), JournalError> {
        if !(1..=PARTITIONS_LIMIT).contains(&self.partitions) {
            let why = format!("there can be 1 to {PARTITIONS_LIMIT} partitions, not {}", self.partitions);
            return Err(JournalError::Config(why));
        }
        if self.segment_bytes < SEGMENT_BYTES_MIN {
            let why = format!("a segment has at least {SEGMENT_BYTES_MIN} bytes, not {}", self.segment_bytes);
            return Err(JournalError::Config(why));
        }
        Ok(())
    }
}

/// An embedded journal with its intake and catalogue. The directory's lock is held until this and everything obtained
/// from it (but readers) is dropped; dropping waits for the last group to be written.
pub struct Embedded {
    running: Arc<Running>,
    catalog: Arc<EmbeddedCatalog>,
}

/// The writer's thread and the lock: both end with the last user.
struct Running {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
    _lock: Lock,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.mailbox.close();
        if let Some(writer) = self.writer.take() {
            // The writer ends the process rather than panic.
            let _ = writer.join();
        }
    }
}

impl Embedded {
    /// Whether a directory was made as configured, and which process has it. Nothing is made or changed; the records are
    /// not read.
    pub fn examine(config: &EmbeddedConfig) -> Result<Option<Holder>, JournalError> {
        config.check()?;
        let layout = Layout::new(&config.dir);
        Meta::read(&layout, config.partitions)?;
        directory::holder(&layout)
    }

    /// Opens (or makes) a data directory: takes the lock, checks the whole log, mends what a crash may have left.
    pub async fn open(config: EmbeddedConfig) -> Result<Self, JournalError> {
        config.check()?;
        unblock(move || open(config)).await
    }

    /// The journal.
    pub fn journal(&self) -> Arc<dyn Journal> {
        Arc::new(EmbeddedJournal { running: self.running.clone() })
    }

    /// The catalogue.
    pub fn catalog(&self) -> Arc<dyn Catalog> {
        self.catalog.clone()
    }

    /// The way in, with room for `bound` commands a partition, and its other end for each partition, in order. To be
    /// called once: messages go to whoever asks first.
    pub fn intake<T: Send + 'static>(&self, bound: usize) -> Ends<T> {
        intake::channels(&self.running.shared, bound)
    }

    /// The same as [`Self::intake`], with every partition assigned to this process at once and for good.
    pub fn assignments<T: Send + 'static>(
        &self,
        bound: usize,
    ) -> (Arc<dyn Intake<T>>, Box<dyn Assignments<T>>) {
        let (intake, deliveries) = self.intake(bound);
        (intake, Box::new(intake::All { left: deliveries.into_iter().enumerate() }))
    }

    /// What has been done since the journal was opened.
    pub fn stats(&self) -> Stats {
        let shared = &self.running.shared;
        let segments = shared.segments.read().expect("no holder of the segments panics").len() as u64;
        Stats {
            fsyncs: shared.disk.syncs(),
            segments,
            log_bytes: shared.durable_end() - shared.first_lsn(),
            ..shared.counters.read()
        }
    }
}

fn open(config: EmbeddedConfig) -> Result<Embedded, JournalError> {
    let layout = Layout::new(&config.dir);
    let lock = Lock::take(&layout)?;
    let disk = Disk::new(config.faults.clone());
    layout.create(&disk)?;
    let meta = match Meta::read(&layout, config.partitions)? {
        Some(meta) => meta,
        None => create(&disk, &layout, &config)?,
    };
    let mark = MarkFile::read(&layout.mark)?;
    if mark.is_none() {
        tracing::warn!(file = %layout.mark.display(), "there is no mark: a log that lost its end would not be noticed");
    }
    // First everything is checked, then mended: a refusal leaves all as it was.
    let log = recovery::check(&layout.log, meta.log_id, meta.partitions, mark)?;
    let catalog = catalog::check(&layout, meta.log_id)?;
    let mut recovered = log.mend(&disk)?;
    let (catalog, entries) = catalog.mend(&disk, &layout, meta.log_id)?;
    for (partition, file) in checkpoint::list(&layout.checkpoints)? {
        match recovered.found.partitions.get_mut(partition as usize) {
            Some(progress) => progress.checkpoints.push(file),
            None => return Err(damage::nonsense(&file.path, 0, "it is of a partition that does not exist")),
        }
    }
    let mark = Mark {
        log_id: u64::from(meta.log_id),
        durable_end: recovered.found.durable_end,
        first_segment: recovered.first_segment,
    };
    let mark = MarkFile::create(&disk, &layout.mark, mark)?;
    let shared = Arc::new(Shared::new(layout, meta.log_id, disk, mark, recovered.found));
    let threads = |source| failed("start a thread for", &shared.layout.log, source);
    let keeper = Keeper::start(shared.clone(), config.segment_bytes, recovered.spare).map_err(threads)?;
    let writer = Writer::start(shared.clone(), keeper, recovered.end).map_err(threads)?;
    let running = Arc::new(Running { shared, writer: Some(writer), _lock: lock });
    let catalog = Arc::new(EmbeddedCatalog::new(running.clone(), catalog, entries));
    Ok(Embedded { running, catalog })
}

/// Makes a new data directory. The meta file comes last: with it, everything else must be there.
fn create(disk: &Disk, layout: &Layout, config: &EmbeddedConfig) -> Result<Meta, JournalError> {
    for (_, path) in segment::list(&layout.log)? {
        let fail = |source| failed("clear", &path, source);
        if SegmentHeader::decode(&fs::read(&path).map_err(fail)?).is_some() {
            return Err(damage::nonsense(&layout.meta, 0, "it is missing, but there is a log"));
        }
        fs::remove_file(&path).map_err(fail)?;
    }
    let meta = Meta::draw(config.partitions);
    Spare::allocate(disk, &layout.log, 1, config.segment_bytes)
        .map_err(|source| failed("allocate", &layout.log, source))?;
    let mark = Mark { log_id: u64::from(meta.log_id), durable_end: 0, first_segment: 1 };
    MarkFile::create(disk, &layout.mark, mark)?;
    catalog::create(disk, layout, meta.log_id)?;
    meta.write(disk, layout)?;
    Ok(meta)
}
