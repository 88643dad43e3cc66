//! The product's retry rule, as far as statuses go: which answer is which class of failure.
//!
//! 408, 425, 500, 502, 503 and 504 are transient, 429 is rate limited, every other 4xx and 5xx is permanent. What else is not
//! 2xx, a redirect say, is permanent too: asking again would give the same. Retry-After comes in two forms (RFC 9110, section
//! 10.2.3): seconds, or a date, which is read against the response's own `Date`, so that a wrong clock on either side does
//! no harm.

use std::time::{Duration, SystemTime};

use serde_json::json;

use super::Response;
use crate::{ErrorClass, StepError};

/// How much of a failed response's body a failure keeps for review.
pub const DETAIL_BYTES: usize = 2048;

/// The class of failure of a status that is not a success.
pub fn class(status: u16) -> ErrorClass {
    match status {
        408 | 425 | 500 | 502 | 503 | 504 => ErrorClass::Transient,
        429 => ErrorClass::RateLimited,
        _ => ErrorClass::Permanent,
    }
}

/// The failure that an answer amounts to: code `http_503`, its Retry-After, and as details status and the body's beginning.
pub fn error(response: &Response) -> StepError {
    let status = response.status();
    let mut error = StepError::new(class(status), format!("http_{status}"), describe(status));
    error.retry_after = retry_after(response, SystemTime::now());
    error.with_details(json!({ "status": status, "body": beginning(response.bytes()) }))
}

/// How long the other side asked to be left alone, if it did, and in a form that can be read.
///
/// `now` stands in for a response without a `Date`.
pub fn retry_after(response: &Response, now: SystemTime) -> Option<Duration> {
    let value = response.header("retry-after")?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a way to say never.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::from(u32::MAX))));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let sent = response.header("date").and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
    Some(until.duration_since(sent).unwrap_or(Duration::ZERO))
}

/// The body's first [`DETAIL_BYTES`] as text, cut between characters.
fn beginning(body: &[u8]) -> String {
    let cut = body.len() > DETAIL_BYTES;
    let text = String::from_utf8_lossy(&body[..body.len().min(DETAIL_BYTES)]);
    // A character that the cut went through shows as a replacement mark; it is not the sender's.
    if cut { text.trim_end_matches('\u{fffd}').to_owned() } else { text.into_owned() }
}

fn describe(status: u16) -> String {
    let reason = match status {
        300..=399 => "redirects are not followed",
        400 => "bad request",
        401 => "unauthorized",
        403 => "forbidden",
        404 => "not found",
        405 => "method not allowed",
        408 => "request timeout",
        409 => "conflict",
        410 => "gone",
        422 => "unprocessable content",
        425 => "too early",
        429 => "too many requests",
        500 => "internal server error",
        502 => "bad gateway",
        503 => "service unavailable",
        504 => "gateway timeout",
        _ => return format!("the server answered {status}"),
    };
    format!("the server answered {status} ({reason})")
}
