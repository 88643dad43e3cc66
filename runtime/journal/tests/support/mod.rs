//! A data directory that a test can look into, copy and damage.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use reipaz_journal::{
    Batch, Catalog, Checkpoint, Embedded, EmbeddedConfig, JournalError, Opened, Position,
    embedded::SEGMENT_BYTES_MIN,
};

pub(crate) const PARTITIONS: u32 = 2;

/// A data directory that is removed at the end.
pub(crate) struct Data(tempfile::TempDir);

impl Data {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn dir(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// The path of log segment `sequence`.
    pub(crate) fn segment(&self, sequence: u64) -> PathBuf {
        self.file(&format!("log/{sequence:08}.seg"))
    }

    pub(crate) fn config(&self) -> EmbeddedConfig {
        EmbeddedConfig { segment_bytes: SEGMENT_BYTES_MIN, ..EmbeddedConfig::new(self.dir(), PARTITIONS) }
    }

    pub(crate) async fn start(&self) -> Embedded {
        Embedded::open(self.config()).await.unwrap()
    }

    /// Starts, and expects to be refused because of damage; gives the damaged file's name, the offset and the message.
    pub(crate) async fn refusal(&self) -> (String, u64, String) {
        let before = Snapshot::of(self.dir());
        let error = match Embedded::open(self.config()).await {
            Ok(_) => panic!("started on damaged data"),
            Err(error) => error,
        };
        assert!(before.differences(&Snapshot::of(self.dir())).is_empty(), "a refusal changes nothing");
        damage_of(error)
    }

    /// A copy of the directory as it is now.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::new();
        Snapshot::of(self.dir()).write_to(copy.dir());
        copy
    }

    pub(crate) fn edit(&self, path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(path).unwrap();
        edit(&mut bytes);
        fs::write(path, bytes).unwrap();
    }

    /// Changes one byte.
    pub(crate) fn flip(&self, path: &Path, offset: usize) {
        self.edit(path, |bytes| bytes[offset] ^= 0x10);
    }
}

/// What a damage error says.
pub(crate) fn damage_of(error: JournalError) -> (String, u64, String) {
    let message = error.to_string();
    match error {
        JournalError::Damaged { file, offset, remedy, .. } => {
            assert!(!remedy.is_empty(), "it says what to do");
            assert!(message.contains(&file.display().to_string()), "it names the file");
            (file.file_name().unwrap().to_str().unwrap().to_owned(), offset, message)
        }
        other => panic!("expected damage, not {other}"),
    }
}

/// The files of a directory (but the lock), by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot(pub(crate) std::collections::BTreeMap<PathBuf, Vec<u8>>);

impl Snapshot {
    pub(crate) fn of(dir: &Path) -> Self {
        let mut files = std::collections::BTreeMap::new();
        let mut folders = vec![dir.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path != dir.join("lock") {
                    let name = path.strip_prefix(dir).unwrap().to_owned();
                    files.insert(name, fs::read(path).unwrap());
                }
            }
        }
        Self(files)
    }

    pub(crate) fn write_to(&self, dir: &Path) {
        for folder in ["log", "checkpoints"] {
            fs::create_dir_all(dir.join(folder)).unwrap();
        }
        for (name, bytes) in &self.0 {
            fs::write(dir.join(name), bytes).unwrap();
        }
    }

    /// The names of the files that are not the same in both.
    pub(crate) fn differences(&self, other: &Self) -> Vec<PathBuf> {
        let names = self.0.keys().chain(other.0.keys());
        let mut different: Vec<_> =
            names.filter(|name| self.0.get(*name) != other.0.get(*name)).cloned().collect();
        different.sort();
        different.dedup();
        different
    }
}

pub(crate) fn batch<const N: usize>(texts: [&str; N]) -> Batch {
    Batch { records: texts.map(|text| Bytes::from(text.to_owned())).into(), ..Batch::default() }
}

pub(crate) async fn open(embedded: &Embedded, partition: u32) -> Opened {
    embedded.journal().open(partition).await.unwrap()
}

/// The checkpoint's position and all records after it, as text.
pub(crate) async fn content(opened: &mut Opened) -> (Option<u64>, Vec<String>) {
    let mut texts = Vec::new();
    while let Some(chunk) = opened.tail.next().await.unwrap() {
        texts.extend(chunk.iter().map(|record| String::from_utf8(record.bytes.to_vec()).unwrap()));
    }
    (opened.checkpoint.as_ref().map(|Checkpoint { at: Position(at), .. }| *at), texts)
}

/// All records of partition 0 after a start, as text.
pub(crate) async fn records(data: &Data) -> Vec<String> {
    let embedded = data.start().await;
    let mut opened = open(&embedded, 0).await;
    let (_, texts) = content(&mut opened).await;
    texts
}

pub(crate) fn entries(catalog: &dyn Catalog) -> Vec<(String, String)> {
    let text = |value: Bytes| String::from_utf8(value.to_vec()).unwrap();
    catalog.entries().into_iter().map(|(key, value)| (key, text(value))).collect()
}
