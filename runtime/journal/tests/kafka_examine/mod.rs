//! What an examination finds, and what a start refuses, on a real broker.

use std::time::{Duration, Instant};

use reipaz_journal::{
    JournalError, Kafka, KafkaConfig,
    kafka::{Finding, Grade},
};

use crate::{batch, kafka_support::Topics, open};

/// What is wrong, but that all stands on one broker.
fn wrong(findings: &[Finding]) -> Vec<&Finding> {
    findings
        .iter()
        .filter(|finding| finding.grade != Grade::Fine && finding.what != "Kafka replication")
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_well_and_no_owner_notices() {
    let topics = Topics::new(2);
    let kafka = topics.open().await;
    let mut owner = open(&kafka, 0).await;
    owner.log.commit(batch(["before"])).await.unwrap();
    let findings = Kafka::examine(topics.config()).await;
    assert_eq!(wrong(&findings), Vec::<&Finding>::new());
    for what in ["Kafka cluster", "Kafka broker 1", "Kafka transactions", "Kafka consumer group"] {
        assert!(findings.iter().any(|finding| finding.what == what), "{what}: {findings:?}");
    }
    let journal = findings.iter().find(|finding| finding.what == format!("topic {}", topics.name("journal")));
    assert_eq!(journal.unwrap().detail, "2 partitions on 1 broker each");
    owner.log.commit(batch(["after"])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_told_with_the_command_that_makes_it() {
    let topics = Topics::new(3);
    let findings = Kafka::examine(topics.config()).await;
    let missing = wrong(&findings);
    assert_eq!(missing.len(), 6, "{missing:?}");
    let journal = topics.name("journal");
    let found = missing.iter().find(|finding| finding.what == format!("topic {journal}")).unwrap();
    assert_eq!(found.grade, Grade::Warning, "a host may make it: {found:?}");
    let command = format!("--create --topic {journal} --partitions 3 --config cleanup.policy=delete");
    assert!(found.mend[0].contains(&command), "{found:?}");
    // Nothing was made.
    assert_eq!(Kafka::examine(topics.config()).await, findings);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_setting_is_told_and_one_that_deletes_the_journal_is_refused() {
    let topics = Topics::new(1);
    drop(topics.open().await);
    // What weakens or endangers is told, and a host starts.
    topics.alter("tasks", &[("retention.ms", "604800000"), ("unclean.leader.election.enable", "true")]).await;
    topics.alter("results", &[("retention.ms", "1000"), ("max.message.bytes", "9999999")]).await;
    let findings = Kafka::examine(topics.config()).await;
    let tasks = topics.name("tasks");
    let mends: Vec<&str> =
        wrong(&findings).iter().flat_map(|finding| &finding.mend).map(String::as_str).collect();
    let alter = |setting: &str| {
        let brokers = topics.config().brokers;
        format!(
            "kafka-configs.sh --bootstrap-server {brokers} --alter --entity-type topics --entity-name {tasks} \
             --add-config {setting}"
        )
    };
    // The alteration took the largest message with it.
    let settings = ["retention.ms=-1", "unclean.leader.election.enable=false", "max.message.bytes=4325376"];
    assert_eq!(mends, settings.map(alter), "{findings:?}");
    assert!(wrong(&findings).iter().all(|finding| finding.grade == Grade::Failure));
    drop(topics.open().await);

    // What deletes the journal is not.
    for setting in [("retention.ms", "604800000"), ("cleanup.policy", "compact")] {
        topics.alter("journal", &[setting]).await;
        let refused = Kafka::open(topics.config()).await.err().expect("refused");
        let JournalError::TopicSetting { topic, setting: name, ref command, .. } = refused else {
            panic!("{refused}")
        };
        assert_eq!((topic, name), (topics.name("journal"), setting.0));
        assert!(command.starts_with("kafka-configs.sh"), "{command}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_partition_count_is_a_failure() {
    let topics = Topics::new(1);
    drop(topics.open().await);
    let findings = Kafka::examine(KafkaConfig { partitions: 2, ..topics.config() }).await;
    let wrong = wrong(&findings);
    assert_eq!(wrong.len(), 3, "{wrong:?}");
    assert!(wrong.iter().all(|finding| finding.grade == Grade::Failure
        && finding.detail == "has 1 partition instead of 2"
        && finding.mend[0].contains("partitions = 1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_is_told_soon() {
    let began = Instant::now();
    let findings = Kafka::examine(KafkaConfig::new("127.0.0.1:1", 1)).await;
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert_eq!(findings.len(), 1);
    assert_eq!((findings[0].grade, &*findings[0].what), (Grade::Failure, "Kafka at 127.0.0.1:1"));

    // One of two is a warning, and the rest is looked at.
    let topics = Topics::new(1);
    drop(topics.open().await);
    let mut config = topics.config();
    config.brokers = format!("127.0.0.1:1,{}", config.brokers);
    let findings = Kafka::examine(config).await;
    let wrong = wrong(&findings);
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert_eq!(wrong[0].grade, Grade::Warning);
}

/// Something listens, and it is no Kafka.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_at_the_address_is_told_within_the_bound() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let began = Instant::now();
    let findings = Kafka::examine(KafkaConfig::new(address, 1)).await;
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    let cluster = findings.iter().find(|finding| finding.what == "Kafka cluster").unwrap();
    assert_eq!(cluster.grade, Grade::Failure);
}
