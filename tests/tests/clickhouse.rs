//! What ClickHouse has of the runs: the same as the API, also when ClickHouse was away for a while.

use std::{collections::BTreeMap, time::Duration};

use reipaz_tests::{
    host::{Host, Settings},
    upstream::Upstream,
    wait,
    workflows::{CALL, COUNT},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// How long a row may take here; the promise of 1 s is for a machine that does nothing else (`latency.rs` holds it).
const ROWS_WITHIN: Duration = Duration::from_secs(30);

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_stand_in_clickhouse_as_in_the_api() {
    // Given completed and failed runs.
    let upstream = Upstream::start(|_| async { http::StatusCode::NOT_FOUND }).await;
    let host = Host::start(Settings::new().with_clickhouse()).await;
    host.client().must_publish(COUNT).await;
    host.client().must_publish(CALL).await;
    let mut runs = Vec::new();
    for n in 0..10 {
        runs.push(host.client().run("count", &json!({"n": n})).await);
    }
    runs.push(host.client().run("call", &json!({"url": upstream.url("/")})).await);

    // When their rows have come.
    let enough = |rows: &[Value]| rows.len() == 11;
    let rows =
        host.sql_until("SELECT * FROM runs WHERE status IN ('completed', 'failed')", ROWS_WITHIN, enough);
    let rows = rows.await;

    // Then they say what the API says, of the run and of each attempt.
    let by_id: BTreeMap<&str, &Value> = rows.iter().map(|row| (text(&row["run"]), row)).collect();
    for run in &runs {
        let row = by_id[text(&run["id"])];
        assert_eq!((&row["workflow"], &row["status"]), (&run["workflow"], &run["status"]));
        assert_eq!(serde_json::from_str::<Value>(text(&row["input"])).expect("JSON"), run["input"]);
        if run["status"] == "completed" {
            assert_eq!(serde_json::from_str::<Value>(text(&row["output"])).expect("JSON"), run["output"]);
        } else {
            assert_eq!(row["error_class"], run["error"]["class"], "{row}");
            assert_eq!(row["error_code"], run["error"]["code"], "{row}");
        }
    }
    let attempts = "SELECT run, step, status, output FROM attempts";
    let attempts = host.sql_until(attempts, ROWS_WITHIN, |rows| rows.len() == 31).await;
    for run in &runs {
        for attempt in attempts.iter().filter(|attempt| attempt["run"] == run["id"]) {
            let step = &run["steps"][text(&attempt["step"])];
            assert_eq!(attempt["status"], step["status"]);
            if step["status"] == "completed" {
                assert_eq!(
                    serde_json::from_str::<Value>(text(&attempt["output"])).expect("JSON"),
                    step["output"]
                );
            }
        }
    }
    let numbers = host.sql("SELECT sum(toInt64(output)) AS sum FROM runs WHERE workflow = 'count'").await;
    let sum = numbers[0]["sum"].as_i64().or_else(|| text(&numbers[0]["sum"]).parse().ok());
    assert_eq!(sum, Some((0..10).map(|n| n + 3).sum()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clickhouse_that_dies_comes_back_and_catches_up() {
    // Given a host whose ClickHouse has taken rows.
    let host = Host::start(Settings::new().with_clickhouse()).await;
    host.client().must_publish(COUNT).await;
    for n in 0..5 {
        host.client().run("count", &json!({"n": n})).await;
    }
    let completed = "SELECT run FROM runs WHERE status = 'completed'";
    host.sql_until(completed, ROWS_WITHIN, |rows| rows.len() == 5).await;

    // When its process is killed, and runs go on.
    let child = clickhouse_child(host.pid()).expect("ClickHouse is a child of the host");
    kill_process(child, Signal::KILL).expect("it can be killed");
    for n in 5..10 {
        let run = host.client().run("count", &json!({"n": n})).await;
        assert_eq!(run["output"], n + 3, "{run}");
    }

    // Then the host starts it again, and every run is there once.
    let rows = host.sql_until(completed, Duration::from_secs(60), |rows| rows.len() >= 10).await;
    assert_eq!(rows.len(), 10);
    let again = clickhouse_child(host.pid()).expect("a new child");
    assert_ne!(again, child);
}

/// The host's child process that runs ClickHouse.
fn clickhouse_child(host: u32) -> Option<Pid> {
    let processes = std::fs::read_dir("/proc").expect("/proc");
    let mut children =
        processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok()).filter(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            status.lines().any(|line| {
                line.strip_prefix("PPid:").is_some_and(|parent| parent.trim() == host.to_string())
            }) && String::from_utf8_lossy(&command).contains("internal-clickhouse")
        });
    children.next().and_then(Pid::from_raw)
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_after_a_restart_too() {
    // Given runs whose rows never came, because the host had no ClickHouse then.
    let mut host = Host::plain().await;
    host.client().must_publish(COUNT).await;
    for n in 0..5 {
        host.client().run("count", &json!({"n": n})).await;
    }
    host.kill();

    // When it is started again with one.
    host.change(|_| Settings::new().with_clickhouse());
    host.start_again().await;

    // Then they come.
    let rows = host.sql_until("SELECT output FROM runs", ROWS_WITHIN, |rows| rows.len() >= 5).await;
    assert_eq!(rows.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_reads_and_does_not_write() {
    let host = Host::start(Settings::new().with_clickhouse()).await;
    host.clickhouse_ready().await;
    for statement in
        ["DROP TABLE runs", "INSERT INTO runs (workflow) VALUES ('x')", "SELEC 1", "SELECT nothing FROM runs"]
    {
        let output = host.cli().run(&["sql", statement]).await;
        assert!(!output.status.success(), "{statement}: {}", output.stdout);
        assert!(!output.stderr.is_empty(), "{statement}");
    }
    let rows = wait::until("an answer", ROWS_WITHIN, || async {
        let output = host.cli().run(&["sql", "SELECT 1 + 1 AS two", "--format", "JSONEachRow"]).await;
        output.status.success().then_some(output.stdout)
    })
    .await;
    assert_eq!(rows.trim(), "{\"two\":2}");
}
