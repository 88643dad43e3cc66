//! Promises about time. These tests run one at a time, so that they measure the host and not each other.

use std::{
    collections::HashSet,
    sync::Mutex,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use http::{StatusCode, header};
use reipaz_tests::{
    host::{Host, Settings},
    time,
    upstream::{Call, Upstream},
    workflows::{CALL, COUNT},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// How many clients wait at one time.
const WAITERS: usize = 2_000;
/// How late the answer may come after the end of the run.
const LATE_P99: Duration = Duration::from_millis(50);
/// A time in which all wait and nothing ends.
const IDLE_WINDOW: Duration = Duration::from_secs(4);
/// How long a row may take to be visible in ClickHouse.
const ROW_WITHIN: Duration = Duration::from_secs(1);
/// What share of one core the host may use while everybody waits.
const IDLE_SHARE: f64 = 0.10;

#[tokio::test(flavor = "multi_thread")]
async fn independent_steps_overlap() {
    // Given two steps of one second each that know nothing of each other, and one that needs both.
    let upstream = Upstream::start(|_| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        "done"
    })
    .await;
    let document = "
reipaz: 1
name: both
steps:
  left: {uses: http_request@1, with: {url: '${ $input.url }?left'}}
  right: {uses: http_request@1, with: {url: '${ $input.url }?right'}}
  join: {uses: transform@1, needs: [left, right], with: {data: 1, filter: '.'}}
";
    let host = Host::plain().await;
    host.client().must_publish(document).await;

    // When they run.
    let run = host.client().run("both", &json!({"url": upstream.url("/")})).await;

    // Then each starts before the other ends, and the third after both.
    assert_eq!(run["status"], "completed", "{run}");
    let at = |step: &str, key: &str| time(&run["steps"][step][key]);
    assert!(at("/left", "started_at") < at("/right", "finished_at"), "{run}");
    assert!(at("/right", "started_at") < at("/left", "finished_at"), "{run}");
    let joined = at("/join", "started_at");
    assert!(joined >= at("/left", "finished_at") && joined >= at("/right", "finished_at"), "{run}");
    let whole = time(&run["finished_at"]) - time(&run["created_at"]);
    assert!(whole < Duration::from_millis(1_800), "two seconds' work took {whole:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_waiters_wake_when_their_runs_end() {
    // Given a server that asks each run's first attempt to come again after 16 s,
    let seen = Mutex::new(HashSet::new());
    let upstream = Upstream::start(move |call: Call| {
        let first = seen.lock().expect("not poisoned").insert(call.header("idempotency-key").to_owned());
        async move {
            let status = if first { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
            (status, [(header::RETRY_AFTER, "16")])
        }
    })
    .await;
    // a host without circuit breakers (one would hold the runs back from a server that fails so often),
    let host = Host::start(Settings::new().with_config("[breakers]\nenabled = false")).await;
    host.client().must_publish(CALL).await;
    let url = upstream.url("/");

    // and 2,000 runs, submitted over 10 s, with a client each that waits for the end in one request.
    let mut waiting = JoinSet::new();
    let mut pace = tokio::time::interval(Duration::from_secs(10) / u32::try_from(WAITERS).expect("few"));
    for n in 0..WAITERS {
        pace.tick().await;
        let (client, input) = (host.client().clone(), json!({"url": url, "n": n}));
        waiting.spawn(async move {
            let id = client.submit("call", &input).await;
            let answer = client.get_waiting(&format!("/v1/runs/{id}"), 30).await;
            (answer, SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970"))
        });
    }
    let cpu_before = host.cpu_time();
    tokio::time::sleep(IDLE_WINDOW).await;
    let cpu = host.cpu_time() - cpu_before;

    // When the runs end.
    let mut late: Vec<Duration> = Vec::new();
    while let Some(answered) = waiting.join_next().await {
        let (answer, at) = answered.expect("no waiter panicked");
        let run = answer.expect(200).json();
        assert_eq!(run["status"], "completed", "woken by the end and by nothing else: {run}");
        late.push(at.saturating_sub(time(&run["finished_at"])));
    }

    // Then each client has its answer at once, and nobody asked around meanwhile.
    late.sort_unstable();
    let p99 = late[late.len() * 99 / 100];
    println!(
        "{WAITERS} waiters: p50 {:?}, p99 {p99:?}; the host used {cpu:?} of {IDLE_WINDOW:?}",
        late[WAITERS / 2]
    );
    assert_eq!(late.len(), WAITERS);
    assert!(p99 <= LATE_P99, "p99 {p99:?}");
    let share = cpu.as_secs_f64() / IDLE_WINDOW.as_secs_f64();
    assert!(share <= IDLE_SHARE, "the host used {share:.2} of a core while everybody waited");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_visible_within_a_second() {
    // Given a host whose ClickHouse is up and has taken its first rows.
    let host = Host::start(Settings::new().with_clickhouse()).await;
    host.clickhouse_ready().await;
    host.client().must_publish(COUNT).await;
    let query = |run: &Value| {
        let id = run["id"].as_str().expect("an id");
        format!("SELECT run FROM runs WHERE run = '{id}' AND status = 'completed'")
    };
    let first = host.client().run("count", &json!({"n": 0})).await;
    host.sql_until(&query(&first), Duration::from_secs(30), |rows| !rows.is_empty()).await;

    // When runs end one after another, then each is in ClickHouse a second later.
    let mut slowest = Duration::ZERO;
    for n in 1..=20 {
        let run = host.client().run("count", &json!({"n": n})).await;
        let begin = Instant::now();
        host.sql_until(&query(&run), Duration::from_secs(30), |rows| !rows.is_empty()).await;
        slowest = slowest.max(begin.elapsed());
    }
    println!("the slowest of 20 rows took {slowest:?}");
    assert!(slowest <= ROW_WITHIN, "{slowest:?}");
}
