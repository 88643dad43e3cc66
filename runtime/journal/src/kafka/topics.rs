//! The topics: their names, the settings that the promises rest on, and what happens when one is missing or wrong.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rdkafka::{
    admin::{AdminOptions, ConfigResource, NewTopic, TopicReplication},
    client::Client,
    error::RDKafkaErrorCode,
    metadata::MetadataTopic,
};

use super::{
    Admin,
    config::KafkaConfig,
    context::Logged,
    failed,
    retry::{self, Failed},
    settings::{self, Deviation, Harm, Setting},
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
pub(crate) struct Wanted {
    pub(crate) name: Arc<str>,
    pub(crate) partitions: u32,
    /// Whether another count is an error.
    pub(crate) exact: bool,
    /// Whether it holds all that there is of runs: no host starts while Kafka deletes it.
    vital: bool,
    settings: Vec<Setting>,
}

/// A topic as it is.
#[derive(Clone, Copy)]
struct Found {
    partitions: u32,
    replicas: u16,
}

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

    pub(crate) fn wanted(&self, config: &KafkaConfig) -> Vec<Wanted> {
        let durable = settings::durable(config);
        let wanted = |name: &Arc<str>, partitions, exact, mut settings: Vec<Setting>| {
            settings.extend(durable.iter().cloned());
            Wanted { name: name.clone(), partitions, exact, vital: *name == self.journal, settings }
        };
        vec![
            wanted(&self.tasks, config.partitions, true, settings::kept()),
            wanted(&self.messages, config.partitions, true, settings::kept()),
            wanted(&self.journal, config.partitions, true, settings::kept()),
            wanted(&self.results, config.partitions, false, settings::a_week()),
            wanted(&self.rejected, config.partitions, false, settings::a_week()),
            wanted(&self.catalog, 1, true, settings::compacted()),
        ]
    }
}

impl Wanted {
    /// What an operator types where we may not create topics.
    pub(crate) fn command(&self, config: &KafkaConfig) -> String {
        let mut command = format!(
            "{} --create --topic {} --partitions {}",
            config.tool("kafka-topics.sh"),
            self.name,
            self.partitions
        );
        if let Some(replicas) = config.replication {
            command.push_str(&format!(" --replication-factor {replicas}"));
        }
        for setting in self.made_with(config) {
            command.push_str(&format!(" --config {}={}", setting.name, setting.value));
        }
        command
    }

    /// What an operator types to mend a setting.
    pub(crate) fn mending(&self, config: &KafkaConfig, wrong: &Deviation) -> String {
        format!(
            "{} --alter --entity-type topics --entity-name {} --add-config {}={}",
            config.tool("kafka-configs.sh"),
            self.name,
            wrong.name,
            wrong.wanted
        )
    }

    /// The topic with what it is made with (see [`Wanted::made_with`]).
    pub(crate) fn new_topic<'a>(&'a self, config: &KafkaConfig, settings: &'a [Setting]) -> NewTopic<'a> {
        // -1 leaves it to the brokers.
        let replication = TopicReplication::Fixed(config.replication.map_or(-1, i32::from));
        let topic = NewTopic::new(&self.name, self.partitions as i32, replication);
        settings.iter().fold(topic, |topic, setting| topic.set(setting.name, &setting.value))
    }

    /// What it is made with.
    pub(crate) fn made_with(&self, config: &KafkaConfig) -> Vec<Setting> {
        self.settings.iter().cloned().chain(config.replication.map(settings::in_sync)).collect()
    }

    /// What is wrong with the settings of a topic that stands on so many brokers.
    pub(crate) fn judge(&self, found: &ConfigResource, replicas: u16) -> Vec<Deviation> {
        let in_sync = settings::in_sync(replicas);
        settings::judge(self.settings.iter().chain([&in_sync]), found)
    }

    /// Whether a host has to refuse to start.
    fn is_deleted_by(&self, wrong: &Deviation) -> bool {
        self.vital && wrong.harm == Harm::Deletes
    }
}

/// Makes the topics that are missing, and refuses those that are not as they must be.
pub(crate) async fn ensure(admin: &Arc<Admin>, config: &KafkaConfig) -> Result<Outlets, JournalError> {
    let topics = config.topics();
    let wanted = topics.wanted(config);
    let before = find(admin, config, &wanted, false).await?;
    let missing: Vec<&Wanted> =
        wanted.iter().zip(&before).filter(|(_, found)| found.is_none()).map(|(topic, _)| topic).collect();
    create(admin, config, &missing).await?;
    let found = if missing.is_empty() { before } else { find(admin, config, &wanted, true).await? };
    let found: BTreeMap<_, _> =
        wanted.iter().zip(found).filter_map(|(topic, found)| Some((topic.name.clone(), found?))).collect();
    let partitions = |topic: &Arc<str>| found.get(topic).map_or(0, |found| found.partitions);
    for topic in &wanted {
        let found = partitions(&topic.name);
        if found != topic.partitions && topic.exact {
            let asked = topic.partitions;
            return Err(JournalError::TopicPartitions { topic: topic.name.to_string(), found, asked });
        }
    }
    check_settings(admin, config, &wanted, &found).await?;
    let at_least_one = |topic| partitions(topic).max(1);
    Ok(Outlets { results: at_least_one(&topics.results), rejected: at_least_one(&topics.rejected) })
}

/// How many partitions the topics have that are written for readers outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outlets {
    pub(crate) results: u32,
    pub(crate) rejected: u32,
}

/// Refuses topics whose settings delete the journal under us, and warns of whatever else is wrong.
async fn check_settings(
    admin: &Admin,
    config: &KafkaConfig,
    topics: &[Wanted],
    found: &BTreeMap<Arc<str>, Found>,
) -> Result<(), JournalError> {
    let names: Vec<&str> = topics.iter().map(|topic| &*topic.name).collect();
    let options = AdminOptions::new().request_timeout(Some(config.request_timeout));
    let read = match settings::read(admin, &names, &options).await {
        Ok(read) => read,
        Err(error) => {
            tracing::warn!(%error, "the topics' settings are not checked");
            return Ok(());
        }
    };
    for (topic, settings) in topics.iter().zip(read) {
        let replicas = found.get(&topic.name).map_or(0, |found| found.replicas);
        let settings = match settings {
            Ok(settings) => settings,
            Err(error) => {
                let help = "allow this principal DescribeConfigs on the topic";
                tracing::warn!(topic = %topic.name, %error, help, "a topic's settings are not checked");
                continue;
            }
        };
        for wrong in topic.judge(&settings, replicas) {
            let command = topic.mending(config, &wrong);
            if topic.is_deleted_by(&wrong) {
                return Err(JournalError::TopicSetting {
                    topic: topic.name.to_string(),
                    setting: wrong.name,
                    found: wrong.found,
                    why: wrong.why,
                    command,
                });
            }
            let Deviation { name: setting, found, wanted, why, .. } = &wrong;
            tracing::warn!(topic = %topic.name, setting, found, wanted, why, command, "a topic is set wrong");
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
    let settings: Vec<Vec<Setting>> = missing.iter().map(|topic| topic.made_with(config)).collect();
    let topics = missing.iter().zip(&settings).map(|(topic, settings)| topic.new_topic(config, settings));
    let topics: Vec<NewTopic<'_>> = topics.collect();
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

/// The topics as they are; `None` for one that does not exist. Waits for brokers, and with `all` until every
/// topic is there with a leader for each partition.
async fn find(
    admin: &Arc<Admin>,
    config: &KafkaConfig,
    wanted: &[Wanted],
    all: bool,
) -> Result<Vec<Option<Found>>, JournalError> {
    let (admin, within) = (admin.clone(), config.request_timeout);
    let names: Vec<Arc<str>> = wanted.iter().map(|topic| topic.name.clone()).collect();
    unblock(move || {
        retry::until(within, "read the topics", || {
            let all_found: Result<Vec<_>, _> =
                names.iter().map(|name| look(admin.inner(), name, within)).collect();
            let all_found = all_found.map_err(Failed::Later)?;
            match all_found.iter().position(Option::is_none) {
                Some(missing) if all => Err(Failed::Later(JournalError::Kafka {
                    what: format!("find topic {}", names[missing]),
                    why: "it was created and is not there yet".into(),
                })),
                _ => Ok(all_found),
            }
        })
    })
    .await
}

/// A topic as it is; `None` if there is no such topic, or some partition has no leader yet.
fn look(client: &Client<Logged>, topic: &str, within: Duration) -> Result<Option<Found>, JournalError> {
    let metadata = client.fetch_metadata(Some(topic), within).map_err(failed("read the topics"))?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let ready = found.filter(|found| {
        found.error().is_none()
            && !found.partitions().is_empty()
            && found.partitions().iter().all(|partition| partition.leader() >= 0)
    });
    Ok(ready
        .map(|found| Found { partitions: found.partitions().len() as u32, replicas: least_replicas(found) }))
}

/// On how many brokers each partition of a topic stands at least.
pub(crate) fn least_replicas(topic: &MetadataTopic) -> u16 {
    let least = topic.partitions().iter().map(|partition| partition.replicas().len()).min();
    u16::try_from(least.unwrap_or_default()).unwrap_or(u16::MAX)
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
