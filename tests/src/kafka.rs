//! A deployment on a real Kafka: topics of its own, and the outside world's end of them.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::{Header, Headers, OwnedHeaders},
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use serde_json::Value;

use crate::host::Settings;

/// The session timeout of the hosts: as short as the broker allows, so that tests wait little for a lost one.
pub const SESSION: Duration = Duration::from_secs(6);

const TIMEOUT: Duration = Duration::from_secs(20);

/// See the module.
#[derive(Debug)]
pub struct Deployment {
    brokers: String,
    prefix: String,
    partitions: u32,
}

/// The ClickHouse engine as a process of its own, which several hosts use. Dropping it kills it.
#[derive(Debug)]
pub struct Engine {
    child: std::process::Child,
    _folder: tempfile::TempDir,
    /// Where it listens.
    pub url: String,
    /// What its clients say.
    pub password: String,
}

impl Engine {
    /// Starts one on an empty directory.
    pub fn start() -> Self {
        use std::io::BufRead;
        let library = std::env::var_os("REIPAZ_CHDB").expect("REIPAZ_CHDB names the library");
        let folder = tempfile::Builder::new().prefix("reipaz-engine-").tempdir().expect("a temporary folder");
        let password = format!("{:016x}", RandomState::new().hash_one(1));
        let mut child = std::process::Command::new(crate::host::binary())
            .arg("internal-clickhouse")
            .arg("--library")
            .arg(library)
            .arg("--dir")
            .arg(folder.path())
            .env("REIPAZ_CLICKHOUSE_TOKEN", &password)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("the engine starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        std::io::BufReader::new(stdout).read_line(&mut line).expect("the engine says where it listens");
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let port = said["serving"]["port"].as_u64().unwrap_or_else(|| panic!("it does not serve: {line}"));
        Self { child, _folder: folder, url: format!("http://127.0.0.1:{port}"), password }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _nothing_to_wait_for = self.child.wait();
    }
}

/// One message that somebody wrote.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its key, empty if it has none.
    pub key: String,
    /// Its headers.
    pub headers: BTreeMap<String, String>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Written {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }
}

impl Deployment {
    /// With topics that no other test uses.
    pub fn new(partitions: u32) -> Self {
        let brokers = std::env::var("REIPAZ_TEST_KAFKA").unwrap_or_default();
        assert!(
            !brokers.is_empty(),
            "this test needs a Kafka broker: run `cargo xtask test`, or start one by `cargo xtask kafka` and set \
             REIPAZ_TEST_KAFKA to its address"
        );
        Self { brokers, prefix: format!("e2e-{:016x}.", RandomState::new().hash_one(0)), partitions }
    }

    /// What its hosts are started with.
    pub fn settings(&self) -> Settings {
        Settings::new().with_config(&self.config())
    }

    /// Its part of the configuration (TOML).
    pub fn config(&self) -> String {
        let Self { brokers, prefix, partitions } = self;
        format!(
            "partitions = {partitions}\n[kafka]\nbrokers = \"{brokers}\"\nprefix = \"{prefix}\"\n\
             session_timeout = \"{}s\"\n",
            SESSION.as_secs()
        )
    }

    /// A topic's full name.
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers);
        client
    }

    /// Somebody who writes tasks.
    pub fn producer(&self) -> ThreadedProducer<DefaultProducerContext> {
        let mut client = self.client();
        client.set("acks", "all").set("message.max.bytes", "8000000");
        client.create().expect("a producer")
    }

    /// Writes a task to a partition, or to whichever its key says.
    pub fn write(
        &self,
        producer: &ThreadedProducer<DefaultProducerContext>,
        partition: Option<i32>,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) {
        let topic = self.topic("tasks");
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(*value) }));
        let mut record = BaseRecord::<[u8], [u8]>::to(&topic).headers(headers);
        record.payload = body;
        record.partition = partition;
        let mut left = Some(record);
        while let Some(record) = left.take() {
            if let Err((error, record)) = producer.send(record) {
                assert_eq!(error.rdkafka_error_code(), Some(rdkafka::types::RDKafkaErrorCode::QueueFull));
                std::thread::sleep(Duration::from_millis(10));
                left = Some(record);
            }
        }
    }

    /// Waits until everything is written.
    pub fn flush(&self, producer: &ThreadedProducer<DefaultProducerContext>) {
        producer.flush(TIMEOUT).expect("everything is written");
    }

    /// All that stands in a topic now, as a reader of committed messages sees it.
    pub async fn read(&self, topic: &str) -> Vec<Written> {
        let mut client = self.client();
        client.set("group.id", "e2e-readers").set("enable.auto.commit", "false");
        client.set("isolation.level", "read_committed").set("enable.partition.eof", "true");
        let name = self.topic(topic);
        tokio::task::spawn_blocking(move || read(&client, &name)).await.expect("read")
    }
}

fn read(client: &ClientConfig, topic: &str) -> Vec<Written> {
    let consumer: BaseConsumer = client.create().expect("a consumer");
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).expect("the topic is there");
    let partitions = metadata.topics()[0].partitions().len();
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition as i32, Offset::Beginning).expect("a partition");
    }
    consumer.assign(&list).expect("assigned");
    let mut ended = 0;
    let mut all = Vec::new();
    while ended < partitions {
        match consumer.poll(TIMEOUT) {
            Some(Ok(message)) => all.push(Written {
                key: String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned(),
                headers: message.headers().map(headers).unwrap_or_default(),
                body: message.payload().unwrap_or_default().to_vec(),
            }),
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(error)) => panic!("{topic}: {error}"),
            None => panic!("{topic}: nothing came"),
        }
    }
    all
}

fn headers(headers: &impl Headers) -> BTreeMap<String, String> {
    headers
        .iter()
        .map(|header| {
            (header.key.to_owned(), String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned())
        })
        .collect()
}
