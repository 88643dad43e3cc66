//! One owner's transactions: everything in one becomes visible to readers of what is committed, or nothing does.
//!
//! librdkafka's calls block, so all of this runs on the owner's own thread. What the broker answers is sorted into four
//! cases here and nowhere else ([`Failure`]). The producer is polled by us in short steps: the safe wrapper's own `poll`
//! and `flush` always use up their whole time once a report is awaited, a tenth of a second for each commit.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::{
    error::{KafkaError, RDKafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer, PurgeConfig},
};

use super::{
    config::KafkaConfig,
    context::Reports,
    failed,
    retry::{self, Failed},
};
use crate::error::JournalError;

/// Between two looks at what is under way; far less than a broker's answer takes.
const LOOK_EVERY: Duration = Duration::from_micros(100);
/// Between two looks once it has taken long.
const LOOK_SELDOM: Duration = Duration::from_millis(5);
/// When a wait has taken long.
const LONG: Duration = Duration::from_millis(100);

/// One message of a transaction.
pub(crate) struct Write<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: u32,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) headers: &'a [(String, Bytes)],
    pub(crate) body: &'a [u8],
}

/// Why a transaction was not committed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Somebody else uses the transactional id: nothing was written.
    Fenced,
    /// It cannot be written as it is; nothing was.
    Refused(String),
    /// Nobody knows.
    Unclear(String),
}

/// One try.
enum Tried {
    /// It was undone and may be tried again.
    Undone(String),
    Ended(Failure),
}

impl From<Failure> for Tried {
    fn from(failure: Failure) -> Self {
        Self::Ended(failure)
    }
}

/// A producer with a transactional id.
pub(crate) struct Transactions {
    producer: BaseProducer<Reports>,
    timeout: Duration,
}

impl Transactions {
    /// Fences whoever used the partition's transactional id before, and undoes what they left.
    pub(crate) fn start(config: &KafkaConfig, partition: u32) -> Result<Self, JournalError> {
        let within = config.request_timeout;
        let producer = retry::until(within, "take a partition over", || {
            let producer: BaseProducer<Reports> = config
                .owner(partition)
                .create_with_context(Reports::default())
                .map_err(failed("make a producer"))
                .map_err(Failed::Forever)?;
            match producer.init_transactions(within) {
                Ok(()) => Ok(producer),
                Err(error) => {
                    let later = is_retriable(&error);
                    let error = failed("fence the previous owner")(error);
                    Err(if later { Failed::Later(error) } else { Failed::Forever(error) })
                }
            }
        })?;
        Ok(Self { producer, timeout: config.commit_timeout })
    }

    /// Writes all of it in one transaction, and tries again what was undone; gives the offsets of the first `known` ones.
    pub(crate) fn write(&mut self, writes: &[Write<'_>], known: usize) -> Result<Vec<u64>, Failure> {
        let deadline = Instant::now() + self.timeout;
        loop {
            match self.try_write(writes, deadline) {
                Ok(()) => break,
                Err(Tried::Ended(failure)) => return Err(failure),
                Err(Tried::Undone(why)) if Instant::now() >= deadline => return Err(Failure::Unclear(why)),
                Err(Tried::Undone(why)) => {
                    tracing::info!(why, "a transaction was undone; trying it again");
                    std::thread::sleep(LOOK_SELDOM);
                }
            }
        }
        let offsets = (0..known).map(|number| self.producer.context().offset(number));
        let offsets: Option<Vec<u64>> = offsets.collect();
        offsets.ok_or_else(|| Failure::Unclear("Kafka did not say where the batch stands".into()))
    }

    fn try_write(&self, writes: &[Write<'_>], deadline: Instant) -> Result<(), Tried> {
        self.producer.context().clear(writes.len());
        self.producer.begin_transaction().map_err(|error| ended(&error))?;
        for (number, write) in writes.iter().enumerate() {
            self.send(number, write, deadline).or_else(|error| self.give_up(&error, deadline))?;
        }
        if !self.settle(deadline) {
            return self.undo("Kafka did not confirm the batch in time", deadline);
        }
        if let Some(error) = self.producer.context().failed() {
            return self.give_up(&error, deadline);
        }
        self.commit(deadline)
    }

    fn commit(&self, deadline: Instant) -> Result<(), Tried> {
        loop {
            let Err(error) = self.producer.commit_transaction(left(deadline)) else { return Ok(()) };
            match &error {
                KafkaError::Transaction(said) if said.is_fatal() => return Err(ended(&error)),
                KafkaError::Transaction(said) if said.txn_requires_abort() => {
                    return self.undo(&error.to_string(), deadline);
                }
                // The same call again is safe: it goes on with the same commit.
                KafkaError::Transaction(said) if said.is_retriable() && Instant::now() < deadline => {}
                _ => return Err(Failure::Unclear(error.to_string()).into()),
            }
        }
    }

    /// A message that cannot be sent: it is wrong in itself, or the transaction is.
    fn give_up(&self, error: &KafkaError, deadline: Instant) -> Result<(), Tried> {
        let refused = matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::MessageSizeTooLarge
                    | RDKafkaErrorCode::InvalidMessageSize
                    | RDKafkaErrorCode::InvalidRecord
                    | RDKafkaErrorCode::UnknownPartition
                    | RDKafkaErrorCode::UnknownTopic
                    | RDKafkaErrorCode::UnknownTopicOrPartition
                    | RDKafkaErrorCode::TopicAuthorizationFailed
            )
        );
        if let Some((code, why)) = self.producer.client().fatal_error() {
            return Err(match is_fenced(code) {
                true => Failure::Fenced.into(),
                false => Failure::Unclear(why).into(),
            });
        }
        match self.undo(&error.to_string(), deadline) {
            Err(Tried::Undone(why)) if refused => Err(Failure::Refused(why).into()),
            other => other,
        }
    }

    /// Ends the transaction so that none of it is ever seen.
    fn undo(&self, why: &str, deadline: Instant) -> Result<(), Tried> {
        self.producer.purge(PurgeConfig::default().queue());
        // Undoing has its own time: without it nobody could tell what became of the batch.
        let deadline = deadline.max(Instant::now() + self.timeout);
        self.settle(deadline);
        loop {
            match self.producer.abort_transaction(left(deadline)) {
                Ok(()) => return Err(Tried::Undone(why.to_owned())),
                Err(error) if is_retriable(&error) && Instant::now() < deadline => {}
                Err(error) => return Err(ended(&error)),
            }
        }
    }

    fn send(&self, number: usize, write: &Write<'_>, deadline: Instant) -> Result<(), KafkaError> {
        let mut record = BaseRecord::with_opaque_to(write.topic, number).payload(write.body);
        record.key = write.key;
        record.partition = Some(write.partition as i32);
        record.headers = headers(write.headers);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again))
                    if Instant::now() < deadline =>
                {
                    record = again;
                    self.producer.poll(LOOK_SELDOM);
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Waits until every message was confirmed or failed; false when the time is over.
    fn settle(&self, deadline: Instant) -> bool {
        let begin = Instant::now();
        while self.producer.in_flight_count() > 0 {
            self.producer.poll(Duration::ZERO);
            let now = Instant::now();
            if now >= deadline {
                return false;
            }
            if self.producer.in_flight_count() > 0 {
                std::thread::sleep(if now - begin > LONG { LOOK_SELDOM } else { LOOK_EVERY });
            }
        }
        true
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(LOOK_SELDOM)
}

/// Named properties as librdkafka takes them.
pub(crate) fn headers(headers: &[(String, Bytes)]) -> Option<OwnedHeaders> {
    if headers.is_empty() {
        return None;
    }
    let empty = OwnedHeaders::new_with_capacity(headers.len());
    let all = headers
        .iter()
        .fold(empty, |all, (key, value)| all.insert(Header { key, value: Some(value.as_ref()) }));
    Some(all)
}

fn is_fenced(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch
    )
}

fn is_retriable(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(said) if !RDKafkaError::is_fatal(said) && said.is_retriable())
}

/// An error after which this producer is of no use.
fn ended(error: &KafkaError) -> Tried {
    match error.rdkafka_error_code() {
        Some(code) if is_fenced(code) => Failure::Fenced.into(),
        _ => Failure::Unclear(error.to_string()).into(),
    }
}
