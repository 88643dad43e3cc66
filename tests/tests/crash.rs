//! Hosts that die: no accepted run is lost, none ends twice, no effect is repeated more often than it must be, an
//! attempt that is executed again sees what it saw, and a step that kills its host cannot do so for ever.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use http::StatusCode;
use reipaz_tests::{
    client::{is_terminal, of_type},
    host::{Host, Settings},
    journal, scaffold,
    upstream::{Call, Upstream},
    wait,
    workflows::CALL,
};
use serde_json::{Value, json};

/// How many runs are submitted before the host is killed.
const RUNS: usize = 300;
/// How many of them must be in flight then.
const IN_FLIGHT: usize = 150;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_host_loses_no_accepted_run_and_ends_none_twice() {
    // Given a server that answers after 1 to 5 s, and 300 runs that call it.
    let upstream = Upstream::start(|call: Call| async move {
        tokio::time::sleep(Duration::from_millis(1000 + (call.number as u64 * 7919) % 4000)).await;
        axum::Json(json!({"served": call.header("idempotency-key")}))
    })
    .await;
    let mut host = Host::start(Settings::new().with_clickhouse()).await;
    host.client().must_publish(CALL).await;
    let url = upstream.url("/work");
    let submit = |n: usize| {
        let (client, url) = (host.client().clone(), url.clone());
        async move {
            let body = json!({"input": {"url": url, "n": n}});
            let key = format!("crash-{n}");
            let answer =
                client.post_with("/v1/workflows/call/runs", &[("idempotency-key", &key)], &body).await;
            answer.expect(202).json()["id"].as_str().expect("an id").to_owned()
        }
    };
    let accepted: BTreeSet<String> = stream::iter(0..RUNS).map(submit).buffer_unordered(32).collect().await;
    assert_eq!(accepted.len(), RUNS, "each key is a run of its own");

    // When it is killed while at least 150 of them are in a step, and started again.
    wait::until("150 calls under way", Duration::from_secs(20), || async {
        (upstream.under_way() >= IN_FLIGHT).then_some(())
    })
    .await;
    host.kill();
    host.start_again().await;

    // Then each completes, and says so exactly once over HTTP,
    let mut interrupted = 0;
    for id in &accepted {
        let run = host.client().finished(id, Duration::from_secs(120)).await;
        assert_eq!(run["status"], "completed", "{run}");
        let events = host.client().events(id).await;
        assert_eq!(of_type(&events, "run_finished").len(), 1, "{events:?}");
        interrupted += of_type(&events, "attempt_interrupted").len();
    }
    assert!(interrupted >= IN_FLIGHT, "{interrupted} attempts were in flight");

    // in ClickHouse,
    let finished = "SELECT run, count() AS ends FROM events WHERE type = 'run_finished' GROUP BY run";
    let ends = host.sql_until(finished, Duration::from_secs(30), |rows| rows.len() >= RUNS).await;
    let ended: BTreeMap<&str, u64> =
        ends.iter().map(|row| (text(&row["run"]), number(&row["ends"]))).collect();
    assert_eq!(ended.len(), RUNS);
    assert!(accepted.iter().all(|id| ended.get(id.as_str()) == Some(&1)), "{ended:?}");
    let rows = host.sql("SELECT run, status FROM runs").await;
    assert_eq!(rows.len(), RUNS);
    assert!(rows.iter().all(|row| row["status"] == "completed"));

    // and in the journal,
    host.stop().await;
    let ends = journal::terminal_events(&host.data_dir()).await;
    assert_eq!(ends.len(), RUNS);
    assert!(accepted.iter().all(|id| ends.get(id) == Some(&1)), "{ends:?}");

    // and the server was called at most once more for each attempt that was in flight.
    let calls = upstream.calls_by_key();
    let keys: BTreeSet<String> = accepted.iter().map(|id| format!("{id}/call")).collect();
    assert_eq!(
        calls.keys().cloned().collect::<BTreeSet<_>>(),
        keys,
        "the key is the run and the step, on each attempt"
    );
    let extra: usize = calls.values().map(|count| count - 1).sum();
    assert!(extra <= interrupted, "{extra} extra calls for {interrupted} interrupted attempts");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_attempt_sees_the_same_clock_and_randomness_after_a_crash() {
    // Given a step that tells the outside world, twice, what its clock and its randomness say, and whose first caller
    // never gets an answer to the second.
    let upstream = Upstream::start(|call: Call| async move {
        if call.number == 1 {
            std::future::pending::<()>().await;
        }
        StatusCode::NO_CONTENT
    })
    .await;
    let witness = scaffold::component("witness").await;
    let mut host = Host::plain().await;
    let grant = format!("http=POST {}", upstream.address());
    let path = witness.to_str().expect("UTF-8");
    host.cli().run(&["plugin", "install", path, "--grant", &grant]).await.success();
    let document = "
reipaz: 1
name: watch
steps:
  look: {uses: witness@1, with: {url: '${ $input.url }'}}
";
    host.client().must_publish(document).await;
    let id = host.client().submit("watch", &json!({"url": upstream.url("/seen")})).await;

    // When the host dies in the middle of the attempt, and another takes over.
    wait::until("the second call", Duration::from_secs(20), || async {
        (upstream.calls().len() == 2).then_some(())
    })
    .await;
    host.kill();
    host.start_again().await;
    let run = host.client().finished(&id, Duration::from_secs(60)).await;

    // Then the attempt, which keeps its number, saw the same both times.
    assert_eq!(run["status"], "completed", "{run}");
    assert_eq!(run["steps"]["/look"]["attempts"], 1, "{run}");
    let seen: Vec<Value> = upstream.calls().iter().map(Call::json).collect();
    assert_eq!(seen.len(), 4, "two before, two after: {seen:?}");
    assert_eq!(seen[0], seen[2], "the first look");
    assert_eq!(seen[1], seen[3], "the second look");
    assert_ne!(seen[0]["random"], seen[1]["random"], "randomness goes on within an attempt");
    let events = host.client().events(&id).await;
    assert_eq!(of_type(&events, "attempt_interrupted").len(), 1, "{events:?}");
    assert_eq!(of_type(&events, "attempt_started")[0]["attempt"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_kills_its_host_is_given_up() {
    // Given a host that dies whenever the step `fatal` begins, and comes back each time.
    let document = "
reipaz: 1
name: fatal
steps:
  fatal: {uses: transform@1, with: {data: 1, filter: '.'}}
";
    let mut host = Host::start(Settings::new().with_env("REIPAZ_FAULT", "abort_on_step:fatal")).await;
    host.client().must_publish(document).await;

    // When it is started again until it stays.
    let mut deaths = 0;
    let run = loop {
        let Some(run) = ended_before_host(&mut host).await else {
            deaths += 1;
            assert!(deaths <= 10, "the step was never given up");
            host.spawn();
            continue;
        };
        break run;
    };

    // Then the run failed as class `host` after the bound, and the host goes on with other work.
    assert_eq!(run["status"], "failed", "{run}");
    assert_eq!(run["error"]["class"], "host", "{run}");
    assert_eq!(run["error"]["step"], "/fatal", "{run}");
    assert!((2..=8).contains(&deaths), "{deaths} deaths");
    host.client().must_publish(reipaz_tests::workflows::COUNT).await;
    let other = host.client().run("count", &json!({"n": 1})).await;
    assert_eq!(other["output"], 4, "{other}");
}

/// The run of the workflow `fatal`, once it is terminal; `None` if the host died first. It is submitted under one key
/// again and again, because the host may die before it has accepted it.
async fn ended_before_host(host: &mut Host) -> Option<Value> {
    let client = host.client().clone();
    let run = async {
        let headers =
            [("content-type", "application/json"), ("idempotency-key", "once"), ("prefer", "wait=8")];
        loop {
            let path = "/v1/workflows/fatal/runs";
            if let Ok(answer) = client.try_send(http::Method::POST, path, &headers, r#"{"input": {}}"#).await
                && answer.status.is_success()
                // The host may die in the middle of its answer.
                && let Ok(run) = serde_json::from_slice(&answer.body)
                && is_terminal(&run)
            {
                break run;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        run = run => Some(run),
        status = host.ended(Duration::from_secs(90)) => {
            assert!(!status.success(), "the host stopped by itself");
            None
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// ClickHouse writes 64-bit numbers as JSON strings.
fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_else(|| panic!("no number: {value}"))
}
