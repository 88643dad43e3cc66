//! The embedded catalogue: a small log of its own, read into memory at the start, rewritten when it is mostly garbage.
//!
//! Each record says where it stands and how far the file was durable when it was written, and a mark outside witnesses
//! the end: the rules for damage are the journal's. A rewrite is a new file with the next generation's number, put in
//! place whole; a mark of the generation before it is then out of date, not contradicted.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use tokio::sync::{Mutex, watch};

use super::{
    Running, damage,
    directory::Layout,
    disk::{Disk, failed, is_full},
    mark::{Mark, MarkFile},
    segment::FORMAT_VERSION,
};
use crate::{catalog::Catalog, error::JournalError, unblock::unblock};

/// The longest key.
pub const CATALOG_KEY_BYTES_LIMIT: usize = 1024;
/// The largest value: a plugin of 32 MiB and a little about it.
pub const CATALOG_VALUE_BYTES_LIMIT: usize = 33 << 20;
/// Below this a rewrite is not worth its syncs.
const REWRITE_FROM_BYTES: u64 = 1 << 20;

const FILE_MAGIC: [u8; 4] = *b"RzK1";
const RECORD_MAGIC: [u8; 4] = *b"RzR1";
const FILE_HEADER_BYTES: usize = 32;
const RECORD_HEADER_BYTES: usize = 40;
const ALIGN_BYTES: usize = 8;

/// See the module.
pub(crate) struct EmbeddedCatalog {
    running: Arc<Running>,
    entries: Arc<RwLock<BTreeMap<String, Bytes>>>,
    changes: watch::Sender<u64>,
    log: Arc<Mutex<Log>>,
}

/// The catalogue's file, open for appending.
pub(crate) struct Log {
    layout: Layout,
    log_id: u32,
    file: File,
    generation: u64,
    end: u64,
    /// What the present records take.
    live_bytes: u64,
    mark: MarkFile,
}

/// What the file holds.
type Entries = BTreeMap<String, Bytes>;

impl EmbeddedCatalog {
    pub(crate) fn new(running: Arc<Running>, log: Log, entries: Entries) -> Self {
        let changes = watch::Sender::new(0);
        Self { running, entries: Arc::new(RwLock::new(entries)), changes, log: Arc::new(Mutex::new(log)) }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Catalog for EmbeddedCatalog {
    async fn put(&self, key: &str, value: Bytes) -> Result<(), JournalError> {
        self.store(key, value, true).await.map(drop)
    }

    async fn insert(&self, key: &str, value: Bytes) -> Result<Option<Bytes>, JournalError> {
        self.store(key, value, false).await
    }

    fn get(&self, key: &str) -> Option<Bytes> {
        self.read().get(key).cloned()
    }

    fn entries(&self) -> Vec<(String, Bytes)> {
        self.read().iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    async fn sync(&self) -> Result<(), JournalError> {
        Ok(())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl EmbeddedCatalog {
    /// Gives what stands there and may not be replaced.
    async fn store(&self, key: &str, value: Bytes, replace: bool) -> Result<Option<Bytes>, JournalError> {
        check_bound("a catalogue key", key.len(), CATALOG_KEY_BYTES_LIMIT)?;
        check_bound("a catalogue value", value.len(), CATALOG_VALUE_BYTES_LIMIT)?;
        let mut log = self.log.clone().lock_owned().await;
        let (running, entries, key) = (self.running.clone(), self.entries.clone(), key.to_owned());
        let changes = self.changes.clone();
        // In a task of its own: once begun it ends, whether or not the caller waits.
        unblock(move || {
            let disk = &running.shared.disk;
            let present = entries.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
            if !replace && present.is_some() {
                return Ok(present);
            }
            log.append(disk, &key, &value)?;
            let mut entries = entries.write().unwrap_or_else(PoisonError::into_inner);
            let replaced = entries.get(&key).map_or(0, |old| record_bytes(&key, old));
            log.live_bytes = log.live_bytes + record_bytes(&key, &value) - replaced;
            entries.insert(key, value);
            let mostly_garbage = log.end > REWRITE_FROM_BYTES && log.end > 2 * log.live_bytes;
            let present = mostly_garbage.then(|| entries.clone());
            drop(entries);
            changes.send_modify(|count| *count += 1);
            // The record is durable already; a full disk only postpones the rewrite.
            if let Some(present) = present
                && let Err(error) = log.rewrite(disk, &present)
            {
                tracing::warn!(%error, "cannot rewrite the catalogue; going on with the long one");
            }
            Ok(None)
        })
        .await
    }
}

fn check_bound(what: &'static str, bytes: usize, limit: usize) -> Result<(), JournalError> {
    match bytes > limit {
        true => Err(JournalError::TooLarge { what, bytes: bytes as u64, limit: limit as u64 }),
        false => Ok(()),
    }
}

/// Makes an empty catalogue in a new data directory.
pub(crate) fn create(disk: &Disk, layout: &Layout, log_id: u32) -> Result<(), JournalError> {
    disk.replace(&layout.catalog, [&file_header(log_id, 1)[..]])?;
    MarkFile::create(disk, &layout.catalog_mark, mark_of(1, FILE_HEADER_BYTES as u64))?;
    Ok(())
}

/// A catalogue that may be started from, not yet touched.
pub(crate) struct Checked {
    generation: u64,
    entries: Entries,
    end: u64,
    /// The file's length; what lies beyond `end` is a write that was never completed.
    length: u64,
}

/// Reads the catalogue and refuses what no crash explains. Changes nothing.
pub(crate) fn check(layout: &Layout, log_id: u32) -> Result<Checked, JournalError> {
    let path = &layout.catalog;
    let bytes = match fs::read(path) {
        Ok(bytes) => Bytes::from(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(damage::nonsense(path, 0, "the catalogue is missing"));
        }
        Err(source) => return Err(failed("read", path, source)),
    };
    let Some(generation) = read_file_header(&bytes, log_id) else {
        return Err(damage::nonsense(
            path,
            0,
            "its header does not match its checksum or this data directory",
        ));
    };
    let (entries, end) = read_records(&bytes, log_id);
    let mark = MarkFile::read(&layout.catalog_mark)?;
    if mark.is_none() {
        let file = layout.catalog_mark.display();
        tracing::warn!(%file, "there is no mark: a catalogue that lost its end would not be noticed");
    }
    check_witnesses(path, &bytes, log_id, generation, end, mark)?;
    Ok(Checked { generation, entries, end, length: bytes.len() as u64 })
}

impl Checked {
    /// Cuts a torn tail off and opens the catalogue for more.
    pub(crate) fn mend(
        self,
        disk: &Disk,
        layout: &Layout,
        log_id: u32,
    ) -> Result<(Log, Entries), JournalError> {
        let Self { generation, entries, end, length } = self;
        let path = &layout.catalog;
        let file = File::options()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|source| failed("open", path, source))?;
        if end < length {
            tracing::warn!(
                file = %path.display(), offset = end, bytes = length - end,
                "the catalogue's last write was never completed and nobody was told of it; cutting it off"
            );
            file.set_len(end).map_err(|source| failed("mend", path, source))?;
        }
        // A killed process may have left a whole record that only the page cache knows.
        disk.sync(&file, path);
        let mark = MarkFile::create(disk, &layout.catalog_mark, mark_of(generation, end))?;
        let live_bytes = live_bytes(&entries);
        let log = Log { layout: layout.clone(), log_id, file, generation, end, live_bytes, mark };
        Ok((log, entries))
    }
}

/// Refuses if something says that more than `end` bytes were durable.
fn check_witnesses(
    path: &Path,
    bytes: &Bytes,
    log_id: u32,
    generation: u64,
    end: u64,
    mark: Option<Mark>,
) -> Result<(), JournalError> {
    match mark {
        Some(mark) if mark.log_id == generation && mark.durable_end > end => {
            return Err(damage::durable(
                path,
                end,
                "the mark says that the catalogue was durable beyond this",
            ));
        }
        Some(mark) if mark.log_id != generation && mark.log_id + 1 != generation => {
            return Err(damage::nonsense(path, 0, "the catalogue and its mark are not of the same time"));
        }
        _ => {}
    }
    let mut at = (end as usize).next_multiple_of(ALIGN_BYTES);
    while let Some(rest) = bytes.get(at..) {
        if let Some(record) = RecordHeader::decode(rest, log_id)
            && record.durable_end > end
        {
            return Err(damage::durable(path, end, "a later record says that this was durable"));
        }
        at += ALIGN_BYTES;
    }
    Ok(())
}

fn mark_of(generation: u64, end: u64) -> Mark {
    Mark { log_id: generation, durable_end: end, first_segment: 0 }
}

impl Log {
    fn append(&mut self, disk: &Disk, key: &str, value: &Bytes) -> Result<(), JournalError> {
        let path = &self.layout.catalog;
        let record = encode(self.log_id, self.end, self.end, key, value);
        if let Err(error) = disk.write_at(&self.file, &record, self.end) {
            if let Err(error) = self.file.set_len(self.end) {
                tracing::error!(path = %path.display(), %error, "a failed write cannot be undone; ending the process");
                std::process::abort();
            }
            return Err(match is_full(&error) {
                true => JournalError::NoSpace { what: "the catalogue".into() },
                false => failed("write", path, error),
            });
        }
        disk.sync(&self.file, path);
        self.end += record.len() as u64;
        self.write_mark(disk);
        Ok(())
    }

    fn write_mark(&mut self, disk: &Disk) {
        if let Err(error) = self.mark.write(disk, mark_of(self.generation, self.end)) {
            // An older mark is a weaker witness, not a wrong one.
            tracing::warn!(%error, "cannot write the catalogue's mark");
        }
    }

    /// Puts a file with only the present records in place of the old one.
    fn rewrite(&mut self, disk: &Disk, entries: &Entries) -> Result<(), JournalError> {
        let path = self.layout.catalog.clone();
        let generation = self.generation + 1;
        let mut parts = vec![file_header(self.log_id, generation).to_vec()];
        let mut end = FILE_HEADER_BYTES as u64;
        for (key, value) in entries {
            let record = encode(self.log_id, end, end, key, value);
            end += record.len() as u64;
            parts.push(record);
        }
        disk.replace(&path, parts.iter().map(Vec::as_slice))?;
        // The old file has no name any more: without the new one nothing can be stored.
        self.file = match File::options().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "cannot open the new catalogue; ending the process");
                std::process::abort();
            }
        };
        (self.generation, self.end, self.live_bytes) = (generation, end, live_bytes(entries));
        self.write_mark(disk);
        self.mark.sync(disk);
        Ok(())
    }
}

fn file_header(log_id: u32, generation: u64) -> [u8; FILE_HEADER_BYTES] {
    let mut header = [0; FILE_HEADER_BYTES];
    header[..4].copy_from_slice(&FILE_MAGIC);
    header[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&log_id.to_le_bytes());
    header[16..24].copy_from_slice(&generation.to_le_bytes());
    let crc = crc32c::crc32c(&header[8..]);
    header[4..8].copy_from_slice(&crc.to_le_bytes());
    header
}

fn read_file_header(bytes: &[u8], log_id: u32) -> Option<u64> {
    let header = bytes.get(..FILE_HEADER_BYTES)?;
    let whole = header[..4] == FILE_MAGIC && crc32c::crc32c(&header[8..]).to_le_bytes() == header[4..8];
    let mut fields = &header[8..];
    let own = fields.get_u32_le() == FORMAT_VERSION && fields.get_u32_le() == log_id;
    (whole && own).then(|| fields.get_u64_le())
}

struct RecordHeader {
    offset: u64,
    durable_end: u64,
    key_bytes: usize,
    value_bytes: usize,
    /// Of key, value and padding.
    payload_crc: u32,
}

impl RecordHeader {
    fn decode(bytes: &[u8], log_id: u32) -> Option<Self> {
        let header = bytes.get(..RECORD_HEADER_BYTES)?;
        let crc = crc32c::crc32c_append(log_id, &header[8..]);
        if header[..4] != RECORD_MAGIC || crc.to_le_bytes() != header[4..8] {
            return None;
        }
        let mut fields = &header[8..];
        Some(Self {
            offset: fields.get_u64_le(),
            durable_end: fields.get_u64_le(),
            key_bytes: fields.get_u32_le() as usize,
            value_bytes: fields.get_u32_le() as usize,
            payload_crc: fields.get_u32_le(),
        })
    }
}

fn record_bytes(key: &str, value: &[u8]) -> u64 {
    (RECORD_HEADER_BYTES + key.len() + value.len()).next_multiple_of(ALIGN_BYTES) as u64
}

fn live_bytes(entries: &Entries) -> u64 {
    entries.iter().map(|(key, value)| record_bytes(key, value)).sum()
}

fn encode(log_id: u32, offset: u64, durable_end: u64, key: &str, value: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(record_bytes(key, value) as usize);
    record.extend_from_slice(&RECORD_MAGIC);
    record.extend_from_slice(&[0; 4]);
    record.extend_from_slice(&offset.to_le_bytes());
    record.extend_from_slice(&durable_end.to_le_bytes());
    record.extend_from_slice(&(key.len() as u32).to_le_bytes());
    record.extend_from_slice(&(value.len() as u32).to_le_bytes());
    record.resize(RECORD_HEADER_BYTES, 0);
    record.extend_from_slice(key.as_bytes());
    record.extend_from_slice(value);
    record.resize(record.len().next_multiple_of(ALIGN_BYTES), 0);
    let payload_crc = crc32c::crc32c_append(log_id, &record[RECORD_HEADER_BYTES..]);
    record[32..36].copy_from_slice(&payload_crc.to_le_bytes());
    let crc = crc32c::crc32c_append(log_id, &record[8..RECORD_HEADER_BYTES]);
    record[4..8].copy_from_slice(&crc.to_le_bytes());
    record
}

/// The records up to the first one that is not whole, and where that is.
fn read_records(bytes: &Bytes, log_id: u32) -> (Entries, u64) {
    let mut entries = Entries::new();
    let mut at = FILE_HEADER_BYTES;
    while let Some((key, value, next)) = read_record(bytes, at, log_id) {
        entries.insert(key, value);
        at = next;
    }
    (entries, at as u64)
}

fn read_record(bytes: &Bytes, at: usize, log_id: u32) -> Option<(String, Bytes, usize)> {
    let header = RecordHeader::decode(bytes.get(at..)?, log_id)?;
    let key_at = at + RECORD_HEADER_BYTES;
    let value_at = key_at + header.key_bytes;
    let end = value_at + header.value_bytes;
    let next = end.next_multiple_of(ALIGN_BYTES);
    if header.offset != at as u64 || next > bytes.len() {
        return None;
    }
    if crc32c::crc32c_append(log_id, &bytes[key_at..next]) != header.payload_crc {
        return None;
    }
    let key = String::from_utf8(bytes[key_at..value_at].to_vec()).ok()?;
    // A copy, so that an entry does not hold the whole file in memory.
    Some((key, Bytes::copy_from_slice(&bytes[value_at..end]), next))
}
