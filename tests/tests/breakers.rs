//! Circuit breakers: a server that fails is left alone, steps wait for it, and go on when it is back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use axum::http::StatusCode;
use reipaz_tests::{
    host::{Host, Settings},
    upstream::Upstream,
    wait,
};
use serde_json::{Value, json};

const CALL: &str = "reipaz: 1
name: call
steps:
  call:
    uses: http_request@1
    with: {url: '${ $input }'}
    retry: {attempts: 20, base: 50ms, jitter: none}
output: '${ $steps.call.output.status }'
";
const BREAKERS: &str = "[breakers]\nfailures = 5\nopen_for = \"1s\"\nopen_for_max = \"1s\"\nprobes = 1";
const PATIENCE: Duration = Duration::from_secs(20);

/// A server whose status can be changed.
async fn server() -> (Upstream, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(503));
    let given = Arc::clone(&status);
    let upstream = Upstream::start(move |_| {
        let status = StatusCode::from_u16(given.load(Ordering::Relaxed)).expect("a status");
        async move { status }
    })
    .await;
    (upstream, status)
}

async fn breaker(host: &Host, kind: &str) -> Value {
    let all = host.client().get("/v1/breakers").await.expect(200).json();
    let found = all["breakers"].as_array().expect("a list").iter().find(|breaker| breaker["kind"] == kind);
    found.cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_wait_for_an_authority_that_fails_and_go_on_when_it_is_back() {
    // Given a run that finds out that the server fails.
    let (upstream, status) = server().await;
    let alerts = "[alerts]\npattern_failures = 1000";
    let mut host = Host::start(Settings::new().with_config(BREAKERS).with_config(alerts)).await;
    host.client().must_publish(CALL).await;
    let url = json!(upstream.url("/"));
    let first = host.client().submit("call", &url).await;
    wait::until("an open breaker", PATIENCE, || async {
        (breaker(&host, "authority").await["state"] == "open").then_some(())
    })
    .await;
    assert_eq!(upstream.calls().len(), 5, "5 failures open it");

    // When more are submitted, none of them fails, and each says what it waits for.
    let mut waiting = vec![first];
    for _ in 0..20 {
        waiting.push(host.client().submit("call", &url).await);
    }
    let path = format!("/v1/runs/{}", waiting[20]);
    let parked = wait::until("a parked step", PATIENCE, || async {
        let step = host.client().get(&path).await.expect(200).json()["steps"]["/call"].clone();
        (step["waiting_for"]["type"] == "breaker").then_some(step)
    })
    .await;
    let authority = upstream.url("").trim_end_matches('/').to_owned();
    assert_eq!(parked["waiting_for"]["breaker"], format!("authority {authority}"), "{parked}");
    assert_eq!((&parked["status"], &parked["error"]), (&json!("waiting"), &Value::Null));
    // The plugin is not to blame.
    assert_eq!(breaker(&host, "plugin").await["state"], "closed");

    // The server is left alone but for a probe now and then: whatever waits, about one a second.
    let before = upstream.calls().len();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let probes = upstream.calls().len() - before;
    assert!((1..=6).contains(&probes), "{probes} calls in 4 s");
    let metrics = host.client().get("/metrics").await.expect(200).text();
    assert!(metrics.contains("reipaz_breaker_state{kind=\"authority\""), "{metrics}");
    let firing = host.client().get("/v1/alerts").await.expect(200).json();
    assert!(
        firing["firing"].as_array().is_some_and(|all| all.iter().any(|it| it["kind"] == "breaker")),
        "{firing}"
    );

    // A crash changes nothing for those that wait. Back again, the server gets its calls, and every run ends well.
    host.kill();
    host.start_again().await;
    status.store(200, Ordering::Relaxed);
    for id in &waiting {
        let run = host.client().finished(id, PATIENCE).await;
        assert_eq!((&run["status"], &run["output"]), (&json!("completed"), &json!(200)), "{run}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_opens_and_closes_a_breaker() {
    let (upstream, status) = server().await;
    status.store(200, Ordering::Relaxed);
    let host = Host::start(Settings::new().with_config(BREAKERS)).await;
    host.client().must_publish(CALL).await;
    let which = json!({"kind": "authority", "name": upstream.url("")});
    let opened = host.client().post("/v1/breakers/open", &which).await.expect(200).json();
    assert_eq!(
        (&opened["breakers"][0]["state"], &opened["breakers"][0]["held"]),
        (&json!("open"), &json!(true))
    );

    // It stays open however long, and closes at once.
    let id = host.client().submit("call", &json!(upstream.url("/"))).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let run = host.client().get(&format!("/v1/runs/{id}")).await.expect(200).json();
    assert_eq!(run["steps"]["/call"]["waiting_for"]["type"], "breaker", "{run}");
    assert!(upstream.calls().is_empty());
    host.client().post("/v1/breakers/close", &which).await.expect(200);
    assert_eq!(host.client().finished(&id, PATIENCE).await["status"], "completed");

    // What is no breaker is refused in words.
    for (wrong, words) in [
        (json!({"kind": "authority", "name": "shop"}), "https://shop.example:443"),
        (json!({"kind": "plugin", "name": "http_request"}), "acme/score@1.2.0 in orders"),
        (json!({"kind": "host", "name": "x"}), "unknown variant"),
    ] {
        let answer = host.client().post("/v1/breakers/open", &wrong).await;
        let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
        assert_eq!(answer.problem(400), "malformed-body");
        assert!(detail.contains(words), "{detail}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_waits_no_longer_than_its_rule_would_have_it_tried_again() {
    let (upstream, _) = server().await;
    let host = Host::start(Settings::new().with_config(BREAKERS)).await;
    host.client().must_publish(&CALL.replace("attempts: 20", "attempts: 20, within: 2s")).await;
    let which = json!({"kind": "authority", "name": upstream.url("")});
    host.client().post("/v1/breakers/open", &which).await.expect(200);
    let id = host.client().submit("call", &json!(upstream.url("/"))).await;
    let run = host.client().finished(&id, PATIENCE).await;
    assert_eq!(
        (&run["error"]["class"], &run["error"]["code"]),
        (&json!("network"), &json!("breaker_open")),
        "{run}"
    );
    assert!(upstream.calls().is_empty());
}
