//! The files of the log: `log/00000001.seg` and so on, each filled with zeros before it is used.
//!
//! An address (LSN) counts bytes over all segments that ever were: a segment's `base` is the address where the one
//! before ended, so that a missing segment shows as a hole. The first page of a segment says which segment it is and
//! where each partition stood at its start: that is how a log whose beginning was deleted still knows what it must
//! find in checkpoints, and which messages were consumed. The page is written together with the segment's first batch.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Mutex,
};

use bytes::Buf;

use super::disk::{Disk, failed};
use crate::{error::JournalError, ports::Cursor};

/// The first page of a segment: its header. Also the size of a disk page, so that frames share none with it.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 4096;
/// How many partitions there can be: a segment's header has room for so many.
pub const PARTITIONS_LIMIT: u32 = 128;
/// The format that this program writes and reads.
pub(crate) const FORMAT_VERSION: u32 = 1;

const MAGIC: [u8; 4] = *b"RzS1";
const FIXED_BYTES: usize = 48;
/// In a stand's first number: the partition's owner had stopped in an orderly way.
const CLEAN_BIT: u64 = 1 << 63;

/// Where a partition stood when a segment began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stand {
    /// The position of its next record.
    pub(crate) next: u64,
    pub(crate) consumed: Cursor,
    /// Whether the last thing that happened was an orderly stop.
    pub(crate) clean: bool,
}

impl Stand {
    /// Where every partition starts.
    pub(crate) const START: Self = Self { next: 1, consumed: Cursor { tasks: 0, messages: 0 }, clean: true };
}

/// One open segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) sequence: u64,
    /// The address of the file's first byte.
    pub(crate) base: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    /// The file's size: how far batches may be written.
    pub(crate) capacity: u64,
    /// For each partition, where it stood when this segment began.
    pub(crate) stands: Vec<Stand>,
    /// For each destination, the cursor beyond its last message that stands in this segment.
    pub(crate) messages: Mutex<Vec<(u32, u64)>>,
}

impl Segment {
    /// Remembers that a message for `to` stands here, so that the segment stays until it is consumed.
    pub(crate) fn note_message(&self, to: u32, next: u64) {
        let mut messages = self.messages.lock().expect("no holder of the list panics");
        match messages.iter_mut().find(|(known, _)| *known == to) {
            Some((_, last)) => *last = next,
            None => messages.push((to, next)),
        }
    }
}

/// What a segment's first page says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) log_id: u32,
    pub(crate) sequence: u64,
    pub(crate) base: u64,
    /// The header checksum of the last frame before this segment.
    pub(crate) previous: u32,
    pub(crate) stands: Vec<Stand>,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        page.extend_from_slice(&MAGIC);
        page.extend_from_slice(&[0; 4]);
        page.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        page.extend_from_slice(&self.log_id.to_le_bytes());
        page.extend_from_slice(&self.sequence.to_le_bytes());
        page.extend_from_slice(&self.base.to_le_bytes());
        page.extend_from_slice(&self.previous.to_le_bytes());
        page.extend_from_slice(&(self.stands.len() as u32).to_le_bytes());
        page.resize(FIXED_BYTES, 0);
        for stand in &self.stands {
            let next = stand.next | if stand.clean { CLEAN_BIT } else { 0 };
            for number in [next, stand.consumed.tasks, stand.consumed.messages] {
                page.extend_from_slice(&number.to_le_bytes());
            }
        }
        page.resize(SEGMENT_HEADER_BYTES, 0);
        let crc = crc32c::crc32c(&page[8..]);
        page[4..8].copy_from_slice(&crc.to_le_bytes());
        page
    }

    /// Reads a first page; `None` unless it is whole and of this format.
    pub(crate) fn decode(page: &[u8]) -> Option<Self> {
        let page = page.get(..SEGMENT_HEADER_BYTES)?;
        if page[..4] != MAGIC || crc32c::crc32c(&page[8..]).to_le_bytes() != page[4..8] {
            return None;
        }
        let mut fields = &page[8..FIXED_BYTES];
        if fields.get_u32_le() != FORMAT_VERSION {
            return None;
        }
        let log_id = fields.get_u32_le();
        let sequence = fields.get_u64_le();
        let base = fields.get_u64_le();
        let previous = fields.get_u32_le();
        let partitions = fields.get_u32_le();
        if partitions > PARTITIONS_LIMIT {
            return None;
        }
        let mut table = &page[FIXED_BYTES..];
        let stands = (0..partitions).map(|_| {
            let next = table.get_u64_le();
            let consumed = Cursor { tasks: table.get_u64_le(), messages: table.get_u64_le() };
            Stand { next: next & !CLEAN_BIT, consumed, clean: next & CLEAN_BIT != 0 }
        });
        Some(Self { log_id, sequence, base, previous, stands: stands.collect() })
    }
}

/// A segment's file name.
pub(crate) fn path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{sequence:08}.seg"))
}

/// The segments in a folder, by sequence.
pub(crate) fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>, JournalError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(|source| failed("list", dir, source))? {
        let path = entry.map_err(|source| failed("list", dir, source))?.path();
        if path.extension().is_none_or(|extension| extension != "seg") {
            continue;
        }
        let sequence = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        match sequence {
            Some(sequence) => found.push((sequence, path)),
            None => {
                return Err(JournalError::Damaged {
                    file: path,
                    offset: 0,
                    why: "its name is not that of a log segment".into(),
                    remedy: "Move it out of the folder".into(),
                });
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A file of zeros that waits to become the next segment.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) sequence: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) capacity: u64,
}

impl Spare {
    /// Allocates (or extends) segment `sequence` to at least `bytes`, durably, its name too. After an error the file may
    /// be there in part; the next call goes on with it.
    pub(crate) fn allocate(disk: &Disk, dir: &Path, sequence: u64, bytes: u64) -> std::io::Result<Self> {
        let path = path(dir, sequence);
        let file = File::options().create(true).truncate(false).read(true).write(true).open(&path)?;
        disk.allocate(&file, &path, bytes)?;
        disk.sync_dir(dir);
        let capacity = file.metadata()?.len();
        Ok(Self { sequence, path, file, capacity })
    }

    /// Takes the file into use.
    pub(crate) fn activate(self, base: u64, stands: Vec<Stand>) -> Segment {
        let Self { sequence, path, file, capacity } = self;
        Segment { sequence, base, path, file, capacity, stands, messages: Mutex::default() }
    }
}
