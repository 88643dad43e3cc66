//! How one batch stands in the log: a header of 64 bytes, then cursor, records and messages, padded to 8 bytes.
//!
//! All numbers are little-endian. Both checksums are CRC-32C seeded with the log's own random number, so that neither a
//! frame of another log nor bytes that a user sends can pass for one. The header also binds the frame to its place:
//! its own address and the header checksum of the frame before it. So a page that the disk put elsewhere, or what an
//! abandoned write left, never passes for the next frame. `durable_end` says how far the log was durable when this frame
//! was written; that is how a later frame bears witness that damage is damage and not a torn tail.

use bytes::{Buf, Bytes};

use crate::ports::{Batch, Cursor, Outgoing, Position, Record};

/// The header's size.
pub(crate) const HEADER_BYTES: usize = 64;
/// Frames start at multiples of this.
pub(crate) const ALIGN_BYTES: usize = 8;
/// The first four bytes of a header.
pub(crate) const MAGIC: [u8; 4] = *b"RzF1";

/// The payload starts with a cursor.
pub(crate) const HAS_CURSOR: u32 = 1;
/// An owner took the partition over.
pub(crate) const OPENED: u32 = 2;
/// The owner stopped in an orderly way.
pub(crate) const CLOSED: u32 = 4;

const CURSOR_BYTES: usize = 16;

/// What a frame says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The frame's own address.
    pub(crate) lsn: u64,
    /// Everything below this address was durable when the frame was written.
    pub(crate) durable_end: u64,
    /// The position of the first record (or of the next one, if the frame has none).
    pub(crate) first: u64,
    /// Without header and padding.
    pub(crate) payload_bytes: u32,
    /// Of payload and padding.
    pub(crate) payload_crc: u32,
    pub(crate) partition: u32,
    pub(crate) records: u32,
    pub(crate) messages: u32,
    pub(crate) flags: u32,
    /// The header checksum of the frame before.
    pub(crate) previous: u32,
}

impl Header {
    /// Writes the header over the first [`HEADER_BYTES`] of `out` and returns its checksum.
    pub(crate) fn encode(&self, log_id: u32, out: &mut [u8]) -> u32 {
        out[0..4].copy_from_slice(&MAGIC);
        out[8..16].copy_from_slice(&self.lsn.to_le_bytes());
        out[16..24].copy_from_slice(&self.durable_end.to_le_bytes());
        out[24..32].copy_from_slice(&self.first.to_le_bytes());
        let words = [
            self.payload_bytes,
            self.payload_crc,
            self.partition,
            self.records,
            self.messages,
            self.flags,
            self.previous,
            0,
        ];
        for (slot, word) in out[32..HEADER_BYTES].chunks_exact_mut(4).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        let crc = crc32c::crc32c_append(log_id, &out[8..HEADER_BYTES]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        crc
    }

    /// Reads a header; `None` unless it is whole. The second value is its checksum.
    pub(crate) fn decode(log_id: u32, mut bytes: &[u8]) -> Option<(Self, u32)> {
        let checked = bytes.get(8..HEADER_BYTES)?;
        if bytes[0..4] != MAGIC {
            return None;
        }
        bytes.advance(4);
        let crc = bytes.get_u32_le();
        if crc32c::crc32c_append(log_id, checked) != crc {
            return None;
        }
        let header = Self {
            lsn: bytes.get_u64_le(),
            durable_end: bytes.get_u64_le(),
            first: bytes.get_u64_le(),
            payload_bytes: bytes.get_u32_le(),
            payload_crc: bytes.get_u32_le(),
            partition: bytes.get_u32_le(),
            records: bytes.get_u32_le(),
            messages: bytes.get_u32_le(),
            flags: bytes.get_u32_le(),
            previous: bytes.get_u32_le(),
        };
        Some((header, crc))
    }

    /// The bytes that the whole frame takes in the log.
    pub(crate) fn frame_bytes(&self) -> u64 {
        padded(HEADER_BYTES + self.payload_bytes as usize) as u64
    }

    /// The payload of `frame`, the whole frame's bytes; `None` if they are not what was written.
    pub(crate) fn payload(&self, log_id: u32, frame: &Bytes) -> Option<Bytes> {
        let matches = crc32c::crc32c_append(log_id, &frame[HEADER_BYTES..]) == self.payload_crc;
        matches.then(|| frame.slice(HEADER_BYTES..HEADER_BYTES + self.payload_bytes as usize))
    }
}

/// `bytes` rounded up to where the next frame may start.
pub(crate) fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGN_BYTES)
}

/// A batch ready to be written: only the header's place-bound fields are missing.
pub(crate) struct Frame {
    /// Room for the header, then the payload, then padding.
    pub(crate) bytes: Vec<u8>,
    pub(crate) payload_bytes: u32,
    pub(crate) payload_crc: u32,
    pub(crate) records: u32,
    pub(crate) messages: u32,
    pub(crate) flags: u32,
}

impl Frame {
    /// Encodes a batch. The caller has checked that it is within the bound of one batch.
    pub(crate) fn new(log_id: u32, batch: &Batch, flags: u32) -> Self {
        let mut bytes = Vec::with_capacity(padded(size(batch)));
        bytes.resize(HEADER_BYTES, 0);
        let mut flags = flags;
        if let Some(cursor) = batch.consumed {
            flags |= HAS_CURSOR;
            bytes.extend_from_slice(&cursor.tasks.to_le_bytes());
            bytes.extend_from_slice(&cursor.messages.to_le_bytes());
        }
        for record in &batch.records {
            bytes.extend_from_slice(&(record.len() as u32).to_le_bytes());
            bytes.extend_from_slice(record);
        }
        for message in &batch.messages {
            bytes.extend_from_slice(&message.to.to_le_bytes());
            bytes.extend_from_slice(&(message.bytes.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&message.bytes);
        }
        let payload_bytes = (bytes.len() - HEADER_BYTES) as u32;
        bytes.resize(padded(bytes.len()), 0);
        let payload_crc = crc32c::crc32c_append(log_id, &bytes[HEADER_BYTES..]);
        Self {
            bytes,
            payload_bytes,
            payload_crc,
            records: batch.records.len() as u32,
            messages: batch.messages.len() as u32,
            flags,
        }
    }
}

/// The bytes that a batch takes in the log, before padding.
pub(crate) fn size(batch: &Batch) -> usize {
    let records: usize = batch.records.iter().map(|record| 4 + record.len()).sum();
    let messages: usize = batch.messages.iter().map(|message| 8 + message.bytes.len()).sum();
    HEADER_BYTES + records + messages + batch.consumed.map_or(0, |_| CURSOR_BYTES)
}

/// The parts of a payload whose checksum was right. They are slices of it: no copy.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) records: Vec<Record>,
    pub(crate) messages: Vec<Outgoing>,
}

/// Takes a payload apart; `None` if its inner lengths do not fit it (only a bug could make that).
pub(crate) fn parts(header: &Header, mut payload: Bytes) -> Option<Parts> {
    take_cursor(header, &mut payload)?;
    let mut parts = Parts::default();
    parts.records.reserve_exact(header.records as usize);
    for index in 0..u64::from(header.records) {
        let bytes = take(&mut payload)?;
        parts.records.push(Record { position: Position(header.first + index), bytes });
    }
    parts.messages.reserve_exact(header.messages as usize);
    for _ in 0..header.messages {
        let to = payload.try_get_u32_le().ok()?;
        parts.messages.push(Outgoing { to, bytes: take(&mut payload)? });
    }
    Some(parts)
}

/// The cursor alone, from the payload's first bytes.
pub(crate) fn cursor(header: &Header, payload: &[u8]) -> Option<Option<Cursor>> {
    take_cursor(header, &mut &payload[..])
}

fn take_cursor(header: &Header, payload: &mut impl Buf) -> Option<Option<Cursor>> {
    if header.flags & HAS_CURSOR == 0 {
        return Some(None);
    }
    let tasks = payload.try_get_u64_le().ok()?;
    let messages = payload.try_get_u64_le().ok()?;
    Some(Some(Cursor { tasks, messages }))
}

fn take(payload: &mut Bytes) -> Option<Bytes> {
    let length = payload.try_get_u32_le().ok()? as usize;
    (length <= payload.len()).then(|| payload.split_to(length))
}
