//! How Kafka is reached, and the settings of every kind of client that we make. Each setting that is not librdkafka's
//! own default has its reason here.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use rdkafka::{ClientConfig, config::RDKafkaLogLevel};

use super::topics::Topics;
use crate::error::JournalError;

/// The usual start of topic names.
pub const PREFIX_DEFAULT: &str = "reipaz.";
/// The most partitions: each owned one costs a producer and a consumer with their threads.
pub const PARTITIONS_LIMIT: u32 = 256;
/// The largest message that our topics take, as they are made: an input of 1 MiB in JSON, escaped at its worst, fits.
pub const MESSAGE_BYTES_DEFAULT: usize = 4 << 20;

/// How a Kafka journal is reached and kept.
#[derive(Clone, Debug)]
pub struct KafkaConfig {
    /// Some of the brokers, `host:port` separated by commas; the others are learnt from them.
    pub brokers: String,
    /// What topic names begin with.
    pub prefix: String,
    /// The name that the hosts of one deployment share: their consumer group, and the start of their transactional ids.
    pub deployment: String,
    /// How many partitions there are, 1 to [`PARTITIONS_LIMIT`]. Fixed for the life of the data.
    pub partitions: u32,
    /// How connections are protected, and who we are.
    pub security: Security,
    /// On how many brokers a topic that we make stands; the brokers' default if `None`.
    pub replication: Option<u16>,
    /// The largest message that our topics take: set on those that we make, and expected of the others.
    pub message_bytes: usize,
    /// How long a broker may take for what is asked at the start, or for an administrator's request.
    pub request_timeout: Duration,
    /// How long a commit is tried before it counts as unclear.
    pub commit_timeout: Duration,
    /// After so long the broker ends a dead owner's transaction. Until then, or until a new owner comes, nobody sees
    /// messages that were written to the same partitions after it.
    pub transaction_timeout: Duration,
    /// After so long without a sign a host has lost its partitions.
    pub session_timeout: Duration,
    /// How long a planned hand-over waits for the old owner.
    pub revoke_timeout: Duration,
    /// librdkafka's own settings, for every client; they go before ours.
    pub extra: BTreeMap<String, String>,
}

/// How connections are protected, and who we are.
#[derive(Clone, Default)]
pub enum Security {
    /// Neither encrypted nor authenticated.
    #[default]
    Plaintext,
    /// Encrypted; authenticated by a certificate where there is one.
    Tls(Tls),
    /// Authenticated by name and password; encrypted where `tls` is there.
    Sasl {
        /// How the password is proved.
        mechanism: Sasl,
        /// The name.
        username: String,
        /// The password.
        password: String,
        /// How it is encrypted.
        tls: Option<Tls>,
    },
}

/// How a password is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sasl {
    /// It is sent: only over TLS.
    Plain,
    /// SCRAM-SHA-256.
    ScramSha256,
    /// SCRAM-SHA-512.
    ScramSha512,
}

/// An encrypted connection. All files are PEM.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// The certificate authority of the brokers; the system's if `None`.
    pub ca_file: Option<PathBuf>,
    /// Our certificate.
    pub certificate_file: Option<PathBuf>,
    /// Its private key.
    pub key_file: Option<PathBuf>,
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plaintext => f.write_str("Plaintext"),
            Self::Tls(tls) => f.debug_tuple("Tls").field(tls).finish(),
            // Without the password: this ends up in logs.
            Self::Sasl { mechanism, username, tls, .. } => {
                let mut shown = f.debug_struct("Sasl");
                shown.field("mechanism", mechanism).field("username", username).field("tls", tls);
                shown.finish_non_exhaustive()
            }
        }
    }
}

impl KafkaConfig {
    /// The usual configuration for some brokers.
    pub fn new(brokers: impl Into<String>, partitions: u32) -> Self {
        Self {
            brokers: brokers.into(),
            prefix: PREFIX_DEFAULT.into(),
            deployment: "reipaz".into(),
            partitions,
            security: Security::Plaintext,
            replication: None,
            message_bytes: MESSAGE_BYTES_DEFAULT,
            request_timeout: Duration::from_secs(30),
            commit_timeout: Duration::from_secs(20),
            transaction_timeout: Duration::from_secs(10),
            session_timeout: Duration::from_secs(10),
            revoke_timeout: Duration::from_secs(2),
            extra: BTreeMap::new(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), JournalError> {
        let why = if self.brokers.trim().is_empty() {
            "no broker is named".into()
        } else if !(1..=PARTITIONS_LIMIT).contains(&self.partitions) {
            format!("there can be 1 to {PARTITIONS_LIMIT} partitions, not {}", self.partitions)
        } else if self.deployment.is_empty() {
            "the deployment has no name".into()
        } else if self.message_bytes < super::frame::PIECE_BYTES + super::frame::HEADER_BYTES {
            format!("messages of {} bytes are too small for the journal", self.message_bytes)
        } else {
            return Ok(());
        };
        Err(JournalError::Config(why))
    }

    /// The names of the topics.
    pub(crate) fn topics(&self) -> Arc<Topics> {
        Arc::new(Topics::new(&self.prefix))
    }

    /// The transactional id of a partition's owner: whoever uses it fences the one before.
    pub(crate) fn transactional_id(&self, partition: u32) -> String {
        format!("{}.{}{partition}", self.deployment, self.prefix)
    }

    /// The consumer group that decides who owns what.
    pub(crate) fn group(&self) -> String {
        format!("{}.{}owners", self.deployment, self.prefix)
    }

    /// The start of a command line of Kafka's own tools.
    pub(crate) fn tool(&self, name: &str) -> String {
        // How a client proves itself stands in a file of the operator's.
        let file = match self.security {
            Security::Plaintext => "",
            Security::Tls(_) | Security::Sasl { .. } => " --command-config client.properties",
        };
        format!("{name} --bootstrap-server {}{file}", self.brokers)
    }

    /// What an operator types to allow us something on all names that begin with `prefix`.
    pub(crate) fn allow(&self, what: &str, prefix: &str) -> String {
        let user = match &self.security {
            Security::Sasl { username, .. } => username,
            Security::Plaintext => "ANONYMOUS",
            Security::Tls(_) => "CN=...",
        };
        let tool = self.tool("kafka-acls.sh");
        format!(
            "{tool} --add --allow-principal 'User:{user}' {what} '{prefix}' --resource-pattern-type prefixed"
        )
    }

    /// For looking only: part of no group.
    pub(crate) fn examiner(&self) -> ClientConfig {
        let mut client = self.finish(self.client());
        client.set("enable.auto.commit", "false");
        client
    }

    /// For asking whether the group may be used: it never joins.
    pub(crate) fn group_examiner(&self) -> ClientConfig {
        let mut client = self.examiner();
        client.set("group.id", self.group());
        client
    }

    /// For asking whether transactions may be used, under an id that no owner has, with a timeout that no broker allows:
    /// it refuses after it has checked who asks and before it notes anything.
    pub(crate) fn transaction_examiner(&self) -> ClientConfig {
        let mut client = self.finish(self.producer());
        client.set("transactional.id", format!("{}.{}doctor", self.deployment, self.prefix));
        client.set("transaction.timeout.ms", i32::MAX.to_string());
        client
    }

    /// A client of any kind.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers);
        client.set("client.id", &self.deployment);
        // Else asking whether a topic is there would make it, with the broker's own settings.
        client.set("allow.auto.create.topics", "false");
        // Brokers that come back are found again at once.
        client.set("reconnect.backoff.max.ms", "1000");
        // A new partition's leader is asked for as soon as it is needed.
        client.set("topic.metadata.refresh.fast.interval.ms", "20");
        client.set_log_level(RDKafkaLogLevel::Warning);
        self.set_security(&mut client);
        client
    }

    fn set_security(&self, client: &mut ClientConfig) {
        let tls = match &self.security {
            Security::Plaintext => return,
            Security::Tls(tls) => {
                client.set("security.protocol", "ssl");
                Some(tls)
            }
            Security::Sasl { mechanism, username, password, tls } => {
                let protocol = if tls.is_some() { "sasl_ssl" } else { "sasl_plaintext" };
                client.set("security.protocol", protocol);
                client.set("sasl.mechanisms", mechanism.name());
                client.set("sasl.username", username).set("sasl.password", password);
                tls.as_ref()
            }
        };
        let Some(tls) = tls else { return };
        // Our OpenSSL was not built for this system: librdkafka looks where systems keep their authorities.
        client.set("ssl.ca.location", "probe");
        let files = [
            ("ssl.ca.location", &tls.ca_file),
            ("ssl.certificate.location", &tls.certificate_file),
            ("ssl.key.location", &tls.key_file),
        ];
        for (name, file) in files {
            if let Some(file) = file {
                client.set(name, file.to_string_lossy());
            }
        }
    }

    /// The last word is the operator's.
    fn finish(&self, mut client: ClientConfig) -> ClientConfig {
        for (name, value) in &self.extra {
            client.set(name, value);
        }
        client
    }

    /// For administrators' requests.
    pub(crate) fn admin(&self) -> ClientConfig {
        self.finish(self.client())
    }

    fn producer(&self) -> ClientConfig {
        let mut client = self.client();
        client.set("acks", "all").set("enable.idempotence", "true");
        // Whoever sends waits for it.
        client.set("linger.ms", "0");
        client.set("message.max.bytes", (self.message_bytes + MESSAGE_OVERHEAD_BYTES).to_string());
        // What other producers of keyed messages do.
        client.set("partitioner", "murmur2_random");
        // After a commit the broker is busy with it for a moment and refuses the next one's first message; librdkafka
        // tries again after this time. Its default of 100 ms would be what a commit takes.
        client.set("retry.backoff.ms", "1").set("retry.backoff.max.ms", "100");
        client
    }

    /// For tasks and the catalogue.
    pub(crate) fn plain_producer(&self) -> ClientConfig {
        let mut client = self.producer();
        client.set("delivery.timeout.ms", self.commit_timeout.as_millis().to_string());
        self.finish(client)
    }

    /// For an owner.
    pub(crate) fn owner(&self, partition: u32) -> ClientConfig {
        let mut client = self.producer();
        client.set("transactional.id", self.transactional_id(partition));
        let timeout = self.transaction_timeout.as_millis().to_string();
        client.set("transaction.timeout.ms", &timeout).set("delivery.timeout.ms", &timeout);
        self.finish(client)
    }

    /// For whoever reads partitions of its own choice: never part of the group, never commits offsets.
    fn consumer(&self) -> ClientConfig {
        let mut client = self.client();
        // librdkafka wants a name to assign partitions; it is used for nothing.
        client.set("group.id", format!("{}.readers", self.group()));
        client.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        client.set("isolation.level", "read_committed");
        client.set("auto.offset.reset", "error");
        client.set("check.crcs", "true");
        // Once a queue is full its partition would rest for a second.
        client.set("fetch.queue.backoff.ms", "5");
        client
    }

    /// For searches in a journal: comes back from its end at once.
    pub(crate) fn scout(&self) -> ClientConfig {
        let mut client = self.consumer();
        client.set("enable.partition.eof", "true").set("fetch.wait.max.ms", "10");
        // A search jumps about: what it has not asked for is thrown away.
        client.set("queued.max.messages.kbytes", "2048");
        self.finish(client)
    }

    /// For following a journal or the catalogue.
    pub(crate) fn follower(&self) -> ClientConfig {
        let mut client = self.consumer();
        client.set("enable.partition.eof", "true").set("fetch.wait.max.ms", "100");
        client.set("queued.max.messages.kbytes", "16384");
        self.finish(client)
    }

    /// For an owner's tasks and messages: both come through one queue, so it is short, or a message would wait behind
    /// tasks for long.
    pub(crate) fn deliveries(&self) -> ClientConfig {
        let mut client = self.consumer();
        client.set("queued.min.messages", "1000").set("queued.max.messages.kbytes", "4096");
        self.finish(client)
    }

    /// For the membership in the group.
    pub(crate) fn member(&self) -> ClientConfig {
        let mut client = self.client();
        client.set("group.id", self.group());
        client.set("partition.assignment.strategy", "cooperative-sticky");
        let session = self.session_timeout.as_millis();
        client.set("session.timeout.ms", session.to_string());
        client.set("heartbeat.interval.ms", (session / 6).clamp(100, 3000).to_string());
        client.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        // It reads nothing; where it would begin does not matter.
        client.set("auto.offset.reset", "latest");
        self.finish(client)
    }
}

/// What a message takes beside its body: framing, key, headers.
const MESSAGE_OVERHEAD_BYTES: usize = 64 << 10;

impl Sasl {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        let mut config = KafkaConfig::new("127.0.0.1:9092", 4);
        config.security = Security::Sasl {
            mechanism: Sasl::ScramSha512,
            username: "owner".into(),
            password: "hunter2".into(),
            tls: Some(Tls::default()),
        };
        let shown = format!("{config:?}");
        assert!(shown.contains("owner") && !shown.contains("hunter2"), "{shown}");
        assert_eq!(config.admin().get("security.protocol"), Some("sasl_ssl"));
        assert_eq!(config.admin().get("sasl.mechanisms"), Some("SCRAM-SHA-512"));
    }

    #[test]
    fn the_operators_settings_go_before_ours() {
        let mut config = KafkaConfig::new("127.0.0.1:9092", 4);
        config.extra.insert("linger.ms".into(), "3".into());
        assert_eq!(config.owner(0).get("linger.ms"), Some("3"));
        assert_eq!(config.plain_producer().get("linger.ms"), Some("3"));
    }

    #[test]
    fn a_configuration_that_makes_no_sense_is_refused() {
        assert!(KafkaConfig::new("127.0.0.1:9092", 1).check().is_ok());
        for config in [
            KafkaConfig::new("", 1),
            KafkaConfig::new("127.0.0.1:9092", 0),
            KafkaConfig { deployment: String::new(), ..KafkaConfig::new("127.0.0.1:9092", 1) },
            KafkaConfig { message_bytes: 1000, ..KafkaConfig::new("127.0.0.1:9092", 1) },
        ] {
            assert!(matches!(config.check(), Err(JournalError::Config(_))), "{config:?}");
        }
    }
}
