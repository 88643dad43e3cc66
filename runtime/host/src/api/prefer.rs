//! The `Prefer` header (RFC 7240), of which the API knows `wait` (seconds). A preference that is unknown or does not
//! parse is ignored, as the RFC asks.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::limits::WAIT_MAX;

/// Says which preference was honoured.
pub(super) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

const PREFER: HeaderName = HeaderName::from_static("prefer");

/// How long the caller wants to wait: `wait` of the first `Prefer` that has one, at most [`WAIT_MAX`]; `None` without
/// one and for `wait=0`.
pub(super) fn wait(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get_all(PREFER)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(seconds)
        .map(|seconds| Duration::from_secs(seconds).min(WAIT_MAX))
        .filter(|wait| !wait.is_zero())
}

/// What to answer for a wait that was honoured.
pub(super) fn applied(wait: Duration) -> HeaderValue {
    HeaderValue::try_from(format!("wait={}", wait.as_secs())).unwrap_or(HeaderValue::from_static("wait"))
}

fn seconds(preference: &str) -> Option<u64> {
    let (preference, _parameters) = preference.split_once(';').unwrap_or((preference, ""));
    let (name, value) = preference.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("wait") {
        return None;
    }
    value.trim().trim_matches('"').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(values: &[&'static str]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(PREFER, HeaderValue::from_static(value));
        }
        wait(&headers).map(|wait| wait.as_secs())
    }

    #[test]
    fn a_wait_is_read_wherever_it_stands() {
        assert_eq!(parsed(&["wait=8"]), Some(8));
        assert_eq!(parsed(&["respond-async, wait=8"]), Some(8));
        assert_eq!(parsed(&["return=minimal", "Wait = \"8\" ; x=1"]), Some(8));
    }

    #[test]
    fn a_wait_is_clamped() {
        assert_eq!(parsed(&["wait=31"]), Some(30));
        assert_eq!(parsed(&["wait=999999999999"]), Some(30));
    }

    #[test]
    fn what_does_not_parse_is_ignored() {
        for nonsense in ["", "wait", "wait=", "wait=x", "wait=-1", "waits=8", "wait=0", "wait=1.5"] {
            assert_eq!(parsed(&[nonsense]), None, "{nonsense:?}");
        }
    }
}
