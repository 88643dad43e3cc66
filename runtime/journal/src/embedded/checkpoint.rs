//! Checkpoints: one file for each, put in place whole. A checksum for the header and for each chunk, the latter seeded
//! with the chunk's number so that chunks cannot change places.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::{Buf, Bytes};

use super::{
    damage,
    disk::{Disk, TEMPORARY, failed},
    segment::FORMAT_VERSION,
    state::{CheckpointFile, Progress},
};
use crate::{
    error::JournalError,
    ports::{Checkpoint, Position},
};

const MAGIC: [u8; 4] = *b"RzC1";
const HEADER_BYTES: usize = 40;
const CHUNK_HEADER_BYTES: usize = 8;

/// A checkpoint's file name.
pub(crate) fn path(dir: &Path, partition: u32, at: u64) -> PathBuf {
    dir.join(format!("{partition:05}-{at:020}.checkpoint"))
}

/// The checkpoints of all partitions, by partition and position. Removes what was never completed.
pub(crate) fn list(dir: &Path) -> Result<Vec<(u32, CheckpointFile)>, JournalError> {
    let fail = |source| failed("list", dir, source);
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|extension| extension == TEMPORARY) {
            fs::remove_file(&path).map_err(|source| failed("remove", &path, source))?;
            continue;
        }
        let numbers = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.split_once('-'));
        if let Some((partition, at)) = numbers
            && let (Ok(partition), Ok(at)) = (partition.parse(), at.parse())
        {
            found.push((partition, CheckpointFile { at, path, checked: false }));
        }
    }
    found.sort_by_key(|(partition, file)| (*partition, file.at));
    Ok(found)
}

/// Writes a checkpoint, durably.
pub(crate) fn write(
    disk: &Disk,
    path: &Path,
    log_id: u32,
    partition: u32,
    at: u64,
    chunks: &[Bytes],
) -> Result<(), JournalError> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&[0; 4]);
    for word in [FORMAT_VERSION, log_id, partition, chunks.len() as u32] {
        header.extend_from_slice(&word.to_le_bytes());
    }
    header.extend_from_slice(&at.to_le_bytes());
    header.resize(HEADER_BYTES, 0);
    let crc = crc32c::crc32c_append(log_id, &header[8..]);
    header[4..8].copy_from_slice(&crc.to_le_bytes());
    let mut chunk_headers = Vec::with_capacity(chunks.len());
    for (number, chunk) in chunks.iter().enumerate() {
        let length = u32::try_from(chunk.len()).map_err(|_| JournalError::TooLarge {
            what: "a chunk of a checkpoint",
            bytes: chunk.len() as u64,
            limit: u64::from(u32::MAX),
        })?;
        let mut chunk_header = [0; CHUNK_HEADER_BYTES];
        chunk_header[..4].copy_from_slice(&length.to_le_bytes());
        chunk_header[4..].copy_from_slice(&chunk_crc(log_id, number, chunk).to_le_bytes());
        chunk_headers.push(chunk_header);
    }
    let body = chunk_headers.iter().zip(chunks).flat_map(|(header, chunk)| [&header[..], &chunk[..]]);
    disk.replace(path, std::iter::once(&header[..]).chain(body))
}

fn chunk_crc(log_id: u32, number: usize, chunk: &[u8]) -> u32 {
    crc32c::crc32c_append(log_id ^ number as u32, chunk)
}

/// Reads a checkpoint, whole and checked.
pub(crate) fn read(file: &CheckpointFile, log_id: u32, partition: u32) -> Result<Checkpoint, JournalError> {
    let mut bytes = Bytes::from(fs::read(&file.path).map_err(|source| failed("read", &file.path, source))?);
    let total = bytes.len();
    let damaged = |rest: &Bytes, why: &str| damage::nonsense(&file.path, (total - rest.len()) as u64, why);
    let Some(chunk_count) = read_header(&bytes, log_id, partition, file.at) else {
        return Err(damaged(
            &bytes,
            "the checkpoint's header does not match its checksum, its name or this log",
        ));
    };
    bytes.advance(HEADER_BYTES);
    let mut chunks = Vec::with_capacity(chunk_count.min(total / CHUNK_HEADER_BYTES));
    for number in 0..chunk_count {
        if bytes.len() < CHUNK_HEADER_BYTES {
            return Err(damaged(&bytes, "the checkpoint is cut short"));
        }
        let place = bytes.clone();
        let length = bytes.get_u32_le() as usize;
        let crc = bytes.get_u32_le();
        if bytes.len() < length {
            return Err(damaged(&place, "the checkpoint is cut short"));
        }
        let chunk = bytes.split_to(length);
        if chunk_crc(log_id, number, &chunk) != crc {
            return Err(damaged(&place, "a chunk of the checkpoint does not match its checksum"));
        }
        chunks.push(chunk);
    }
    match bytes.is_empty() {
        true => Ok(Checkpoint { at: Position(file.at), chunks }),
        false => Err(damaged(&bytes, "the checkpoint goes on after its end")),
    }
}

/// The number of chunks, if the header is whole and this checkpoint's.
fn read_header(bytes: &[u8], log_id: u32, partition: u32, at: u64) -> Option<usize> {
    let header = bytes.get(..HEADER_BYTES)?;
    let crc = crc32c::crc32c_append(log_id, &header[8..]);
    if header[..4] != MAGIC || crc.to_le_bytes() != header[4..8] {
        return None;
    }
    let mut fields = &header[8..];
    let own = fields.get_u32_le() == FORMAT_VERSION
        && fields.get_u32_le() == log_id
        && fields.get_u32_le() == partition;
    let chunks = fields.get_u32_le() as usize;
    (own && fields.get_u64_le() == at).then_some(chunks)
}

/// The checkpoint to restart from: the newest valid one, provided that all records after it are there. A damaged one
/// is passed over for an older one, or for none if the log goes back to the first record.
pub(crate) fn newest_valid(
    progress: &Progress,
    log_id: u32,
    partition: u32,
    limit: u64,
) -> Result<Option<Checkpoint>, JournalError> {
    let mut first_damage = None;
    for file in progress.checkpoints.iter().rev().filter(|file| file.at <= limit) {
        if file.at > progress.last().0 {
            let why = format!("it includes position {}, but the log ends at {}", file.at, progress.last());
            return Err(damage::nonsense(&file.path, 0, &why));
        }
        match read(file, log_id, partition) {
            Ok(checkpoint) if file.at + 1 >= progress.first => return Ok(Some(checkpoint)),
            Ok(_) => {
                let why = format!(
                    "records after it are missing: the log of partition {partition} begins at {}",
                    progress.first
                );
                return Err(first_damage.unwrap_or_else(|| damage::nonsense(&file.path, 0, &why)));
            }
            Err(error @ JournalError::Damaged { .. }) => {
                tracing::warn!(partition, %error, "passing over a damaged checkpoint");
                first_damage.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    match (progress.first, first_damage) {
        (1, _) => Ok(None),
        (_, Some(damage)) => Err(damage),
        (first, None) => {
            let why = format!(
                "partition {partition} has no checkpoint, but its records before position {first} were deleted in favour of one"
            );
            Err(damage::nonsense(&PathBuf::from("checkpoints"), 0, &why))
        }
    }
}
