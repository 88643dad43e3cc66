//! Ids, times, durations and limits: how they are written and read, and that what is spread over partitions stays where
//! earlier hosts put it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use reipaz_core::{
    ids::{AttemptId, Digest, RunId, StepPath},
    json,
    limit::{LimitId, LimitRule, Rate},
    time::{Timestamp, format_duration, parse_duration},
};
use serde::Deserialize;

/// A longer key is kept by its digest.
const KEY_BYTES: usize = 256;

/// In January 2027, with microseconds.
const MOMENT: Timestamp = Timestamp(1_800_000_000_123_456);

fn run(text: &str) -> RunId {
    RunId(uuid::Uuid::parse_str(text).unwrap())
}

#[test]
fn a_run_id_is_written_with_hyphens() {
    let id = "0195e0c0-1234-7abc-8def-0123456789ab";
    assert_eq!(format!("{} {:?}", run(id), run(id)), format!("{id} {id}"));
}

/// Worked out by hand: the two halves xor-ed, times 2^64 divided by the golden ratio, the upper half of that.
#[test]
fn a_runs_home_never_moves() {
    let homes = |id: &str| [1, 2, 16, 1_000, 0].map(|partitions| run(id).partition(partitions));
    let by_hand = |id: &str| {
        let bits = run(id).0.as_u128();
        let folded = (bits % (1 << 64)) ^ (bits / (1 << 64));
        let mixed = (folded * 0x9E37_79B9_7F4A_7C15) % (1 << 64) / (1 << 32);
        [1, 2, 16, 1_000, 1].map(|partitions| (mixed % partitions) as u32)
    };
    for id in [
        "0195e0c0-1234-7abc-8def-0123456789ab",
        "0195e0c0-1234-7abd-8def-0123456789ab",
        "ffffffff-ffff-ffff-ffff-fffffffffffe",
    ] {
        assert_eq!(homes(id), by_hand(id), "{id}");
    }
    assert_eq!(homes("0195e0c0-1234-7abc-8def-0123456789ab"), [0, 0, 14, 950, 0], "they stand in journals");
}

#[test]
fn a_run_of_a_task_is_at_home_in_the_tasks_partition() {
    for partition in 0..40 {
        let id = RunId::from_source("tasks", partition, 7, 16);
        assert_eq!(id.partition(16), partition % 16);
        assert_eq!(id, RunId::from_source("tasks", partition, 7, 16));
        assert_ne!(id, RunId::from_source("tasks", partition, 8, 16));
    }
    assert_eq!(RunId::from_source("tasks", 3, 7, 0).partition(0), 0);
}

#[test]
fn an_idempotency_key_is_the_runs_and_the_steps_and_not_the_attempts() {
    let id = "0195e0c0-1234-7abc-8def-0123456789ab";
    let of = |attempt| AttemptId { run: run(id), path: StepPath::top("fetch"), attempt }.idempotency_key();
    assert_eq!(of(1), format!("{id}/fetch"));
    assert_eq!(of(1), of(2));
}

#[test]
fn a_digest_is_written_as_it_is_read() {
    let digest = Digest::of(b"abc");
    let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(format!("{digest} {digest:?}"), format!("{text} {text}"));
    assert_eq!(text.parse::<Digest>().unwrap(), digest);
}

#[test]
fn a_time_is_written_and_read_to_the_microsecond() {
    assert_eq!(format!("{MOMENT} {MOMENT:?}"), "2027-01-15T08:00:00.123456Z 2027-01-15T08:00:00.123456Z");
    assert_eq!(Timestamp(u64::MAX).to_string(), format!("{}us", u64::MAX), "past what a calendar says");
    let text = serde_json::to_string(&MOMENT).unwrap();
    assert_eq!(serde_json::from_str::<Timestamp>(&text).unwrap(), MOMENT);
    for bad in [r#""1969-12-31T23:59:59Z""#, r#""yesterday""#, "7"] {
        assert!(serde_json::from_str::<Timestamp>(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_time_in_milliseconds_rounds_down() {
    assert_eq!(MOMENT.as_millis(), 1_800_000_000_123);
    assert_eq!(Timestamp::from_millis(1_800_000_000_123), Timestamp(1_800_000_000_123_000));
    assert_eq!(Timestamp::from_millis(u64::MAX), Timestamp(u64::MAX));
}

#[test]
fn a_duration_is_written_in_the_largest_unit_that_is_exact() {
    for text in ["0ms", "1ms", "1500ms", "2s", "90s", "3m", "25h", "48m", "3650d"] {
        let duration = parse_duration(text).unwrap();
        assert_eq!(format_duration(duration), text);
        assert_eq!(parse_duration(&format_duration(duration)).unwrap(), duration);
    }
    assert_eq!(parse_duration("3650d").unwrap(), Duration::from_secs(3650 * 86_400));
    for bad in ["3651d", "315360000001ms", "5", "s", "1.5s", "-1s", "1w", "18446744073709551615d"] {
        assert!(parse_duration(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_limits_home_and_its_words() {
    let limit = |key: Option<&str>| LimitId::workflow(&"orders".into(), key.map(Into::into));
    assert_eq!(limit(Some("\"c1\"")).to_string(), "workflow orders, key \"c1\"");
    assert_eq!(LimitId::plugin("mail").to_string(), "plugin mail");
    let homes: Vec<u32> = (0..6).map(|n| limit(Some(&n.to_string())).home(16)).collect();
    assert_eq!(homes, [9, 13, 15, 3, 10, 0], "hosts must agree on them, old ones too");
    assert_eq!(limit(None).home(0), 0);
    // A key of that length stands as it is; a longer one by its digest.
    let of_length = |length: usize| limit(Some(&format!("{:?}", "1".repeat(length - 2)))).key.unwrap();
    assert_eq!(of_length(KEY_BYTES).len(), KEY_BYTES);
    assert!(of_length(KEY_BYTES + 1).starts_with("\"sha256:"));
}

#[test]
fn a_limits_key_is_a_value_however_it_is_written() {
    let key = |text: &str| LimitId::workflow(&"orders".into(), Some(text.into())).key.unwrap();
    for (written, same) in [
        (r#""Jos\u00e9""#, r#""José""#),
        (r#""a\/b""#, r#""a/b""#),
        ("1.0", "1"),
        ("1e3", "1000"),
        ("-0.0", "0"),
        ("1.50", "1.5"),
        (r#"{"b":[2.0,{"d":1,"c":2}],"a":1}"#, r#"{"a":1,"b":[2,{"c":2,"d":1}]}"#),
    ] {
        assert_eq!(key(written), key(same), "{written}");
        assert_eq!(&*key(same), same);
    }
    for (one, other) in [("1", "\"1\""), ("9007199254740993", "9007199254740992"), ("null", "\"null\"")] {
        assert_ne!(key(one), key(other), "{one}");
    }
}

#[test]
fn a_limits_rule_in_words() {
    let rule = |at_once, rate| LimitRule { at_once, rate, max_queued: 0, version: 1 }.to_string();
    let rate = Some(Rate { starts: 10, per_ms: 60_000 });
    assert_eq!(rule(Some(5), None), "5 at one time");
    assert_eq!(rule(None, rate), "10 starts in 1m");
    assert_eq!(rule(Some(5), rate), "5 at one time, 10 starts in 1m");
}

#[test]
fn json_stands_in_json_as_itself() {
    #[derive(Debug, PartialEq, Deserialize, serde::Serialize)]
    struct Holder {
        #[serde(with = "json::raw")]
        value: json::Json,
        #[serde(with = "json::optional_raw", default)]
        maybe: Option<json::Json>,
    }
    for (text, value, maybe) in [
        (r#"{"value":{"a":[1.50]},"maybe":"x"}"#, r#"{"a":[1.50]}"#, Some("\"x\"")),
        (r#"{"value":null,"maybe":null}"#, "null", None),
    ] {
        let holder = Holder { value: value.into(), maybe: maybe.map(Into::into) };
        assert_eq!(serde_json::to_string(&holder).unwrap(), text);
        assert_eq!(serde_json::from_str::<Holder>(text).unwrap(), holder);
    }
    assert_eq!(&*json::null(), "null");
}
