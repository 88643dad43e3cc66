//! A witness outside a log of how far it was durable: without it, a log whose end was lost looks like a shorter log.
//!
//! Written after every sync of the log but not synced itself (the page cache outlives a killed process; a power cut
//! leaves an older mark, which is still true). Two slots on two pages are written in turn, so that a torn write leaves
//! the other. Synced when a segment is sealed or deleted and at a clean stop.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use bytes::Buf;

use super::disk::{Disk, failed};
use crate::error::JournalError;

const MAGIC: [u8; 4] = *b"RzM1";
const SLOT_BYTES: usize = 48;
const SLOT_STRIDE_BYTES: u64 = 4096;

/// What a mark says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Which log it belongs to.
    pub(crate) log_id: u64,
    /// Everything below is durable.
    pub(crate) durable_end: u64,
    /// The oldest segment that must be there.
    pub(crate) first_segment: u64,
}

/// The mark's file.
#[derive(Debug)]
pub(crate) struct MarkFile {
    path: PathBuf,
    file: File,
    counter: u64,
    mark: Mark,
}

impl MarkFile {
    /// Reads a mark: `None` if there is no file (an operator may remove it to go on without the witness).
    pub(crate) fn read(path: &Path) -> Result<Option<Mark>, JournalError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed("read", path, source)),
        };
        let slots =
            [0, SLOT_STRIDE_BYTES as usize].into_iter().filter_map(|at| bytes.get(at..at + SLOT_BYTES));
        let newest = slots.filter_map(decode).max_by_key(|(counter, _)| *counter);
        match newest {
            Some((_, mark)) => Ok(Some(mark)),
            None => Err(JournalError::Damaged {
                file: path.to_owned(),
                offset: 0,
                why: "neither of its two slots is whole, which no crash explains".into(),
                remedy:
                    "Check the disk. To start without this witness (a log that lost its end will then not be \
                         noticed), remove the file"
                        .into(),
            }),
        }
    }

    /// Opens the mark for writing and writes `mark`, durably.
    pub(crate) fn create(disk: &Disk, path: &Path, mark: Mark) -> Result<Self, JournalError> {
        let fail = |source| failed("write", path, source);
        let fresh = !path.exists();
        let file =
            File::options().create(true).truncate(false).read(true).write(true).open(path).map_err(fail)?;
        let mut counter = 0;
        for slot in 0..2 {
            let mut bytes = [0; SLOT_BYTES];
            if file.read_exact_at(&mut bytes, slot * SLOT_STRIDE_BYTES).is_ok()
                && let Some((found, _)) = decode(&bytes)
            {
                counter = counter.max(found);
            }
        }
        let mut this = Self { path: path.to_owned(), file, counter, mark };
        this.write(disk, mark).map_err(fail)?;
        this.sync(disk);
        if fresh && let Some(dir) = path.parent() {
            disk.sync_dir(dir);
        }
        Ok(this)
    }

    /// Writes a newer mark, not durably.
    pub(crate) fn write(&mut self, disk: &Disk, mark: Mark) -> io::Result<()> {
        self.counter += 1;
        self.mark = mark;
        let slot = (self.counter % 2) * SLOT_STRIDE_BYTES;
        disk.write_at(&self.file, &encode(self.counter, &mark), slot)
    }

    /// Makes the last mark durable.
    pub(crate) fn sync(&self, disk: &Disk) {
        disk.sync(&self.file, &self.path);
    }

    /// The last mark written.
    pub(crate) fn mark(&self) -> Mark {
        self.mark
    }
}

fn encode(counter: u64, mark: &Mark) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..4].copy_from_slice(&MAGIC);
    let fields = [counter, mark.log_id, mark.durable_end, mark.first_segment];
    for (place, field) in slot[8..40].chunks_exact_mut(8).zip(fields) {
        place.copy_from_slice(&field.to_le_bytes());
    }
    let crc = crc32c::crc32c(&slot[8..]);
    slot[4..8].copy_from_slice(&crc.to_le_bytes());
    slot
}

fn decode(slot: &[u8]) -> Option<(u64, Mark)> {
    if slot[..4] != MAGIC || crc32c::crc32c(&slot[8..]).to_le_bytes() != slot[4..8] {
        return None;
    }
    let mut fields = &slot[8..40];
    let counter = fields.get_u64_le();
    let mark = Mark {
        log_id: fields.get_u64_le(),
        durable_end: fields.get_u64_le(),
        first_segment: fields.get_u64_le(),
    };
    Some((counter, mark))
}
