//! What librdkafka tells besides answers: log lines and errors that it deals with by itself, as `tracing` events.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

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

/// The same thing, told by each of a host's clients many times a second while a broker is away, is said once in so long.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// When something was said last, and how often it was left out since.
static SAID: Mutex<BTreeMap<String, (Instant, u64)>> = Mutex::new(BTreeMap::new());

/// How often it was left out before now; none: it is left out.
fn may_say(what: &str) -> Option<u64> {
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    match said.get_mut(what) {
        Some((at, left_out)) if at.elapsed() < SAY_EVERY => {
            *left_out += 1;
            None
        }
        // There are some dozens of facilities and errors.
        _ => Some(said.insert(what.to_owned(), (Instant::now(), 0)).map_or(0, |(_, left_out)| left_out)),
    }
}

/// One of librdkafka's log lines.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    let Some(left_out) = may_say(facility) else {
        tracing::debug!(target: "librdkafka", facility, "{message}");
        return;
    };
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => {
            tracing::error!(target: "librdkafka", facility, left_out, "{message}");
        }
        RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, left_out, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "librdkafka", facility, left_out, "{message}");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

/// An error that concerns the client as a whole: a broker is away, and is tried again.
pub(crate) fn note(error: &KafkaError, reason: &str) {
    let code = error.rdkafka_error_code();
    // Where a reader has come to the end, it is told so as an error.
    if code == Some(RDKafkaErrorCode::PartitionEOF) {
        return;
    }
    match may_say(&format!("{code:?}")) {
        None => tracing::debug!(target: "librdkafka", %error, reason, "tried again"),
        Some(left_out) if code == Some(RDKafkaErrorCode::AllBrokersDown) => {
            tracing::warn!(target: "librdkafka", %error, reason, left_out, "no broker answers; trying again");
        }
        Some(left_out) => {
            tracing::info!(target: "librdkafka", %error, reason, left_out, "an error that is tried again");
        }
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
