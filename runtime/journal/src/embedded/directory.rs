//! The data directory: who may use it (one process, by a lock) and what it was made for (a format, a partition count,
//! one log's random number).

use std::{
    fs::{self, File, TryLockError},
    hash::{BuildHasher, RandomState},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Buf;

use super::{
    disk::{Disk, failed},
    segment::FORMAT_VERSION,
};
use crate::error::JournalError;

const MAGIC: [u8; 4] = *b"RzD1";
const META_BYTES: usize = 24;

/// Where everything lies in a data directory.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) root: PathBuf,
    pub(crate) lock: PathBuf,
    pub(crate) meta: PathBuf,
    pub(crate) mark: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) checkpoints: PathBuf,
    pub(crate) catalog: PathBuf,
    pub(crate) catalog_mark: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            lock: root.join("lock"),
            meta: root.join("meta"),
            mark: root.join("mark"),
            log: root.join("log"),
            checkpoints: root.join("checkpoints"),
            catalog: root.join("catalog"),
            catalog_mark: root.join("catalog.mark"),
        }
    }

    /// Makes the folders that are not there yet.
    pub(crate) fn create(&self, disk: &Disk) -> Result<(), JournalError> {
        for dir in [&self.log, &self.checkpoints] {
            fs::create_dir_all(dir).map_err(|source| failed("create", dir, source))?;
        }
        disk.sync_dir(&self.root);
        // A new directory's own name, too, must outlive a crash; where its parent may not be read, that is the
        // operator's affair.
        if !self.meta.exists()
            && let Ok(root) = self.root.canonicalize()
            && let Some(parent) = root.parent()
            && File::open(parent).is_ok()
        {
            disk.sync_dir(parent);
        }
        Ok(())
    }
}

/// Who holds the lock for less only looks whether somebody does, or is ending.
const PASSING: Duration = Duration::from_millis(100);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The exclusive lock on the data directory; held while this lives. The kernel releases it when the process ends,
/// however it ends.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held for its lock")] File);

impl Lock {
    /// Takes the lock, or says who has it.
    pub(crate) fn take(layout: &Layout) -> Result<Self, JournalError> {
        let fail = |source| failed("lock", &layout.lock, source);
        fs::create_dir_all(&layout.root).map_err(|source| failed("create", &layout.root, source))?;
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&layout.lock)
            .map_err(fail)?;
        let deadline = Instant::now() + PASSING;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOOK_EVERY),
                Err(TryLockError::WouldBlock) => {
                    let pid = said_pid(&mut file);
                    return Err(JournalError::Locked { dir: layout.root.clone(), pid });
                }
                Err(TryLockError::Error(source)) => return Err(fail(source)),
            }
        }
        file.set_len(0).map_err(fail)?;
        file.rewind().map_err(fail)?;
        writeln!(file, "{}", std::process::id()).map_err(fail)?;
        Ok(Self(file))
    }
}

/// Who holds the lock; `None` if nobody does. Holds a shared lock for a moment, which a host that starts just then waits for.
pub(crate) fn holder(layout: &Layout) -> Result<Option<Holder>, JournalError> {
    let mut file = match File::open(&layout.lock) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed("read", &layout.lock, source)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(Holder { pid: said_pid(&mut file) })),
        Err(TryLockError::Error(source)) => Err(failed("lock", &layout.lock, source)),
    }
}

/// A process that has a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number, when that can be read.
    pub pid: Option<u32>,
}

/// Only for messages: whoever holds the lock may be about to write its number.
fn said_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok())
}

/// What the directory was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) partitions: u32,
    /// The log's own random number; the seed of its checksums.
    pub(crate) log_id: u32,
}

impl Meta {
    /// What a new directory is made for.
    pub(crate) fn draw(partitions: u32) -> Self {
        Self { partitions, log_id: RandomState::new().hash_one(std::process::id()) as u32 }
    }

    /// Reads the meta file and compares it with what is asked for; `None` in a new directory.
    pub(crate) fn read(layout: &Layout, partitions: u32) -> Result<Option<Self>, JournalError> {
        let bytes = match fs::read(&layout.meta) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed("read", &layout.meta, source)),
        };
        let whole = bytes.len() == META_BYTES
            && bytes[..4] == MAGIC
            && crc32c::crc32c(&bytes[8..]).to_le_bytes() == bytes[4..8];
        if !whole {
            return Err(JournalError::Damaged {
                file: layout.meta.clone(),
                offset: 0,
                why: "its checksum does not match".into(),
                remedy:
                    "Restore it from a backup of this data directory; it never changes after the first start"
                        .into(),
            });
        }
        let mut fields = &bytes[8..];
        let found = fields.get_u32_le();
        if found != FORMAT_VERSION {
            return Err(JournalError::Version { file: layout.meta.clone(), found, known: FORMAT_VERSION });
        }
        let meta = Self { partitions: fields.get_u32_le(), log_id: fields.get_u32_le() };
        if meta.partitions != partitions {
            let dir = layout.root.clone();
            return Err(JournalError::Partitions { dir, found: meta.partitions, asked: partitions });
        }
        Ok(Some(meta))
    }

    /// Writes the meta file, durably. From then on the log must be there.
    pub(crate) fn write(&self, disk: &Disk, layout: &Layout) -> Result<(), JournalError> {
        let mut bytes = [0; META_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        for (place, field) in
            bytes[8..20].chunks_exact_mut(4).zip([FORMAT_VERSION, self.partitions, self.log_id])
        {
            place.copy_from_slice(&field.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        disk.replace(&layout.meta, [&bytes[..]])
    }
}
