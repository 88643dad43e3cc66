//! How a step fails: a class that decides about retries, a code for programs, a message for people.
//!
//! The one idea: any `std::error::Error` becomes a [`StepError`] with `?`, and the class is read off the error and its sources
//! (a connection that was reset is `network`, a timeout `timeout`, everything unknown `permanent`). Only a step that knows
//! better says so itself.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use serde::Serialize;

use crate::http;

/// What kind of failure it was; it decides about retries.
///
/// The host alone adds the classes `resource`, `trap`, `denied`, `cancelled` and `host`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// Trying again would give the same. Never retried.
    Permanent,
    /// The other side may recover. Retried with growing delays.
    Transient,
    /// No answer: refused, reset, unresolvable. Retried at once twice, then with growing delays.
    Network,
    /// The other side took too long. Retried as `Network` is.
    Timeout,
    /// The other side asked for patience. Retried after [`StepError::retry_after`] if given, else with growing delays.
    RateLimited,
}

/// A failed step.
///
/// It is no [`std::error::Error`] itself: that is what lets every other error become one.
#[derive(Clone, Debug, PartialEq)]
pub struct StepError {
    /// Decides about retries.
    pub class: ErrorClass,
    /// Stable and snake_case, for programs: `http_503`, `bad_input`.
    pub code: String,
    /// One sentence for a person.
    pub message: String,
    /// How long the other side asked to be left alone.
    pub retry_after: Option<Duration>,
    /// Whatever helps a review: a response body, say.
    pub details: Option<serde_json::Value>,
}

impl StepError {
    /// A failure of the given class.
    pub fn new(class: ErrorClass, code: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { class, code: code.into(), message: message.to_string(), retry_after: None, details: None }
    }

    /// Trying again would give the same.
    pub fn permanent(code: impl Into<String>, message: impl fmt::Display) -> Self {
        Self::new(ErrorClass::Permanent, code, message)
    }

    /// The other side may recover.
    pub fn transient(code: impl Into<String>, message: impl fmt::Display) -> Self {
        Self::new(ErrorClass::Transient, code, message)
    }

    /// No answer came.
    pub fn network(code: impl Into<String>, message: impl fmt::Display) -> Self {
        Self::new(ErrorClass::Network, code, message)
    }

    /// The other side took too long.
    pub fn timeout(code: impl Into<String>, message: impl fmt::Display) -> Self {
        Self::new(ErrorClass::Timeout, code, message)
    }

    /// The other side asked for patience, perhaps for a given time.
    pub fn rate_limited(
        code: impl Into<String>,
        message: impl fmt::Display,
        retry_after: impl Into<Option<Duration>>,
    ) -> Self {
        let retry_after = retry_after.into();
        Self { retry_after, ..Self::new(ErrorClass::RateLimited, code, message) }
    }

    /// Adds what a reviewer should see. What cannot be JSON is left out: an error about an error helps nobody.
    #[must_use]
    pub fn with_details(mut self, details: impl Serialize) -> Self {
        self.details = serde_json::to_value(details).ok();
        self
    }

    /// Adds how long the other side asked to be left alone; only failures that are retried heed it.
    #[must_use]
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Says first what was being done: `"reading the order: "` + message.
    #[must_use]
    pub fn while_doing(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?}): {}", self.code, self.class, self.message)
    }
}

impl<E: Error + 'static> From<E> for StepError {
    fn from(error: E) -> Self {
        let (class, code) = classify(&error);
        let code = code.unwrap_or_else(|| snake_case_name(std::any::type_name::<E>()));
        Self::new(class, code, chain(&error))
    }
}

/// Reads the class off an error or the first of its sources that tells one. The code comes along where it says more than
/// the error type's name.
fn classify(error: &(dyn Error + 'static)) -> (ErrorClass, Option<String>) {
    let mut next = Some(error);
    for _ in 0..MAX_SOURCES {
        let Some(error) = next else { break };
        if let Some(error) = error.downcast_ref::<http::Error>() {
            return (error.class(), Some(error.code().to_owned()));
        }
        if let Some(error) = error.downcast_ref::<serde_json::Error>() {
            let code = if error.is_data() { "unexpected_json" } else { "invalid_json" };
            return (ErrorClass::Permanent, Some(code.to_owned()));
        }
        if let Some(error) = error.downcast_ref::<io::Error>()
            && error.kind() != io::ErrorKind::Other
        {
            let code = format!("io_{}", snake_case_name(&format!("{:?}", error.kind())));
            return (io_class(error.kind()), Some(code));
        }
        next = error.source();
    }
    (ErrorClass::Permanent, None)
}

fn io_class(kind: io::ErrorKind) -> ErrorClass {
    use io::ErrorKind as Kind;
    match kind {
        Kind::TimedOut => ErrorClass::Timeout,
        Kind::ConnectionRefused
        | Kind::ConnectionReset
        | Kind::ConnectionAborted
        | Kind::NotConnected
        | Kind::BrokenPipe
        | Kind::HostUnreachable
        | Kind::NetworkUnreachable
        | Kind::NetworkDown
        | Kind::UnexpectedEof => ErrorClass::Network,
        Kind::Interrupted | Kind::WouldBlock | Kind::ResourceBusy => ErrorClass::Transient,
        _ => ErrorClass::Permanent,
    }
}

/// How many causes of one error are looked at and told.
const MAX_SOURCES: usize = 8;

/// The error's words followed by its causes', where they add something.
fn chain(error: &dyn Error) -> String {
    let mut message = error.to_string();
    let mut next = error.source();
    for _ in 0..MAX_SOURCES {
        let Some(cause) = next else { break };
        let words = cause.to_string();
        if !message.contains(&words) {
            message.push_str(": ");
            message.push_str(&words);
        }
        next = cause.source();
    }
    message
}

/// `core::num::error::ParseIntError` becomes `parse_int_error`.
fn snake_case_name(type_name: &str) -> String {
    let without_arguments = type_name.split('<').next().unwrap_or(type_name);
    let last = without_arguments.rsplit("::").next().unwrap_or(without_arguments);
    let mut name = String::with_capacity(last.len() + 4);
    for (i, letter) in last.chars().enumerate() {
        if letter.is_uppercase() && i > 0 {
            name.push('_');
        }
        name.extend(letter.to_lowercase().filter(char::is_ascii_alphanumeric));
    }
    name
}

/// Gives a failed `Result` or an empty `Option` a class and a code where the step knows better than `?`.
pub trait Classify<T>: Sized {
    /// Fails with that class and code; the message is the error's own.
    fn or_fail(self, class: ErrorClass, code: &str) -> Result<T, StepError>;

    /// Trying again would give the same.
    fn or_permanent(self, code: &str) -> Result<T, StepError> {
        self.or_fail(ErrorClass::Permanent, code)
    }

    /// The other side may recover.
    fn or_transient(self, code: &str) -> Result<T, StepError> {
        self.or_fail(ErrorClass::Transient, code)
    }
}

impl<T, E: fmt::Display> Classify<T> for Result<T, E> {
    fn or_fail(self, class: ErrorClass, code: &str) -> Result<T, StepError> {
        self.map_err(|error| StepError::new(class, code, error))
    }
}

impl<T> Classify<T> for Option<T> {
    fn or_fail(self, class: ErrorClass, code: &str) -> Result<T, StepError> {
        self.ok_or_else(|| StepError::new(class, code, code.replace('_', " ")))
    }
}
