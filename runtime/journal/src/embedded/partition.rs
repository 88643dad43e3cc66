//! The owner's end of the embedded journal: taking a partition over, committing, checkpointing, stopping.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    Running, checkpoint,
    frame::{self, CLOSED, Frame, OPENED},
    mailbox::Request,
    reader::LogReader,
    state::{CheckpointFile, Shared},
    trim,
};
use crate::{
    error::{CommitError, JournalError},
    ports::{Batch, Committed, Journal, Opened, PartitionLog, Position, Reader, Tail},
    unblock::unblock,
};

/// One batch takes at most this much of the log: far above what an owner collects during one sync, and still read and
/// written in one piece.
pub const BATCH_BYTES_LIMIT: usize = 64 << 20;

type Outcome = oneshot::Receiver<Result<Position, CommitError>>;

/// The journal of an [`super::Embedded`].
pub(crate) struct EmbeddedJournal {
    pub(crate) running: Arc<Running>,
}

#[async_trait]
impl Journal for EmbeddedJournal {
    fn partitions(&self) -> u32 {
        self.running.shared.partitions.len() as u32
    }

    async fn open(&self, partition: u32) -> Result<Opened, JournalError> {
        let shared = &self.running.shared;
        let partitions = self.partitions();
        let Some(state) = shared.partitions.get(partition as usize) else {
            return Err(JournalError::NoSuchPartition { partition, partitions });
        };
        let generation = state.generation.fetch_add(1, Ordering::AcqRel) + 1;
        let clean_stop = state.progress().clean;
        let mut log = OwnedLog { running: self.running.clone(), partition, generation, pending: None };
        // Ends the previous owner's last batch and its clean stop: from here on a crash is a crash.
        log.send(Batch::default(), OPENED).await.map_err(|error| log.not_marked(error))?;
        let progress = state.progress().clone();
        state.inbox.seek(progress.consumed);
        let end = progress.last();
        let consumed = (progress.consumed != Default::default()).then_some(progress.consumed);
        let log_id = shared.log_id;
        let checkpoint =
            unblock(move || checkpoint::newest_valid(&progress, log_id, partition, u64::MAX)).await?;
        let after = checkpoint.as_ref().map_or(Position::START, |checkpoint| checkpoint.at);
        let tail = Tail::new(self.reader(partition), after, end);
        Ok(Opened { checkpoint, tail, consumed, log: Box::new(log), clean_stop })
    }

    fn reader(&self, partition: u32) -> Box<dyn Reader> {
        Box::new(LogReader::new(self.running.shared.clone(), partition))
    }
}

/// An owner's log.
struct OwnedLog {
    running: Arc<Running>,
    partition: u32,
    generation: u64,
    /// The batch that is under way; kept here so that a dropped commit is awaited by the next one.
    pending: Option<Outcome>,
}

impl OwnedLog {
    fn shared(&self) -> &Arc<Shared> {
        &self.running.shared
    }

    fn is_fenced(&self) -> bool {
        self.shared().partition(self.partition).generation.load(Ordering::Acquire) != self.generation
    }

    /// Sends a frame to the writer and waits until it is durable.
    async fn send(&mut self, batch: Batch, flags: u32) -> Result<Position, CommitError> {
        let sent = Instant::now();
        if let Some(earlier) = &mut self.pending {
            // Its caller gave up on it; what came of it no longer matters to anybody.
            let _ = earlier.await;
            self.pending = None;
        }
        let (reply, outcome) = oneshot::channel();
        let request = Request {
            partition: self.partition,
            generation: self.generation,
            frame: Frame::new(self.shared().log_id, &batch, flags),
            cursor: batch.consumed,
            messages: batch.messages,
            reply,
            sent,
        };
        if self.shared().mailbox.send(request).is_err() {
            return Err(CommitError::Fenced);
        }
        let outcome = self.pending.insert(outcome).await;
        self.pending = None;
        outcome.unwrap_or_else(|_| Err(CommitError::Unclear("the journal's writer ended".into())))
    }

    /// Why a mark of opening or closing could not be written.
    fn not_marked(&self, error: CommitError) -> JournalError {
        match error {
            CommitError::NoSpace(why) => JournalError::NoSpace { what: format!("the log ({why})") },
            _ => JournalError::Fenced { partition: self.partition },
        }
    }

    /// Refuses what can never be written.
    fn check(&self, batch: &Batch) -> Result<(), CommitError> {
        let bytes = frame::size(batch);
        if bytes > BATCH_BYTES_LIMIT {
            return Err(CommitError::Refused(format!(
                "it has {bytes} bytes, the limit is {BATCH_BYTES_LIMIT}"
            )));
        }
        if !batch.tasks.is_empty() {
            return Err(CommitError::Refused("it has tasks, and there is no source of tasks".to_owned()));
        }
        let partitions = self.shared().partitions.len();
        match batch.messages.iter().find(|message| message.to as usize >= partitions) {
            Some(message) => {
                Err(CommitError::Refused(format!("it has a message to partition {}", message.to)))
            }
            None => Ok(()),
        }
    }
}

#[async_trait]
impl PartitionLog for OwnedLog {
    async fn commit(&mut self, batch: Batch) -> Result<Committed, CommitError> {
        if self.is_fenced() {
            return Err(CommitError::Fenced);
        }
        if batch.is_empty() {
            return Ok(Committed { last: self.shared().partition(self.partition).progress().last() });
        }
        self.check(&batch)?;
        let last = self.send(batch, 0).await?;
        Ok(Committed { last })
    }

    async fn checkpoint(&mut self, at: Position, chunks: Vec<Bytes>) -> Result<(), JournalError> {
        if self.is_fenced() {
            return Err(JournalError::Fenced { partition: self.partition });
        }
        let (shared, partition) = (self.shared().clone(), self.partition);
        let end = shared.partition(partition).progress().last();
        if at > end {
            return Err(JournalError::Beyond { at, end });
        }
        unblock(move || {
            let path = checkpoint::path(&shared.layout.checkpoints, partition, at.0);
            checkpoint::write(&shared.disk, &path, shared.log_id, partition, at.0, &chunks)?;
            shared.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
            let mut progress = shared.partition(partition).progress();
            progress.checkpoints.retain(|file| file.at != at.0);
            progress.checkpoints.push(CheckpointFile { at: at.0, path, checked: true });
            progress.checkpoints.sort_by_key(|file| file.at);
            Ok(())
        })
        .await
    }

    async fn delete_before(&mut self, at: Position) -> Result<(), JournalError> {
        if self.is_fenced() {
            return Err(JournalError::Fenced { partition: self.partition });
        }
        let (shared, partition) = (self.shared().clone(), self.partition);
        unblock(move || trim::delete_before(&shared, partition, at.0)).await
    }

    fn bytes_since_checkpoint(&self) -> u64 {
        let shared = self.shared();
        let progress = shared.partition(self.partition).progress();
        progress.bytes_since_checkpoint(shared.durable_end(), shared.partitions.len() as u32)
    }

    async fn close(mut self: Box<Self>) -> Result<(), JournalError> {
        self.send(Batch::default(), CLOSED).await.map_err(|error| self.not_marked(error))?;
        let shared = self.shared().clone();
        unblock(move || {
            shared.mark.lock().expect("no holder of the mark panics").sync(&shared.disk);
            Ok(())
        })
        .await
    }
}
