//! What hosts stand on: topics of their own on a broker, or a directory. And the outside world's end of the topics: who
//! writes tasks, who reads results.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, Producer, ThreadedProducer},
};

use super::PARTITIONS;
use crate::{grants, workloads::Workload};

/// As short as brokers allow unless they are told otherwise.
pub(crate) const SESSION: Duration = Duration::from_secs(6);
/// How long a broker may take for an answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
/// When no result comes for so long, something is wrong.
const RESULT_WITHIN: Duration = Duration::from_secs(60);
/// Between two tries to write when the producer's queue is full.
const QUEUE_PAUSE: Duration = Duration::from_millis(5);

/// What a host's journal lies on.
pub(crate) enum Ground {
    Kafka(Deployment),
    Directory,
}

impl Ground {
    pub(crate) fn title(&self) -> &'static str {
        match self {
            Self::Kafka(_) => "Kafka",
            Self::Directory => "directory",
        }
    }

    /// A host's configuration. `limits` is a table without its name.
    pub(crate) fn config(&self, limits: &str, upstream: SocketAddr) -> String {
        let kafka = match self {
            Self::Kafka(deployment) => deployment.config(),
            Self::Directory => String::new(),
        };
        format!(
            "partitions = {PARTITIONS}\n{kafka}[limits]\n{limits}[clickhouse]\nmode = \"off\"\n{}",
            grants(upstream)
        )
    }

    /// Removes what hosts have left outside of their folders.
    pub(crate) async fn remove(&self) -> Result<()> {
        match self {
            Self::Kafka(deployment) => deployment.remove().await,
            Self::Directory => Ok(()),
        }
    }
}

/// Topics that nobody else uses.
#[derive(Clone)]
pub(crate) struct Deployment {
    brokers: String,
    prefix: String,
}

impl Deployment {
    pub(crate) fn new(brokers: &str) -> Self {
        Self {
            brokers: brokers.to_owned(),
            prefix: format!("bench-{:016x}.", RandomState::new().hash_one(0)),
        }
    }

    fn config(&self) -> String {
        let Self { brokers, prefix } = self;
        let session = SESSION.as_secs();
        format!("[kafka]\nbrokers = \"{brokers}\"\nprefix = \"{prefix}\"\nsession_timeout = \"{session}s\"\n")
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers);
        client
    }

    fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Writes runs `from..from + count` as tasks, and waits until each has its result; gives the time that this took.
    pub(crate) async fn run_tasks(
        &self,
        workload: Workload,
        from: u64,
        count: u64,
        upstream: SocketAddr,
    ) -> Result<Duration> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || {
            let results = this.results()?;
            let begin = Instant::now();
            let writer = {
                let this = this.clone();
                std::thread::spawn(move || this.write_tasks(workload, from..from + count, upstream))
            };
            let read = await_results(&results, count);
            match writer.join() {
                Ok(written) => written.context("the tasks could not be written")?,
                Err(_) => bail!("the writer of tasks panicked"),
            }
            read?;
            Ok(begin.elapsed())
        })
        .await?
    }

    fn write_tasks(
        &self,
        workload: Workload,
        numbers: std::ops::Range<u64>,
        upstream: SocketAddr,
    ) -> Result<()> {
        let mut client = self.client();
        client.set("acks", "all").set("enable.idempotence", "true").set("linger.ms", "5");
        let producer: ThreadedProducer<_> = client.create()?;
        let topic = self.topic("tasks");
        for n in numbers {
            let body = workload.task(n, upstream);
            let partition = (n % u64::from(PARTITIONS)) as i32;
            let mut left = Some(BaseRecord::<(), str>::to(&topic).payload(&body).partition(partition));
            while let Some(record) = left.take() {
                match producer.send(record) {
                    Ok(()) => {}
                    Err((error, record))
                        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) =>
                    {
                        std::thread::sleep(QUEUE_PAUSE);
                        left = Some(record);
                    }
                    Err((error, _)) => return Err(error.into()),
                }
            }
        }
        Ok(producer.flush(ANSWERED_WITHIN)?)
    }

    /// A reader of the results that are still to come.
    fn results(&self) -> Result<BaseConsumer> {
        let mut client = self.client();
        client.set("group.id", "bench-readers").set("enable.auto.commit", "false");
        client.set("isolation.level", "read_committed");
        let consumer: BaseConsumer = client.create()?;
        let topic = self.topic("results");
        let mut list = TopicPartitionList::new();
        for partition in 0..PARTITIONS as i32 {
            let (_, end) = consumer.fetch_watermarks(&topic, partition, ANSWERED_WITHIN)?;
            list.add_partition_offset(&topic, partition, Offset::Offset(end))?;
        }
        consumer.assign(&list)?;
        Ok(consumer)
    }

    /// Removes the topics.
    pub(crate) async fn remove(&self) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let names = ["tasks", "messages", "journal", "results", "tasks.rejected", "catalog"];
        let topics: Vec<String> = names.iter().map(|name| self.topic(name)).collect();
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        let options = AdminOptions::new().operation_timeout(Some(ANSWERED_WITHIN));
        for removed in admin.delete_topics(&topics, &options).await? {
            if let Err((topic, error)) = removed {
                bail!(
                    "the topic {topic} could not be removed: {error}. Remove those that begin with {} yourself",
                    self.prefix
                );
            }
        }
        Ok(())
    }
}

/// Each result is another run's, and each run has completed.
fn await_results(results: &BaseConsumer, count: u64) -> Result<()> {
    let mut ended = HashSet::new();
    let mut last = Instant::now();
    while (ended.len() as u64) < count {
        match results.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => {
                last = Instant::now();
                let text = String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned();
                ensure!(text.contains("reipaz.run.completed"), "a run ended otherwise: {text}");
                ensure!(ended.insert(message.key().unwrap_or_default().to_vec()), "told twice: {text}");
            }
            Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::BrokerTransportFailure))) => {}
            Some(Err(error)) => return Err(error).context("the results cannot be read"),
        }
        ensure!(last.elapsed() < RESULT_WITHIN, "{} of {count} results came, then none", ended.len());
    }
    Ok(())
}
