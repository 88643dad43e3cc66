//! What librdkafka tells besides answers: log lines and errors that it deals with by itself, as `tracing` events.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Message as _},
    producer::ProducerContext,
};

/// For clients without callbacks of their own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Logged;

impl ClientContext for Logged {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        note(&error, reason);
    }
}

impl ConsumerContext for Logged {}

/// One of librdkafka's log lines.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => {
            tracing::error!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

/// An error that concerns the client as a whole: a broker is away, and is tried again.
pub(crate) fn note(error: &KafkaError, reason: &str) {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::AllBrokersDown) => {
            tracing::warn!(target: "librdkafka", %error, reason, "no broker answers");
        }
        // Where a reader has come to the end, it is told so as an error.
        Some(RDKafkaErrorCode::PartitionEOF) => tracing::trace!(target: "librdkafka", reason),
        _ => tracing::info!(target: "librdkafka", %error, reason, "an error that is tried again"),
    }
}

/// What became of the messages of a transaction, by their numbers.
#[derive(Debug, Default)]
pub(crate) struct Reports(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    offsets: Vec<Option<u64>>,
    failed: Option<KafkaError>,
}

impl Reports {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins anew.
    pub(crate) fn clear(&self, messages: usize) {
        *self.state() = State { offsets: vec![None; messages], failed: None };
    }

    /// Where message `number` stands, if it was delivered.
    pub(crate) fn offset(&self, number: usize) -> Option<u64> {
        self.state().offsets.get(number).copied().flatten()
    }

    /// Why a message was not delivered.
    pub(crate) fn failed(&self) -> Option<KafkaError> {
        self.state().failed.clone()
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        note(&error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let mut state = self.state();
        match result {
            Ok(message) => {
                if let Some(offset) = state.offsets.get_mut(number) {
                    *offset = u64::try_from(message.offset()).ok();
                }
            }
            Err((error, _)) => {
                state.failed.get_or_insert_with(|| error.clone());
            }
        }
    }
}
