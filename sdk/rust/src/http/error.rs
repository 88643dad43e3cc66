//! A request that got no usable answer. An answer with a bad status is no [`Error`]: see [`status`](super::status).

use std::fmt;

use crate::ErrorClass;

/// What went wrong before there was a whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request itself makes no sense: its URL, a header.
    BadRequest,
    /// The operator granted no such request.
    Denied,
    /// No answer: unresolvable, refused, reset, cut off.
    Network,
    /// The other side took too long.
    Timeout,
    /// The other side cannot be trusted to be who it should be.
    Tls,
    /// What came is no HTTP.
    Protocol,
    /// The body is longer than the request allows.
    TooLarge,
    /// The body is not what it was read as: JSON of that shape, UTF-8.
    Body,
}

/// A request that got no usable answer. `?` makes a [`StepError`](crate::StepError) of the right class of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What went wrong, for programs.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The class that decides about retries. A denial is permanent here; the host, which denied it, knows better.
    pub fn class(&self) -> ErrorClass {
        match self.kind {
            ErrorKind::Network => ErrorClass::Network,
            ErrorKind::Timeout => ErrorClass::Timeout,
            // A peer that breaks off in the middle of the protocol may be restarting.
            ErrorKind::Protocol => ErrorClass::Transient,
            ErrorKind::BadRequest
            | ErrorKind::Denied
            | ErrorKind::Tls
            | ErrorKind::TooLarge
            | ErrorKind::Body => ErrorClass::Permanent,
        }
    }

    /// The code that stands in the step's failure.
    pub fn code(&self) -> &'static str {
        match self.kind {
            ErrorKind::BadRequest => "http_bad_request",
            ErrorKind::Denied => "http_denied",
            ErrorKind::Network => "http_network",
            ErrorKind::Timeout => "http_timeout",
            ErrorKind::Tls => "http_tls",
            ErrorKind::Protocol => "http_protocol",
            ErrorKind::TooLarge => "http_body_too_large",
            ErrorKind::Body => "http_unexpected_body",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
