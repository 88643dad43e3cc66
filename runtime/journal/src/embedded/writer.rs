//! The one thread that appends. It takes whatever batches wait, of all partitions, puts them into one buffer, writes it
//! once, syncs once, and then tells everybody: that is the group commit.
//!
//! Nothing counts before the sync: positions, the chain of checksums and the address move in [`Writer::publish`] only,
//! so a write that found the disk full leaves the writer as it was. What such a write left on the disk is undone by
//! zeroing the first header, without which nothing after it is part of the chain.

use std::{
    os::unix::fs::FileExt,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
};

use super::{
    disk,
    frame::{HEADER_BYTES, Header},
    keeper::Keeper,
    mailbox::Request,
    mark::Mark,
    segment::{SEGMENT_HEADER_BYTES, Segment, SegmentHeader},
    state::Shared,
};
use crate::error::CommitError;

/// A group is written when it has reached this size, even if more waits: one write of that size takes about as long as
/// a sync.
const GROUP_BYTES: usize = 4 << 20;

/// Where the log ends.
pub(crate) struct End {
    pub(crate) segment: Arc<Segment>,
    /// In the segment; zero before its header is written.
    pub(crate) offset: u64,
    /// The last frame's header checksum.
    pub(crate) previous: u32,
}

struct Staged {
    request: Request,
    header: Header,
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    keeper: Keeper,
    end: End,
    /// The next position of each partition, staged batches included.
    next: Vec<u64>,
    /// The chain's end, staged batches included.
    previous: u32,
    buffer: Vec<u8>,
    staged: Vec<Staged>,
}

impl Writer {
    /// Starts the thread. It ends when the mailbox is closed and empty.
    pub(crate) fn start(shared: Arc<Shared>, keeper: Keeper, end: End) -> std::io::Result<JoinHandle<()>> {
        let next = shared.partitions.iter().map(|partition| partition.progress().next()).collect();
        let previous = end.previous;
        let mut writer = Self { shared, keeper, end, next, previous, buffer: Vec::new(), staged: Vec::new() };
        std::thread::Builder::new().name("journal-writer".into()).spawn(move || writer.run())
    }

    fn run(&mut self) {
        let _guard = EndProcessOnPanic;
        let shared = self.shared.clone();
        let mut requests = Vec::new();
        while shared.mailbox.take(&mut requests) {
            for request in requests.drain(..) {
                self.stage(request);
                if self.buffer.len() >= GROUP_BYTES {
                    self.flush();
                }
            }
            self.flush();
        }
    }

    /// Puts a batch into the group, unless its owner is fenced or there is no room for it.
    fn stage(&mut self, request: Request) {
        let partition = self.shared.partition(request.partition);
        if partition.generation.load(Ordering::Acquire) != request.generation {
            answer(request, Err(CommitError::Fenced));
            return;
        }
        let frame_bytes = request.frame.bytes.len() as u64;
        let page = if self.fill() == 0 { SEGMENT_HEADER_BYTES as u64 } else { 0 };
        if self.fill() + page + frame_bytes > self.end.segment.capacity {
            self.flush();
            if let Err(error) = self.rotate(frame_bytes) {
                tracing::warn!(%error, "the log cannot grow");
                answer(request, Err(CommitError::NoSpace(error.to_string())));
                return;
            }
        }
        if self.fill() == 0 {
            let page = self.segment_header().encode();
            self.buffer.extend_from_slice(&page);
        }
        let frame = &request.frame;
        let next = &mut self.next[request.partition as usize];
        let header = Header {
            lsn: self.end.segment.base + self.end.offset + self.buffer.len() as u64,
            durable_end: self.shared.durable_end(),
            first: *next,
            payload_bytes: frame.payload_bytes,
            payload_crc: frame.payload_crc,
            partition: request.partition,
            records: frame.records,
            messages: frame.messages,
            flags: frame.flags,
            previous: self.previous,
        };
        *next += u64::from(frame.records);
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&frame.bytes);
        self.previous = header.encode(self.shared.log_id, &mut self.buffer[start..]);
        self.staged.push(Staged { request, header });
    }

    /// How far the segment is filled, staged batches included.
    fn fill(&self) -> u64 {
        self.end.offset + self.buffer.len() as u64
    }

    fn segment_header(&self) -> SegmentHeader {
        SegmentHeader {
            log_id: self.shared.log_id,
            sequence: self.end.segment.sequence,
            base: self.end.segment.base,
            previous: self.previous,
            stands: self.end.segment.stands.clone(),
        }
    }

    /// Goes on in a new segment with room for `frame_bytes`. The group is empty.
    fn rotate(&mut self, frame_bytes: u64) -> std::io::Result<()> {
        if self.end.offset == 0 {
            // Only when a batch is larger than a segment that is still unused: it is extended in place.
            return self.extend(frame_bytes);
        }
        let sequence = self.end.segment.sequence + 1;
        let wanted = self.keeper.segment_bytes().max(SEGMENT_HEADER_BYTES as u64 + frame_bytes);
        let spare = self.keeper.take(&self.shared, sequence, wanted)?;
        let base = self.end.segment.base + self.end.offset;
        let stands = self.shared.partitions.iter().map(|partition| partition.progress().stand()).collect();
        self.use_segment(spare.activate(base, stands));
        self.shared.mark.lock().expect("no holder of the mark panics").sync(&self.shared.disk);
        Ok(())
    }

    fn extend(&mut self, frame_bytes: u64) -> std::io::Result<()> {
        let segment = &self.end.segment;
        let wanted = SEGMENT_HEADER_BYTES as u64 + frame_bytes;
        let file = segment.file.try_clone()?;
        self.shared.disk.allocate(&file, &segment.path, wanted)?;
        let larger = Segment {
            sequence: segment.sequence,
            base: segment.base,
            path: segment.path.clone(),
            file,
            capacity: wanted,
            stands: segment.stands.clone(),
            messages: Default::default(),
        };
        self.use_segment(larger);
        Ok(())
    }

    fn use_segment(&mut self, segment: Segment) {
        let segment = Arc::new(segment);
        let mut segments = self.shared.segments.write().expect("no holder of the segments panics");
        segments.insert(segment.base, segment.clone());
        drop(segments);
        self.end.segment = segment;
        self.end.offset = 0;
    }

    /// Makes the group durable and answers, or answers why not.
    fn flush(&mut self) {
        if self.staged.is_empty() {
            return;
        }
        let segment = &self.end.segment;
        if let Err(error) = self.shared.disk.write_at(&segment.file, &self.buffer, self.end.offset) {
            self.undo(&error);
            return;
        }
        self.shared.disk.sync(&segment.file, &segment.path);
        self.publish();
    }

    /// Forgets the group after a failed write: as if it had never been staged.
    fn undo(&mut self, error: &std::io::Error) {
        let segment = &self.end.segment;
        // Past the segment's header, if the group began with it: what counts is that no frame is found.
        let zeros = [0; SEGMENT_HEADER_BYTES + HEADER_BYTES];
        let length = if self.end.offset == 0 { zeros.len() } else { HEADER_BYTES };
        if let Err(error) = segment.file.write_all_at(&zeros[..length], self.end.offset) {
            tracing::error!(path = %segment.path.display(), %error, "a failed write cannot be undone; ending the process");
            std::process::abort();
        }
        self.shared.disk.sync(&segment.file, &segment.path);
        for staged in self.staged.drain(..) {
            let next = &mut self.next[staged.header.partition as usize];
            *next = (*next).min(staged.header.first);
            let refusal = match disk::is_full(error) {
                true => CommitError::NoSpace(error.to_string()),
                false => CommitError::Unclear(error.to_string()),
            };
            answer(staged.request, Err(refusal));
        }
        self.previous = self.end.previous;
        self.buffer.clear();
    }

    /// The group is durable: let it be seen, then answer.
    fn publish(&mut self) {
        let shared = &self.shared;
        let written = self.buffer.len() as u64;
        self.end.offset += written;
        self.end.previous = self.previous;
        let durable_end = self.end.segment.base + self.end.offset;
        shared.set_durable_end(durable_end);
        let counters = &shared.counters;
        counters.groups.fetch_add(1, Ordering::Relaxed);
        counters.batches.fetch_add(self.staged.len() as u64, Ordering::Relaxed);
        counters.bytes.fetch_add(written, Ordering::Relaxed);
        for Staged { request, header } in self.staged.drain(..) {
            let partition = shared.partition(request.partition);
            let last = {
                let mut progress = partition.progress();
                progress.apply(&header, request.cursor);
                progress.last()
            };
            if header.records > 0 {
                counters.records.fetch_add(u64::from(header.records), Ordering::Relaxed);
                partition.durable.send_replace(last.0);
            }
            counters.note_latency(request.sent.elapsed());
            // The owner may have gone; the batch is durable all the same.
            let _ = request.reply.send(Ok(last));
            if header.messages > 0 {
                counters.messages.fetch_add(u64::from(header.messages), Ordering::Relaxed);
                for (index, message) in request.messages.into_iter().enumerate() {
                    let next = header.lsn + index as u64 + 1;
                    self.end.segment.note_message(message.to, next);
                    shared.partition(message.to).inbox.deliver(header.lsn, next, message.bytes);
                }
            }
        }
        self.buffer.clear();
        if self.buffer.capacity() > 2 * GROUP_BYTES {
            self.buffer = Vec::new();
        }
        self.write_mark(durable_end);
        if self.end.offset > self.end.segment.capacity / 2 {
            self.keeper.prepare(self.end.segment.sequence + 1);
        }
    }

    fn write_mark(&self, durable_end: u64) {
        let mut file = self.shared.mark.lock().expect("no holder of the mark panics");
        let mark = Mark { durable_end, ..file.mark() };
        if let Err(error) = file.write(&self.shared.disk, mark) {
            // An older mark is a weaker witness, not a wrong one.
            tracing::warn!(%error, "cannot write the journal's mark");
        }
    }
}

fn answer(request: Request, outcome: Result<crate::ports::Position, CommitError>) {
    // The owner may have gone; then nobody needs the answer.
    let _ = request.reply.send(outcome);
}

/// Without its writer the journal would hang for ever; a restart recovers.
struct EndProcessOnPanic;

impl Drop for EndProcessOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the journal's writer panicked; ending the process");
            std::process::abort();
        }
    }
}
