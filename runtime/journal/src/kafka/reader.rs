//! Reading one partition's journal, beside its owner, wherever that is. Only what is committed is seen.
//!
//! The reader stands in the topic and goes on from there; only when it is asked for another place does it search. Whether
//! there is more is known at once where this process owns the partition; otherwise Kafka says when the end is reached.

use std::{collections::VecDeque, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{Consumer, StreamConsumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::Message,
};
use tokio::time::Instant;

use super::{
    Client, Retired,
    context::Logged,
    failed,
    frame::{self, Assembly, Header, Kind},
    is_passing,
    scout::{Place, Scout},
};
use crate::{
    error::JournalError,
    ports::{Checkpoint, Position, Reader, Record},
    unblock::unblock,
};

/// A checkpoint of more messages than this is stepped over rather than read, where records are looked for.
const STEP_OVER: u32 = 4;
/// After an error that cannot be told to anybody.
const PAUSE: Duration = Duration::from_secs(1);

type Stream = Retired<StreamConsumer<Logged>>;

/// See the module.
pub(crate) struct LogReader {
    client: Client,
    partition: u32,
    consumer: Option<Stream>,
    /// What was read last; the consumer goes on behind it and behind `pending`.
    place: Option<Position>,
    /// Where records after a position may begin: known without a search.
    known: Option<(Position, u64)>,
    pending: VecDeque<Record>,
    assembly: Assembly,
    /// False until a frame's first message has come: the topic was entered in the middle.
    in_step: bool,
    /// The offset at which the consumer goes on.
    next: u64,
    /// Kafka has said that this is the end, and says it only once.
    ended: bool,
}

/// What came next.
enum Came {
    /// Something; perhaps records.
    Something,
    /// The end of what is committed.
    End,
}

impl LogReader {
    pub(crate) fn new(client: Client, partition: u32) -> Self {
        Self {
            client,
            partition,
            consumer: None,
            place: None,
            known: None,
            pending: VecDeque::new(),
            assembly: Assembly::default(),
            in_step: false,
            next: 0,
            ended: false,
        }
    }

    /// A reader that knows where the records after `after` begin.
    pub(crate) fn starting_at(client: Client, partition: u32, after: Position, offset: u64) -> Self {
        Self { known: Some((after, offset)), ..Self::new(client, partition) }
    }

    fn exists(&self) -> bool {
        self.partition < self.client.config.partitions
    }

    /// The last durable position, if this process owns the partition.
    fn durable(&self) -> Option<Position> {
        self.client.local(self.partition).last()
    }

    /// Makes the record after `after` the next one.
    async fn stand_at(&mut self, after: Position) -> Result<(), JournalError> {
        if self.place == Some(after) {
            return Ok(());
        }
        let place = match self.known {
            Some((known, offset)) if known == after => return self.enter_at(after, offset),
            _ => {
                let (client, partition) = (self.client.clone(), self.partition);
                unblock(move || Scout::new(&client, partition)?.find(after.0 + 1)).await?
            }
        };
        match place {
            Place::At(spot) | Place::NotYet(spot) => self.enter_at(after, spot.offset),
            Place::Cut(first) => Err(JournalError::Cut { after, first: Position(first) }),
        }
    }

    fn enter_at(&mut self, after: Position, offset: u64) -> Result<(), JournalError> {
        self.enter(offset)?;
        self.pending.clear();
        self.place = Some(after);
        Ok(())
    }

    /// Goes on reading at `offset`.
    fn enter(&mut self, offset: u64) -> Result<(), JournalError> {
        let consumer = match &self.consumer {
            Some(consumer) => consumer,
            None => {
                let consumer = self.client.config.follower().create_with_context(Logged);
                self.consumer.insert(Retired::new(consumer.map_err(failed("make a consumer"))?))
            }
        };
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(
            &self.client.topics.journal,
            self.partition as i32,
            Offset::Offset(offset as i64),
        )
        .and_then(|()| consumer.assign(&list))
        .map_err(failed("read the journal"))?;
        self.assembly.clear();
        self.in_step = false;
        (self.next, self.ended) = (offset, false);
        Ok(())
    }

    /// Takes in what was received.
    fn take(&mut self, received: Received) -> Result<Came, JournalError> {
        match received {
            Ok((offset, message)) => {
                let (header, piece) = self.client.decode(self.partition, offset, message)?;
                (self.next, self.ended) = (offset + 1, false);
                self.take_message(offset, header, piece)?;
                Ok(Came::Something)
            }
            Err(KafkaError::PartitionEOF(_)) => {
                self.ended = true;
                Ok(Came::End)
            }
            Err(error) if is_passing(&error) => Ok(Came::Something),
            Err(error) => {
                // What was to be read may have been deleted: a search will tell.
                (self.place, self.known) = (None, None);
                match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset) => {
                        Ok(Came::Something)
                    }
                    _ => Err(failed("read the journal")(error)),
                }
            }
        }
    }

    fn take_message(&mut self, offset: u64, header: Header, piece: Bytes) -> Result<(), JournalError> {
        if header.kind == Kind::State && header.pieces > STEP_OVER && header.piece + 1 < header.pieces {
            // Each of its messages takes an offset, so nothing else stands before this one.
            return self.enter(offset + u64::from(header.pieces - header.piece));
        }
        self.in_step |= header.kind == Kind::Opened || header.piece == 0;
        if header.kind != Kind::Batch || !self.in_step {
            return Ok(());
        }
        let Ok(whole) = self.assembly.add(header, piece) else {
            return Err(self.client.damaged(self.partition, offset, "a part of a batch is missing".into()));
        };
        let Some((header, parts)) = whole else { return Ok(()) };
        let last = self.pending.back().map(|record| record.position).or(self.place).unwrap_or_default();
        let new = frame::records(&header, parts).filter(|record| record.position > last);
        for (expected, record) in (last.0 + 1..).zip(new) {
            if record.position.0 != expected {
                let why = format!("position {expected} should come, not {}", record.position);
                return Err(self.client.damaged(self.partition, offset, why));
            }
            self.pending.push_back(record);
        }
        Ok(())
    }

    /// What is at hand, without waiting.
    fn poll(&mut self) -> Result<Option<Came>, JournalError> {
        let received = self.consumer.as_ref().and_then(|consumer| receive(consumer).now_or_never());
        received.map(|received| self.take(received)).transpose()
    }

    /// What comes next. Dropping the future loses nothing.
    async fn wait(&mut self) -> Result<Came, JournalError> {
        let Some(consumer) = &self.consumer else { return Ok(Came::End) };
        let received = receive(consumer).await;
        self.take(received)
    }

    /// Waits for records after `after`; false when there are none.
    async fn fill(&mut self, after: Position) -> Result<bool, JournalError> {
        let within = self.client.config.request_timeout;
        let deadline = Instant::now() + within;
        loop {
            self.stand_at(after).await?;
            if !self.pending.is_empty() {
                return Ok(true);
            }
            if self.ended && self.durable().is_none_or(|last| last <= after) {
                // Nobody says whether more has come since; entering again makes Kafka say it.
                self.enter(self.next)?;
            }
            let came = tokio::time::timeout_at(deadline, self.wait()).await;
            let durable = self.durable().is_some_and(|last| last > after);
            match came {
                Ok(came) => match came? {
                    // A commit is visible a moment after it is durable.
                    Came::End if !durable => return Ok(false),
                    Came::End | Came::Something => {}
                },
                Err(_) => {
                    let why = format!("what follows position {after} did not come within {within:?}");
                    return Err(JournalError::Kafka { what: "read the journal".into(), why });
                }
            }
        }
    }
}

type Received = Result<(u64, Bytes), KafkaError>;

/// The next message, out of librdkafka's memory.
async fn receive(consumer: &StreamConsumer<Logged>) -> Received {
    let message = consumer.recv().await?;
    Ok((message.offset() as u64, Bytes::copy_from_slice(message.payload().unwrap_or_default())))
}

#[async_trait]
impl Reader for LogReader {
    async fn checkpoint_at_or_below(&mut self, at: Position) -> Result<Option<Checkpoint>, JournalError> {
        if !self.exists() {
            return Ok(None);
        }
        let (client, partition) = (self.client.clone(), self.partition);
        let local = self.client.local(partition).stand();
        let found = unblock(move || {
            let scout = Scout::new(&client, partition)?;
            let newest = match local {
                Some(stand) => stand.checkpoint,
                None => scout.newest()?,
            };
            let Some((pointer, _)) = scout.checkpoint(newest, at.0)? else { return Ok(None) };
            Ok(Some((pointer, scout.read(pointer)?)))
        })
        .await?;
        Ok(found.map(|(pointer, checkpoint)| {
            self.known = Some((checkpoint.at, pointer.tail));
            checkpoint
        }))
    }

    async fn read_after(&mut self, after: Position, max_bytes: usize) -> Result<Vec<Record>, JournalError> {
        if !self.exists() || self.durable().is_some_and(|last| last <= after) || !self.fill(after).await? {
            return Ok(Vec::new());
        }
        let mut records: Vec<Record> = Vec::new();
        let mut bytes = 0;
        loop {
            while let Some(record) = self.pending.front() {
                if bytes + record.bytes.len() > max_bytes && !records.is_empty() {
                    return Ok(records);
                }
                bytes += record.bytes.len();
                self.place = Some(record.position);
                records.extend(self.pending.pop_front());
            }
            // More only if it is at hand: what has been read is worth more than a full piece.
            match self.poll() {
                Ok(Some(Came::Something)) if self.place.is_some() => {}
                _ => return Ok(records),
            }
        }
    }

    async fn wait_beyond(&mut self, position: Position) -> Position {
        if !self.exists() {
            return std::future::pending().await;
        }
        loop {
            if let Some(last) = self.durable().filter(|last| *last > position) {
                return last;
            }
            let came = match self.stand_at(position).await {
                Ok(()) if !self.pending.is_empty() => {
                    return self.pending.back().map_or(position, |last| last.position);
                }
                Ok(()) => self.wait().await.map(drop),
                Err(JournalError::Cut { first, .. }) => return first,
                Err(error) => Err(error),
            };
            if let Err(error) = came {
                tracing::warn!(partition = self.partition, %error, "cannot follow the journal; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
