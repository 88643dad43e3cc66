//! Why an attempt, or a run, failed: a class from a closed set, a stable code, and words for a person.

use std::sync::Arc;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// What kind of failure it was; it decides whether a retry makes sense. The first five can come from a guest, the
/// rest from the host alone.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Encode, Decode,
)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum ErrorClass {
    /// Trying again would give the same (every 4xx or 5xx that is not transient, bad input, a bug).
    #[n(0)]
    Permanent,
    /// The other side may recover (408, 425, 500, 502, 503, 504).
    #[n(1)]
    Transient,
    /// No answer: refused, reset, unresolvable.
    #[n(2)]
    Network,
    /// Its time ran out.
    #[n(3)]
    Timeout,
    /// The other side asked for patience (429).
    #[n(4)]
    RateLimited,
    /// Over a limit of memory, output, stack or table.
    #[n(5)]
    Resource,
    /// The guest trapped or exited.
    #[n(6)]
    Trap,
    /// It asked for what it was not granted.
    #[n(7)]
    Denied,
    /// Somebody cancelled it.
    #[n(8)]
    Cancelled,
    /// The host died under it, more often than is allowed.
    #[n(9)]
    Host,
}

impl ErrorClass {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Permanent,
        Self::Transient,
        Self::Network,
        Self::Timeout,
        Self::RateLimited,
        Self::Resource,
        Self::Trap,
        Self::Denied,
        Self::Cancelled,
        Self::Host,
    ];

    /// The class as it stands in JSON, SQL and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Permanent => "permanent",
            Self::Transient => "transient",
            Self::Network => "network",
            Self::Timeout => "timeout",
            Self::RateLimited => "rate_limited",
            Self::Resource => "resource",
            Self::Trap => "trap",
            Self::Denied => "denied",
            Self::Cancelled => "cancelled",
            Self::Host => "host",
        }
    }
}

/// The code of a failure that ends a step with its attempt: the time of all its attempts is over.
pub const STEP_TIMEOUT: &str = "step_timeout";

/// The code of a failure that ends a step because a circuit breaker was open for as long as its retry rule allows.
pub const BREAKER_OPEN: &str = "breaker_open";

/// The code of an attempt that waited for its place to run for longer than its step allows.
pub const QUEUE_TIMEOUT: &str = "queue_timeout";

/// The code of a run or an attempt that was refused a place under a limit, since too many wait for one.
pub const LIMIT_FULL: &str = "limit_full";

/// A reviewable failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
pub struct Failure {
    /// Decides about retries.
    #[n(0)]
    pub class: ErrorClass,
    /// Stable, snake_case, for programs: `http_503`, `out_of_memory`, `attempt_timeout`.
    #[n(1)]
    #[cbor(with = "crate::cbor::text")]
    pub code: Arc<str>,
    /// One sentence for a person.
    #[n(2)]
    #[cbor(with = "crate::cbor::text")]
    pub message: Arc<str>,
    /// How long the other side asked to be left alone, in milliseconds.
    #[n(3)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// JSON text with whatever helps a review (a response body, say).
    #[n(4)]
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::json::optional_raw")]
    #[cbor(with = "crate::cbor::maybe_text", has_nil)]
    pub details: Option<crate::json::Json>,
}

impl Failure {
    /// A failure without details.
    pub fn new(class: ErrorClass, code: impl Into<Arc<str>>, message: impl Into<Arc<str>>) -> Self {
        Self { class, code: code.into(), message: message.into(), retry_after_ms: None, details: None }
    }
}
