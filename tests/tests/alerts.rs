//! What operators are told without asking: by webhooks, over the API, on the command line; once, in time, and never at the
//! price of the runs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::{StatusCode, header};
use reipaz_tests::{
    host::{Host, Settings, free_address},
    kafka::Engine,
    upstream::{Call, Upstream},
    wait,
    workflows::{CALL, COUNT},
};
use serde_json::{Value, json};

/// How long an alert may take here, all waits of the configuration included.
const TOLD_WITHIN: Duration = Duration::from_secs(30);

/// `[alerts]` with one webhook at `url`.
fn alerts(settings: &str, url: &str) -> Settings {
    Settings::new().with_config(&format!("[alerts]\n{settings}\n[[alerts.webhooks]]\nurl = \"{url}\""))
}

/// One alert of a request, with the request.
struct Told {
    call: Call,
    alert: Value,
}

/// All alerts that were sent, those that were not taken included.
fn told(receiver: &Upstream) -> Vec<Told> {
    let alerts = |call: Call| {
        let alerts = call.json()["alerts"].as_array().expect("alerts").clone();
        alerts.into_iter().map(move |alert| Told { call: call.clone(), alert })
    };
    receiver.calls().into_iter().flat_map(alerts).collect()
}

/// Waits until so many alerts of a kind and status were sent.
async fn told_of(receiver: &Upstream, kind: &str, status: &str, count: usize) -> Vec<Told> {
    wait::until(&format!("{count} {status} alerts of {kind}"), TOLD_WITHIN, || async {
        let fits = |told: &Told| told.alert["labels"]["kind"] == kind && told.alert["status"] == status;
        let told: Vec<Told> = told(receiver).into_iter().filter(fits).collect();
        (told.len() >= count).then_some(told)
    })
    .await
}

/// Runs that fail for good at their first attempt.
async fn fail(host: &Host, upstream: &Upstream, runs: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..runs {
        ids.push(host.client().submit("call", &json!({"url": upstream.url("/")})).await);
    }
    for id in &ids {
        let run = host.client().finished(id, Duration::from_secs(60)).await;
        assert_eq!(run["status"], "failed", "{run}");
    }
    ids
}

async fn refusing() -> Upstream {
    Upstream::start(|_| async { StatusCode::UNPROCESSABLE_ENTITY }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_fails_again_and_again_is_one_alert_until_it_is_over() {
    // Given a receiver that is unwell at first, and a host that tells it of 5 failures within 3 s.
    let upstream = refusing().await;
    let receiver = Upstream::start(|call: Call| async move {
        if call.number < 2 { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }
    })
    .await;
    let url = receiver.url("/hook/of/ours");
    let host = Host::start(
        Settings::new()
            .with_config(&format!(
                "[secrets.pager]\nenv = \"PAGER\"\nhosts = [\"127.0.0.1\"]\n\
                 [alerts]\npattern_failures = 5\npattern_window = \"3s\"\n\
                 [[alerts.webhooks]]\nurl = \"{url}\"\nheaders = {{authorization = \"Bearer ${{ $secrets.pager }}\"}}"
            ))
            .with_env("PAGER", "s3cret"),
    )
    .await;
    host.client().must_publish(CALL).await;

    // When 4 runs fail, then nobody is told; with 8 more there is one alert,
    fail(&host, &upstream, 4).await;
    tokio::time::sleep(Duration::from_millis(3_100)).await;
    assert!(receiver.calls().is_empty(), "4 failures are tolerated");
    let ids = fail(&host, &upstream, 12).await;
    let resolved = told_of(&receiver, "error_pattern", "resolved", 1).await;

    // sent until it was taken, each time the same, with the secret,
    let calls = receiver.calls();
    assert_eq!(calls.len(), 4, "firing three times, resolved once: {calls:?}");
    for call in &calls[..3] {
        assert_eq!(call.header("idempotency-key"), calls[0].header("idempotency-key"));
        assert_eq!(call.body, calls[0].body);
        assert_eq!(call.header("authorization"), "Bearer s3cret");
        assert_eq!(call.path, "/hook/of/ours");
    }
    assert_ne!(calls[3].header("idempotency-key"), calls[0].header("idempotency-key"));

    // in the form that Alertmanager's receivers know, with what tells it from others and a run that shows it,
    let body = calls[2].json();
    assert_eq!((&body["version"], &body["status"]), (&json!("4"), &json!("firing")));
    let alert = &body["alerts"][0];
    let labels = &alert["labels"];
    assert_eq!(labels["alertname"], "ReipazErrorPattern");
    assert_eq!((&labels["class"], &labels["code"]), (&json!("permanent"), &json!("http_422")));
    assert!(labels["plugin"].as_str().is_some_and(|plugin| plugin.starts_with("http_request@")), "{labels}");
    assert_eq!(labels["host"], host.address().to_string());
    assert_eq!(alert["annotations"]["workflow"], "call");
    let sample = alert["annotations"]["sample_run"].as_str().expect("a run").to_owned();
    assert!(ids.contains(&sample), "{sample}");
    assert_eq!(resolved[0].alert["fingerprint"], alert["fingerprint"]);
    assert_eq!(resolved[0].alert["startsAt"], alert["startsAt"]);
    assert!(resolved[0].alert["endsAt"].as_str() > alert["startsAt"].as_str());

    // and whoever asks sees the same.
    let view = host.client().get("/v1/alerts").await.expect(200).json();
    assert_eq!(view["firing"], json!([]));
    assert_eq!(view["recent"][0]["fingerprint"], alert["fingerprint"]);
    assert_eq!((&view["recent"][0]["count"], &view["webhooks"]), (&json!(12), &json!(1)));
    let listed = host.cli().run(&["alerts", "--json"]).await.success().json();
    assert_eq!(listed, view);
    assert_eq!(host.client().metric("reipaz_alerts_firing").await, 0.0);
    assert_eq!(host.client().metric("reipaz_attempts_failed_total").await, 16.0);
    let metrics = host.client().get("/metrics").await.expect(200).text();
    for line in [
        "reipaz_alert_deliveries_total{outcome=\"delivered\"} 2",
        "reipaz_alert_deliveries_total{outcome=\"retried\"} 2",
        "reipaz_attempts_failed_total{class=\"permanent\",plugin=\"http_request\"} 16",
    ] {
        assert!(metrics.contains(line), "{line}:\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_tried_again_as_it_asks_and_not_for_ever() {
    // Given a webhook that asks for 2 s, one that refuses, and one that stays unwell.
    let upstream = refusing().await;
    let asks = Upstream::start(|call: Call| async move {
        let status = if call.number == 0 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::NO_CONTENT };
        (status, [(header::RETRY_AFTER, "2")])
    })
    .await;
    let refuses = Upstream::start(|_| async { StatusCode::GONE }).await;
    let unwell = Upstream::start(|_| async { StatusCode::BAD_GATEWAY }).await;
    let others =
        [&refuses, &unwell].map(|webhook| format!("[[alerts.webhooks]]\nurl = \"{}\"", webhook.url("/")));
    let settings = alerts("pattern_failures = 1\ngive_up_after = \"4s\"", &asks.url("/"));
    let host = Host::start(settings.with_config(&others.join("\n"))).await;
    host.client().must_publish(CALL).await;

    // When an alert fires, then each webhook has been dealt with in the end, in its own way.
    fail(&host, &upstream, 1).await;
    for outcome in ["delivered", "refused", "gave_up"] {
        let line = format!("reipaz_alert_deliveries_total{{outcome=\"{outcome}\"}} 1");
        wait::until(&line, TOLD_WITHIN, || async {
            host.client().get("/metrics").await.expect(200).text().contains(&line).then_some(())
        })
        .await;
    }
    let calls = asks.calls();
    assert_eq!(calls.len(), 2);
    assert!(calls[1].at - calls[0].at >= Duration::from_secs(2), "{:?}", calls[1].at - calls[0].at);
    assert_eq!(refuses.calls().len(), 1, "a refusal is not repeated");
    let tries = unwell.calls();
    assert!(tries.len() >= 2, "{}", tries.len());
    assert!(tries[tries.len() - 1].at - tries[0].at < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_on_is_told_again_after_a_while_and_after_a_restart() {
    // Given an alert that fires, and is repeated every 2 s.
    let upstream = refusing().await;
    let receiver = Upstream::start(|_| async { StatusCode::OK }).await;
    let settings = "pattern_failures = 3\npattern_window = \"1h\"\nrepeat_every = \"2s\"";
    let mut host = Host::start(alerts(settings, &receiver.url("/"))).await;
    host.client().must_publish(CALL).await;
    fail(&host, &upstream, 6).await;

    // When it goes on, then it comes again, and not earlier.
    let told = told_of(&receiver, "error_pattern", "firing", 3).await;
    for (one, next) in told.iter().zip(&told[1..]) {
        let between = next.call.at - one.call.at;
        assert!(between > Duration::from_millis(1_500), "{between:?}");
        assert_ne!(one.call.header("idempotency-key"), next.call.header("idempotency-key"));
    }

    // When the host is killed and the condition still holds, then the next host tells it, as the same alert.
    host.kill();
    let before = receiver.calls().len();
    host.start_again().await;
    fail(&host, &upstream, 3).await;
    let again = told_of(&receiver, "error_pattern", "firing", before + 1).await;
    assert_eq!(again[before].alert["fingerprint"], again[0].alert["fingerprint"]);
    assert_ne!(again[before].alert["startsAt"], again[0].alert["startsAt"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_past_its_deadline_is_told_to_those_who_want_to_hear_of_it() {
    // Given a receiver of everything and one of what is critical.
    let upstream = Upstream::start(|_| std::future::pending::<StatusCode>()).await;
    let (all, critical) = (
        Upstream::start(|_| async { StatusCode::OK }).await,
        Upstream::start(|_| async { StatusCode::OK }).await,
    );
    let settings = alerts("pattern_window = \"2s\"", &all.url("/")).with_config(&format!(
        "[[alerts.webhooks]]\nurl = \"{}\"\nmin_severity = \"critical\"",
        critical.url("/")
    ));
    let host = Host::start(settings).await;
    let slow = CALL.replace("name: call", "name: slow\ntimeout: 1s");
    host.client().must_publish(&slow).await;

    // When a run's time is over.
    let run = host.client().run("slow", &json!({"url": upstream.url("/")})).await;
    assert_eq!(run["error"]["code"], "run_timeout", "{run}");

    // Then it is told, and is over when no other follows.
    let told = told_of(&all, "run_overdue", "firing", 1).await;
    let labels = &told[0].alert["labels"];
    assert_eq!((&labels["workflow"], &labels["code"]), (&json!("slow"), &json!("run_timeout")));
    assert_eq!(told[0].alert["annotations"]["sample_run"], run["id"]);
    told_of(&all, "run_overdue", "resolved", 1).await;
    assert!(critical.calls().is_empty(), "a warning is below critical");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clickhouse_that_is_gone_is_told_and_that_it_is_back() {
    // Given a host whose ClickHouse takes rows.
    let receiver = Upstream::start(|_| async { StatusCode::OK }).await;
    let mut engine = Engine::start();
    let settings = alerts("sink_lag_after = \"2s\"", &receiver.url("/"))
        .with_external_clickhouse(&engine.url, &engine.password);
    let host = Host::start(settings).await;
    host.client().must_publish(COUNT).await;
    host.client().run("count", &json!({"n": 1})).await;
    host.sql_until("SELECT run FROM runs WHERE status = 'completed'", TOLD_WITHIN, |rows| rows.len() == 1)
        .await;
    let behind = || async { host.client().metric("reipaz_sink_lag_seconds").await };
    wait::until("the sink", TOLD_WITHIN, || async { (behind().await == 0.0).then_some(()) }).await;
    assert!(told(&receiver).is_empty());

    // When it goes and runs go on, then that is told, once,
    engine.kill();
    for n in 0..5 {
        let run = host.client().run("count", &json!({"n": n})).await;
        assert_eq!(run["output"], n + 3, "{run}");
    }
    let told_at = Instant::now();
    let gone = told_of(&receiver, "sink_lag", "firing", 1).await;
    let took = told_at.elapsed();
    wait::until("a lag in the metrics", TOLD_WITHIN, || async { (behind().await > 2.0).then_some(()) }).await;
    let view = host.client().get("/v1/alerts").await.expect(200).json();
    assert_eq!(view["firing"][0]["kind"], "sink_lag", "{view}");
    assert!(view["firing"][0]["count"].as_u64().is_some_and(|records| records > 5), "{view}");

    // and when it is back, that too.
    engine.start_again();
    let back = told_of(&receiver, "sink_lag", "resolved", 1).await;
    assert_eq!(back[0].alert["fingerprint"], gone[0].alert["fingerprint"]);
    assert_eq!(told(&receiver).len(), 2);
    println!("told {took:?} after the runs");
}

/// How long 60 silent runs take, one after another.
async fn sixty_runs(host: &Host) -> Duration {
    let begin = Instant::now();
    for n in 0..60 {
        let run = host.client().run("count", &json!({"n": n})).await;
        assert_eq!(run["output"], n + 3, "{run}");
    }
    begin.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_stands_still_costs_alerts_and_no_run() {
    // Given a receiver that never answers, and 60 kinds of failures whose alerts are repeated every second.
    let receiver = Upstream::start(|_| std::future::pending::<StatusCode>()).await;
    let next = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::start(move |_| {
        let kind = next.fetch_add(1, Ordering::SeqCst) % 60;
        async move { StatusCode::from_u16(430 + kind as u16).expect("a status") }
    })
    .await;
    let settings = "pattern_failures = 1\npattern_window = \"1h\"\nrepeat_every = \"1s\"";
    let host = Host::start(alerts(settings, &receiver.url("/")).with_config("timeout = \"60s\"")).await;
    host.client().must_publish(CALL).await;
    host.client().must_publish(COUNT).await;
    sixty_runs(&host).await;
    let before = sixty_runs(&host).await;

    // When its queue is full, then alerts are dropped and counted,
    fail(&host, &upstream, 60).await;
    wait::until("dropped alerts", Duration::from_secs(60), || async {
        (host.client().metric("reipaz_alerts_dropped_total").await > 0.0).then_some(())
    })
    .await;
    assert_eq!(host.client().metric("reipaz_alerts_firing").await, 60.0);
    assert_eq!(receiver.under_way(), 1, "one request at a time");

    // and runs take as long as before.
    let after = sixty_runs(&host).await;
    println!("60 runs: {before:?} before, {after:?} with a receiver that stands still");
    assert!(after < before * 3 + Duration::from_millis(500), "{before:?} before, {after:?} after");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_alert_says_of_each_webhook_what_it_answered() {
    // Given three webhooks: one takes, one refuses, one is not there; their paths are secrets.
    let takes = Upstream::start(|_| async { (StatusCode::ACCEPTED, "thanks") }).await;
    let refuses =
        Upstream::start(|_| async { (StatusCode::FORBIDDEN, [(header::SERVER, "a")], "who are you?") }).await;
    let urls = [takes.url("/s3cret"), refuses.url("/s3cret"), format!("http://{}/s3cret", free_address())];
    let config: String = urls.iter().map(|url| format!("[[alerts.webhooks]]\nurl = \"{url}\"\n")).collect();
    let host = Host::start(Settings::new().with_config(&config)).await;

    // When they are tried, then the answer has each by itself,
    let output = host.cli().run(&["alerts", "test"]).await;
    assert_eq!(output.code(), 1, "{}{}", output.stdout, output.stderr);
    let answer = output.json();
    let seen: Vec<(bool, Option<u64>)> = (0..3)
        .map(|n| &answer["webhooks"][n])
        .map(|webhook| (webhook["taken"].as_bool().expect("a flag"), webhook["status"].as_u64()))
        .collect();
    assert_eq!(seen, [(true, Some(202)), (false, Some(403)), (false, None)]);
    assert!(answer["webhooks"][2]["error"].as_str().is_some_and(|why| why.contains("refused")), "{answer}");
    assert!(output.stderr.contains("2 of 3"), "{}", output.stderr);
    assert!(!format!("{}{}{}", output.stdout, output.stderr, host.log()).contains("s3cret"));
    let test = takes.calls()[0].json();
    assert_eq!(test["alerts"][0]["labels"]["alertname"], "ReipazTest");

    // and nothing fires because of it.
    let view = host.client().get("/v1/alerts").await.expect(200).json();
    assert_eq!((&view["firing"], &view["recent"]), (&json!([]), &json!([])));

    // Without webhooks it says so.
    let host = Host::plain().await;
    let output = host.cli().run(&["alerts", "test"]).await;
    assert_eq!(output.code(), 1, "{}", output.stdout);
    assert!(output.stderr.contains("[[alerts.webhooks]]"), "{}", output.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_the_configuration_is_named_and_keeps_what_is_secret() {
    for (config, named) in [
        ("[alerts]\npattern_failure = 5", "pattern_failure"),
        ("[[alerts.webhooks]]\nurl = \"gopher://a.example/s3cret\"", "gopher"),
        (
            "[[alerts.webhooks]]\nurl = \"http://a.example/s3cret\"\nheaders = {a = \"${ $secrets.b }\"}",
            "secret b",
        ),
    ] {
        let mut host = Host::prepare(Settings::new().with_config(config));
        host.spawn();
        let status = host.ended(TOLD_WITHIN).await;
        assert_eq!(status.code(), Some(10), "{}", host.log());
        assert!(host.log().contains(named), "{}", host.log());
        // What the parser shows of the file is the operator's own; what the host says by itself names no path.
        assert!(named == "pattern_failure" || !host.log().contains("/s3cret"), "{}", host.log());
    }
}
