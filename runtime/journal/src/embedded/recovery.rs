//! What is done with the log at every start: it is read from its oldest segment to its end, every checksum, address,
//! link and position is checked, and the partitions' progress is rebuilt.
//!
//! Where the first bad frame stands at address X, the question is whether X was durable. It was, if the mark is beyond
//! X, or if any whole frame (or segment header) after X says that the log was durable beyond X when it was written:
//! then something durable is lost, and the journal refuses to start. Otherwise the bad frame belongs to the last
//! group, whose sync never came back: nobody was told of it, and it is cut off.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use bytes::Bytes;

use super::{
    damage,
    disk::{Disk, failed},
    frame::{self, ALIGN_BYTES, HEADER_BYTES, Header},
    mark::Mark,
    segment::{self, SEGMENT_HEADER_BYTES, Segment, SegmentHeader, Spare, Stand},
    state::{Found, Progress},
    writer::End,
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

/// Reads the whole log; mends a torn tail.
pub(crate) fn recover(
    disk: &Disk,
    dir: &Path,
    log_id: u32,
    partitions: u32,
    mark: Option<Mark>,
) -> Result<Recovered, JournalError> {
    let mut files = segment::list(dir)?;
    if let Some(mark) = mark {
        // What a deletion had given up but not yet removed.
        let kept = files.partition_point(|(sequence, _)| *sequence < mark.first_segment);
        for (_, path) in files.drain(..kept) {
            fs::remove_file(&path).map_err(|source| failed("remove", &path, source))?;
        }
    }
    check_sequence(dir, &files, mark)?;
    let mut scan = Scan::new(log_id, partitions);
    let mut files = files.into_iter().peekable();
    let mut torn = None;
    while let Some((sequence, path)) = files.next() {
        let next = files.peek().map(|(_, path)| path.as_path());
        match scan.segment(sequence, &path, next)? {
            Step::Next => {}
            Step::End { offset, dirty_to } => {
                torn = Some((offset, dirty_to));
                break;
            }
            Step::Unused => {
                let unused = std::iter::once((sequence, path)).chain(files);
                return scan.finish(disk, dir, mark, None, unused.collect());
            }
        }
    }
    scan.finish(disk, dir, mark, torn, files.collect())
}

/// Refuses a hole between the files' numbers, or one before the first.
fn check_sequence(dir: &Path, files: &[(u64, PathBuf)], mark: Option<Mark>) -> Result<(), JournalError> {
    let first = mark.map(|mark| mark.first_segment).or(files.first().map(|(sequence, _)| *sequence));
    let mut expected = first.unwrap_or(1);
    if files.is_empty() {
        return Err(damage::missing(segment::path(dir, expected)));
    }
    for (sequence, _) in files {
        if *sequence != expected {
            return Err(damage::missing(segment::path(dir, expected)));
        }
        expected += 1;
    }
    Ok(())
}

/// What came of reading one segment.
enum Step {
    /// Whole to where the next segment begins.
    Next,
    /// The log ends here, at `offset`. What follows up to `dirty_to` belongs to a group that never became durable.
    End { offset: u64, dirty_to: u64 },
    /// The segment was never written to.
    Unused,
}

struct Scan {
    log_id: u32,
    partitions: Vec<Progress>,
    segments: BTreeMap<u64, Arc<Segment>>,
    /// The last whole segment's end, and the chain's.
    lsn: u64,
    previous: u32,
    /// The segment that is being read, or was read last.
    last: Option<Arc<Segment>>,
    offset: u64,
}

impl Scan {
    fn new(log_id: u32, partitions: u32) -> Self {
        Self {
            log_id,
            partitions: vec![Progress::starting_at(&Stand::START); partitions as usize],
            segments: BTreeMap::new(),
            lsn: 0,
            previous: 0,
            last: None,
            offset: 0,
        }
    }

    fn segment(&mut self, sequence: u64, path: &Path, next: Option<&Path>) -> Result<Step, JournalError> {
        let fail = |source| failed("read", path, source);
        let file = File::options().read(true).write(true).open(path).map_err(fail)?;
        let bytes = Bytes::from(fs::read(path).map_err(fail)?);
        let Some(header) = SegmentHeader::decode(&bytes) else {
            return self.unreadable_header(sequence, path, &bytes);
        };
        self.check_header(sequence, path, &header)?;
        let segment = Arc::new(Segment {
            sequence,
            base: header.base,
            path: path.to_owned(),
            capacity: bytes.len() as u64,
            file,
            stands: header.stands,
            messages: Mutex::default(),
        });
        self.segments.insert(segment.base, segment.clone());
        self.last = Some(segment.clone());
        self.offset = SEGMENT_HEADER_BYTES as u64;
        loop {
            let rest = bytes.slice(self.offset as usize..);
            if !self.frame(&segment, rest)? {
                break;
            }
        }
        self.lsn = segment.base + self.offset;
        let next_header = next.map(read_header).transpose()?.flatten();
        if let Some(next_header) = next_header {
            // The next segment was begun after this one was durable to its end.
            if next_header.base == self.lsn {
                return Ok(Step::Next);
            }
            return Err(damage::durable(
                path,
                self.offset,
                &format!(
                    "the next segment says that this one was durable up to {}",
                    next_header.base - segment.base
                ),
            ));
        }
        if witness(self.log_id, &bytes, self.offset) > self.lsn {
            return Err(damage::durable(path, self.offset, "a later batch says that this one was durable"));
        }
        let tail = &bytes[self.offset as usize..];
        let dirty = tail.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
        match (dirty, next) {
            (0, Some(_)) => Ok(Step::Next),
            _ => Ok(Step::End { offset: self.offset, dirty_to: self.offset + dirty }),
        }
    }

    /// Takes in the frame at the scan's offset; false if there is no whole one.
    fn frame(&mut self, segment: &Segment, rest: Bytes) -> Result<bool, JournalError> {
        let lsn = segment.base + self.offset;
        let Some((header, crc)) = Header::decode(self.log_id, &rest) else { return Ok(false) };
        let end = HEADER_BYTES + header.payload_bytes as usize;
        if header.lsn != lsn || header.previous != self.previous || end > rest.len() {
            return Ok(false);
        }
        let payload = rest.slice(HEADER_BYTES..end);
        if !header.matches(self.log_id, &payload) {
            return Ok(false);
        }
        let wrong = |why: &str| damage::nonsense(&segment.path, self.offset, why);
        let Some(progress) = self.partitions.get_mut(header.partition as usize) else {
            return Err(wrong("a batch names a partition that does not exist"));
        };
        if progress.next() != header.first {
            return Err(wrong(&format!(
                "partition {} goes on at position {}, but {} comes next: records are missing",
                header.partition,
                header.first,
                progress.next()
            )));
        }
        let cursor =
            frame::cursor(&header, &payload).ok_or_else(|| wrong("a batch has no room for its cursor"))?;
        progress.apply(&header, cursor);
        if header.messages > 0 {
            let parts =
                frame::parts(&header, payload).ok_or_else(|| wrong("a batch's lengths do not fit it"))?;
            for (index, message) in parts.messages.iter().enumerate() {
                segment.note_message(message.to, lsn + index as u64 + 1);
            }
        }
        self.previous = crc;
        self.offset += header.frame_bytes();
        Ok(true)
    }

    /// Compares a segment's header with where the log stands.
    fn check_header(
        &mut self,
        sequence: u64,
        path: &Path,
        header: &SegmentHeader,
    ) -> Result<(), JournalError> {
        let wrong = |why: &str| Err(damage::nonsense(path, 0, why));
        if header.log_id != self.log_id {
            return wrong("it belongs to another log than this data directory's");
        }
        if header.sequence != sequence || header.stands.len() != self.partitions.len() {
            return wrong("its header is that of another segment");
        }
        if self.last.is_none() {
            self.partitions = header.stands.iter().map(Progress::starting_at).collect();
            self.previous = header.previous;
            self.lsn = header.base;
            return Ok(());
        }
        let stands = self.partitions.iter().map(Progress::stand);
        if header.base != self.lsn
            || header.previous != self.previous
            || !stands.eq(header.stands.iter().copied())
        {
            return wrong("it does not continue the segment before it");
        }
        Ok(())
    }

    /// A segment whose header is not whole is unused, or was begun by a group that never became durable, or is damaged.
    fn unreadable_header(&self, sequence: u64, path: &Path, bytes: &[u8]) -> Result<Step, JournalError> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(Step::Unused);
        }
        if (self.last.is_none() && sequence != 1) || witness(self.log_id, bytes, 0) > self.lsn {
            return Err(damage::durable(path, 0, "its header is not whole, but what follows was durable"));
        }
        Ok(Step::Unused)
    }

    /// Checks the mark and the files that follow, mends the tail and puts those files aside.
    fn finish(
        mut self,
        disk: &Disk,
        dir: &Path,
        mark: Option<Mark>,
        torn: Option<(u64, u64)>,
        unused: Vec<(u64, PathBuf)>,
    ) -> Result<Recovered, JournalError> {
        let durable_end = mark.map_or(0, |mark| mark.durable_end);
        if durable_end > self.lsn {
            let path = self.last.as_ref().map_or_else(|| segment::path(dir, 1), |last| last.path.clone());
            let lost = durable_end - self.lsn;
            let why = format!("the log ends here, but the mark says that another {lost} bytes were durable");
            return Err(damage::durable(&path, self.offset, &why));
        }
        let unused = self.classify(unused)?;
        if let (Some(last), Some((from, to))) = (&self.last, torn) {
            zero(disk, &last.file, &last.path, from, to)?;
        }
        let next_sequence = self.last.as_ref().map_or(1, |last| last.sequence + 1);
        let mut spare = put_aside(disk, dir, next_sequence, unused)?;
        let last = match self.last.take() {
            Some(last) => last,
            None => {
                // No batch was ever written.
                let path = segment::path(dir, 1);
                let first = match spare.take() {
                    Some(spare) => spare,
                    None => {
                        Spare::allocate(disk, dir, 1, 0).map_err(|source| failed("open", &path, source))?
                    }
                };
                let segment = Arc::new(first.activate(0, vec![Stand::START; self.partitions.len()]));
                self.segments.insert(0, segment.clone());
                segment
            }
        };
        let first_segment = self.segments.values().next().map_or(1, |segment| segment.sequence);
        let end = End { segment: last, offset: self.offset, previous: self.previous };
        let found = Found { segments: self.segments, partitions: self.partitions, durable_end: self.lsn };
        Ok(Recovered { found, end, spare, first_segment })
    }

    /// Whether each of the files after the end is all zeros; refuses if one of them says that the log went on.
    fn classify(&self, unused: Vec<(u64, PathBuf)>) -> Result<Vec<(u64, PathBuf, bool)>, JournalError> {
        let classify = |(sequence, path): (u64, PathBuf)| {
            let bytes = fs::read(&path).map_err(|source| failed("read", &path, source))?;
            let begun = SegmentHeader::decode(&bytes).is_some();
            if begun || witness(self.log_id, &bytes, 0) > self.lsn {
                return Err(damage::durable(
                    &path,
                    0,
                    "it is part of the log, but what comes before it is damaged",
                ));
            }
            let zeros = bytes.iter().all(|byte| *byte == 0);
            Ok((sequence, path, zeros))
        };
        unused.into_iter().map(classify).collect()
    }
}

fn read_header(path: &Path) -> Result<Option<SegmentHeader>, JournalError> {
    let fail = |source| failed("read", path, source);
    let file = File::open(path).map_err(fail)?;
    let mut page = [0; SEGMENT_HEADER_BYTES];
    match file.read_exact_at(&mut page, 0) {
        Ok(()) => Ok(SegmentHeader::decode(&page)),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(source) => Err(fail(source)),
    }
}

/// How far the log was durable according to the whole frame headers after `offset`.
fn witness(log_id: u32, bytes: &[u8], offset: u64) -> u64 {
    let mut durable = 0;
    let mut at = (offset as usize).next_multiple_of(ALIGN_BYTES);
    while let Some(rest) = bytes.get(at..at + HEADER_BYTES) {
        if rest[..4] == frame::MAGIC
            && let Some((header, _)) = Header::decode(log_id, rest)
        {
            durable = durable.max(header.durable_end);
        }
        at += ALIGN_BYTES;
    }
    durable
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
    unused: Vec<(u64, PathBuf, bool)>,
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
