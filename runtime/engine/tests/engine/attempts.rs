//! What an attempt gets, and what its outcome says.

use std::sync::Arc;

use reipaz_engine::{Class, Level, limits};
use serde_json::json;
use tokio::sync::mpsc;

use crate::rig::{Rig, grants};

#[tokio::test]
async fn a_step_gets_its_input_and_returns_its_output() {
    let rig = Rig::new().await;
    let outcome = rig.run(json!({"do": "echo", "value": {"a": [1, "ñ", null]}})).await;
    assert_eq!(outcome.result.as_deref(), Ok(r#"{"a":[1,"ñ",null]}"#));
    assert!(outcome.usage.cpu_us > 0 && outcome.usage.wall_us > 0, "{:?}", outcome.usage);
    assert!(outcome.usage.memory_peak_bytes >= 1 << 16, "{:?}", outcome.usage);
    assert!(outcome.logs.is_empty());
}

#[tokio::test]
async fn a_step_is_told_its_context() {
    let rig = Rig::new().await;
    assert_eq!(
        rig.gives(json!({"do": "context"})).await,
        json!({
            "run": "r1", "workflow": "orders", "step": "/score", "attempt": 1, "idempotency_key": "r1/score",
            "now_ms": 1_700_000_000_123_u64, "deadline_ms": 1_700_000_020_123_u64, "metadata": [["tenant", "a"]],
        })
    );
}

async fn peak_bytes(rig: &Rig, bytes: u64) -> u64 {
    rig.run(json!({"do": "memory", "bytes": bytes})).await.usage.memory_peak_bytes
}

#[tokio::test]
async fn each_attempt_gets_a_fresh_instance() {
    let rig = Rig::new().await;
    let small = peak_bytes(&rig, 1).await;
    assert!(peak_bytes(&rig, 50 << 20).await > 50 << 20);
    assert_eq!(peak_bytes(&rig, 1).await, small, "nothing is left of the attempt before");
}

#[tokio::test]
async fn a_step_reports_its_own_failure() {
    let rig = Rig::new().await;
    let failure = rig
        .fails(json!({
            "do": "error", "class": "rate_limited", "code": "http_429", "message": "slow down", "retry_after_ms": 1500,
            "details": {"status": 429},
        }))
        .await;
    assert_eq!((failure.class, failure.code.as_str()), (Class::RateLimited, "http_429"));
    assert_eq!((failure.message.as_str(), failure.retry_after_ms), ("slow down", Some(1500)));
    assert_eq!(failure.details.as_deref(), Some(r#"{"status":429}"#));
}

#[tokio::test]
async fn what_is_no_json_is_a_bad_output() {
    let rig = Rig::new().await;
    for text in ["", "not json", "{\"a\": 1", "1 2"] {
        let failure = rig.fails(json!({"do": "raw_output", "text": text})).await;
        assert_eq!((failure.class, failure.code.as_str()), (Class::Permanent, "bad_output"), "{text}");
    }
}

#[tokio::test]
async fn log_lines_and_output_come_with_the_outcome() {
    let rig = Rig::new().await;
    let outcome = rig.run(json!({"do": "log", "message": "scored"})).await;
    let lines: Vec<_> = outcome.logs.iter().map(|line| (line.level, line.message.as_str())).collect();
    assert_eq!(lines, [(Level::Info, "scored"), (Level::Info, "to stdout"), (Level::Warn, "to stderr")]);
    assert_eq!(outcome.logs[0].fields, [("n".to_owned(), "1".to_owned())]);
    assert!(outcome.logs[0].at_us >= 1_700_000_000_123_456);
    assert_eq!(outcome.logs_dropped_bytes, 0);
}

#[tokio::test]
async fn a_long_step_is_heard_before_it_ends() {
    // Given
    let rig = Rig::new().await;
    let (sender, mut reports) = mpsc::channel(8);
    let mut attempt = rig.attempt(json!({"do": "progress", "n": 12, "ms": 100}));
    attempt.reports = Some(Arc::new(sender));
    // When
    let began = tokio::time::Instant::now();
    let (first, outcome) = tokio::join!(
        async {
            let report = reports.recv().await;
            (report, began.elapsed())
        },
        rig.engine.run(attempt)
    );
    // Then
    let (report, after) = first;
    let progress = report.unwrap().progress.unwrap();
    assert!(progress.done > 0 && progress.done < 12, "{progress:?}");
    assert_eq!((progress.total, progress.note.as_str()), (Some(12), "working"));
    assert!(after >= limits::REPORT_INTERVAL, "{after:?}");
    assert_eq!(outcome.result.as_deref(), Ok("12"));
}

#[tokio::test]
async fn a_draining_host_asks_steps_to_stop() {
    let rig = Rig::new().await;
    assert_eq!(rig.gives(json!({"do": "progress", "n": 2, "ms": 1})).await, json!(2));
    rig.engine.drain();
    assert_eq!(rig.gives(json!({"do": "progress", "n": 2, "ms": 1})).await, json!(0));
}

#[tokio::test]
async fn silence_follows_from_imports_and_grants() {
    let rig = Rig::new().await;
    assert!(rig.engine.is_silent(&rig.digest, &grants(&[])), "it imports wasi:http, and nothing is granted");
    assert!(!rig.engine.is_silent(&rig.digest, &grants(&["GET example.com"])));
    assert!(!rig.engine.is_silent(&[9; 32], &grants(&[])), "nothing is known of a plugin that is not loaded");
    // A component that imports nothing is silent whatever is granted.
    let quiet = crate::synthetic::step("", "unreachable");
    let digest = rig.engine.install(quiet.into()).await.unwrap().digest;
    assert!(rig.engine.is_silent(&digest, &grants(&["* *"])));
}

#[tokio::test]
async fn a_plugin_that_is_not_loaded_fails_its_attempt() {
    let rig = Rig::new().await;
    let mut attempt = rig.attempt(json!({}));
    attempt.digest = [9; 32];
    let failure = rig.engine.run(attempt).await.result.unwrap_err();
    assert_eq!((failure.class, failure.code.as_str()), (Class::Transient, "plugin_not_loaded"));
}
