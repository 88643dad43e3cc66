//! Answers that are not problems.

use axum::body::Body;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use super::{kinds, problem::Problem};

/// What a handler gives back.
pub(super) type Answer = Result<Response<Body>, Problem>;

/// `value` as JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let text = serde_json::to_vec(value).map_err(|error| {
        Problem::new(&kinds::INTERNAL, "the host's log says more under this request id")
            .internal(format_args!("an answer does not serialise: {error}"))
    })?;
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// A text with its type.
pub(super) fn text(content_type: &'static str, text: impl Into<Body>) -> Answer {
    let mut response = Response::new(text.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(response)
}

/// `answer` with a header more, if it is an answer and the value can stand in a header.
pub(super) fn with_header(answer: Answer, name: HeaderName, value: impl TryInto<HeaderValue>) -> Answer {
    let mut response = answer?;
    if let Ok(value) = value.try_into() {
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}
