//! What was answered: status, headers and the whole body.

use std::borrow::Cow;

use serde::de::DeserializeOwned;

use super::{Error, ErrorKind, status};
use crate::StepError;

/// A response's headers, in their order; names are compared without regard to case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The first value of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// All names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl FromIterator<(String, String)> for Headers {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(headers: I) -> Self {
        Self(headers.into_iter().collect())
    }
}

/// An answer, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    status: u16,
    headers: Headers,
    body: Vec<u8>,
}

impl Response {
    /// An answer made by hand, for [`testing`](super::testing).
    pub fn new(status: u16) -> Self {
        Self { status, headers: Headers::default(), body: Vec::new() }
    }

    /// The same with a header more.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.headers.0.push((name.into(), value.to_string()));
        self
    }

    /// The same with that body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The same with that value as its JSON body.
    #[must_use]
    pub fn with_json(self, value: &serde_json::Value) -> Self {
        self.with_header("content-type", "application/json").with_body(value.to_string())
    }

    #[cfg(target_family = "wasm")]
    pub(super) fn from_parts(status: u16, headers: Headers, body: Vec<u8>) -> Self {
        Self { status, headers, body }
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The headers.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// The body.
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// The body, without copying it.
    pub fn into_bytes(self) -> Vec<u8> {
        self.body
    }

    /// The body as text; what is no UTF-8 is replaced.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// The body read as JSON.
    ///
    /// # Errors
    /// When it is not JSON of that shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Error::new(ErrorKind::Body, format!("the response's body: {error}")))
    }

    /// Itself when the status is 2xx, else the failure that the retry rule makes of it.
    ///
    /// # Errors
    /// See [`status::error`].
    pub fn error_for_status(self) -> Result<Self, StepError> {
        if self.is_success() { Ok(self) } else { Err(status::error(&self)) }
    }
}
