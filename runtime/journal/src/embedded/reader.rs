//! Reading one partition of the shared log, beside its owner. Only what is durable is seen.

use std::sync::Arc;

use async_trait::async_trait;

use super::{checkpoint, frame, state::Shared, walk::Walk};
use crate::{
    error::JournalError,
    ports::{Checkpoint, Position, Reader, Record},
    unblock::unblock,
};

/// See the module.
pub(crate) struct LogReader {
    shared: Arc<Shared>,
    partition: u32,
    /// Where the frame after the last read one may begin, so that reading on does not search.
    resume: Option<(Position, u64)>,
}

impl LogReader {
    pub(crate) fn new(shared: Arc<Shared>, partition: u32) -> Self {
        Self { shared, partition, resume: None }
    }

    fn exists(&self) -> bool {
        (self.partition as usize) < self.shared.partitions.len()
    }
}

#[async_trait]
impl Reader for LogReader {
    async fn checkpoint_at_or_below(&mut self, at: Position) -> Result<Option<Checkpoint>, JournalError> {
        if !self.exists() {
            return Ok(None);
        }
        let (shared, partition) = (self.shared.clone(), self.partition);
        unblock(move || {
            let progress = shared.partition(partition).progress().clone();
            for file in progress.checkpoints.iter().rev().filter(|file| file.at <= at.0) {
                match checkpoint::read(file, shared.log_id, partition) {
                    Ok(checkpoint) => return Ok(Some(checkpoint)),
                    Err(error @ JournalError::Damaged { .. }) => {
                        tracing::warn!(partition, %error, "passing over a damaged checkpoint");
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(None)
        })
        .await
    }

    async fn read_after(&mut self, after: Position, max_bytes: usize) -> Result<Vec<Record>, JournalError> {
        if !self.exists() {
            return Ok(Vec::new());
        }
        let (shared, partition, resume) = (self.shared.clone(), self.partition, self.resume);
        let read = move || {
            read_after(&shared, partition, resume, after, max_bytes).map_err(|error| {
                // What was being read may have been deleted meanwhile: that is no damage.
                let first = shared.partition(partition).progress().first;
                if after.0 + 1 < first { JournalError::Cut { after, first: Position(first) } } else { error }
            })
        };
        let (records, resume) = unblock(read).await?;
        self.resume = resume;
        Ok(records)
    }

    async fn wait_beyond(&mut self, position: Position) -> Position {
        if !self.exists() {
            return std::future::pending().await;
        }
        let mut durable = self.shared.partition(self.partition).durable.subscribe();
        // The sender lives in `shared`, so waiting cannot fail.
        match durable.wait_for(|last| *last > position.0).await {
            Ok(last) => Position(*last),
            Err(_) => position,
        }
    }
}

type Found = (Vec<Record>, Option<(Position, u64)>);

fn read_after(
    shared: &Arc<Shared>,
    partition: u32,
    resume: Option<(Position, u64)>,
    after: Position,
    max_bytes: usize,
) -> Result<Found, JournalError> {
    let wanted = after.0 + 1;
    let start = {
        let progress = shared.partition(partition).progress();
        if wanted < progress.first {
            return Err(JournalError::Cut { after, first: Position(progress.first) });
        }
        if wanted >= progress.next() {
            return Ok((Vec::new(), resume));
        }
        match resume {
            Some((at, lsn)) if at == after => Some(lsn),
            _ => progress.entry(wanted).map(|entry| entry.lsn),
        }
    };
    let Some(start) = start else { return Ok((Vec::new(), None)) };
    let mut walk = Walk::from(shared, start);
    let mut records: Vec<Record> = Vec::new();
    let mut bytes = 0;
    loop {
        let frame = walk.next(|header| {
            header.partition == partition
                && header.records > 0
                && header.first + u64::from(header.records) > wanted
        })?;
        let Some((header, payload)) = frame else { break };
        let parts = frame::parts(&header, payload).unwrap_or_default();
        let before = records.len();
        for record in parts.records {
            if record.position > after {
                if bytes + record.bytes.len() > max_bytes && !records.is_empty() {
                    // Not to the frame's end: the next read searches for its place.
                    return Ok((records, None));
                }
                bytes += record.bytes.len();
                records.push(record);
            }
        }
        debug_assert!(records.len() > before, "a wanted frame holds a wanted record");
        if bytes >= max_bytes {
            break;
        }
    }
    let resume = records.last().map(|last| (last.position, walk.at()));
    Ok((records, resume))
}
