//! What stands in the journal topic: frames, each in one message or, if it is large, in several that follow one another.
//!
//! Every message begins with the same header, so any of them tells where the partition stands: the position that comes
//! next, how far intake has been consumed, how much log there is, and where the newest checkpoint lies. That is what a
//! new owner, a search for a position, and a reader that begins in the middle need; none of them reads more than they
//! land on. Kafka's offsets have gaps (a transaction's end takes one), positions have none: so positions stand in here.
//!
//! All numbers are little-endian. The checksum is CRC-32C over everything after it.

use bytes::{Buf, BufMut, Bytes};

use crate::ports::{Cursor, Position, Record};

/// A message's header.
pub(crate) const HEADER_BYTES: usize = 112;
/// The most of a frame in one message: with the header, the key and the framing it stays below what a topic takes that
/// was made with the brokers' defaults (1,048,588).
pub(crate) const PIECE_BYTES: usize = 960 << 10;

const MAGIC: [u8; 3] = *b"RzJ";
/// The format's version, in the fourth byte.
pub(crate) const VERSION: u8 = 1;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A new owner's first word: here ends what came before it. It knows nothing yet, so its header says nothing else.
    Opened = 1,
    /// A batch: its records, perhaps none.
    Batch = 2,
    /// The owner stopped in an orderly way.
    Closed = 3,
    /// A part of a checkpoint.
    State = 4,
    /// The checkpoint before it is whole.
    Sealed = 5,
}

/// Where a checkpoint lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pointer {
    /// The last record that it includes.
    pub(crate) at: u64,
    /// Its first message.
    pub(crate) offset: u64,
    /// The records after `at` stand at or beyond this.
    pub(crate) tail: u64,
    /// How much log had been written before `tail`, bytes.
    pub(crate) tail_bytes: u64,
}

/// Where a partition stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stand {
    /// The position of the next record, less one.
    pub(crate) last: u64,
    /// How far intake has been consumed; `None` before the first batch that says so.
    pub(crate) consumed: Option<Cursor>,
    /// How much log has been written since the beginning, bytes.
    pub(crate) bytes: u64,
    /// The newest whole checkpoint.
    pub(crate) checkpoint: Option<Pointer>,
}

/// What a message says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// Where the partition stands before this frame; `consumed` counts this frame in.
    pub(crate) stand: Stand,
    /// The records of the whole frame; for a part of a checkpoint, of none.
    pub(crate) records: u32,
    /// Which of the frame's messages this is, from 0, and of how many.
    pub(crate) piece: u32,
    pub(crate) pieces: u32,
    /// For a part of a checkpoint: what it includes.
    pub(crate) at: u64,
    /// The size of the whole frame without headers.
    pub(crate) frame_bytes: u64,
}

/// Why a message is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// It is something else, or its checksum is wrong.
    Damaged,
    /// It is a journal's, of another version.
    Version(u8),
}

impl Header {
    /// A frame in one message, without content.
    pub(crate) fn mark(kind: Kind, stand: Stand) -> Self {
        Self { kind, stand, records: 0, piece: 0, pieces: 1, at: 0, frame_bytes: 0 }
    }

    /// Where the partition stands after this frame; `None` if the header does not know.
    pub(crate) fn after(&self) -> Option<Stand> {
        if self.kind == Kind::Opened {
            return None;
        }
        let log_bytes = if self.kind == Kind::Batch { self.log_bytes() } else { 0 };
        let (last, bytes) = (self.stand.last + u64::from(self.records), self.stand.bytes + log_bytes);
        Some(Stand { last, bytes, ..self.stand })
    }

    /// What the frame adds to the log that a recovery reads.
    fn log_bytes(&self) -> u64 {
        self.frame_bytes + u64::from(self.pieces) * HEADER_BYTES as u64
    }

    /// Whether this holds the record at `position`.
    pub(crate) fn holds(&self, position: u64) -> bool {
        self.kind == Kind::Batch
            && self.stand.last < position
            && position <= self.stand.last + u64::from(self.records)
    }

    /// Whether a search for the record at `position` may begin here: it comes later, or in this very frame.
    pub(crate) fn is_before(&self, position: u64) -> bool {
        self.stand.last < position && self.piece == 0
    }

    fn encode(&self, content: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES + content.len());
        out.put_slice(&MAGIC);
        out.put_u8(VERSION);
        out.put_u32_le(0);
        out.put_u8(self.kind as u8);
        out.put_u8(u8::from(self.stand.consumed.is_some()));
        out.put_u8(u8::from(self.stand.checkpoint.is_some()));
        out.put_u8(0);
        for word in [self.records, self.piece, self.pieces] {
            out.put_u32_le(word);
        }
        let consumed = self.stand.consumed.unwrap_or_default();
        let checkpoint =
            self.stand.checkpoint.unwrap_or(Pointer { at: 0, offset: 0, tail: 0, tail_bytes: 0 });
        let longs = [
            self.frame_bytes,
            self.at,
            self.stand.last,
            self.stand.bytes,
            consumed.tasks,
            consumed.messages,
            checkpoint.at,
            checkpoint.offset,
            checkpoint.tail,
            checkpoint.tail_bytes,
        ];
        for long in longs {
            out.put_u64_le(long);
        }
        debug_assert!(out.len() <= HEADER_BYTES, "the header has room");
        out.resize(HEADER_BYTES, 0);
        out.put_slice(content);
        let crc = crc32c::crc32c(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a message: its header and its piece of the frame.
    pub(crate) fn decode(message: &Bytes) -> Result<(Self, Bytes), Foreign> {
        let head = message.get(..HEADER_BYTES).ok_or(Foreign::Damaged)?;
        if head[..3] != MAGIC {
            return Err(Foreign::Damaged);
        }
        if head[3] != VERSION {
            return Err(Foreign::Version(head[3]));
        }
        let mut fields = &head[4..];
        if fields.get_u32_le() != crc32c::crc32c(&message[8..]) {
            return Err(Foreign::Damaged);
        }
        let kind = match fields.get_u8() {
            1 => Kind::Opened,
            2 => Kind::Batch,
            3 => Kind::Closed,
            4 => Kind::State,
            5 => Kind::Sealed,
            _ => return Err(Foreign::Damaged),
        };
        let (has_cursor, has_checkpoint) = (fields.get_u8() != 0, fields.get_u8() != 0);
        fields.advance(1);
        let (records, piece, pieces) = (fields.get_u32_le(), fields.get_u32_le(), fields.get_u32_le());
        let (frame_bytes, at) = (fields.get_u64_le(), fields.get_u64_le());
        let (last, bytes) = (fields.get_u64_le(), fields.get_u64_le());
        let consumed = Cursor { tasks: fields.get_u64_le(), messages: fields.get_u64_le() };
        let checkpoint = Pointer {
            at: fields.get_u64_le(),
            offset: fields.get_u64_le(),
            tail: fields.get_u64_le(),
            tail_bytes: fields.get_u64_le(),
        };
        let stand = Stand {
            last,
            bytes,
            consumed: has_cursor.then_some(consumed),
            checkpoint: has_checkpoint.then_some(checkpoint),
        };
        Ok((Self { kind, stand, records, piece, pieces, at, frame_bytes }, message.slice(HEADER_BYTES..)))
    }
}

/// A frame's messages, made one at a time: a checkpoint need not stand in memory twice.
pub(crate) struct Pieces<'a> {
    header: Header,
    parts: std::slice::Iter<'a, Bytes>,
    /// What is left of the present part, its length first.
    length: Vec<u8>,
    part: &'a [u8],
    limit: usize,
}

impl<'a> Pieces<'a> {
    /// The frame of `parts`; the header's sizes are filled in.
    pub(crate) fn new(header: Header, parts: &'a [Bytes]) -> Self {
        Self::cut_at(header, parts, PIECE_BYTES)
    }

    fn cut_at(mut header: Header, parts: &'a [Bytes], limit: usize) -> Self {
        header.frame_bytes = size(parts) as u64;
        header.pieces = header.frame_bytes.div_ceil(limit as u64).max(1) as u32;
        Self { header, parts: parts.iter(), length: Vec::new(), part: &[], limit }
    }

    /// Where the partition stands after the frame.
    pub(crate) fn after(&self) -> Stand {
        self.header.after().unwrap_or(self.header.stand)
    }
}

impl Iterator for Pieces<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.header.piece == self.header.pieces {
            return None;
        }
        let mut content = Vec::with_capacity(self.limit.min(self.header.frame_bytes as usize));
        while content.len() < self.limit {
            if self.length.is_empty() && self.part.is_empty() {
                let Some(part) = self.parts.next() else { break };
                self.length = (part.len() as u32).to_le_bytes().to_vec();
                self.part = part;
            }
            let room = self.limit - content.len();
            let taken = self.length.len().min(room);
            content.extend(self.length.drain(..taken));
            let (now, later) = self.part.split_at(self.part.len().min(room - taken));
            content.extend_from_slice(now);
            self.part = later;
        }
        let message = self.header.encode(&content);
        self.header.piece += 1;
        Some(message)
    }
}

/// The bytes of a frame with these parts, without headers.
pub(crate) fn size(parts: &[Bytes]) -> usize {
    parts.iter().map(|part| 4 + part.len()).sum()
}

/// Puts a frame together again from its messages.
#[derive(Default)]
pub(crate) struct Assembly {
    first: Option<Header>,
    content: Vec<u8>,
    next: u32,
}

/// A message does not follow the one before it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OutOfOrder;

impl Assembly {
    /// Takes the next message; gives the frame's header and its parts when it is whole.
    pub(crate) fn add(
        &mut self,
        header: Header,
        piece: Bytes,
    ) -> Result<Option<(Header, Vec<Bytes>)>, OutOfOrder> {
        let first = *self.first.get_or_insert(header);
        if header.piece != self.next || (Header { piece: 0, ..header }) != first {
            return Err(OutOfOrder);
        }
        self.next += 1;
        let content = if header.pieces == 1 {
            piece
        } else {
            self.content.extend_from_slice(&piece);
            if self.next < header.pieces {
                return Ok(None);
            }
            Bytes::from(std::mem::take(&mut self.content))
        };
        self.clear();
        split(content).map(|parts| Some((first, parts))).ok_or(OutOfOrder)
    }

    /// Forgets what has been put together so far.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The parts of a frame's content; `None` if their lengths do not fit it.
fn split(mut content: Bytes) -> Option<Vec<Bytes>> {
    let mut parts = Vec::new();
    while !content.is_empty() {
        let length = content.try_get_u32_le().ok()? as usize;
        if length > content.len() {
            return None;
        }
        parts.push(content.split_to(length));
    }
    Some(parts)
}

/// A batch's records.
pub(crate) fn records(header: &Header, parts: Vec<Bytes>) -> impl Iterator<Item = Record> {
    let positions = header.stand.last + 1..;
    positions.zip(parts).map(|(position, bytes)| Record { position: Position(position), bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stand() -> Stand {
        Stand {
            last: 41,
            consumed: Some(Cursor { tasks: 7, messages: 9 }),
            bytes: 1234,
            checkpoint: Some(Pointer { at: 30, offset: 99, tail: 88, tail_bytes: 1000 }),
        }
    }

    fn batch(parts: &[Bytes]) -> Header {
        Header { records: parts.len() as u32, ..Header::mark(Kind::Batch, stand()) }
    }

    fn whole(messages: &[Vec<u8>]) -> Option<(Header, Vec<Bytes>)> {
        let mut assembly = Assembly::default();
        let mut whole = None;
        for message in messages {
            let (header, piece) = Header::decode(&Bytes::from(message.clone())).ok()?;
            whole = assembly.add(header, piece).ok()?;
        }
        whole
    }

    #[test]
    fn a_frame_cut_anywhere_is_put_together_again() {
        let parts = [&b"one"[..], b"", b"a longer record", b"x"].map(Bytes::from_static);
        for limit in 1..40 {
            let pieces = Pieces::cut_at(batch(&parts), &parts, limit);
            let after = pieces.after();
            let messages: Vec<_> = pieces.collect();
            let (header, found) = whole(&messages).expect("it is whole");
            assert_eq!(found, parts, "cut at {limit}");
            assert_eq!(header.after(), Some(after));
            assert_eq!(after.last, 45);
            let positions: Vec<_> = records(&header, found).map(|record| record.position.0).collect();
            assert_eq!(positions, [42, 43, 44, 45]);
            assert!(header.holds(42) && header.holds(45) && !header.holds(46) && !header.holds(41));
        }
    }

    #[test]
    fn a_missing_or_doubled_message_is_noticed() {
        let parts = [Bytes::from_static(b"twelve bytes")];
        let messages: Vec<_> = Pieces::cut_at(batch(&parts), &parts, 5).collect();
        assert_eq!(messages.len(), 4);
        let pick =
            |numbers: &[usize]| whole(&numbers.iter().map(|n| messages[*n].clone()).collect::<Vec<_>>());
        assert!(pick(&[0, 1, 2, 3]).is_some());
        for wrong in [&[0, 1, 3][..], &[0, 2, 3], &[1, 2, 3], &[0, 1, 2], &[0, 1, 1, 2, 3], &[0, 0, 1, 2, 3]]
        {
            assert!(pick(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let parts = [Bytes::from_static(b"some record")];
        let message = Pieces::new(batch(&parts), &parts).next().expect("one message");
        for place in 0..message.len() {
            let mut damaged = message.clone();
            damaged[place] ^= 4;
            assert!(Header::decode(&Bytes::from(damaged)).is_err(), "byte {place}");
        }
        let mut newer = message;
        newer[3] = 2;
        assert_eq!(Header::decode(&Bytes::from(newer)), Err(Foreign::Version(2)));
    }

    #[test]
    fn an_empty_frame_has_one_message() {
        let messages: Vec<_> = Pieces::new(Header::mark(Kind::Closed, stand()), &[]).collect();
        assert_eq!(messages.len(), 1);
        let (header, parts) = whole(&messages).expect("it is whole");
        assert_eq!(header.after(), Some(stand()));
        assert!(parts.is_empty());
    }
}
