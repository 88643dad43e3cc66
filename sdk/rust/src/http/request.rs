//! What is asked. A builder that remembers its first mistake, so that a chain of calls needs one `?`, at its end.

use std::time::Duration;

use serde::Serialize;

use super::url::{self, Url};
use super::{Error, ErrorKind, Response};

/// How long a response's body may be unless the request says otherwise.
pub const MAX_BODY_BYTES: usize = 8 << 20;

/// A request that is being put together.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct Request {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    timeout: Option<Duration>,
    max_body_bytes: usize,
    mistake: Option<Error>,
}

impl Request {
    /// A request with any method. `http::get` and its siblings are shorter.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout: None,
            max_body_bytes: MAX_BODY_BYTES,
            mistake: None,
        }
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    /// Adds a parameter to the URL's query, percent-encoded.
    pub fn query(mut self, name: &str, value: impl ToString) -> Self {
        self.url = url::with_parameter(&self.url, name, &value.to_string());
        self
    }

    /// Sets the body as it is, without a content type.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the body to a text, as `text/plain` unless a content type is given.
    pub fn text(self, text: impl Into<String>) -> Self {
        self.default_header("content-type", "text/plain; charset=utf-8").body(text.into())
    }

    /// Sets the body to a value as JSON, as `application/json` unless a content type is given.
    pub fn json(mut self, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => self.default_header("content-type", "application/json").body(body),
            Err(error) => {
                self.mistake.get_or_insert(Error::new(
                    ErrorKind::BadRequest,
                    format!("the body is no JSON: {error}"),
                ));
                self
            }
        }
    }

    /// How long each single wait may be: for the connection, for the first byte, for the next byte. The attempt's own
    /// deadline bounds the whole.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How long the response's body may be, in bytes; [`MAX_BODY_BYTES`] if not said.
    pub fn max_body_bytes(mut self, bytes: usize) -> Self {
        self.max_body_bytes = bytes;
        self
    }

    /// Sends it and waits for the whole answer, whatever its status.
    ///
    /// # Errors
    /// When there is no whole answer, or the request made no sense. A bad status is an answer.
    pub fn send(self) -> Result<Response, Error> {
        #[cfg(target_family = "wasm")]
        {
            super::wasi::start(&self)?.finish()
        }
        #[cfg(not(target_family = "wasm"))]
        {
            self.check()?;
            super::testing::answer(&self)
        }
    }

    /// The method, upper case as given.
    pub fn method_str(&self) -> &str {
        &self.method
    }

    /// The URL with its query.
    pub fn url_str(&self) -> &str {
        &self.url
    }

    /// The first header of that name, whatever its case.
    pub fn header_str(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body.
    pub fn body_bytes(&self) -> &[u8] {
        &self.body
    }

    #[cfg(target_family = "wasm")]
    pub(super) fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    #[cfg(target_family = "wasm")]
    pub(super) fn timeout_option(&self) -> Option<Duration> {
        self.timeout
    }

    pub(super) fn body_limit(&self) -> usize {
        self.max_body_bytes
    }

    /// The parsed URL, or the first mistake that was made in building the request.
    pub(super) fn check(&self) -> Result<Url<'_>, Error> {
        if let Some(mistake) = &self.mistake {
            return Err(mistake.clone());
        }
        Url::parse(&self.url)
    }

    fn default_header(self, name: &str, value: &str) -> Self {
        if self.header_str(name).is_some() { self } else { self.header(name, value) }
    }
}
