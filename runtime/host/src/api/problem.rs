//! How the API says no: RFC 9457 problem documents, `application/problem+json`.
//!
//! Two texts, never mixed: `detail` is for the caller, `internal` for the host's log. A handler returns a [`Problem`];
//! it travels in the response's extensions and the outermost layer writes it, because only that knows the request's
//! path and id.

use std::{fmt, time::Duration};

use axum::{body::Body, response::IntoResponse};
use http::{HeaderValue, Response, header};
use serde::Serialize;
use serde_json::{Map, Value};

use super::kinds::Kind;

/// A refusal.
#[derive(Clone, Debug)]
pub struct Problem {
    inner: Box<Inner>,
}

#[derive(Clone, Debug)]
struct Inner {
    kind: &'static Kind,
    detail: String,
    internal: Option<String>,
    retry_after: Option<Duration>,
    members: Map<String, Value>,
}

impl Problem {
    /// A problem of this type; `detail` is a sentence about this very occurrence, for the caller.
    pub fn new(kind: &'static Kind, detail: impl fmt::Display) -> Self {
        Self {
            inner: Box::new(Inner {
                kind,
                detail: detail.to_string(),
                internal: None,
                retry_after: None,
                members: Map::new(),
            }),
        }
    }

    /// With words for the host's log that the caller must not see.
    #[must_use]
    pub fn internal(mut self, words: impl fmt::Display) -> Self {
        self.inner.internal = Some(words.to_string());
        self
    }

    /// With a `Retry-After` header.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.inner.retry_after = Some(after);
        self
    }

    /// With an extension member. A value that cannot be JSON is left out.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        if let Ok(value) = serde_json::to_value(value) {
            self.inner.members.insert(name.to_owned(), value);
        }
        self
    }

    /// Its type.
    pub fn kind(&self) -> &'static Kind {
        self.inner.kind
    }

    /// For the caller.
    pub fn detail(&self) -> &str {
        &self.inner.detail
    }

    /// For the host's log.
    pub fn internal_words(&self) -> Option<&str> {
        self.inner.internal.as_deref()
    }

    /// Writes the document into `response`, keeping the headers that it has (`Allow`, say).
    pub(super) fn write(&self, response: &mut Response<Body>, instance: &str, request_id: &str) {
        let Inner { kind, detail, retry_after, members, .. } = &*self.inner;
        let mut document = Map::new();
        document.insert("type".into(), kind.path().into());
        document.insert("title".into(), kind.title.into());
        document.insert("status".into(), kind.status.into());
        document.insert("detail".into(), detail.as_str().into());
        document.insert("instance".into(), instance.into());
        document.insert("request_id".into(), request_id.into());
        for (name, value) in members {
            document.entry(name.as_str()).or_insert_with(|| value.clone());
        }
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(after) = retry_after {
            // Whole seconds, rounded up: never earlier than meant, and never 0.
            let seconds = after.as_millis().div_ceil(1000).max(1);
            headers
                .insert(header::RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)));
        }
        if kind.status == 401 {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"reipaz\""));
        }
        *response.body_mut() = Body::from(Value::Object(document).to_string());
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.inner.kind.status();
        response.extensions_mut().insert(self);
        response
    }
}
