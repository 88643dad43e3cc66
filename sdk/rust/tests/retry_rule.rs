//! Statuses and Retry-After by the product's retry rule.

use std::time::{Duration, SystemTime};

use reipaz_sdk::ErrorClass;
use reipaz_sdk::http::{Response, status};

const DATE: &str = "Wed, 21 Oct 2015 07:28:00 GMT";
const A_MINUTE_LATER: &str = "Wed, 21 Oct 2015 07:29:00 GMT";

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_445_412_480)
}

fn retry_after(headers: &[(&str, &str)]) -> Option<Duration> {
    let response = headers
        .iter()
        .fold(Response::new(503), |response, (name, value)| response.with_header(*name, *value));
    status::retry_after(&response, now())
}

#[test]
fn six_statuses_are_transient_one_is_rate_limited_the_rest_permanent() {
    for code in 300..600 {
        let expected = match code {
            408 | 425 | 500 | 502 | 503 | 504 => ErrorClass::Transient,
            429 => ErrorClass::RateLimited,
            _ => ErrorClass::Permanent,
        };
        let error = status::error(&Response::new(code));
        assert_eq!(error.class, expected, "{code}");
        assert_eq!(error.code, format!("http_{code}"));
    }
}

#[test]
fn retry_after_in_seconds() {
    assert_eq!(retry_after(&[("Retry-After", "120")]), Some(Duration::from_secs(120)));
    assert_eq!(retry_after(&[("retry-after", " 0 ")]), Some(Duration::ZERO));
    assert!(
        retry_after(&[("retry-after", "99999999999999999999999")]) > Some(Duration::from_secs(1_000_000))
    );
}

#[test]
fn retry_after_as_a_date_is_read_against_the_responses_own_date() {
    let an_hour_wrong = "Wed, 21 Oct 2015 08:28:00 GMT";
    let until = "Wed, 21 Oct 2015 08:28:05 GMT";
    assert_eq!(retry_after(&[("retry-after", until), ("date", an_hour_wrong)]), Some(Duration::from_secs(5)));
    assert_eq!(retry_after(&[("retry-after", A_MINUTE_LATER)]), Some(Duration::from_secs(60)));
    assert_eq!(retry_after(&[("retry-after", DATE), ("date", A_MINUTE_LATER)]), Some(Duration::ZERO));
}

#[test]
fn retry_after_that_says_nothing_is_none() {
    for value in ["", "soon", "-1", "1.5", "Wed, 99 Oct 2015"] {
        assert_eq!(retry_after(&[("retry-after", value)]), None, "{value}");
    }
    assert_eq!(retry_after(&[]), None);
}

#[test]
fn the_bodys_beginning_is_kept_between_letters() {
    let body = "é".repeat(status::DETAIL_BYTES);
    let details = status::error(&Response::new(500).with_body(format!("x{body}"))).details.expect("details");
    let kept = details["body"].as_str().expect("text");
    assert!(kept.len() <= status::DETAIL_BYTES && kept.len() > status::DETAIL_BYTES - 4);
    assert!(kept.chars().skip(1).all(|letter| letter == 'é'));
}
