//! What is done with the log at every start: it is read from its oldest segment to its end, every checksum, address,
//! link and position is checked, and the partitions' progress is rebuilt.
//!
//! Where the first bad frame stands at address X, the question is whether X was durable. It was, if the mark is beyond
//! X, or if any whole frame (or segment header) after X says that the log was durable beyond X when it was written:
//! then something durable is lost, and the journal refuses to start. Otherwise the bad frame belongs to the last
//! group, whose sync never came back: nobody was told of it, and it is cut off.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    damage,
    disk::{Disk, failed},
    mark::Mark,
    scan::{Scan, Step, witness},
    segment::{self, SegmentHeader, Spare, Stand},
    state::Found,
    writer::End,
    zeros,
};
use crate::error::JournalError;

/// The log as it was found.
pub(crate) struct Recovered {
    pub(crate) found: Found,
    pub(crate) end: End,
    /// A file of zeros that an earlier process left ready.
    pub(crate) spare: Option<Spare>,
    /// What the log says about itself, for the new mark.
    pub(crate) first_segment: u64,
}

/// A log that may be started from, not yet touched.
pub(crate) struct Checked {
    dir: PathBuf,
    scan: Scan,
    /// Where the last group that never became durable begins and ends.
    torn: Option<(u64, u64)>,
    /// What a deletion had given up but not yet removed.
    given_up: Vec<PathBuf>,
    /// The files after the log's end, by sequence; whether each is all zeros.
    unused: Vec<(u64, PathBuf, bool)>,
}

/// Reads the whole log and refuses what no crash explains. Changes nothing.
pub(crate) fn check(
    dir: &Path,
    log_id: u32,
    partitions: u32,
    mark: Option<Mark>,
) -> Result<Checked, JournalError> {
    let mut files = segment::list(dir)?;
    let first = mark.map_or(0, |mark| mark.first_segment);
    let kept = files.partition_point(|(sequence, _)| *sequence < first);
    let given_up = files.drain(..kept).map(|(_, path)| path).collect();
    check_sequence(dir, &files, mark)?;
    let mut scan = Scan::new(log_id, partitions);
    let mut files = files.into_iter().peekable();
    let mut torn = None;
    let mut unused = Vec::new();
    while let Some((sequence, path)) = files.next() {
        let next = files.peek().map(|(_, path)| path.as_path());
        match scan.segment(sequence, &path, next)? {
            Step::Next => continue,
            Step::End { offset, dirty_to } => torn = Some((offset, dirty_to)),
            Step::Unused => unused.push((sequence, path)),
        }
        break;
    }
    unused.extend(files);
    let durable_end = mark.map_or(0, |mark| mark.durable_end);
    if durable_end > scan.lsn {
        let path = scan.last.as_ref().map_or_else(|| segment::path(dir, 1), |last| last.path.clone());
        let lost = durable_end - scan.lsn;
        let why = format!("the log ends here, but the mark says that another {lost} bytes were durable");
        return Err(damage::durable(&path, scan.offset, &why));
    }
    let unused = classify(&scan, unused)?;
    Ok(Checked { dir: dir.to_owned(), scan, torn, given_up, unused })
}

/// Refuses a hole between the files' numbers, or one before the first.
fn check_sequence(dir: &Path, files: &[(u64, PathBuf)], mark: Option<Mark>) -> Result<(), JournalError> {
    let first = mark.map(|mark| mark.first_segment).or(files.first().map(|(sequence, _)| *sequence));
    let first = first.unwrap_or(1);
    if files.is_empty() {
        return Err(damage::missing(segment::path(dir, first)));
    }
    match (first..).zip(files).find(|(expected, (sequence, _))| sequence != expected) {
        Some((expected, _)) => Err(damage::missing(segment::path(dir, expected))),
        None => Ok(()),
    }
}

impl Checked {
    /// Cuts a torn tail off and clears away what is not part of the log.
    pub(crate) fn mend(self, disk: &Disk) -> Result<Recovered, JournalError> {
        let Self { dir, mut scan, torn, given_up, unused } = self;
        let mut unused = unused.into_iter();
        let last = match scan.last.take() {
            Some(last) => {
                if let Some((from, to)) = torn {
                    zero(disk, &last.file, &last.path, from, to)?;
                }
                // A killed process may have left a whole group that only the page cache knows.
                disk.sync(&last.file, &last.path);
                last
            }
            None => {
                // No batch was ever written. What a first write may have left is covered by the next one.
                let first = unused.next().map_or_else(|| segment::path(&dir, 1), |(_, path, _)| path);
                let first =
                    Spare::allocate(disk, &dir, 1, 0).map_err(|source| failed("open", &first, source))?;
                let segment = Arc::new(first.activate(0, vec![Stand::START; scan.partitions.len()]));
                scan.segments.insert(0, segment.clone());
                segment
            }
        };
        for path in given_up {
            fs::remove_file(&path).map_err(|source| failed("remove", &path, source))?;
        }
        let spare = put_aside(disk, &dir, last.sequence + 1, unused)?;
        let first_segment = scan.segments.values().next().map_or(1, |segment| segment.sequence);
        let end = End { segment: last, offset: scan.offset, previous: scan.previous };
        let found = Found { segments: scan.segments, partitions: scan.partitions, durable_end: scan.lsn };
        Ok(Recovered { found, end, spare, first_segment })
    }
}

/// Whether each of the files after the end is all zeros; refuses if one of them says that the log went on.
fn classify(scan: &Scan, unused: Vec<(u64, PathBuf)>) -> Result<Vec<(u64, PathBuf, bool)>, JournalError> {
    let classify = |(sequence, path): (u64, PathBuf)| {
        let bytes = fs::read(&path).map_err(|source| failed("read", &path, source))?;
        let begun = SegmentHeader::decode(&bytes).is_some();
        if begun || witness(scan.log_id, &bytes, 0) > scan.lsn {
            return Err(damage::durable(
                &path,
                0,
                "it is part of the log, but what comes before it is damaged",
            ));
        }
        let zeros = zeros::used(&bytes) == 0;
        Ok((sequence, path, zeros))
    };
    unused.into_iter().map(classify).collect()
}

/// Overwrites what a group that never became durable left, so that it can never be taken for more of the log.
fn zero(disk: &Disk, file: &File, path: &Path, from: u64, to: u64) -> Result<(), JournalError> {
    if to <= from {
        return Ok(());
    }
    let bytes = to - from;
    tracing::warn!(
        file = %path.display(), offset = from, bytes,
        "the log's last write was never completed and nobody was told of it; cutting it off"
    );
    disk.write_at(file, &vec![0; bytes as usize], from).map_err(|source| failed("mend", path, source))?;
    disk.sync(file, path);
    Ok(())
}

/// Of the files after the last used one, the first becomes the spare if it is all zeros; the others are removed.
fn put_aside(
    disk: &Disk,
    dir: &Path,
    sequence: u64,
    unused: impl Iterator<Item = (u64, PathBuf, bool)>,
) -> Result<Option<Spare>, JournalError> {
    let mut spare = None;
    for (found, path, zeros) in unused {
        if found == sequence && zeros {
            spare = Some(
                Spare::allocate(disk, dir, sequence, 0).map_err(|source| failed("open", &path, source))?,
            );
        } else {
            fs::remove_file(&path).map_err(|source| failed("remove", &path, source))?;
        }
    }
    disk.sync_dir(dir);
    Ok(spare)
}
