//! Reading bodies: the right Content-Type, within a limit, in time, and then as what the route expects.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::{kinds, limits, problem::Problem};

/// Content types of JSON.
pub(super) const JSON: &[&str] = &["application/json"];
/// Content types of a workflow document.
pub(super) const DOCUMENT: &[&str] =
    &["application/yaml", "application/json", "text/yaml", "application/x-yaml", "text/x-yaml"];
/// Content types of a component.
pub(super) const WASM: &[&str] = &["application/wasm", "application/octet-stream"];
/// Content types of a statement.
pub(super) const SQL: &[&str] = &["application/sql", "text/plain"];

/// Reads a body of one of the types in `accepts`, of at most `limit` bytes. An empty one needs no type.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    accepts: &[&str],
    limit: usize,
) -> Result<Bytes, Problem> {
    read_within(headers, body, accepts, limit, limits::BODY_TIMEOUT).await
}

/// As [`read`], within a time of its own.
pub(super) async fn read_within(
    headers: &HeaderMap,
    body: Body,
    accepts: &[&str],
    limit: usize,
    time: Duration,
) -> Result<Bytes, Problem> {
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        discard(body).await;
        return Err(too_large(limit));
    }
    if announced != Some(0) {
        check_type(headers, accepts, announced.is_none())?;
    }
    match tokio::time::timeout(time, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(limit)),
        Ok(Err(error)) => {
            Err(Problem::new(&kinds::MALFORMED_BODY, "the body broke off before its end").internal(error))
        }
        Err(_) => Err(Problem::new(
            &kinds::BODY_TIMEOUT,
            format!("the body did not arrive within {} s", time.as_secs()),
        )),
    }
}

/// Reads on and keeps nothing, within bounds: a client that is still sending would lose the answer in the reset that
/// an unread body ends in.
async fn discard(body: Body) {
    let mut body = Limited::new(body, limits::DISCARD_BYTES);
    let reading = async { while let Some(Ok(_)) = body.frame().await {} };
    // Over the time as over the bytes: the answer goes out, and may be lost.
    let _ = tokio::time::timeout(limits::DISCARD_TIME, reading).await;
}

fn too_large(limit: usize) -> Problem {
    Problem::new(&kinds::TOO_LARGE, format!("the body is over the route's limit of {limit} bytes"))
        .with("limit_bytes", limit)
}

fn check_type(headers: &HeaderMap, accepts: &[&str], may_be_empty: bool) -> Result<(), Problem> {
    let refuse = |given: &str| {
        Err(Problem::new(&kinds::WRONG_CONTENT_TYPE, format!("{given}; send one of: {}", accepts.join(", ")))
            .with("accepts", accepts))
    };
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        let no_body = may_be_empty && !headers.contains_key(header::TRANSFER_ENCODING);
        return if no_body { Ok(()) } else { refuse("the request has a body and no Content-Type") };
    };
    let text = value.to_str().unwrap_or("");
    let essence = text.split(';').next().unwrap_or("").trim();
    if accepts.iter().any(|accepted| accepted.eq_ignore_ascii_case(essence)) {
        Ok(())
    } else {
        refuse(&format!("the Content-Type {text:?} is not what the route takes"))
    }
}

/// Reads a body that is one JSON object for `T`; an empty body is `{}`.
pub(super) fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    let text: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(text).map_err(|error| malformed(&error))
}

/// The problem of a body that is no JSON, or not the JSON that the route expects.
pub(super) fn malformed(error: &serde_json::Error) -> Problem {
    Problem::new(&kinds::MALFORMED_BODY, error).with("line", error.line()).with("column", error.column())
}

/// A body as text.
pub(super) fn text(body: &Bytes) -> Result<&str, Problem> {
    std::str::from_utf8(body).map_err(|error| {
        Problem::new(
            &kinds::MALFORMED_BODY,
            format!("the body is not UTF-8: byte {} does not fit", error.valid_up_to()),
        )
    })
}
