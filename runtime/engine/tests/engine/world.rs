//! A guest's world: the same for the same attempt, on any machine, at any time.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::rig::Rig;

#[tokio::test]
async fn the_same_attempt_sees_the_same_clock_and_randomness() {
    // Given two engines, as before and after a crash.
    let (before, after) = (Rig::new().await, Rig::new().await);
    // When
    let first = before.gives(json!({"do": "observe"})).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    let second = after.gives(json!({"do": "observe"})).await;
    // Then
    assert_eq!(first, second);
    assert_eq!(first["first"][0], 1_700_000_000_123_457_u64, "the clock starts at the attempt's time");
    let slept = first["second"][0].as_u64().unwrap() - first["first"][0].as_u64().unwrap();
    assert!((7_000..7_100).contains(&slept), "a sleep of 7 ms moves the clock: {slept} us");
}

#[tokio::test]
async fn another_seed_or_another_time_is_another_world() {
    let rig = Rig::new().await;
    let usual = rig.gives(json!({"do": "observe"})).await;
    let mut attempt = rig.attempt(json!({"do": "observe"}));
    attempt.seed = [8; 32];
    let other: serde_json::Value =
        serde_json::from_str(&rig.engine.run(attempt).await.result.unwrap()).unwrap();
    for random in ["random", "insecure", "seed"] {
        assert_ne!(usual[random], other[random], "{random}");
    }
    assert_eq!(usual["first"], other["first"]);
}

#[tokio::test]
async fn a_sleep_really_sleeps() {
    let rig = Rig::new().await;
    let began = Instant::now();
    rig.gives(json!({"do": "sleep", "ms": 80})).await;
    assert!(began.elapsed() >= Duration::from_millis(79), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_loop_that_waits_for_a_time_ends_and_looks_as_often_each_time() {
    let rig = Rig::new().await;
    let looks = rig.gives(json!({"do": "wait_by_clock", "ms": 20})).await;
    assert_eq!(looks, rig.gives(json!({"do": "wait_by_clock", "ms": 20})).await);
    assert!(looks.as_u64().unwrap() > 1_000, "{looks}");
}
