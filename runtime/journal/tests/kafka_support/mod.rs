//! What the Kafka tests stand on: a broker that somebody started, topics of their own, a producer that misbehaves, and a
//! small host.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer, StreamConsumer},
    error::KafkaError,
    message::Message,
    producer::{BaseProducer, BaseRecord, FutureProducer, FutureRecord, Producer},
};
use reipaz_journal::{
    Arrived, Batch, Change, Cursor, Deliveries, Delivery, Journal, Kafka, KafkaConfig, Tail,
};
use tokio::{sync::watch, task::JoinHandle};

/// Longer than any event takes.
const LONG: Duration = Duration::from_secs(60);
/// How long an owner takes to stop: longer than a take-over, shorter than the group waits.
const DRAIN: Duration = Duration::from_secs(3);
const BROKER_VARIABLE: &str = "REIPAZ_TEST_KAFKA";

/// Topics that no other test uses.
pub(crate) struct Topics {
    brokers: String,
    prefix: String,
    partitions: u32,
}

impl Topics {
    pub(crate) fn new(partitions: u32) -> Self {
        use std::hash::{BuildHasher, RandomState};
        let brokers = std::env::var(BROKER_VARIABLE).unwrap_or_default();
        assert!(
            !brokers.is_empty(),
            "this test needs a Kafka broker: run `cargo xtask test`, or start one by `cargo xtask kafka` and set \
             {BROKER_VARIABLE} to its address"
        );
        let prefix = format!("test-{:016x}.", RandomState::new().hash_one(0));
        Self { brokers, prefix, partitions }
    }

    pub(crate) fn config(&self) -> KafkaConfig {
        KafkaConfig {
            prefix: self.prefix.clone(),
            session_timeout: Duration::from_secs(6),
            revoke_timeout: 2 * DRAIN,
            ..KafkaConfig::new(&self.brokers, self.partitions)
        }
    }

    pub(crate) async fn open(&self) -> Kafka {
        Kafka::open(self.config()).await.unwrap()
    }

    pub(crate) fn name(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers).set("group.id", "test");
        client.set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        client
    }

    /// The oldest kept offset of a partition, and the one after the newest.
    pub(crate) async fn ends(&self, topic: &str, partition: i32) -> (u64, u64) {
        let (client, topic) = (self.client(), self.name(topic));
        let ends = tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = client.create().unwrap();
            consumer.fetch_watermarks(&topic, partition, LONG).unwrap()
        });
        let (low, high) = ends.await.unwrap();
        (low as u64, high as u64)
    }

    /// Sets a topic as an operator does, and everything else of it to the broker's defaults but what keeps records.
    pub(crate) async fn alter(&self, topic: &str, settings: &[(&str, &str)]) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let name = self.name(topic);
        let kept = [("cleanup.policy", "delete"), ("retention.ms", "-1")];
        let kept = kept.iter().filter(|(name, _)| settings.iter().all(|(set, _)| set != name));
        let alteration = AlterConfig::new(ResourceSpecifier::Topic(&name));
        let alteration = kept.chain(settings).fold(alteration, |all, (name, value)| all.set(name, value));
        let done = admin.alter_configs(&[alteration], &AdminOptions::new()).await.unwrap();
        assert!(done.iter().all(Result::is_ok), "{done:?}");
    }

    /// Writes a tombstone.
    pub(crate) async fn tombstone(&self, topic: &str, key: &str) {
        let producer: FutureProducer = self.client().create().unwrap();
        let topic = self.name(topic);
        let record = FutureRecord::<str, [u8]>::to(&topic).key(key).partition(0);
        producer.send(record, LONG).await.unwrap();
    }

    /// Somebody else who uses an owner's transactional id, with a transaction open.
    pub(crate) fn raw_owner(&self, partition: u32) -> RawOwner {
        let config = self.config();
        let id = format!("{}.{}{partition}", config.deployment, config.prefix);
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers).set("transactional.id", id);
        let producer: BaseProducer = client.create().unwrap();
        producer.init_transactions(LONG).unwrap();
        producer.begin_transaction().unwrap();
        RawOwner { producer, prefix: self.prefix.clone() }
    }
}

pub(crate) struct RawOwner {
    producer: BaseProducer,
    prefix: String,
}

impl RawOwner {
    /// Writes a message to partition 0, and waits until the broker has it.
    pub(crate) fn write(&self, topic: &str, body: &str) {
        let topic = format!("{}{topic}", self.prefix);
        let record = BaseRecord::<str, str>::to(&topic).partition(0).payload(body);
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
        self.producer.flush(LONG).unwrap();
    }

    pub(crate) fn commit(&self) -> Result<(), KafkaError> {
        self.producer.commit_transaction(LONG)
    }
}

/// The committed messages of a partition to its end, at least `wanted`.
pub(crate) async fn committed(topics: &Topics, topic: &str, partition: i32, wanted: usize) -> Vec<String> {
    let mut client = topics.client();
    client.set("isolation.level", "read_committed");
    let consumer: StreamConsumer = client.create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topics.name(topic), partition, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let mut found = Vec::new();
    let read = async {
        loop {
            match consumer.recv().await {
                Ok(message) => found.push(text(message.payload().unwrap_or_default())),
                Err(KafkaError::PartitionEOF(_)) if found.len() >= wanted => break,
                Err(_) => {}
            }
        }
    };
    tokio::time::timeout(LONG, read).await.expect("the messages come");
    found
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The records of a tail, as text.
pub(crate) async fn records_of(tail: &mut Tail) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(records) = tail.next().await.unwrap() {
        all.extend(records.iter().map(|record| text(&record.bytes)));
    }
    all
}

/// A task's body, as text.
pub(crate) fn task_body(delivery: Option<Delivery<u64>>) -> String {
    match delivery.unwrap().command {
        Arrived::Task(task) => text(&task.body.unwrap()),
        other => panic!("expected a task, not {other:?}"),
    }
}

/// The numbers of all tasks that took effect, sorted; waits until there are so many.
pub(crate) async fn effects(kafka: &Kafka, partitions: u32, wanted: usize) -> Vec<u32> {
    let gather = async {
        loop {
            let mut all: Vec<u32> = Vec::new();
            for partition in 0..partitions {
                let mut reader = kafka.journal().reader(partition);
                let mut after = reipaz_journal::Position::START;
                loop {
                    let records = reader.read_after(after, 1 << 20).await.unwrap();
                    let Some(last) = records.last() else { break };
                    after = last.position;
                    all.extend(records.iter().map(|record| text(&record.bytes).parse::<u32>().unwrap()));
                }
            }
            if all.len() >= wanted {
                all.sort_unstable();
                return all;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(LONG, gather).await.expect("all tasks take effect")
}

/// A host in small: it owns what the group gives it, and writes each task's body to the journal.
pub(crate) struct Worker {
    owned: watch::Receiver<usize>,
    unclean: Arc<AtomicU32>,
    stop: watch::Sender<bool>,
    running: JoinHandle<()>,
}

impl Worker {
    pub(crate) fn start(kafka: Kafka) -> Self {
        let (owned_now, owned) = watch::channel(0);
        let (stop, stopped) = watch::channel(false);
        let unclean = Arc::new(AtomicU32::new(0));
        let running = tokio::spawn(run(kafka, owned_now, unclean.clone(), stopped));
        Self { owned, unclean, stop, running }
    }

    /// Waits until it owns so many partitions.
    pub(crate) async fn owns(&self, partitions: usize) {
        let mut owned = self.owned.clone();
        let reached = owned.wait_for(|owned| *owned == partitions);
        tokio::time::timeout(LONG, reached).await.expect("the group assigns partitions").unwrap();
    }

    /// How many partitions it took over that nobody had closed.
    pub(crate) fn unclean_takeovers(&self) -> u32 {
        self.unclean.load(Ordering::SeqCst)
    }

    /// Closes everything and leaves the group.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        self.running.await.unwrap();
    }
}

type Owners = std::collections::BTreeMap<u32, (watch::Sender<bool>, JoinHandle<()>)>;

async fn run(
    kafka: Kafka,
    owned: watch::Sender<usize>,
    unclean: Arc<AtomicU32>,
    mut stopped: watch::Receiver<bool>,
) {
    let (_intake, mut assignments) = kafka.assignments::<u64>(10).unwrap();
    let mut owners = Owners::new();
    loop {
        let change = tokio::select! {
            change = assignments.next() => change.unwrap(),
            _ = stopped.wait_for(|stopped| *stopped) => break,
        };
        match change {
            Change::Assigned { partition, deliveries } => {
                let (stop, stopped) = watch::channel(false);
                let owner =
                    tokio::spawn(own(kafka.journal(), partition, deliveries, unclean.clone(), stopped));
                owners.insert(partition, (stop, owner));
            }
            Change::Revoked { partition, released } => {
                let (stop, owner) = owners.remove(&partition).unwrap();
                stop.send_replace(true);
                tokio::spawn(async move {
                    owner.await.unwrap();
                    let _ = released.send(());
                });
            }
        }
        owned.send_replace(owners.len());
    }
    for (stop, _) in owners.values() {
        stop.send_replace(true);
    }
    for (_, (_, owner)) in owners {
        owner.await.unwrap();
    }
}

async fn own(
    journal: Arc<dyn Journal>,
    partition: u32,
    mut deliveries: Box<dyn Deliveries<u64>>,
    unclean: Arc<AtomicU32>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut opened = journal.open(partition).await.unwrap();
    if !opened.clean_stop {
        unclean.fetch_add(1, Ordering::SeqCst);
    }
    deliveries.seek(opened.consumed);
    let mut consumed = Cursor::default();
    loop {
        let delivery = tokio::select! {
            delivery = deliveries.recv() => delivery,
            _ = stopped.wait_for(|stopped| *stopped) => break,
        };
        // Nothing more comes for a partition that was revoked.
        let Some(delivery) = delivery else { break };
        consumed.advance(delivery.cursor.unwrap());
        let records = vec![Bytes::from(task_body(Some(delivery)))];
        opened.log.commit(Batch { records, consumed: Some(consumed), ..Batch::default() }).await.unwrap();
    }
    // Its steps end first. Whoever does not wait for that takes over before the journal is closed.
    tokio::time::sleep(DRAIN).await;
    opened.log.close().await.unwrap();
}
