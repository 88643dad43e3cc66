//! The disk under the journal: that it is one, and how long it takes to make a small write durable.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// How many durable writes the probe does.
const WRITES: usize = 200;
/// How long each is, bytes: about a commit of one small run.
const WRITE_BYTES: usize = 4096;

/// What the probe found.
pub(crate) struct Disk {
    /// `ext4`, say.
    pub(crate) file_system: String,
    /// Median time of a small append and its `fdatasync`.
    pub(crate) sync_p50: Duration,
}

/// Looks at the disk under `folder`, and refuses one that is only memory.
pub(crate) fn probe(folder: &Path) -> Result<Disk> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let file_system = file_system(&folder.canonicalize()?)?;
    if ["tmpfs", "ramfs"].contains(&file_system.as_str()) {
        bail!("{} is {file_system}, which is memory: choose a disk with --data-dir", folder.display());
    }
    let path = folder.join("probe");
    let mut file = File::create(&path)?;
    let mut took = Vec::with_capacity(WRITES);
    for _ in 0..WRITES {
        let begin = Instant::now();
        file.write_all(&[7; WRITE_BYTES])?;
        file.sync_data()?;
        took.push(begin.elapsed());
    }
    fs::remove_file(path)?;
    took.sort_unstable();
    Ok(Disk { file_system, sync_p50: took[WRITES / 2] })
}

/// The type of the file system that holds `folder`: that of the longest mount point above it.
fn file_system(folder: &Path) -> Result<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .filter(|(point, _)| folder.starts_with(point))
        .max_by_key(|(point, _)| point.len())
        .map(|(_, kind)| kind.to_owned())
        .context("no mount holds the data directory")
}
