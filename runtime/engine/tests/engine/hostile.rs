//! Guests that harm: each ends as its own attempt's failure, with the class and code that say why, and leaves the engine
//! sound.

use std::time::Duration;

use reipaz_engine::{Class, limits};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::rig::{Rig, attempt};
use crate::synthetic;

async fn verdict(rig: &Rig, input: Value) -> (Class, String) {
    let failure = rig.fails(input).await;
    (failure.class, failure.code)
}

#[tokio::test]
async fn an_endless_loop_is_stopped_at_its_timeout() {
    let rig = Rig::new().await;
    let mut attempt = rig.attempt(json!({"do": "spin"}));
    attempt.timeout = Duration::from_millis(100);
    let began = Instant::now();
    let outcome = rig.engine.run(attempt).await;
    let failure = outcome.result.unwrap_err();
    assert_eq!((failure.class, failure.code.as_str()), (Class::Timeout, "attempt_timeout"));
    assert!(began.elapsed() < Duration::from_millis(400), "{:?}", began.elapsed());
    assert!(outcome.usage.cpu_us > 10_000, "its time is counted: {:?}", outcome.usage);
    rig.assert_sound().await;
}

#[tokio::test]
async fn recursion_without_end_uses_up_the_stack() {
    let rig = Rig::new().await;
    let failure = rig.fails(json!({"do": "recurse"})).await;
    assert!(matches!(failure.class, Class::Resource | Class::Trap), "{failure:?}");
    rig.assert_sound().await;
}

#[tokio::test]
async fn a_stack_overflow_is_a_used_up_resource() {
    let rig = Rig::new().await;
    let bytes = synthetic::step("(func $deeper (call $deeper))", "(call $deeper) (i32.const 0)");
    let digest = rig.engine.install(bytes.into()).await.unwrap().digest;
    let outcome = rig.engine.run(reipaz_engine::Attempt { digest, ..attempt(json!({})) }).await;
    let failure = outcome.result.unwrap_err();
    assert_eq!((failure.class, failure.code.as_str()), (Class::Resource, "stack_overflow"));
    rig.assert_sound().await;
}

#[tokio::test]
async fn a_memory_bomb_runs_out_of_memory() {
    let rig = Rig::new().await;
    let outcome = rig.run(json!({"do": "memory_bomb"})).await;
    let failure = outcome.result.unwrap_err();
    assert_eq!((failure.class, failure.code.as_str()), (Class::Resource, "out_of_memory"));
    assert!(outcome.usage.memory_peak_bytes <= limits::MEMORY_BYTES as u64 + (1 << 20));
    assert!(outcome.usage.memory_peak_bytes > 128 << 20, "{:?}", outcome.usage);
    rig.assert_sound().await;
}

#[tokio::test]
async fn a_table_bomb_runs_into_the_tables_limit() {
    let rig = Rig::new().await;
    let bytes = synthetic::step(
        "(table $t 1 funcref)",
        "(loop $more
            (br_if $more (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1))))
         unreachable",
    );
    let digest = rig.engine.install(bytes.into()).await.unwrap().digest;
    let outcome = rig.engine.run(reipaz_engine::Attempt { digest, ..attempt(json!({})) }).await;
    let failure = outcome.result.unwrap_err();
    assert_eq!((failure.class, failure.code.as_str()), (Class::Resource, "table_limit"));
    rig.assert_sound().await;
}

#[tokio::test]
async fn a_panic_is_a_trap_whose_message_is_in_the_log() {
    let rig = Rig::new().await;
    let outcome = rig.run(json!({"do": "panic"})).await;
    let failure = outcome.result.unwrap_err();
    assert_eq!((failure.class, failure.code.as_str()), (Class::Trap, "unreachable"));
    assert!(outcome.logs.iter().any(|line| line.message.contains("as asked")), "{:?}", outcome.logs);
    rig.assert_sound().await;
}

#[tokio::test]
async fn an_exit_is_no_way_to_return() {
    let rig = Rig::new().await;
    for status in [0, 1] {
        assert_eq!(
            verdict(&rig, json!({"do": "exit", "status": status})).await,
            (Class::Trap, "exit".into())
        );
    }
    rig.assert_sound().await;
}

#[tokio::test]
async fn outputs_are_bounded_however_large() {
    let rig = Rig::new().await;
    let fits = limits::OUTPUT_BYTES - 2;
    assert!(rig.run(json!({"do": "big_output", "bytes": fits})).await.result.is_ok());
    for bytes in [fits + 1, 3 << 20, 40 << 20] {
        let verdict = verdict(&rig, json!({"do": "big_output", "bytes": bytes})).await;
        assert_eq!(verdict, (Class::Resource, "output_too_large".into()), "{bytes}");
    }
    rig.assert_sound().await;
}

#[tokio::test]
async fn a_log_flood_is_cut_and_counted() {
    let rig = Rig::new().await;
    let outcome = rig.run(json!({"do": "log_flood", "lines": 10_000})).await;
    assert!(outcome.result.is_ok(), "talking much is no failure");
    let kept: usize = outcome.logs.iter().map(|line| line.message.len()).sum();
    assert!(kept <= limits::LOG_BYTES && kept > limits::LOG_BYTES - 4_096, "{kept}");
    assert!(outcome.logs_dropped_bytes > 9_000_000, "{}", outcome.logs_dropped_bytes);
    let outcome = rig.run(json!({"do": "print_flood", "lines": 10_000})).await;
    assert!(outcome.logs_dropped_bytes > 9_000_000, "{}", outcome.logs_dropped_bytes);
    rig.assert_sound().await;
}

#[tokio::test]
async fn a_flood_of_host_calls_ends_at_the_timeout() {
    let rig = Rig::new().await;
    let mut attempt = rig.attempt(json!({"do": "call_flood"}));
    attempt.timeout = Duration::from_millis(100);
    let began = Instant::now();
    let failure = rig.engine.run(attempt).await.result.unwrap_err();
    assert_eq!(failure.class, Class::Timeout);
    assert!(began.elapsed() < Duration::from_millis(400), "{:?}", began.elapsed());
    rig.assert_sound().await;
}

#[tokio::test]
async fn handles_and_what_a_call_carries_are_bounded() {
    let rig = Rig::new().await;
    assert_eq!(verdict(&rig, json!({"do": "handle_flood"})).await, (Class::Resource, "handle_limit".into()));
    let huge = json!({"do": "huge_call", "bytes": 8 << 20});
    assert_eq!(verdict(&rig, huge).await, (Class::Resource, "output_too_large".into()));
    let random = json!({"do": "random_flood", "bytes": 1_u64 << 30});
    assert_eq!(verdict(&rig, random).await, (Class::Trap, "host_call_failed".into()));
    rig.assert_sound().await;
}

#[tokio::test]
async fn there_are_no_files() {
    let rig = Rig::new().await;
    let cases = [
        json!({"do": "read_file", "path": "/etc/passwd"}),
        json!({"do": "read_file", "path": "../../etc/passwd"}),
        json!({"do": "write_file", "path": "/tmp/x"}),
        json!({"do": "list_files", "path": "/"}),
    ];
    for case in cases {
        assert_eq!(verdict(&rig, case.clone()).await, (Class::Permanent, "failed".into()), "{case}");
    }
}

#[tokio::test]
async fn there_are_no_sockets_and_asking_for_one_is_remembered() {
    let rig = Rig::new().await;
    let cases = [
        json!({"do": "tcp", "address": "127.0.0.1:80"}),
        json!({"do": "udp", "address": "0.0.0.0:0"}),
        json!({"do": "lookup", "host": "localhost"}),
    ];
    for case in cases {
        assert_eq!(verdict(&rig, case.clone()).await, (Class::Denied, "socket_denied".into()), "{case}");
    }
}

#[tokio::test]
async fn there_is_no_environment() {
    let rig = Rig::new().await;
    assert_eq!(rig.gives(json!({"do": "env"})).await, json!({"vars": [], "args": []}));
}

#[tokio::test]
async fn many_bombs_at_once_leave_the_engine_sound() {
    let rig = Rig::new().await;
    let bombs = ["memory_bomb", "recurse", "panic", "handle_flood", "exit"];
    let all = (0..20).map(|i| rig.run(json!({"do": bombs[i % bombs.len()]})));
    for outcome in futures_util::future::join_all(all).await {
        assert!(outcome.result.is_err());
    }
    rig.assert_sound().await;
}
