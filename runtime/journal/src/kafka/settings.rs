//! What a topic is set to: what we make it with, how far a found value may differ, and what a wrong one does. Making
//! topics, a host's start and an examination all read this one list.

use rdkafka::{
    ClientContext,
    admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier},
    error::RDKafkaErrorCode,
};

use super::{config::KafkaConfig, failed};
use crate::error::JournalError;

/// One setting of a topic.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    /// What we make it with.
    pub(crate) value: String,
    rule: Rule,
    harm: Harm,
    /// What a value that breaks the rule does.
    why: &'static str,
}

/// Which other values do as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// None.
    Exactly,
    /// Larger ones.
    AtLeast,
    /// Any: it is the operator's affair.
    Free,
}

/// What a wrong value costs, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Harm {
    /// Less safe than it could be.
    Weakens,
    /// What was acknowledged can be lost, or what is valid is refused.
    Breaks,
    /// Kafka itself deletes what hosts still need.
    Deletes,
}

/// A setting that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deviation {
    pub(crate) name: &'static str,
    pub(crate) found: String,
    pub(crate) wanted: String,
    pub(crate) harm: Harm,
    pub(crate) why: &'static str,
}

impl Setting {
    fn new(
        name: &'static str,
        value: impl Into<String>,
        rule: Rule,
        (harm, why): (Harm, &'static str),
    ) -> Self {
        Self { name, value: value.into(), rule, harm, why }
    }

    /// The operator's affair.
    fn free(name: &'static str, value: &str) -> Self {
        Self::new(name, value, Rule::Free, (Harm::Weakens, ""))
    }

    /// How a found value differs, if it may not.
    fn deviation(&self, found: &str) -> Option<Deviation> {
        let good = match self.rule {
            Rule::Free => true,
            Rule::Exactly => found == self.value,
            Rule::AtLeast => match (found.parse::<u64>(), self.value.parse::<u64>()) {
                (Ok(found), Ok(wanted)) => found >= wanted,
                _ => found == self.value,
            },
        };
        (!good).then(|| Deviation {
            name: self.name,
            found: found.to_owned(),
            wanted: self.value.clone(),
            harm: self.harm,
            why: self.why,
        })
    }
}

/// Nothing is deleted by age or size: we delete what a checkpoint and the sink have made superfluous.
pub(crate) fn kept() -> Vec<Setting> {
    let exactly = |name, value, why| Setting::new(name, value, Rule::Exactly, (Harm::Deletes, why));
    vec![
        exactly("cleanup.policy", "delete", "Kafka deletes records that hosts still need"),
        exactly("retention.ms", "-1", "Kafka deletes records by age, whether hosts still need them or not"),
        exactly(
            "retention.bytes",
            "-1",
            "Kafka deletes records by size, whether hosts still need them or not",
        ),
    ]
}

/// For readers outside: seven days, or what the operator prefers.
pub(crate) fn a_week() -> Vec<Setting> {
    vec![Setting::free("cleanup.policy", "delete"), Setting::free("retention.ms", "604800000")]
}

/// The newest value of each key.
pub(crate) fn compacted() -> Vec<Setting> {
    let forgotten = (Harm::Breaks, "Kafka deletes published workflows and installed plugins by age");
    vec![
        Setting::new("cleanup.policy", "compact", Rule::Exactly, forgotten),
        Setting::free("min.cleanable.dirty.ratio", "0.1"),
    ]
}

/// What every topic needs so that an acknowledged write is not lost and a valid one not refused.
pub(crate) fn durable(config: &KafkaConfig) -> Vec<Setting> {
    let stale =
        (Harm::Breaks, "a broker that missed records may become leader, and acknowledged ones are lost");
    let bytes = (config.message_bytes + BATCH_OVERHEAD_BYTES).to_string();
    vec![
        Setting::new("unclean.leader.election.enable", "false", Rule::Exactly, stale),
        Setting::new(
            "max.message.bytes",
            bytes,
            Rule::AtLeast,
            (Harm::Breaks, "Kafka refuses large inputs and outputs"),
        ),
    ]
}

/// How many brokers must have a record before it counts, of a topic that stands on so many.
pub(crate) fn in_sync(replicas: u16) -> Setting {
    let why = "a record that one broker has counts as durable, and is lost with it";
    Setting::new("min.insync.replicas", replicas.min(2).to_string(), Rule::AtLeast, (Harm::Weakens, why))
}

/// What Kafka adds to the largest message, and a key and headers.
const BATCH_OVERHEAD_BYTES: usize = 128 << 10;

/// What is wrong with a topic's settings.
pub(crate) fn judge<'a>(
    wanted: impl IntoIterator<Item = &'a Setting>,
    found: &ConfigResource,
) -> Vec<Deviation> {
    let value = |name| found.get(name).and_then(|entry| entry.value.as_deref());
    wanted.into_iter().filter_map(|setting| setting.deviation(value(setting.name)?)).collect()
}

/// What the topics are set to. Nothing is changed.
pub(crate) async fn read<C: ClientContext>(
    admin: &AdminClient<C>,
    topics: &[&str],
    options: &AdminOptions,
) -> Result<Vec<Result<ConfigResource, RDKafkaErrorCode>>, JournalError> {
    let topics: Vec<ResourceSpecifier<'_>> =
        topics.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    admin.describe_configs(&topics, options).await.map_err(failed("read the topics' settings"))
}

#[cfg(test)]
mod tests {
    use rdkafka::admin::{ConfigEntry, ConfigSource, OwnedResourceSpecifier};

    use super::*;

    fn found(settings: &[(&str, &str)]) -> ConfigResource {
        let entry = |(name, value): &(&str, &str)| ConfigEntry {
            name: (*name).to_owned(),
            value: Some((*value).to_owned()),
            source: ConfigSource::DynamicTopic,
            is_read_only: false,
            is_default: false,
            is_sensitive: false,
        };
        ConfigResource {
            specifier: OwnedResourceSpecifier::Topic("t".into()),
            entries: settings.iter().map(entry).collect(),
        }
    }

    fn wrong(wanted: &[Setting], settings: &[(&str, &str)]) -> Vec<(&'static str, Harm)> {
        judge(wanted, &found(settings)).into_iter().map(|wrong| (wrong.name, wrong.harm)).collect()
    }

    #[test]
    fn what_we_make_is_right() {
        let config = KafkaConfig::new("127.0.0.1:9092", 1);
        for wanted in [kept(), a_week(), compacted(), durable(&config), vec![in_sync(3)]] {
            let same: Vec<(&str, &str)> =
                wanted.iter().map(|setting| (setting.name, setting.value.as_str())).collect();
            assert_eq!(wrong(&wanted, &same), []);
        }
    }

    #[test]
    fn what_deletes_the_journal_is_told_from_what_weakens_it() {
        for policy in ["compact", "compact,delete"] {
            assert_eq!(wrong(&kept(), &[("cleanup.policy", policy)]), [("cleanup.policy", Harm::Deletes)]);
        }
        assert_eq!(wrong(&kept(), &[("retention.ms", "604800000")]), [("retention.ms", Harm::Deletes)]);
        let config = KafkaConfig::new("127.0.0.1:9092", 1);
        let (larger, smaller) = ([("max.message.bytes", "99999999")], [("max.message.bytes", "1048588")]);
        assert_eq!(wrong(&durable(&config), &larger), []);
        assert_eq!(wrong(&durable(&config), &smaller), [("max.message.bytes", Harm::Breaks)]);
        let alone = [("min.insync.replicas", "1")];
        assert_eq!(wrong(&[in_sync(3)], &alone), [("min.insync.replicas", Harm::Weakens)]);
        assert_eq!(wrong(&[in_sync(1)], &alone), []);
    }

    #[test]
    fn readers_outside_may_keep_as_long_as_they_like() {
        assert_eq!(wrong(&a_week(), &[("retention.ms", "1000"), ("cleanup.policy", "compact")]), []);
    }
}
