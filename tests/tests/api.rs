//! The HTTP API as its clients know it: what is answered when, with which headers, in which order.

use std::{collections::BTreeSet, time::Duration};

use http::{Method, StatusCode};
use reipaz_tests::{
    client::{of_type, seq},
    host::{Host, Settings},
    upstream::{Call, Upstream},
    wait,
    workflows::{CALL, COUNT},
};
use serde_json::{Value, json};

fn id(run: &Value) -> &str {
    run["id"].as_str().unwrap_or_else(|| panic!("no id in {run}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_is_answered_at_once_or_with_the_end() {
    let host = Host::plain().await;
    host.client().must_publish(COUNT).await;
    let runs = "/v1/workflows/count/runs";
    let input = json!({"input": {"n": 1}});

    let accepted = host.client().post(runs, &input).await.expect(202);
    let run = accepted.json();
    assert_eq!(accepted.header("location"), format!("/v1/runs/{}", id(&run)));
    host.client().get(accepted.header("location")).await.expect(200);

    let done = host.client().post_with(runs, &[("prefer", "wait=10")], &input).await.expect(200);
    assert_eq!(done.header("preference-applied"), "wait=10");
    let run = done.json();
    assert_eq!(
        (&run["status"], &run["output"], &run["error"]),
        (&json!("completed"), &json!(4), &Value::Null)
    );
    for key in
        ["id", "workflow", "version", "seq", "input", "steps", "created_at", "started_at", "finished_at"]
    {
        assert!(!run[key].is_null(), "{key} is missing: {run}");
    }
    let step = &run["steps"]["/second"];
    assert_eq!(
        (&step["status"], &step["attempts"], &step["output"]),
        (&json!("completed"), &json!(1), &json!(3))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_run_is_an_answer_too() {
    let upstream = Upstream::start(|_| async { (StatusCode::NOT_FOUND, "nobody is here") }).await;
    let host = Host::plain().await;
    host.client().must_publish(CALL).await;
    let body = json!({"input": {"url": upstream.url("/")}});
    let answer =
        host.client().post_with("/v1/workflows/call/runs", &[("prefer", "wait=10")], &body).await.expect(200);
    let run = answer.json();
    assert_eq!(run["status"], "failed", "{run}");
    let error = &run["error"];
    assert_eq!((&error["class"], &error["code"]), (&json!("permanent"), &json!("http_404")), "{run}");
    assert_eq!((&error["step"], &error["attempt"]), (&json!("/call"), &json!(1)), "{run}");
    assert_eq!(upstream.calls().len(), 1, "a permanent failure is not tried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn transient_failures_are_tried_again_and_said_to_be_waiting() {
    // Given a server that refuses once with a Retry-After of 2 s.
    let upstream = Upstream::start(|call: Call| async move {
        let status = if call.number == 0 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
        (status, [("retry-after", "2")], "{\"fine\": true}")
    })
    .await;
    let host = Host::plain().await;
    host.client().must_publish(CALL).await;
    let run = host.client().submit("call", &json!({"url": upstream.url("/")})).await;

    // When it waits, then the run says for what and until when.
    let waiting = wait::until("the retry", Duration::from_secs(10), || async {
        let run = host.client().get(&format!("/v1/runs/{run}")).await.json();
        (run["status"] == "waiting").then_some(run)
    })
    .await;
    let what = &waiting["steps"]["/call"]["waiting_for"];
    assert_eq!(what["type"], "retry", "{waiting}");
    assert!(what["due"].is_string(), "{waiting}");

    // And it succeeds in the second attempt, not before it was due, with the same key.
    let done = host.client().finished(&run, Duration::from_secs(20)).await;
    assert_eq!(done["status"], "completed", "{done}");
    let calls = upstream.calls();
    assert!(calls[1].at - calls[0].at >= Duration::from_secs(2));
    assert_eq!(calls[0].header("idempotency-key"), calls[1].header("idempotency-key"));
    let events = host.client().events(&run).await;
    let retry = of_type(&events, "retry_scheduled")[0];
    assert_eq!((&retry["reason"], &retry["code"]), (&json!("retry_after"), &json!("http_503")), "{retry}");
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_listed_in_pages_newest_first() {
    let host = Host::plain().await;
    host.client().must_publish(COUNT).await;
    let mut started = Vec::new();
    for n in 0..25 {
        started.push(host.client().submit("count", &json!({"n": n})).await);
    }
    let mut listed: Vec<Value> = Vec::new();
    let mut page = "/v1/runs?workflow=count&limit=10".to_owned();
    let mut pages = 0;
    loop {
        let answer = host.client().get(&page).await.expect(200).json();
        listed.extend(answer["runs"].as_array().expect("runs").iter().cloned());
        pages += 1;
        match answer["next"].as_str() {
            Some(next) => page = format!("/v1/runs?workflow=count&limit=10&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(pages, 3);
    let ids: Vec<&str> = listed.iter().map(id).collect();
    let newest_first: Vec<&str> = started.iter().rev().map(String::as_str).collect();
    assert_eq!(ids, newest_first);

    wait::until("all to end", Duration::from_secs(20), || async {
        let answer = host.client().get("/v1/runs?status=completed&limit=100").await.expect(200).json();
        (answer["runs"].as_array().expect("runs").len() == 25).then_some(())
    })
    .await;
    let running = host.client().get("/v1/runs?status=running&status=pending").await.expect(200).json();
    assert_eq!(running["runs"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_can_be_cancelled_and_retried() {
    // Given a run in a step that hangs the first time.
    let upstream = Upstream::start(|call: Call| async move {
        if call.number == 0 {
            std::future::pending::<()>().await;
        }
        "done"
    })
    .await;
    let host = Host::plain().await;
    host.client().must_publish(CALL).await;
    let run = host.client().submit("call", &json!({"url": upstream.url("/")})).await;
    wait::until("the call", Duration::from_secs(10), || async { (upstream.under_way() == 1).then_some(()) })
        .await;

    // When it is cancelled, then it ends as such and its attempt is broken off.
    let cancel = format!("/v1/runs/{run}/cancel");
    assert!(host.client().post(&cancel, &json!({"reason": "changed my mind"})).await.status.is_success());
    let cancelled = host.client().finished(&run, Duration::from_secs(10)).await;
    assert_eq!(cancelled["status"], "cancelled", "{cancelled}");
    wait::until("the end of the call", Duration::from_secs(10), || async {
        (upstream.under_way() == 0).then_some(())
    })
    .await;
    let again = host.client().post(&cancel, &json!({})).await;
    assert!(again.status.is_success(), "cancelling what is cancelled changes nothing: {again:?}");
    let resume = format!("/v1/runs/{run}/resume");
    assert_eq!(host.client().post(&resume, &json!({})).await.problem(409), "wrong-status");

    // And when it is retried, then it goes on and completes.
    assert!(host.client().post(&format!("/v1/runs/{run}/retry"), &json!({})).await.status.is_success());
    let done = host.client().finished(&run, Duration::from_secs(20)).await;
    assert_eq!(done["status"], "completed", "{done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_run_starts_nothing_until_it_is_resumed() {
    let upstream = Upstream::start(|_| async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        "done"
    })
    .await;
    let host = Host::plain().await;
    host.client().must_publish(&reipaz_tests::workflows::chain("two", 2)).await;
    let run = host.client().submit("two", &json!({"url": upstream.url("/")})).await;
    wait::until("the call", Duration::from_secs(10), || async { (upstream.under_way() == 1).then_some(()) })
        .await;
    assert!(host.client().post(&format!("/v1/runs/{run}/pause"), &json!({})).await.status.is_success());

    // The first call ends; the second step waits for somebody to resume.
    let paused = wait::until("the first step", Duration::from_secs(10), || async {
        let run = host.client().get(&format!("/v1/runs/{run}")).await.json();
        (run["steps"]["/call_0"]["status"] == "completed").then_some(run)
    })
    .await;
    assert_eq!(paused["status"], "paused", "{paused}");
    assert_eq!(paused["steps"]["/call_1"]["waiting_for"]["type"], "resume", "{paused}");
    assert_eq!(upstream.calls().len(), 1);

    assert!(host.client().post(&format!("/v1/runs/{run}/resume"), &json!({})).await.status.is_success());
    let done = host.client().finished(&run, Duration::from_secs(20)).await;
    assert_eq!(done["status"], "completed", "{done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skipped_step_says_why_and_takes_its_dependents_along() {
    let host = Host::plain().await;
    let document = "
reipaz: 1
name: branch
steps:
  big: {uses: transform@1, if: $input.n > 10, with: {data: big, filter: '.'}}
  after: {uses: transform@1, with: {data: '${ $steps.big.output }', filter: '.'}}
  small: {uses: transform@1, if: $input.n <= 10, with: {data: small, filter: '.'}}
output: {big: '${ $steps.after.output }', small: '${ $steps.small.output }'}
";
    host.client().must_publish(document).await;
    let small = host.client().run("branch", &json!({"n": 1})).await;
    assert_eq!(small["output"], json!({"big": null, "small": "small"}), "{small}");
    assert_eq!(small["steps"]["/big"]["status"], "skipped", "{small}");
    assert_eq!(small["steps"]["/after"]["status"], "skipped", "{small}");
    let big = host.client().run("branch", &json!({"n": 11})).await;
    assert_eq!(big["output"], json!({"big": "big", "small": null}), "{big}");
}

#[tokio::test(flavor = "multi_thread")]
async fn identical_content_is_the_same_version_and_a_run_keeps_its_own() {
    let host = Host::plain().await;
    let first = host.client().must_publish(COUNT).await;
    assert_eq!((&first["version"], &first["created"]), (&json!(1), &json!(true)), "{first}");
    let again = host.client().must_publish(&format!("# a comment\n{COUNT}ui: {{x: 1}}\n")).await;
    assert_eq!((&again["version"], &again["created"]), (&json!(1), &json!(false)), "{again}");
    assert_eq!(again["digest"], first["digest"]);
    let second = host.client().must_publish(&COUNT.replace("'. + 1'", "'. + 10'")).await;
    assert_eq!(second["version"], 2, "{second}");

    let old = json!({"input": {"n": 1}, "version": 1});
    let runs = "/v1/workflows/count/runs";
    let old = host.client().post_with(runs, &[("prefer", "wait=10")], &old).await.expect(200).json();
    assert_eq!((&old["version"], &old["output"]), (&json!(1), &json!(4)), "{old}");
    let new = host.client().run("count", &json!({"n": 1})).await;
    assert_eq!((&new["version"], &new["output"]), (&json!(2), &json!(31)), "{new}");

    let view = host.client().get("/v1/workflows/count").await.expect(200).json();
    assert_eq!((&view["version"], &view["versions"]), (&json!(2), &json!([1, 2])), "{view}");
    let version = host.client().get("/v1/workflows/count/versions/1").await.expect(200).json();
    assert_eq!(version["document"]["name"], "count", "{version}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_standard_plugins_are_inside() {
    let host = Host::plain().await;
    let plugins = host.client().get("/v1/plugins").await.expect(200).json();
    let plugins = plugins["plugins"].as_array().expect("plugins").clone();
    let names: BTreeSet<&str> = plugins.iter().filter_map(|plugin| plugin["name"].as_str()).collect();
    assert!(names.is_superset(&BTreeSet::from(["csv", "http_request", "transform"])), "{names:?}");
    for plugin in &plugins {
        assert!(plugin["input_schema"].is_object(), "{plugin}");
        assert_eq!(plugin["standard"], true, "{plugin}");
    }
    let silent =
        |name: &str| plugins.iter().find(|plugin| plugin["name"] == name).map(|p| p["silent"].clone());
    assert_eq!(silent("transform"), Some(json!(true)));
    assert_eq!(silent("http_request"), Some(json!(false)), "it has a grant here");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_survives_a_restart() {
    let mut host = Host::plain().await;
    host.client().must_publish(COUNT).await;
    let before = host.client().run("count", &json!({"n": 1})).await;
    let events = host.client().events(id(&before)).await;
    host.stop().await;
    host.start_again().await;
    let after = host.client().get(&format!("/v1/runs/{}", id(&before))).await.expect(200).json();
    assert_eq!(after, before);
    assert_eq!(host.client().events(id(&before)).await, events);
    assert_eq!(
        host.client().run("count", &json!({"n": 2})).await["output"],
        5,
        "the workflow is still there"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_host_says_of_itself() {
    let host = Host::plain().await;
    host.client().get("/healthz").await.expect(200);
    let ready = host.client().get("/readyz").await.expect(200).json();
    assert_eq!(ready["ready"], true, "{ready}");
    let openapi = host.client().get("/openapi.json").await.expect(200).json();
    assert!(openapi["openapi"].as_str().is_some_and(|version| version.starts_with("3.")), "{openapi}");
    for path in
        ["/v1/workflows", "/v1/workflows/{name}/runs", "/v1/runs/{id}", "/v1/runs/{id}/events", "/v1/plugins"]
    {
        assert!(openapi["paths"][path].is_object(), "{path} is not described");
    }
    assert!(host.client().get("/metrics").await.expect(200).text().contains("# TYPE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_of_an_allowed_origin_sees_the_headers_it_needs() {
    let host = Host::start(Settings::new().with_config("cors_origins = ['https://shop.example']")).await;
    let origin = ("origin", "https://shop.example");
    let asked =
        [origin, ("access-control-request-method", "POST"), ("access-control-request-headers", "prefer")];
    let preflight = host.client().send(Method::OPTIONS, "/v1/workflows/x/runs", &asked, "").await;
    assert!(preflight.status.is_success(), "{}", preflight.text());
    assert_eq!(preflight.header("access-control-allow-origin"), "https://shop.example");
    let answer = host.client().send(Method::GET, "/v1/runs", &[origin], "").await.expect(200);
    let exposed = answer.header("access-control-expose-headers").to_lowercase();
    for name in ["location", "preference-applied", "retry-after"] {
        assert!(exposed.contains(name), "{name} is not exposed: {exposed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_can_be_read_in_parts() {
    let host = Host::plain().await;
    host.client().must_publish(COUNT).await;
    let run = host.client().run("count", &json!({"n": 1})).await;
    let all = host.client().events(id(&run)).await;
    assert_eq!(all[0]["type"], "run_accepted");
    assert_eq!(all.last().expect("events")["type"], "run_finished");
    let path = format!("/v1/runs/{}/events?after=2&limit=2", id(&run));
    let part = host.client().get(&path).await.expect(200).json();
    assert_eq!(part["events"].as_array().expect("events").iter().map(seq).collect::<Vec<_>>(), [3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_events_come_in_shorter_pages() {
    let host = Host::plain().await;
    let steps: String = (0..4)
        .map(|n| {
            format!("  s{n}: {{uses: transform@1, with: {{data: '${{ $input.text }}', filter: '.'}}}}\n")
        })
        .collect();
    host.client().must_publish(&format!("reipaz: 1\nname: large\nsteps:\n{steps}")).await;
    let run = host.client().run("large", &json!({"text": "x".repeat(700_000)})).await;
    assert_eq!(run["status"], "completed", "{}", run["error"]);
    let page = host.client().get(&format!("/v1/runs/{}/events?limit=5000", id(&run))).await.expect(200);
    let bytes = page.text().len();
    assert!((1 << 20..4 << 20).contains(&bytes), "{bytes} bytes");
    let page = page.json();
    assert!(page["next_after"].as_u64() < page["seq"].as_u64(), "there are more");
    let all = host.client().events(id(&run)).await;
    let numbers: Vec<u64> = all.iter().map(seq).collect();
    assert_eq!(numbers, (1..=page["seq"].as_u64().expect("a number")).collect::<Vec<_>>());
    let attempts = host.client().get(&format!("/v1/runs/{}/attempts", id(&run))).await.expect(200).json();
    assert_eq!(attempts["attempts"].as_array().map(Vec::len), Some(4));
}
