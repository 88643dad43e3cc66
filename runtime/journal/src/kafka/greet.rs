//! The first word to a broker: whether it can be reached and lets us in. librdkafka tries for ever and tells why only by the
//! way, so that is collected here for whoever started the host.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::{KafkaConfig, complaints::Complaints};
use crate::error::JournalError;

/// One try.
const TRY: Duration = Duration::from_millis(500);

/// Comes back when a broker has answered; not before the request timeout, if none does, but at once if one refuses us.
/// Blocks.
pub(crate) fn greet(config: &KafkaConfig) -> Result<(), JournalError> {
    let topics = config.topics();
    let refuse = |why: String| JournalError::Kafka { what: "reach a broker".into(), why };
    let complaints = Complaints::default();
    let consumer: BaseConsumer<Complaints> = config
        .scout()
        .create_with_context(complaints.clone())
        .map_err(|error| refuse(format!("{error}; check [kafka.tls] and [kafka.sasl]")))?;
    let deadline = Instant::now() + config.request_timeout;
    loop {
        let Err(error) = consumer.fetch_metadata(Some(&topics.journal), TRY) else { return Ok(()) };
        Complaints::hear(&consumer);
        if complaints.are_final() || Instant::now() > deadline {
            let silent =
                || format!("{error} (a broker that wants TLS says nothing to who has no [kafka.tls])");
            let why = complaints.last().unwrap_or_else(silent);
            return Err(refuse(why));
        }
    }
}
