//! The catalogue on a compacted topic: every host reads all of it, and keeps on reading what others write.
//!
//! A value is in memory only once it was read back from the topic, in its order: so all hosts agree on which of two
//! values for a key is the last one, and `put` waits until its own has come round. In the same way they agree on which of
//! several was inserted first. Each insertion has a key of its own on the topic, or compaction would keep the last.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{Consumer, StreamConsumer},
    error::KafkaError,
    message::Message,
    producer::{FutureRecord, Producer},
};
use tokio::sync::watch;

use super::{Client, Retired, Sender, context::Logged, failed, is_passing};
use crate::{catalog::Catalog, embedded::CATALOG_KEY_BYTES_LIMIT, error::JournalError, unblock::unblock};

/// After an error, before the topic is read on.
const PAUSE: Duration = Duration::from_millis(200);

/// Between a key and what makes an insertion's own of it; in no key of ours.
const WRITER: char = '#';

type Entries = BTreeMap<String, Bytes>;

/// See the module.
pub(crate) struct KafkaCatalog {
    client: Client,
    producer: Arc<Sender>,
    shared: Arc<Shared>,
    follower: tokio::task::JoinHandle<()>,
    /// Tells insertions of this process from those of others.
    writer: u64,
    insertions: AtomicU64,
}

struct Shared {
    entries: RwLock<Entries>,
    changes: watch::Sender<u64>,
    /// The offset after the last applied message, once everything that was there at the start has been.
    applied: watch::Sender<Option<u64>>,
}

impl KafkaCatalog {
    /// Reads the catalogue to its end, and goes on reading.
    pub(crate) async fn open(client: &Client, producer: Arc<Sender>) -> Result<Self, JournalError> {
        let consumer: StreamConsumer<Logged> =
            client.config.follower().create_with_context(Logged).map_err(failed("read the catalogue"))?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&client.topics.catalog, 0, Offset::Beginning)
            .and_then(|()| consumer.assign(&list))
            .map_err(failed("read the catalogue"))?;
        let shared = Arc::new(Shared {
            entries: RwLock::default(),
            changes: watch::Sender::new(0),
            applied: watch::Sender::new(None),
        });
        let follower = tokio::spawn(follow(Retired::new(consumer), shared.clone()));
        // Keyed by the system's randomness.
        let writer = RandomState::new().hash_one(std::process::id());
        let insertions = AtomicU64::new(0);
        let catalog = Self { client: client.clone(), producer, shared, follower, writer, insertions };
        catalog.applied(0).await?;
        Ok(catalog)
    }

    /// Waits until everything below `offset` was applied.
    async fn applied(&self, offset: u64) -> Result<(), JournalError> {
        let within = self.client.config.request_timeout;
        let mut applied = self.shared.applied.subscribe();
        let wait = applied.wait_for(|applied| applied.is_some_and(|applied| applied >= offset));
        match tokio::time::timeout(within, wait).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(JournalError::Closed),
            Err(_) => {
                let why = format!("it was not read to its end within {within:?}");
                Err(JournalError::Kafka { what: "read the catalogue".into(), why })
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Entries> {
        self.shared.entries.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for KafkaCatalog {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

/// Applies what is in the topic and what comes.
async fn follow(consumer: Retired<StreamConsumer<Logged>>, shared: Arc<Shared>) {
    let mut next = 0;
    loop {
        match consumer.recv().await {
            Ok(message) => {
                let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
                shared.apply(key, message.payload().map(Bytes::copy_from_slice));
                next = message.offset() as u64 + 1;
                shared.applied.send_modify(|applied| {
                    if applied.is_some() {
                        *applied = Some(next);
                    }
                });
            }
            Err(KafkaError::PartitionEOF(_)) => {
                shared.applied.send_replace(Some(next));
            }
            Err(error) if is_passing(&error) => tokio::time::sleep(PAUSE).await,
            Err(error) => {
                tracing::warn!(%error, "cannot follow the catalogue; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl Shared {
    fn apply(&self, key: String, value: Option<Bytes>) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        match (key.split_once(WRITER), value) {
            (Some((key, _)), Some(value)) => drop(entries.entry(key.to_owned()).or_insert(value)),
            (Some(_), None) => {}
            (None, Some(value)) => drop(entries.insert(key, value)),
            (None, None) => drop(entries.remove(&key)),
        }
        drop(entries);
        self.changes.send_modify(|count| *count += 1);
    }
}

fn check_bound(what: &'static str, bytes: usize, limit: usize) -> Result<(), JournalError> {
    match bytes > limit {
        true => Err(JournalError::TooLarge { what, bytes: bytes as u64, limit: limit as u64 }),
        false => Ok(()),
    }
}

#[async_trait]
impl Catalog for KafkaCatalog {
    async fn put(&self, key: &str, value: Bytes) -> Result<(), JournalError> {
        self.write(key, &value).await
    }

    async fn insert(&self, key: &str, value: Bytes) -> Result<Option<Bytes>, JournalError> {
        let number = self.insertions.fetch_add(1, Ordering::Relaxed);
        self.write(&format!("{key}{WRITER}{:016x}-{number}", self.writer), &value).await?;
        Ok(self.get(key).filter(|first| *first != value))
    }

    fn get(&self, key: &str) -> Option<Bytes> {
        self.read().get(key).cloned()
    }

    fn entries(&self) -> Vec<(String, Bytes)> {
        self.read().iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    async fn sync(&self) -> Result<(), JournalError> {
        let (client, producer) = (self.client.clone(), self.producer.clone());
        let (_, end) = unblock(move || {
            let within = client.config.request_timeout;
            let ends = producer.client().fetch_watermarks(&client.topics.catalog, 0, within);
            ends.map_err(failed("ask for the catalogue's end"))
        })
        .await?;
        self.applied(end.max(0) as u64).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }
}

impl KafkaCatalog {
    /// Comes back when what was written has been read.
    async fn write(&self, key: &str, value: &Bytes) -> Result<(), JournalError> {
        check_bound("a catalogue key", key.len(), CATALOG_KEY_BYTES_LIMIT)?;
        check_bound("a catalogue value", value.len(), self.client.config.message_bytes)?;
        let record = FutureRecord::to(&self.client.topics.catalog).partition(0).key(key).payload(&value[..]);
        let stored = self.producer.send(record, self.client.config.commit_timeout).await;
        let stored = stored.map_err(|(error, _)| failed("write the catalogue")(error))?;
        self.applied(stored.offset as u64 + 1).await
    }
}
