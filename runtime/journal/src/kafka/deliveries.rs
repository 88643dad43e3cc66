//! What an owner takes from: commands in memory, and its partitions of the tasks and messages topics.
//!
//! Tasks and messages are read by a consumer of the owner's own, from the offsets that the journal says, and not by the
//! member of the group: so a rebalance never moves the place where an owner reads, and a slow owner never costs the
//! membership. What is paused waits in the topic, not in memory.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{Consumer, StreamConsumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers, Message},
};

use super::{Client, Retired, Running, context::Logged, is_passing};
use crate::{
    commands::{Waiting, command},
    intake::{Arrived, Deliveries, Delivery, Source, Task},
    ports::Cursor,
};

/// See the module.
pub(crate) struct Arrivals<T> {
    running: Arc<Running>,
    partition: u32,
    commands: Waiting<T>,
    source: State,
    paused: bool,
}

/// The consumer of tasks and messages.
enum State {
    /// Nobody has said yet where to begin.
    Idle,
    Reading(Retired<StreamConsumer<Logged>>),
    /// It cannot be read any more.
    Broken,
}

/// What the consumer gave.
enum Came<T> {
    Delivery(Delivery<T>),
    /// Nothing that matters.
    Nothing,
    Broken,
}

impl<T> Arrivals<T> {
    pub(crate) fn new(running: Arc<Running>, partition: u32, commands: Waiting<T>) -> Self {
        Self { running, partition, commands, source: State::Idle, paused: false }
    }

    fn client(&self) -> &Client {
        &self.running.client
    }

    /// Begins to read at the cursor.
    fn read_from(&mut self, cursor: Cursor) -> KafkaResult<()> {
        let consumer = match std::mem::replace(&mut self.source, State::Broken) {
            State::Reading(consumer) => consumer,
            State::Idle | State::Broken => {
                Retired::new(self.client().config.deliveries().create_with_context(Logged)?)
            }
        };
        // Zero has consumed nothing: it begins where the topic does, which may be later.
        let place = |offset| if offset == 0 { Offset::Beginning } else { Offset::Offset(offset as i64) };
        let (topics, partition) = (&self.client().topics, self.partition as i32);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&topics.messages, partition, place(cursor.messages))?;
        list.add_partition_offset(&topics.tasks, partition, place(cursor.tasks))?;
        consumer.assign(&list)?;
        self.source = State::Reading(consumer);
        if self.paused {
            self.set_paused(true);
        }
        Ok(())
    }

    /// Pauses or resumes tasks, where they are read.
    fn set_paused(&mut self, paused: bool) {
        let State::Reading(consumer) = &self.source else { return };
        let mut tasks = TopicPartitionList::new();
        tasks.add_partition(&self.client().topics.tasks, self.partition as i32);
        let done = if paused { consumer.pause(&tasks) } else { consumer.resume(&tasks) };
        if let Err(error) = done {
            self.broken(&error);
        }
    }

    fn broken(&mut self, error: &KafkaError) {
        tracing::error!(
            partition = self.partition, %error,
            "tasks and messages cannot be read; the partition has to be opened anew"
        );
        self.source = State::Broken;
    }

    fn take(&mut self, received: Received) -> Came<T> {
        match received {
            Ok((command, cursor)) => {
                self.commands.yield_turn();
                let command = match command {
                    Content::Message(bytes) => Arrived::Message(bytes),
                    Content::Task(task) => Arrived::Task(task),
                };
                Came::Delivery(Delivery { command, cursor: Some(cursor) })
            }
            Err(error) => match error.rdkafka_error_code() {
                // Deleted under us, or the topic was made anew: going on elsewhere would lose something silently.
                Some(RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset) => {
                    self.broken(&error);
                    Came::Broken
                }
                _ if is_passing(&error) => Came::Nothing,
                _ => {
                    tracing::warn!(partition = self.partition, %error, "trying again to read tasks and messages");
                    Came::Nothing
                }
            },
        }
    }

    /// What the consumer has at hand.
    fn arrival(&mut self) -> Option<Delivery<T>> {
        loop {
            let State::Reading(consumer) = &self.source else { return None };
            let received = receive(consumer, self.running.client.topics.clone()).now_or_never()?;
            match self.take(received) {
                Came::Delivery(delivery) => return Some(delivery),
                Came::Nothing => {}
                Came::Broken => return None,
            }
        }
    }

    fn command(&mut self) -> Option<Delivery<T>> {
        self.commands.try_recv().map(command)
    }
}

/// A message or task, out of librdkafka's memory.
enum Content {
    Message(Bytes),
    Task(Task),
}

type Received = Result<(Content, Cursor), KafkaError>;

async fn receive(consumer: &StreamConsumer<Logged>, topics: Arc<super::topics::Topics>) -> Received {
    let message = consumer.recv().await?;
    let next = message.offset() as u64 + 1;
    if message.topic() == &*topics.tasks {
        let task = Content::Task(task(&message, &topics.tasks));
        return Ok((task, Cursor { tasks: next, messages: 0 }));
    }
    let bytes = Bytes::copy_from_slice(message.payload().unwrap_or_default());
    Ok((Content::Message(bytes), Cursor { tasks: 0, messages: next }))
}

fn task(message: &BorrowedMessage<'_>, topic: &Arc<str>) -> Task {
    let headers = message.headers().map(|headers| {
        let header = |header: rdkafka::message::Header<'_, &[u8]>| {
            (header.key.to_owned(), Bytes::copy_from_slice(header.value.unwrap_or_default()))
        };
        headers.iter().map(header).collect()
    });
    Task {
        source: Source {
            topic: topic.clone(),
            partition: message.partition() as u32,
            offset: message.offset() as u64,
        },
        key: message.key().map(Bytes::copy_from_slice),
        headers: headers.unwrap_or_default(),
        body: message.payload().map(Bytes::copy_from_slice),
        at_ms: message.timestamp().to_millis().unwrap_or_default(),
    }
}

#[async_trait]
impl<T: Send + 'static> Deliveries<T> for Arrivals<T> {
    async fn recv(&mut self) -> Option<Delivery<T>> {
        loop {
            if let Some(delivery) = self.try_recv() {
                return Some(delivery);
            }
            if self.commands.is_over() {
                return None;
            }
            let topics = self.running.client.topics.clone();
            let received = match &self.source {
                State::Broken => return None,
                State::Idle => {
                    return self.commands.recv().await.map(command);
                }
                State::Reading(consumer) => tokio::select! {
                    received = receive(consumer, topics) => received,
                    received = self.commands.recv() => match received {
                        Some(received) => return Some(command(received)),
                        None => return self.arrival(),
                    },
                },
            };
            if let Came::Delivery(delivery) = self.take(received) {
                return Some(delivery);
            }
        }
    }

    fn try_recv(&mut self) -> Option<Delivery<T>> {
        if self.commands.has_turn()
            && let Some(command) = self.command()
        {
            return Some(command);
        }
        self.arrival().or_else(|| self.command())
    }

    fn pause(&mut self) {
        if !std::mem::replace(&mut self.paused, true) {
            self.set_paused(true);
        }
    }

    fn resume(&mut self) {
        if std::mem::replace(&mut self.paused, false) {
            self.set_paused(false);
        }
    }

    fn seek(&mut self, consumed: Option<Cursor>) {
        if let Err(error) = self.read_from(consumed.unwrap_or_default()) {
            self.broken(&error);
        }
    }

    fn read_up_to(&self) -> Option<Cursor> {
        let State::Reading(consumer) = &self.source else { return None };
        let read = consumer.position().ok()?;
        let (topics, partition) = (&self.running.client.topics, self.partition as i32);
        // Invalid until something was read.
        let up_to = |topic: &str| match read.find_partition(topic, partition)?.offset() {
            Offset::Offset(offset) => u64::try_from(offset).ok(),
            _ => None,
        };
        let up_to = |topic: &str| up_to(topic).unwrap_or_default();
        Some(Cursor { tasks: up_to(&topics.tasks), messages: up_to(&topics.messages) })
    }
}
