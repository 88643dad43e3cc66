//! The journal port on Kafka, and the owner's end of it: what is asked for is done on the owner's thread.

use std::{sync::Arc, thread};

use async_trait::async_trait;
use bytes::Bytes;
use rdkafka::{Offset, TopicPartitionList, admin::AdminOptions};
use tokio::sync::{mpsc, oneshot};

use super::{
    Client, Running, failed, frame,
    owner::{Found, Owner, Progress},
    reader::LogReader,
};
use crate::{
    error::{CommitError, JournalError},
    ports::{Batch, Committed, Journal, Opened, PartitionLog, Position, Reader, Tail},
    unblock::unblock,
};

/// One batch takes at most this much: as much as in the embedded journal.
pub const BATCH_BYTES_LIMIT: usize = crate::embedded::BATCH_BYTES_LIMIT;

/// Something to be done on the owner's thread.
type Work = Box<dyn FnOnce(&mut Owner) + Send>;

/// The journal of a [`super::Kafka`].
pub(crate) struct KafkaJournal {
    pub(crate) running: Arc<Running>,
}

#[async_trait]
impl Journal for KafkaJournal {
    fn partitions(&self) -> u32 {
        self.running.client.config.partitions
    }

    async fn open(&self, partition: u32) -> Result<Opened, JournalError> {
        let partitions = self.partitions();
        if partition >= partitions {
            return Err(JournalError::NoSuchPartition { partition, partitions });
        }
        let (client, outlets) = (self.running.client.clone(), self.running.outlets);
        let found = unblock({
            let client = client.clone();
            move || Owner::take_over(&client, outlets, partition)
        })
        .await?;
        let Found { owner, checkpoint, tail, consumed, clean_stop } = found;
        let after = checkpoint.as_ref().map_or(Position::START, |checkpoint| checkpoint.at);
        let reader = LogReader::starting_at(client, partition, after, tail);
        let tail = Tail::new(Box::new(reader), after, owner.last());
        let log = OwnedLog::start(self.running.clone(), partition, owner)?;
        Ok(Opened { checkpoint, tail, consumed, log: Box::new(log), clean_stop })
    }

    fn reader(&self, partition: u32) -> Box<dyn Reader> {
        Box::new(LogReader::new(self.running.client.clone(), partition))
    }
}

/// An owner's log. Its thread ends with it.
struct OwnedLog {
    running: Arc<Running>,
    partition: u32,
    work: mpsc::Sender<Work>,
    progress: Arc<Progress>,
}

impl OwnedLog {
    fn start(running: Arc<Running>, partition: u32, mut owner: Owner) -> Result<Self, JournalError> {
        // One piece of work is under way, and one more may wait behind it if its caller gave up on it.
        let (work, mut waiting) = mpsc::channel::<Work>(1);
        let progress = owner.progress();
        thread::Builder::new()
            .name(format!("journal-{partition}"))
            .spawn(move || {
                while let Some(work) = waiting.blocking_recv() {
                    work(&mut owner);
                }
            })
            .map_err(|source| JournalError::Io {
                what: "start a thread for",
                path: "the journal".into(),
                source,
            })?;
        Ok(Self { running, partition, work, progress })
    }

    /// Has something done on the owner's thread; `None` if that thread is gone.
    async fn run<R: Send + 'static>(&self, work: impl FnOnce(&mut Owner) -> R + Send + 'static) -> Option<R> {
        let (reply, outcome) = oneshot::channel();
        let work: Work = Box::new(move |owner| {
            // The caller may have gone; what was done counts all the same.
            let _ = reply.send(work(owner));
        });
        self.work.send(work).await.ok()?;
        outcome.await.ok()
    }

    fn fenced(&self) -> JournalError {
        JournalError::Fenced { partition: self.partition }
    }

    fn client(&self) -> &Client {
        &self.running.client
    }

    /// Refuses what can never be written.
    fn check(&self, batch: &Batch) -> Result<(), CommitError> {
        let config = &self.client().config;
        let messages: usize = batch.messages.iter().map(|message| message.bytes.len()).sum();
        let published: usize = batch.published.iter().map(|published| published.body.len()).sum();
        let bytes = frame::size(&batch.records) + messages + published;
        if bytes > BATCH_BYTES_LIMIT {
            let why = format!("it has {bytes} bytes, the limit is {BATCH_BYTES_LIMIT}");
            return Err(CommitError::Refused(why));
        }
        if let Some(message) = batch.messages.iter().find(|message| message.to >= config.partitions) {
            return Err(CommitError::Refused(format!("it has a message to partition {}", message.to)));
        }
        let bodies = batch.messages.iter().map(|message| message.bytes.len());
        let mut bodies = bodies.chain(batch.published.iter().map(|published| published.body.len()));
        match bodies.find(|bytes| *bytes > config.message_bytes) {
            Some(bytes) => {
                let limit = config.message_bytes;
                Err(CommitError::Refused(format!("it has a message of {bytes} bytes, the limit is {limit}")))
            }
            None => Ok(()),
        }
    }
}

#[async_trait]
impl PartitionLog for OwnedLog {
    async fn commit(&mut self, batch: Batch) -> Result<Committed, CommitError> {
        if self.progress.has_ended() {
            return Err(CommitError::Fenced);
        }
        if batch.is_empty() {
            return Ok(Committed { last: self.progress.last() });
        }
        self.check(&batch)?;
        let committed = self.run(move |owner| owner.commit(&batch)).await;
        committed.unwrap_or_else(|| Err(CommitError::Unclear("the owner's thread ended".into())))
    }

    async fn checkpoint(&mut self, at: Position, chunks: Vec<Bytes>) -> Result<(), JournalError> {
        let done = self.run(move |owner| owner.checkpoint(at.0, &chunks)).await;
        done.unwrap_or_else(|| Err(self.fenced()))
    }

    async fn delete_before(&mut self, at: Position) -> Result<(), JournalError> {
        let found = self.run(move |owner| owner.checkpoint_at_or_below(at.0)).await;
        let Some((pointer, consumed)) = found.unwrap_or_else(|| Err(self.fenced()))? else { return Ok(()) };
        let topics = &self.client().topics;
        let consumed = consumed.unwrap_or_default();
        let mut list = TopicPartitionList::new();
        for (topic, offset) in [
            (&topics.journal, pointer.tail),
            (&topics.messages, consumed.messages),
            (&topics.tasks, consumed.tasks),
        ] {
            if offset > 0 {
                list.add_partition_offset(topic, self.partition as i32, Offset::Offset(offset as i64))
                    .map_err(failed("delete records"))?;
            }
        }
        if list.count() == 0 {
            return Ok(());
        }
        let timeout = Some(self.client().config.request_timeout);
        let options = AdminOptions::new().request_timeout(timeout).operation_timeout(timeout);
        let deleted =
            self.running.admin.delete_records(&list, &options).await.map_err(failed("delete records"))?;
        for element in deleted.elements() {
            element.error().map_err(failed("delete records"))?;
        }
        Ok(())
    }

    fn bytes_since_checkpoint(&self) -> u64 {
        self.progress.bytes_since_checkpoint()
    }

    async fn close(self: Box<Self>) -> Result<(), JournalError> {
        self.run(Owner::close).await.unwrap_or_else(|| Err(self.fenced()))
    }
}
