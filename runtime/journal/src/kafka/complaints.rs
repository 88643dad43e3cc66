//! What librdkafka complains about by the way: a failed answer only says that there is none. Heard only by who polls the
//! client.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::context;

/// How many complaints are heard out.
const COMPLAINTS_MAX: usize = 32;
/// How long is listened for one more.
const HEAR_WITHIN: Duration = Duration::from_millis(10);

/// Keeps the last complaint.
#[derive(Clone, Default)]
pub(crate) struct Complaints(Arc<Mutex<Option<Complaint>>>);

/// One.
#[derive(Clone)]
struct Complaint {
    code: Option<RDKafkaErrorCode>,
    reason: String,
}

impl Complaints {
    fn get(&self) -> Option<Complaint> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn last(&self) -> Option<String> {
        self.get().map(|complaint| complaint.reason)
    }

    /// Whether the broker does not let us in, which trying again does not change.
    pub(crate) fn are_final(&self) -> bool {
        let code = self.get().and_then(|complaint| complaint.code);
        matches!(code, Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL))
    }

    /// Lets `client` tell what waits in its queue. It reads nothing: there is only what is told by the way.
    pub(crate) fn hear(client: &BaseConsumer<Self>) {
        for _ in 0..COMPLAINTS_MAX {
            if client.poll(HEAR_WITHIN).is_none() {
                break;
            }
        }
    }

    /// What a failed call says, and why as far as librdkafka told.
    pub(crate) fn explain(&self, error: &impl ToString) -> String {
        self.last().unwrap_or_else(|| error.to_string())
    }
}

impl ClientContext for Complaints {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        context::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        context::note(&error, reason);
        let code = error.rdkafka_error_code();
        // That none is left says less than why each went.
        if code != Some(RDKafkaErrorCode::AllBrokersDown) {
            let complaint = Complaint { code, reason: reason.to_owned() };
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(complaint);
        }
    }
}

impl ConsumerContext for Complaints {}
