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
    producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use reipaz_journal::KafkaConfig;
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
    child: Option<std::process::Child>,
    folder: tempfile::TempDir,
    port: u16,
    /// Where it listens.
    pub url: String,
    /// What its clients say.
    pub password: String,
}

impl Engine {
    /// Starts one on an empty directory.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("reipaz-engine-").tempdir().expect("a temporary folder");
        let password = format!("{:016x}", RandomState::new().hash_one(1));
        let port = crate::host::free_address().port();
        let url = format!("http://127.0.0.1:{port}");
        let mut engine = Self { child: None, folder, port, url, password };
        engine.start_again();
        engine
    }

    /// SIGKILL: it is away.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("the engine can be killed");
        child.wait().expect("the engine can be waited for");
    }

    /// Starts it on the data that it has.
    pub fn start_again(&mut self) {
        use std::io::BufRead;
        let library = std::env::var_os("REIPAZ_CHDB").expect("REIPAZ_CHDB names the library");
        let mut child = std::process::Command::new(crate::host::binary())
            .arg("internal-clickhouse")
            .arg("--library")
            .arg(library)
            .arg("--dir")
            .arg(self.folder.path())
            .args(["--port", &self.port.to_string()])
            .env("REIPAZ_CLICKHOUSE_TOKEN", &self.password)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("the engine starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        std::io::BufReader::new(stdout).read_line(&mut line).expect("the engine says where it listens");
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(said["serving"]["port"], self.port, "it does not serve: {line}");
        self.child = Some(child);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _gone_already = child.kill();
            let _nothing_to_wait_for = child.wait();
        }
    }
}

/// A broker of the test's own, which may be made to crash. Dropping it ends it.
#[derive(Debug)]
pub struct Broker {
    child: std::process::Child,
    input: std::process::ChildStdin,
    output: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
    /// `127.0.0.1:PORT`
    pub address: String,
    /// Its listener with TLS and SASL, if it has one.
    pub secured: Option<Secured>,
}

/// How a broker's secured listener is reached.
#[derive(Debug)]
pub struct Secured {
    /// `127.0.0.1:PORT`
    pub address: String,
    /// Whom it knows.
    pub user: String,
    /// By what.
    pub password: String,
    /// The file with its authority's certificate.
    pub authority: String,
}

impl Broker {
    /// Starts one. The repository's own command does it: `REIPAZ_XTASK`, or what was built beside the host.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With [`Broker::secured`].
    pub fn start_secured() -> Self {
        let mut broker = Self::start_with(&["--secured"]);
        let line = broker.line_with("With TLS and SASL");
        let said = |from: &str, to: &str| {
            let rest = line.split_once(from).expect("it says so").1;
            rest.split_once(to).expect("it says so").0.to_owned()
        };
        let (user, password) = (said("user ", ","), said("password ", ","));
        let authority = said("authority ", ")");
        let address = broker.line_with("REIPAZ_TEST_KAFKA_SECURED=");
        let address = address.rsplit_once('=').expect("an address").1.to_owned();
        broker.secured = Some(Secured { address, user, password, authority });
        broker
    }

    fn start_with(arguments: &[&str]) -> Self {
        use std::io::BufRead;
        let program = std::env::var_os("REIPAZ_XTASK")
            .map_or_else(|| crate::host::binary().with_file_name("xtask"), Into::into);
        let mut child = std::process::Command::new(&program)
            .arg("kafka")
            .args(arguments)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let input = child.stdin.take().expect("a pipe");
        let output = std::io::BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut broker = Self { child, input, output, address: String::new(), secured: None };
        let line = broker.line_with("REIPAZ_TEST_KAFKA=");
        broker.address = line.rsplit_once('=').expect("an address").1.to_owned();
        broker
    }

    /// SIGKILL, and a new start on its data; comes back when it answers.
    pub fn crash_and_restart(&mut self) {
        use std::io::Write;
        self.input.write_all(b"\n").expect("it listens");
        self.line_with("answers again");
    }

    fn line_with(&mut self, text: &str) -> String {
        let lines = self.output.by_ref().map(|line| line.expect("a line"));
        lines.into_iter().find(|line| line.contains(text)).expect("the broker starts")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // As Ctrl-C does: it has a broker to end.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _gone_already = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
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
        Self::on(brokers, partitions)
    }

    /// The same on a broker of the test's own.
    pub fn on(brokers: String, partitions: u32) -> Self {
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

    /// How its journal is reached.
    pub fn journal(&self) -> KafkaConfig {
        let Self { brokers, prefix, partitions } = self;
        KafkaConfig { prefix: prefix.clone(), ..KafkaConfig::new(brokers, *partitions) }
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

    /// Writes tasks to a partition in one transaction, and commits or aborts it.
    pub fn transact(&self, partition: i32, bodies: &[String], commit: bool) {
        let mut client = self.client();
        client.set("transactional.id", format!("{}producer", self.prefix));
        let producer: BaseProducer = client.create().expect("a producer");
        producer.init_transactions(TIMEOUT).expect("transactions");
        producer.begin_transaction().expect("a transaction");
        let topic = self.topic("tasks");
        for body in bodies {
            let record = BaseRecord::<(), _>::to(&topic).partition(partition).payload(body);
            producer.send(record).map_err(|(error, _)| error).expect("a task");
        }
        producer.flush(TIMEOUT).expect("everything is written");
        match commit {
            true => producer.commit_transaction(TIMEOUT).expect("it is committed"),
            false => producer.abort_transaction(TIMEOUT).expect("it is aborted"),
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
