//! The first word to a broker: whether it can be reached and lets us in. librdkafka tries for ever and tells why only by the
//! way, so that is collected here for whoever started the host.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{KafkaConfig, context};
use crate::error::JournalError;

/// One try.
const TRY: Duration = Duration::from_millis(500);

/// What librdkafka told by the way.
#[derive(Default)]
struct Told(Mutex<Option<(Option<RDKafkaErrorCode>, String)>>);

impl Told {
    fn last(&self) -> Option<(Option<RDKafkaErrorCode>, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Told {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        context::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        // It says no more than that there were others.
        if code != Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((code, reason.to_owned()));
        }
    }
}

impl ConsumerContext for Told {}

/// Comes back when a broker has answered; not before the request timeout, if none does, but at once if one refuses us.
/// Blocks.
pub(crate) fn greet(config: &KafkaConfig) -> Result<(), JournalError> {
    let topics = config.topics();
    let refuse = |why: String| JournalError::Kafka { what: "reach a broker".into(), why };
    let consumer: BaseConsumer<Told> = config
        .scout()
        .create_with_context(Told::default())
        .map_err(|error| refuse(format!("{error}; check [kafka.tls] and [kafka.sasl]")))?;
    let deadline = Instant::now() + config.request_timeout;
    loop {
        let Err(error) = consumer.fetch_metadata(Some(&topics.journal), TRY) else { return Ok(()) };
        // Nothing is subscribed to: this only hears what is told by the way.
        let _nothing = consumer.poll(Duration::ZERO);
        let told = consumer.context().last();
        let is_final = told.as_ref().is_some_and(|(code, _)| {
            matches!(code, Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL))
        });
        if is_final || Instant::now() > deadline {
            let silent =
                || format!("{error} (a broker that wants TLS says nothing to who has no [kafka.tls])");
            let why = told.map_or_else(silent, |(_, reason)| reason);
            return Err(refuse(why));
        }
    }
}
