//! Reading the log forward, frame by frame, up to where it was durable at the start.
//!
//! Reads are large and payloads are slices of what was read, so a reader that wants one partition of many pays a
//! header's look at every frame of the others, not a system call.

use std::{os::unix::fs::FileExt, sync::Arc};

use bytes::{Bytes, BytesMut};

use super::{
    disk::failed,
    frame::{HEADER_BYTES, Header},
    segment::{SEGMENT_HEADER_BYTES, Segment},
    state::Shared,
};
use crate::error::JournalError;

/// How much is read at a time (or one whole frame, if that is more).
const READ_BYTES: u64 = 256 << 10;

/// A walk along the durable log.
pub(crate) struct Walk {
    shared: Arc<Shared>,
    /// The next frame's address.
    at: u64,
    /// Where the walk ends.
    end: u64,
    segment: Option<(Arc<Segment>, u64)>,
    window: Bytes,
    window_at: u64,
}

impl Walk {
    /// From the frame at `lsn` (or the start of a segment) to the durable end of this moment.
    pub(crate) fn from(shared: &Arc<Shared>, lsn: u64) -> Self {
        let end = shared.durable_end();
        Self { shared: shared.clone(), at: lsn, end, segment: None, window: Bytes::new(), window_at: 0 }
    }

    /// The address of the next frame.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// The next frame that `wanted` picks by its header, with its payload; `None` at the end.
    pub(crate) fn next(
        &mut self,
        mut wanted: impl FnMut(&Header) -> bool,
    ) -> Result<Option<(Header, Bytes)>, JournalError> {
        loop {
            if !self.enter_segment()? {
                return Ok(None);
            }
            let Some((header, _)) = Header::decode(self.shared.log_id, &self.bytes(HEADER_BYTES)?) else {
                return Err(self.damaged("there is no whole batch where one was durable"));
            };
            let frame_bytes = header.frame_bytes();
            if header.lsn != self.at || self.at + frame_bytes > self.end {
                return Err(self.damaged("there is a batch of another place"));
            }
            if !wanted(&header) {
                self.at += frame_bytes;
                continue;
            }
            let frame = self.bytes(frame_bytes as usize)?;
            let Some(payload) = header.payload(self.shared.log_id, &frame) else {
                return Err(self.damaged("a durable batch does not match its checksum"));
            };
            self.at += frame_bytes;
            return Ok(Some((header, payload)));
        }
    }

    /// Moves to the segment of the next frame; false at the end.
    fn enter_segment(&mut self) -> Result<bool, JournalError> {
        loop {
            if self.at >= self.end {
                return Ok(false);
            }
            if let Some((segment, limit)) = &self.segment
                && self.at < *limit
            {
                if self.at == segment.base {
                    self.at += SEGMENT_HEADER_BYTES as u64;
                    continue;
                }
                return Ok(true);
            }
            let Some((segment, next)) = self.shared.segment_at(self.at) else {
                return Err(JournalError::Damaged {
                    file: self.shared.layout.log.clone(),
                    offset: self.at,
                    why: "the segment that held this address was deleted while it was read".into(),
                    remedy: "Start from a newer checkpoint".into(),
                });
            };
            let limit = next.map_or(self.end, |next| next.min(self.end));
            self.segment = Some((segment, limit));
        }
    }

    /// The next `wanted` bytes of the segment, from the window or the file.
    fn bytes(&mut self, wanted: usize) -> Result<Bytes, JournalError> {
        let offset = self.at.wrapping_sub(self.window_at);
        if self.at >= self.window_at && offset + wanted as u64 <= self.window.len() as u64 {
            return Ok(self.window.slice(offset as usize..offset as usize + wanted));
        }
        let (segment, limit) = self.segment.as_ref().expect("a segment was entered");
        let available = limit - self.at;
        if wanted as u64 > available {
            return Err(self.damaged("a durable batch is cut short"));
        }
        let length = available.min(READ_BYTES.max(wanted as u64)) as usize;
        let mut window = BytesMut::zeroed(length);
        segment
            .file
            .read_exact_at(&mut window, self.at - segment.base)
            .map_err(|source| failed("read", &segment.path, source))?;
        self.window = window.freeze();
        self.window_at = self.at;
        Ok(self.window.slice(..wanted))
    }

    fn damaged(&self, why: &str) -> JournalError {
        let (file, base) = match &self.segment {
            Some((segment, _)) => (segment.path.clone(), segment.base),
            None => (self.shared.layout.log.clone(), 0),
        };
        JournalError::Damaged {
            file,
            offset: self.at - base,
            why: why.into(),
            remedy:
                "Stop the host, check the disk and start it again: its check of the log says what can be done"
                    .into(),
        }
    }
}
