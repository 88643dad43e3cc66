//! Whether this principal may use the group and transactions: asked in ways that change nothing and that no running host
//! notices.

use std::sync::Arc;

use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, Producer},
};

use super::{Asker, Finding, WITHIN, counted};
use crate::kafka::Retired;

const GROUP: &str = "Kafka consumer group";
const TRANSACTIONS: &str = "Kafka transactions";

/// What a question about rights came to.
enum Answer {
    Allowed(String),
    /// The broker would make a topic of its own to answer.
    Unused,
    Denied,
    Unclear(String),
}

/// Asks where the group stands, without joining it.
pub(super) async fn group(asker: &Arc<Asker>) -> Finding {
    let name = asker.config.group();
    let answer = asker.ask("ask about the group", |asker| {
        if !is_used(asker, "__consumer_offsets")? {
            return Ok(Answer::Unused);
        }
        let consumer: BaseConsumer = asker.config.group_examiner().create()?;
        let consumer = Retired::new(consumer);
        let mut list = TopicPartitionList::new();
        list.add_partition(&asker.config.topics().tasks, 0);
        let offsets = match consumer.committed_offsets(list, WITHIN) {
            Ok(offsets) => offsets,
            Err(error) => return Ok(answer(&error)),
        };
        let refused = offsets.elements().iter().find_map(|element| element.error().err());
        if let Some(error) = refused.filter(|error| *error != unknown_topic()) {
            return Ok(answer(&error));
        }
        let name = asker.config.group();
        let groups = asker.consumer.client().fetch_group_list(Some(&name), WITHIN)?;
        let members =
            groups.groups().iter().find(|group| group.name() == name).map(|group| group.members().len());
        Ok(Answer::Allowed(format!("{name}: {} in it now", counted(members.unwrap_or_default(), "host"))))
    });
    let allow = asker.config.allow("--operation Read --operation Describe --group", &name);
    finding(GROUP, answer.await.unwrap_or_else(|error| Answer::Unclear(error.to_string())), allow)
}

/// Asks for a transactional id with a timeout that no broker allows. The broker first checks whether this principal may,
/// then the timeout, and only then would it note the id.
pub(super) async fn transactions(asker: &Arc<Asker>) -> Finding {
    let answer = asker.ask("ask about transactions", |asker| {
        if !is_used(asker, "__transaction_state")? {
            return Ok(Answer::Unused);
        }
        let producer: BaseProducer = asker.config.transaction_examiner().create()?;
        let producer = Retired::new(producer);
        let allowed = || Answer::Allowed("this principal may use them".to_owned());
        Ok(match producer.init_transactions(WITHIN) {
            Ok(()) => allowed(),
            Err(error) => {
                let fatal = producer.client().fatal_error().map(|(code, _)| code);
                match fatal.or(error.rdkafka_error_code()) {
                    Some(RDKafkaErrorCode::InvalidTransactionTimeout) => allowed(),
                    Some(RDKafkaErrorCode::TransactionalIdAuthorizationFailed) => Answer::Denied,
                    _ => Answer::Unclear(error.to_string()),
                }
            }
        })
    });
    let ids = format!("{}.{}", asker.config.deployment, asker.config.prefix);
    let allow = asker.config.allow("--operation Write --operation Describe --transactional-id", &ids);
    finding(TRANSACTIONS, answer.await.unwrap_or_else(|error| Answer::Unclear(error.to_string())), allow)
}

/// Whether the brokers' own topic for it is there. A first question would make it; who may not know is taken to ask a
/// cluster in use.
fn is_used(asker: &Asker, topic: &str) -> Result<bool, KafkaError> {
    let metadata = asker.consumer.fetch_metadata(Some(topic), WITHIN)?;
    let error = metadata.topics().first().and_then(|topic| topic.error()).map(RDKafkaErrorCode::from);
    Ok(error.is_none_or(|error| error == RDKafkaErrorCode::TopicAuthorizationFailed))
}

fn unknown_topic() -> KafkaError {
    KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownTopicOrPartition)
}

fn answer(error: &KafkaError) -> Answer {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::GroupAuthorizationFailed) => Answer::Denied,
        // Told of the topic already.
        Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::UnknownTopicOrPartition) => {
            Answer::Allowed("this principal may use it".to_owned())
        }
        _ => Answer::Unclear(error.to_string()),
    }
}

fn finding(what: &str, answer: Answer, allow: String) -> Finding {
    match answer {
        Answer::Allowed(detail) => Finding::fine(what, detail),
        Answer::Unused => Finding::fine(
            what,
            "not checked: nobody has used any on this cluster, and a first question would make a topic",
        ),
        Answer::Denied => Finding::failure(what, "this principal may not use them").mend(allow),
        Answer::Unclear(why) => Finding::failure(what, format!("the coordinator gives no answer: {why}"))
            .mend("look at the brokers' logs"),
    }
}
