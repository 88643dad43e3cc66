//! What a workflow says about failures, and what its host then does: against a real server that fails in many ways.

use std::time::{Duration, Instant};

use axum::{http::StatusCode, response::IntoResponse};
use reipaz_tests::{
    host::{Host, Settings},
    upstream::{Call, Upstream},
    wait,
};
use serde_json::{Value, json};

/// One call of `$input.url`, with `rest` in the step, and the size of what came back.
fn workflow(rest: &str) -> String {
    format!(
        "reipaz: 1\nname: calls\nsteps:\n  call:\n    uses: http_request@1\n    with: {{url: '${{ $input.url }}'}}\n{rest}\
         output: '${{ $steps.call.output }}'\n"
    )
}

/// Answers with the status that the query says; waits for as long as a path says.
async fn server() -> Upstream {
    Upstream::start(|call: Call| async move {
        if let Some(millis) = call.path.strip_prefix("/wait/").and_then(|millis| millis.parse().ok()) {
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
        let status = call.query.parse().ok().and_then(|code| StatusCode::from_u16(code).ok());
        (status.unwrap_or(StatusCode::OK), "\"there\"").into_response()
    })
    .await
}

async fn host_with(rest: &str) -> Host {
    let host = Host::start(Settings::new()).await;
    host.client().must_publish(&workflow(rest)).await;
    host
}

fn step(run: &Value) -> &Value {
    &run["steps"]["/call"]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_with_a_value_and_keeps_the_failure() {
    let upstream = server().await;
    let host = host_with("    on_failure: {continue_with: {body: '${ $input.fallback }'}}\n").await;
    let run = host.client().run("calls", &json!({"url": upstream.url("/?404"), "fallback": [1, 2]})).await;
    assert_eq!((&run["status"], &run["output"]), (&json!("completed"), &json!({"body": [1, 2]})), "{run}");
    assert_eq!(step(&run)["status"], "completed");
    assert_eq!(step(&run)["error"]["code"], "http_404", "{run}");
    assert_eq!(upstream.calls().len(), 1, "a 404 is permanent");

    // After a crash the same is there.
    let id = run["id"].as_str().expect("an id").to_owned();
    let mut host = host;
    host.kill();
    host.start_again().await;
    let again = host.client().get(&format!("/v1/runs/{id}")).await.expect(200).json();
    assert_eq!(again, run);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_pauses_after_a_failure_goes_on_with_another_input() {
    let upstream = server().await;
    let host = host_with("    on_failure: pause\n").await;
    let id = host.client().submit("calls", &json!({"url": upstream.url("/?403")})).await;
    let path = format!("/v1/runs/{id}");
    let paused = wait::until("a paused run", Duration::from_secs(20), || async {
        let run = host.client().get(&path).await.expect(200).json();
        (run["status"] == "paused").then_some(run)
    })
    .await;
    assert_eq!(step(&paused)["error"]["code"], "http_403", "{paused}");
    let events = host.client().events(&id).await;
    let said = events.last().expect("events")["reason"].as_str().unwrap_or_default().to_owned();
    assert!(said.contains("/call") && said.contains("http_403"), "{said}");

    let input = json!({"url": upstream.url("/?200")});
    host.client().post(&format!("{path}/retry"), &json!({"input": input})).await.expect(200);
    let run = host.client().finished(&id, Duration::from_secs(20)).await;
    assert_eq!((&run["status"], &run["input"]), (&json!("completed"), &input), "{run}");
    assert_eq!(step(&run)["attempts"], 2);
    let calls = upstream.calls();
    let queries: Vec<&str> = calls.iter().map(|call| call.query.as_str()).collect();
    assert_eq!(queries, ["403", "200"]);

    // Over, it is not retried any more.
    assert_eq!(host.client().post(&format!("{path}/retry"), &json!({})).await.problem(409), "wrong-status");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_tried_again_at_once_or_never_if_the_rule_says_so() {
    let upstream = server().await;
    let retry = "    retry: {by_error: {409: {attempts: 4, immediate: 3}, 503: never}}\n";
    let host = host_with(retry).await;
    let begin = Instant::now();
    for (status, calls) in [(409, 4), (503, 1), (404, 1)] {
        let before = upstream.calls().len();
        let run = host.client().run("calls", &json!({"url": upstream.url(&format!("/?{status}"))})).await;
        assert_eq!(run["error"]["code"], format!("http_{status}"), "{run}");
        assert_eq!(upstream.calls().len() - before, calls, "{status}");
    }
    assert!(begin.elapsed() < Duration::from_secs(5), "none of them backs off: {:?}", begin.elapsed());

    // The schedule is told before anything runs.
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("calls.yaml");
    std::fs::write(&file, workflow(retry)).expect("written");
    let file = file.to_str().expect("UTF-8");
    let told = host.cli().run(&["validate", "--explain", file, "--url", &host.url()]).await;
    assert!(told.status.success(), "{}", told.stderr);
    for line in [
        "/call: each attempt may take 1m",
        "network, timeout: 2 at once; 3 at once; 4 after 0ms to 1s; 5 after 0ms to 2s",
        "transient, rate_limited: 2 after 0ms to 1s; 3 after 0ms to 2s; 4 after 0ms to 4s; 5 after 0ms to 8s",
        "http_409: 2 at once; 3 at once; 4 at once",
        "http_503: never tried again",
    ] {
        assert!(told.stdout.contains(line), "{line}\nis not in\n{}", told.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_attempts_of_a_step_share_its_time() {
    let upstream = server().await;
    let host = host_with("    timeout: 600ms\n    total_timeout: 1s\n").await;
    let begin = Instant::now();
    let run = host.client().run("calls", &json!({"url": upstream.url("/wait/10000")})).await;
    assert_eq!((&run["status"], &run["error"]["code"]), (&json!("failed"), &json!("step_timeout")), "{run}");
    assert_eq!((&run["error"]["class"], &run["error"]["attempt"]), (&json!("timeout"), &json!(2)), "{run}");
    let took = begin.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(3)).contains(&took), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_is_silent_for_too_long_is_cut() {
    let upstream = server().await;
    let host = host_with("    heartbeat_timeout: 300ms\n    retry: {attempts: 1}\n").await;
    let begin = Instant::now();
    let run = host.client().run("calls", &json!({"url": upstream.url("/wait/10000")})).await;
    assert_eq!(run["error"]["code"], "heartbeat_timeout", "{run}");
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_failed_runs_are_retried_a_few_a_second() {
    // Given runs that failed, in two ways, and one that completed.
    let upstream = server().await;
    let host = host_with("").await;
    let mut failed = Vec::new();
    for status in [404, 404, 404, 410, 200] {
        let run = host.client().run("calls", &json!({"url": upstream.url(&format!("/?{status}"))})).await;
        if status == 404 {
            failed.push(run["id"].as_str().expect("an id").to_owned());
        }
    }
    let url = host.url();
    let bulk = |rest: &'static [&'static str]| {
        let arguments: Vec<String> =
            ["bulk", "retry", "--url", &url].iter().chain(rest).map(ToString::to_string).collect();
        let cli = host.cli();
        async move { cli.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };

    // Then nobody retries everything by accident, and it can be seen first what it would be.
    let refused = bulk(&[]).await;
    assert_eq!(refused.status.code(), Some(2), "{}", refused.stderr);
    let dry = bulk(&["--workflow", "calls", "--error", "http_404", "--dry-run"]).await;
    let mut named: Vec<String> = dry.stdout.lines().map(str::to_owned).collect();
    named.sort();
    failed.sort();
    assert_eq!(named, failed, "{}", dry.stderr);
    assert_eq!(upstream.calls().len(), 5);

    // And it takes its time.
    let begin = Instant::now();
    let done = bulk(&["--workflow", "calls", "--error", "http_404", "--rate", "4"]).await;
    assert!(
        done.status.success() && done.stdout.contains("retry: 3 of 3 runs"),
        "{}{}",
        done.stdout,
        done.stderr
    );
    assert!(begin.elapsed() >= Duration::from_millis(450), "{:?}", begin.elapsed());
    for id in &failed {
        let run = host.client().finished(id, Duration::from_secs(20)).await;
        assert_eq!(step(&run)["attempts"], 2, "{run}");
    }
    assert_eq!(upstream.calls().len(), 8);
}

/// `call` and steps that put its failure right, a run that tells of its own failure, and a step after all of that.
const HANDLED: &str = "reipaz: 1
name: handled
timeout: 30s
steps:
  call:
    uses: http_request@1
    with: {url: '${ $input.url }'}
    on_failure:
      steps:
        cached: {uses: http_request@1, with: {url: '${ $input.cache }', headers: {x-why: '${ $error.code }'}}}
        length: {uses: transform@1, with: {data: '${ $steps.cached.output.body }', filter: length}}
      output: {length: '${ $steps.length.output }'}
  last: {uses: transform@1, with: {data: '${ $steps.call.output }', filter: '[., 1]'}}
on_failure:
  steps:
    tell: {uses: http_request@1, with: {method: POST, url: '${ $input.hook }', body: '${ $error }'}}
output: '${ $steps.last.output }'
";

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_has_steps_of_its_own_and_so_has_the_runs() {
    let upstream = server().await;
    let mut host = Host::start(Settings::new()).await;
    host.client().must_publish(HANDLED).await;
    let cache = upstream.url("/?200");
    let input = |url: &str, cache: &str| json!({"url": url, "cache": cache, "hook": upstream.url("/hook")});

    // Given a call that fails, its own steps put it right.
    let run = host.client().run("handled", &input(&upstream.url("/?404"), &cache)).await;
    assert_eq!((&run["status"], &run["output"]), (&json!("completed"), &json!([{"length": 7}, 1])), "{run}");
    assert_eq!(step(&run)["error"]["code"], "http_404");
    assert_eq!(run["steps"]["/call/on_failure/cached"]["status"], "completed");
    assert!(run["steps"].get("/on_failure/tell").is_none(), "nobody called for it: {run}");
    assert_eq!(upstream.calls().last().expect("a call").header("x-why"), "http_404");

    // If they fail too, the run tells of it before it ends, with what failed first.
    let run = host.client().run("handled", &input(&upstream.url("/?404"), &upstream.url("/?410"))).await;
    assert_eq!((&run["status"], &run["error"]["code"]), (&json!("failed"), &json!("http_404")), "{run}");
    assert_eq!(run["steps"]["/call/on_failure/cached"]["error"]["code"], "http_410");
    let told = upstream.calls().into_iter().find(|call| call.path == "/hook").expect("it was told").json();
    assert_eq!((&told["step"], &told["code"]), (&json!("/call"), &json!("http_404")), "{told}");

    // A run in which nothing goes wrong shows nothing of it, and after a crash all is as it was.
    let fine = host.client().run("handled", &input(&cache, &cache)).await;
    assert_eq!(fine["steps"].as_object().map(serde_json::Map::len), Some(2), "{fine}");
    host.kill();
    host.start_again().await;
    let path = format!("/v1/runs/{}", run["id"].as_str().expect("an id"));
    assert_eq!(host.client().get(&path).await.expect(200).json(), run);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_is_told_with_what_it_ran_and_why_it_failed() {
    let upstream = server().await;
    let rule = "    retry: {attempts: 2, base: 100ms, jitter: none}\n";
    let host = host_with(rule).await;
    let run = host.client().run("calls", &json!({"url": upstream.url("/?503")})).await;
    assert_eq!(run["status"], "failed", "{run}");
    let id = run["id"].as_str().expect("an id");
    let path = format!("/v1/runs/{id}/attempts");
    let page = host.client().get(&path).await.expect(200).json();
    let attempts = page["attempts"].as_array().expect("a list");
    assert_eq!(attempts.len(), 2, "{page}");
    let plugin = host.client().get("/v1/plugins/http_request").await.expect(200).json();
    for (n, attempt) in attempts.iter().enumerate() {
        assert_eq!((&attempt["step"], &attempt["attempt"]), (&json!("/call"), &json!(n + 1)));
        assert_eq!((&attempt["status"], &attempt["error"]["code"]), (&json!("failed"), &json!("http_503")));
        assert_eq!(attempt["plugin"]["digest"], plugin["digest"], "{attempt}");
        assert!(attempt["input_digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")));
    }
    assert_eq!(attempts[0]["next"]["delay_ms"], 100, "{page}");
    assert_eq!((&attempts[0]["next"]["reason"], &attempts[1]["next"]), (&json!("backoff"), &Value::Null));

    // A page at a time, and only some.
    let first = host.client().get(&format!("{path}?limit=1")).await.expect(200).json();
    assert_eq!((&first["attempts"][0], &first["next_after"]), (&attempts[0], &json!(1)));
    let second = host.client().get(&format!("{path}?limit=1&after=1&step=call&status=failed")).await.json();
    assert_eq!((&second["attempts"][0], &second["next_after"]), (&attempts[1], &Value::Null));
    let none = host.client().get(&format!("{path}?status=completed")).await.expect(200).json();
    assert_eq!(none["attempts"], json!([]));
    assert_eq!(host.client().get(&format!("{path}?status=bad")).await.problem(400), "invalid-query");

    // The command line tells the same, one a line.
    let lines = host.cli().run(&["attempts", id, "--failed"]).await.success().stdout;
    let told: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(&told, attempts);
}
