//! Reading the log's segments at a start, one after the other, frame by frame, until something is not whole.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    sync::{Arc, Mutex},
};

use bytes::Bytes;

use super::{
    damage,
    disk::failed,
    frame::{self, ALIGN_BYTES, Header},
    segment::{SEGMENT_HEADER_BYTES, Segment, SegmentHeader, Stand},
    state::Progress,
    zeros,
};
use crate::error::JournalError;

/// What came of reading one segment.
pub(super) enum Step {
    /// Whole to where the next segment begins.
    Next,
    /// The log ends here, at `offset`. What follows up to `dirty_to` belongs to a group that never became durable.
    End { offset: u64, dirty_to: u64 },
    /// The segment was never written to.
    Unused,
}

/// The log as far as it was read.
pub(super) struct Scan {
    pub(super) log_id: u32,
    pub(super) partitions: Vec<Progress>,
    pub(super) segments: BTreeMap<u64, Arc<Segment>>,
    /// The last whole segment's end, and the chain's.
    pub(super) lsn: u64,
    pub(super) previous: u32,
    /// The segment that is being read, or was read last.
    pub(super) last: Option<Arc<Segment>>,
    pub(super) offset: u64,
}

impl Scan {
    /// Before the first segment.
    pub(super) fn new(log_id: u32, partitions: u32) -> Self {
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

    /// Reads one segment; `next` is the file after it.
    pub(super) fn segment(
        &mut self,
        sequence: u64,
        path: &Path,
        next: Option<&Path>,
    ) -> Result<Step, JournalError> {
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
                    next_header.base.saturating_sub(segment.base)
                ),
            ));
        }
        if witness(self.log_id, &bytes, self.offset) > self.lsn {
            return Err(damage::durable(path, self.offset, "a later batch says that this one was durable"));
        }
        let dirty_to = zeros::used(&bytes) as u64;
        match next {
            Some(_) if dirty_to <= self.offset => Ok(Step::Next),
            _ => Ok(Step::End { offset: self.offset, dirty_to }),
        }
    }

    /// Takes in the frame at the scan's offset; false if there is no whole one.
    fn frame(&mut self, segment: &Segment, rest: Bytes) -> Result<bool, JournalError> {
        let lsn = segment.base + self.offset;
        let Some((header, crc)) = Header::decode(self.log_id, &rest) else { return Ok(false) };
        let frame_bytes = header.frame_bytes();
        if header.lsn != lsn || header.previous != self.previous || frame_bytes > rest.len() as u64 {
            return Ok(false);
        }
        let Some(payload) = header.payload(self.log_id, &rest.slice(..frame_bytes as usize)) else {
            return Ok(false);
        };
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
        self.offset += frame_bytes;
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
        if zeros::used(bytes) == 0 {
            return Ok(Step::Unused);
        }
        if (self.last.is_none() && sequence != 1) || witness(self.log_id, bytes, 0) > self.lsn {
            return Err(damage::durable(path, 0, "its header is not whole, but what follows was durable"));
        }
        Ok(Step::Unused)
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
pub(super) fn witness(log_id: u32, bytes: &[u8], offset: u64) -> u64 {
    let mut durable = 0;
    for page in zeros::pages_in_use(bytes, offset as usize) {
        for at in page.step_by(ALIGN_BYTES) {
            if bytes[at..].starts_with(&frame::MAGIC)
                && let Some((header, _)) = Header::decode(log_id, &bytes[at..])
            {
                durable = durable.max(header.durable_end);
            }
        }
    }
    durable
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test's failure is its panic")]

    use super::*;
    use crate::{
        embedded::{
            frame::Frame,
            recovery,
            segment::{self, Spare},
        },
        error::JournalError,
        ports::Batch,
    };

    const LOG_ID: u32 = 7;

    /// Writes a log of whole, linked frames of one record each, for the given partitions and positions.
    fn log_of(dir: &Path, frames: &[(u32, u64)]) {
        let disk = Default::default();
        let segment = Spare::allocate(&disk, dir, 1, 64 << 10).unwrap().activate(0, vec![Stand::START; 2]);
        let stands = segment.stands.clone();
        let header = SegmentHeader { log_id: LOG_ID, sequence: 1, base: 0, previous: 0, stands };
        let mut bytes = header.encode();
        let mut previous = 0;
        for (partition, first) in frames {
            let batch = Batch { records: vec![Bytes::from_static(b"x")], ..Batch::default() };
            let frame = Frame::new(LOG_ID, &batch, 0);
            let lsn = bytes.len() as u64;
            let header = Header {
                lsn,
                durable_end: lsn,
                first: *first,
                payload_bytes: frame.payload_bytes,
                payload_crc: frame.payload_crc,
                partition: *partition,
                records: 1,
                messages: 0,
                flags: 0,
                previous,
            };
            let start = bytes.len();
            bytes.extend_from_slice(&frame.bytes);
            previous = header.encode(LOG_ID, &mut bytes[start..]);
        }
        segment.file.write_all_at(&bytes, 0).unwrap();
    }

    fn refusal(frames: &[(u32, u64)]) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        log_of(dir.path(), frames);
        match recovery::check(dir.path(), LOG_ID, 2, None) {
            Ok(_) => None,
            Err(error @ JournalError::Damaged { .. }) => Some(error.to_string()),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn positions_without_gaps_are_accepted() {
        assert_eq!(refusal(&[(0, 1), (1, 1), (0, 2), (1, 2)]), None);
    }

    #[test]
    fn a_gap_in_a_partitions_positions_refuses_though_every_checksum_is_right() {
        let message = refusal(&[(0, 1), (1, 1), (0, 3)]).unwrap();
        assert!(message.contains("partition 0 goes on at position 3, but 2 comes next"), "{message}");
        assert!(message.contains(&segment::path(Path::new(""), 1).display().to_string()), "{message}");
    }

    #[test]
    fn a_repeated_position_refuses() {
        assert!(refusal(&[(0, 1), (0, 1)]).is_some());
    }

    #[test]
    fn a_partition_that_does_not_exist_refuses() {
        assert!(refusal(&[(5, 1)]).unwrap().contains("does not exist"));
    }
}
