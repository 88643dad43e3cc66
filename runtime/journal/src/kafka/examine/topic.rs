//! The topics: there, with the right partitions, leaders and replicas, and set as they must be.

use std::sync::Arc;

use rdkafka::{
    admin::{ConfigResource, NewTopic},
    consumer::Consumer,
    error::RDKafkaErrorCode,
};

use super::{Asker, Finding, WITHIN, counted, is_denied};
use crate::kafka::{
    settings::{self, Harm},
    topics::{Wanted, least_replicas},
};

/// A topic as the brokers tell.
struct Seen {
    error: Option<RDKafkaErrorCode>,
    replicas: u16,
    partitions: Vec<Partition>,
}

struct Partition {
    id: i32,
    leader: i32,
    replicas: Vec<i32>,
    in_sync: Vec<i32>,
}

/// All topics.
pub(super) async fn examine(asker: &Arc<Asker>, brokers: usize) -> Vec<Finding> {
    let wanted = asker.config.topics().wanted(&asker.config);
    let names: Vec<Arc<str>> = wanted.iter().map(|topic| topic.name.clone()).collect();
    let seen = match asker.ask("read the topics", move |asker| look(asker, &names)).await {
        Ok(seen) => seen,
        Err(error) => {
            let finding = Finding::failure("Kafka topics", asker.complaints.explain(&error));
            return vec![finding.mend("look at the brokers' logs")];
        }
    };
    let there: Vec<(&Wanted, &Seen)> =
        wanted.iter().zip(&seen).filter(|(_, seen)| seen.error.is_none()).collect();
    let missing: Vec<&Wanted> =
        wanted.iter().zip(&seen).filter(|(_, seen)| is_missing(seen)).map(|(topic, _)| topic).collect();
    let (settings, refusals) = tokio::join!(read_settings(asker, &there), may_create(asker, &missing));
    let mut findings = Vec::new();
    for (topic, refusal) in missing.iter().zip(refusals) {
        findings.push(absent(asker, topic, refusal));
    }
    for (topic, seen) in wanted.iter().zip(&seen) {
        if let Some(code) = seen.error.filter(|_| !is_missing(seen)) {
            findings.push(unreadable(asker, topic, code));
        }
    }
    match settings {
        Ok(settings) => {
            for ((topic, seen), settings) in there.iter().zip(settings) {
                findings.extend(judge(asker, topic, seen, settings));
            }
        }
        Err(why) => {
            for (topic, seen) in &there {
                findings.extend(standing(topic, seen, None));
            }
            let finding = Finding::warning("Kafka topics' settings", why);
            findings.push(finding.mend("run it again; without an answer, settings are not checked"));
        }
    }
    if let Some(least) = there.iter().map(|(_, seen)| seen.replicas).min().filter(|least| *least < 2) {
        let topics = counted(there.iter().filter(|(_, seen)| seen.replicas < 2).count(), "topic");
        let detail = format!("{topics} on {least} broker: whatever befalls it befalls all runs");
        let mend = if brokers < 2 {
            "run three brokers, and make the topics with kafka.replication = 3; on one machine for trying it, leave it"
        } else {
            "raise it by kafka-reassign-partitions.sh, and set kafka.replication = 3 for topics that hosts make"
        };
        findings.push(Finding::warning("Kafka replication", detail).mend(mend));
    }
    findings
}

fn look(asker: &Asker, names: &[Arc<str>]) -> Result<Vec<Seen>, rdkafka::error::KafkaError> {
    let one = |name: &Arc<str>| {
        let metadata = asker.consumer.fetch_metadata(Some(name), WITHIN)?;
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == &**name) else {
            let error = Some(RDKafkaErrorCode::UnknownTopicOrPartition);
            return Ok(Seen { error, replicas: 0, partitions: Vec::new() });
        };
        let partition = |partition: &rdkafka::metadata::MetadataPartition| Partition {
            id: partition.id(),
            leader: partition.leader(),
            replicas: partition.replicas().to_vec(),
            in_sync: partition.isr().to_vec(),
        };
        Ok(Seen {
            error: topic.error().map(RDKafkaErrorCode::from),
            replicas: least_replicas(topic),
            partitions: topic.partitions().iter().map(partition).collect(),
        })
    };
    names.iter().map(one).collect()
}

fn is_missing(seen: &Seen) -> bool {
    matches!(seen.error, Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic))
}

async fn read_settings(
    asker: &Asker,
    topics: &[(&Wanted, &Seen)],
) -> Result<Vec<Result<ConfigResource, RDKafkaErrorCode>>, String> {
    let names: Vec<&str> = topics.iter().map(|(topic, _)| &*topic.name).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let options = asker.options();
    match tokio::time::timeout(WITHIN, settings::read(&asker.admin, &names, &options)).await {
        Ok(read) => read.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", WITHIN.as_secs())),
    }
}

/// Why a host may not make each of these topics. The broker checks the request and carries nothing out.
async fn may_create(asker: &Asker, missing: &[&Wanted]) -> Vec<Option<String>> {
    if missing.is_empty() {
        return Vec::new();
    }
    let settings: Vec<_> = missing.iter().map(|topic| topic.made_with(&asker.config)).collect();
    let topics = missing.iter().zip(&settings);
    let topics: Vec<NewTopic<'_>> =
        topics.map(|(topic, settings)| topic.new_topic(&asker.config, settings)).collect();
    let options = asker.options().validate_only(true);
    match tokio::time::timeout(WITHIN, asker.admin.create_topics(&topics, &options)).await {
        Ok(Ok(results)) => {
            results.into_iter().map(|result| result.err().map(|(_, code)| code.to_string())).collect()
        }
        Ok(Err(error)) => vec![Some(error.to_string()); missing.len()],
        Err(_) => vec![Some("no answer".to_owned()); missing.len()],
    }
}

fn absent(asker: &Asker, topic: &Wanted, refusal: Option<String>) -> Finding {
    let what = format!("topic {}", topic.name);
    let finding = match refusal {
        None => Finding::warning(what, "is missing; a host makes it when it starts, or you do:"),
        Some(why) => Finding::failure(what, format!("is missing, and hosts may not make it ({why})")),
    };
    finding.mend(topic.command(&asker.config))
}

fn unreadable(asker: &Asker, topic: &Wanted, code: RDKafkaErrorCode) -> Finding {
    let what = format!("topic {}", topic.name);
    if is_denied(code) {
        let mend = asker.config.allow("--operation All --topic", &asker.config.prefix);
        return Finding::failure(what, "this principal may not see it").mend(mend);
    }
    Finding::failure(what, code.to_string()).mend("look at the brokers' logs")
}

fn judge(
    asker: &Asker,
    topic: &Wanted,
    seen: &Seen,
    settings: Result<ConfigResource, RDKafkaErrorCode>,
) -> Vec<Finding> {
    let what = format!("topic {}", topic.name);
    let settings = match settings {
        Ok(settings) => settings,
        Err(code) => {
            let mut findings = standing(topic, seen, None);
            let finding = Finding::warning(what, format!("its settings are not checked: {code}"));
            findings.push(
                finding.mend(asker.config.allow("--operation DescribeConfigs --topic", &asker.config.prefix)),
            );
            return findings;
        }
    };
    let in_sync = settings.get("min.insync.replicas").and_then(|entry| entry.value.as_deref()?.parse().ok());
    let mut findings = standing(topic, seen, in_sync);
    for wrong in topic.judge(&settings, seen.replicas) {
        let detail = format!("{} = {} instead of {}: {}", wrong.name, wrong.found, wrong.wanted, wrong.why);
        let finding = match wrong.harm {
            Harm::Weakens => Finding::warning(&what, detail),
            Harm::Breaks | Harm::Deletes => Finding::failure(&what, detail),
        };
        findings.push(finding.mend(topic.mending(&asker.config, &wrong)));
    }
    // What is right is one line, and only of a topic of which nothing is wrong.
    if findings.len() > 1 {
        findings.retain(|finding| finding.grade != super::Grade::Fine);
    }
    findings
}

/// Partitions, leaders, replicas.
fn standing(topic: &Wanted, seen: &Seen, in_sync: Option<usize>) -> Vec<Finding> {
    let what = format!("topic {}", topic.name);
    let mut findings = Vec::new();
    let (found, asked) = (seen.partitions.len(), topic.partitions as usize);
    if found != asked && topic.exact {
        let mend = if asked == 1 {
            "choose another kafka.prefix for new topics".to_owned()
        } else {
            format!("set partitions = {found} in the configuration, or another kafka.prefix for new topics")
        };
        let detail = format!("has {} instead of {asked}", counted(found, "partition"));
        findings.push(Finding::failure(&what, detail).mend(mend));
    }
    // Writes need this many; more than there are replicas can never be.
    let needed = in_sync.unwrap_or(1);
    if needed > usize::from(seen.replicas) {
        let detail = format!(
            "stands on {} and needs {needed} for every write",
            counted(seen.replicas.into(), "broker")
        );
        findings.push(
            Finding::failure(&what, detail)
                .mend("raise its replication factor, or lower min.insync.replicas"),
        );
    }
    let worst = |bad: &dyn Fn(&Partition) -> bool| {
        let bad: Vec<&Partition> = seen.partitions.iter().filter(|partition| bad(partition)).collect();
        let away = |partition: &&Partition| -> Vec<i32> {
            let in_sync = &partition.in_sync;
            partition.replicas.iter().filter(|broker| !in_sync.contains(broker)).copied().collect()
        };
        let mut away: Vec<i32> = bad.iter().flat_map(away).collect();
        away.sort_unstable();
        away.dedup();
        let away: Vec<String> = away.iter().map(ToString::to_string).collect();
        (bad.iter().map(|partition| partition.id.to_string()).collect::<Vec<_>>(), away.join(", "))
    };
    let (leaderless, away) = worst(&|partition| partition.leader < 0);
    if !leaderless.is_empty() {
        let detail =
            format!("no leader for partition {}: nobody can read or write it", leaderless.join(", "));
        findings.push(Finding::failure(&what, detail).mend(format!("start broker {away} again")));
    }
    let (few, away) = worst(&|partition| partition.leader >= 0 && partition.in_sync.len() < needed);
    if !few.is_empty() && needed <= usize::from(seen.replicas) {
        let detail =
            format!("too few brokers in sync for partition {}: every write is refused", few.join(", "));
        findings.push(Finding::failure(&what, detail).mend(format!("start broker {away} again")));
    }
    let (behind, away) = worst(&|partition| {
        partition.leader >= 0
            && partition.in_sync.len() >= needed
            && partition.in_sync.len() < partition.replicas.len()
    });
    if !behind.is_empty() {
        let detail = format!("broker {away} is behind or away for partition {}", behind.join(", "));
        findings.push(Finding::warning(&what, detail).mend(format!("look at broker {away}")));
    }
    if findings.is_empty() {
        let detail =
            format!("{} on {} each", counted(found, "partition"), counted(seen.replicas.into(), "broker"));
        findings.push(Finding::fine(what, detail));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::{super::Grade, *};
    use crate::kafka::KafkaConfig;

    fn journal() -> Wanted {
        let config = KafkaConfig::new("127.0.0.1:9092", 2);
        config.topics().wanted(&config).swap_remove(2)
    }

    fn seen(partitions: &[(i32, &[i32])]) -> Seen {
        let partition = |(id, (leader, in_sync)): (usize, &(i32, &[i32]))| Partition {
            id: id as i32,
            leader: *leader,
            replicas: vec![1, 2, 3],
            in_sync: in_sync.to_vec(),
        };
        Seen { error: None, replicas: 3, partitions: partitions.iter().enumerate().map(partition).collect() }
    }

    fn graded(partitions: &[(i32, &[i32])]) -> Vec<(Grade, String)> {
        let findings = standing(&journal(), &seen(partitions), Some(2));
        findings.into_iter().map(|finding| (finding.grade, finding.detail)).collect()
    }

    #[test]
    fn leaders_and_replicas_are_counted() {
        let all: &[i32] = &[1, 2, 3];
        assert_eq!(graded(&[(1, all), (2, all)]), [(Grade::Fine, "2 partitions on 3 brokers each".into())]);
        let behind = graded(&[(1, all), (2, &[1, 2])]);
        assert_eq!(behind, [(Grade::Warning, "broker 3 is behind or away for partition 1".into())]);
        let few = graded(&[(1, &[1]), (2, all)]);
        assert_eq!(few.len(), 1);
        assert_eq!(few[0].0, Grade::Failure);
        let leaderless = graded(&[(-1, &[]), (2, all)]);
        assert!(leaderless[0].1.starts_with("no leader for partition 0"), "{leaderless:?}");
        let count = graded(&[(1, all)]);
        assert_eq!(count, [(Grade::Failure, "has 1 partition instead of 2".into())]);
    }
}
