//! The topics: their names, the settings that the promises rest on, and what happens when one is missing or wrong.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    admin::{AdminOptions, NewTopic, TopicReplication},
    client::Client,
    error::RDKafkaErrorCode,
};

use super::{
    Admin,
    config::KafkaConfig,
    context::Logged,
    failed,
    retry::{self, Failed},
};
use crate::{error::JournalError, unblock::unblock};

/// The topics' names.
#[derive(Debug)]
pub(crate) struct Topics {
    /// What producers, and our own API, ask for.
    pub(crate) tasks: Arc<str>,
    /// What partitions tell one another.
    pub(crate) messages: Arc<str>,
    /// What has happened.
    pub(crate) journal: Arc<str>,
    /// What became of runs.
    pub(crate) results: Arc<str>,
    /// Tasks that were not accepted.
    pub(crate) rejected: Arc<str>,
    /// What every host knows.
    pub(crate) catalog: Arc<str>,
}

/// A topic as it should be.
struct Wanted {
    name: Arc<str>,
    partitions: u32,
    /// Whether another count is an error.
    exact: bool,
    settings: Vec<(&'static str, String)>,
}

/// Nothing is deleted by age or size: we delete what a checkpoint and the sink have made superfluous.
const KEPT: [(&str, &str); 3] =
    [("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")];
/// For readers outside: seven days.
const A_WEEK: [(&str, &str); 2] = [("cleanup.policy", "delete"), ("retention.ms", "604800000")];
/// The newest value of each key.
const COMPACTED: [(&str, &str); 2] = [("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0.1")];

impl Topics {
    pub(crate) fn new(prefix: &str) -> Self {
        let name = |name: &str| Arc::from(format!("{prefix}{name}"));
        Self {
            tasks: name("tasks"),
            messages: name("messages"),
            journal: name("journal"),
            results: name("results"),
            rejected: name("tasks.rejected"),
            catalog: name("catalog"),
        }
    }

    fn wanted(&self, config: &KafkaConfig) -> Vec<Wanted> {
        let durable = durability(config);
        let wanted = |name: &Arc<str>, partitions, exact, settings: &[(&'static str, &str)]| {
            let settings = settings.iter().map(|(name, value)| (*name, (*value).to_owned()));
            let settings = settings.chain(durable.iter().cloned()).collect();
            Wanted { name: name.clone(), partitions, exact, settings }
        };
        vec![
            wanted(&self.tasks, config.partitions, true, &KEPT),
            wanted(&self.messages, config.partitions, true, &KEPT),
            wanted(&self.journal, config.partitions, true, &KEPT),
            wanted(&self.results, config.partitions, false, &A_WEEK),
            wanted(&self.rejected, config.partitions, false, &A_WEEK),
            wanted(&self.catalog, 1, true, &COMPACTED),
        ]
    }
}

/// What every topic needs so that an acknowledged write is not lost.
fn durability(config: &KafkaConfig) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("unclean.leader.election.enable", "false".to_owned()),
        ("max.message.bytes", (config.message_bytes + BATCH_OVERHEAD_BYTES).to_string()),
    ];
    if let Some(replicas) = config.replication {
        settings.push(("min.insync.replicas", replicas.min(2).to_string()));
    }
    settings
}

/// What Kafka adds to the largest message, and a key and headers.
const BATCH_OVERHEAD_BYTES: usize = 128 << 10;

impl Wanted {
    /// What an operator types where we may not create topics.
    fn command(&self, config: &KafkaConfig) -> String {
        let mut command = format!(
            "kafka-topics.sh --bootstrap-server {} --create --topic {} --partitions {}",
            config.brokers, self.name, self.partitions
        );
        if let Some(replicas) = config.replication {
            command.push_str(&format!(" --replication-factor {replicas}"));
        }
        for (name, value) in &self.settings {
            command.push_str(&format!(" --config {name}={value}"));
        }
        command
    }

    fn new_topic(&self, config: &KafkaConfig) -> NewTopic<'_> {
        // -1 leaves it to the brokers.
        let replication = TopicReplication::Fixed(config.replication.map_or(-1, i32::from));
        let mut topic = NewTopic::new(&self.name, self.partitions as i32, replication);
        for (name, value) in &self.settings {
            topic = topic.set(name, value);
        }
        topic
    }
}

/// Makes the topics that are missing, and refuses those that are not as they must be.
pub(crate) async fn ensure(admin: &Arc<Admin>, config: &KafkaConfig) -> Result<(), JournalError> {
    let wanted = config.topics().wanted(config);
    let found = find(admin, config, &wanted, false).await?;
    let missing: Vec<&Wanted> =
        wanted.iter().zip(&found).filter(|(_, count)| count.is_none()).map(|(topic, _)| topic).collect();
    create(admin, config, &missing).await?;
    let found = if missing.is_empty() { found } else { find(admin, config, &wanted, true).await? };
    for (topic, count) in wanted.iter().zip(found) {
        let found = count.unwrap_or_default();
        if found != topic.partitions && topic.exact {
            let asked = topic.partitions;
            return Err(JournalError::TopicPartitions { topic: topic.name.to_string(), found, asked });
        }
    }
    Ok(())
}

async fn create(admin: &Arc<Admin>, config: &KafkaConfig, missing: &[&Wanted]) -> Result<(), JournalError> {
    if missing.is_empty() {
        return Ok(());
    }
    let timeout = Some(config.request_timeout);
    let options = AdminOptions::new().request_timeout(timeout).operation_timeout(timeout);
    let topics: Vec<NewTopic<'_>> = missing.iter().map(|topic| topic.new_topic(config)).collect();
    let results = admin.create_topics(&topics, &options).await.map_err(failed("create topics"))?;
    for (topic, result) in missing.iter().zip(results) {
        match result {
            Ok(_) => {
                tracing::info!(topic = %topic.name, partitions = topic.partitions, "created a topic");
            }
            // Another host was faster.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => {
                return Err(JournalError::MissingTopic {
                    topic: topic.name.to_string(),
                    why: code.to_string(),
                    command: topic.command(config),
                });
            }
        }
    }
    Ok(())
}

/// The partition counts of the topics; `None` for one that does not exist. Waits for brokers, and with `all` until every
/// topic is there with a leader for each partition.
async fn find(
    admin: &Arc<Admin>,
    config: &KafkaConfig,
    wanted: &[Wanted],
    all: bool,
) -> Result<Vec<Option<u32>>, JournalError> {
    let (admin, within) = (admin.clone(), config.request_timeout);
    let names: Vec<Arc<str>> = wanted.iter().map(|topic| topic.name.clone()).collect();
    unblock(move || {
        retry::until(within, "read the topics", || {
            let counts: Result<Vec<_>, _> =
                names.iter().map(|name| partitions(admin.inner(), name, within)).collect();
            let counts = counts.map_err(Failed::Later)?;
            match counts.iter().position(Option::is_none) {
                Some(missing) if all => Err(Failed::Later(JournalError::Kafka {
                    what: format!("find topic {}", names[missing]),
                    why: "it was created and is not there yet".into(),
                })),
                _ => Ok(counts),
            }
        })
    })
    .await
}

/// How many partitions a topic has; `None` if there is no such topic, or some partition has no leader yet.
fn partitions(client: &Client<Logged>, topic: &str, within: Duration) -> Result<Option<u32>, JournalError> {
    let metadata = client.fetch_metadata(Some(topic), within).map_err(failed("read the topics"))?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let ready = found.filter(|found| {
        found.error().is_none()
            && !found.partitions().is_empty()
            && found.partitions().iter().all(|partition| partition.leader() >= 0)
    });
    Ok(ready.map(|found| found.partitions().len() as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_creates_what_we_would() {
        let config = KafkaConfig { replication: Some(3), ..KafkaConfig::new("one:9092,two:9092", 12) };
        let wanted = config.topics().wanted(&config);
        let journal = wanted.iter().find(|topic| &*topic.name == "reipaz.journal").expect("it is wanted");
        assert_eq!(
            journal.command(&config),
            "kafka-topics.sh --bootstrap-server one:9092,two:9092 --create --topic reipaz.journal --partitions 12 \
             --replication-factor 3 --config cleanup.policy=delete --config retention.ms=-1 \
             --config retention.bytes=-1 --config unclean.leader.election.enable=false \
             --config max.message.bytes=4325376 --config min.insync.replicas=2"
        );
    }
}
