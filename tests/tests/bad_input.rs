//! What a wrong request gets: one clear problem document with its own type, and nothing else happens.

use std::time::Duration;

use http::Method;
use reipaz_tests::{
    client::Answer,
    host::{Host, Settings},
    scaffold,
    upstream::Upstream,
    workflows::{CALL, COUNT},
};
use serde_json::{Value, json};

/// The diagnostics of a refused document.
fn diagnostics(answer: &Answer) -> Vec<Value> {
    answer.json()["diagnostics"].as_array().expect("diagnostics").clone()
}

/// The diagnostic with that code; there must be one.
fn with_code<'d>(diagnostics: &'d [Value], code: &str) -> &'d Value {
    diagnostics.iter().find(|d| d["code"] == code).unwrap_or_else(|| panic!("no {code} in {diagnostics:#?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_cannot_be_read_is_malformed() {
    let host = Host::plain().await;
    let yaml = host.client().publish("reipaz: 1\nname: [broken\nsteps:\n").await;
    assert_eq!(yaml.problem(400), "malformed-document");
    assert!(diagnostics(&yaml)[0]["line"].as_u64().is_some_and(|line| line >= 2), "{}", yaml.text());

    let json = [("content-type", "application/json")];
    let json =
        host.client().send(Method::POST, "/v1/workflows", &json, "{\"reipaz\": 1,\n \"name\" \"x\"}").await;
    assert_eq!(json.problem(400), "malformed-document");
    assert_eq!(diagnostics(&json)[0]["line"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_of_a_document_comes_at_once() {
    let host = Host::plain().await;
    let document = "reipaz: 1
name: wrong
colour: red
steps:
  a: {uses: transform@1, with: {data: 1, filter: '.'}, needs: [b]}
  b: {uses: transform@1, with: {data: '${ $steps.a.output }', filter: '.'}}
  c: {uses: transfrom@1, with: {}}
  d: {uses: transform@1, with: {data: '${ .x | }', filter: '.'}}
  e: {uses: transform@1, with: {data: '${ $steps.nowhere.output }', filter: '.'}}
  f: {uses: transform@1, with: {data: 1, filter: '.'}, timeout: soon}
  g: {uses: http_request@1, with: {uri: 'http://127.0.0.1/'}}
";
    let answer = host.client().publish(document).await;
    assert_eq!(answer.problem(422), "invalid-document");
    let found = diagnostics(&answer);
    for (code, line) in [
        ("unknown_key", 3),
        ("cycle", 5),
        ("unknown_plugin", 7),
        ("expression_syntax", 8),
        ("unknown_step", 9),
        ("bad_duration", 10),
        ("input_refused", 11),
    ] {
        let diagnostic = with_code(&found, code);
        let lines = if code == "cycle" { 5..=6 } else { line..=line };
        assert!(lines.contains(&diagnostic["line"].as_u64().expect("a line")), "{diagnostic:#}");
        assert!(diagnostic["column"].as_u64().is_some_and(|column| column >= 1), "{diagnostic:#}");
        assert!(
            diagnostic["pointer"].as_str().is_some_and(|p| p.is_empty() || p.starts_with('/')),
            "{diagnostic:#}"
        );
    }
    let hint = with_code(&found, "unknown_plugin")["hint"].as_str().unwrap_or_default().to_owned();
    assert!(hint.contains("transform"), "the near name is offered: {hint:?}");

    // And nothing was published.
    assert_eq!(host.client().get("/v1/workflows/wrong").await.problem(404), "workflow-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_over_their_limit_are_refused() {
    let host = Host::plain().await;
    host.client().must_publish(COUNT).await;
    let document = format!("{COUNT}# {}\n", "x".repeat(300 << 10));
    assert_eq!(host.client().publish(&document).await.problem(413), "too-large");

    let input = json!({"input": {"n": 1, "ballast": "x".repeat(2 << 20)}});
    assert_eq!(host.client().post("/v1/workflows/count/runs", &input).await.problem(413), "too-large");

    let wasm = [("content-type", "application/wasm")];
    let plugin = host.client().send(Method::POST, "/v1/plugins", &wasm, vec![0; 33 << 20]).await;
    assert_eq!(plugin.problem(413), "too-large");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_that_does_not_fit_is_refused() {
    let host = Host::plain().await;
    host.client().must_publish(COUNT).await;
    let runs = "/v1/workflows/count/runs";
    let client = host.client();

    let schema = client.post(runs, &json!({"input": {"n": "one"}})).await;
    assert_eq!(schema.problem(422), "invalid-input");
    assert_eq!(schema.json()["mistakes"][0]["pointer"], "/n");

    let json = [("content-type", "application/json")];
    let malformed = client.send(Method::POST, runs, &json, "{\"input\": {\"n\": 1}").await;
    assert_eq!(malformed.problem(400), "malformed-body");
    assert_eq!(client.post(runs, &json!({"inptu": {"n": 1}})).await.problem(400), "malformed-body");

    let plain = [("content-type", "text/plain")];
    assert_eq!(client.send(Method::POST, runs, &plain, "n=1").await.problem(415), "wrong-content-type");

    let unknown = client.post("/v1/workflows/cuont/runs", &json!({"input": {"n": 1}})).await;
    assert_eq!(unknown.problem(404), "workflow-not-found");
    assert_eq!(unknown.json()["near"], json!(["count"]));

    let version = client.post(runs, &json!({"input": {"n": 1}, "version": 9})).await;
    assert_eq!(version.problem(404), "version-not-found");

    assert_eq!(client.get("/v1/runs").await.expect(200).json()["runs"], json!([]), "nothing was started");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_is_not_found() {
    let host = Host::plain().await;
    let client = host.client();
    let nobody = "/v1/runs/00000000-0000-7000-8000-000000000000";
    assert_eq!(client.get(nobody).await.problem(404), "run-not-found");
    assert_eq!(client.get(&format!("{nobody}/events")).await.problem(404), "run-not-found");
    assert_eq!(client.get(&format!("{nobody}/logs")).await.problem(404), "run-not-found");
    assert_eq!(client.post(&format!("{nobody}/cancel"), &json!({})).await.problem(404), "run-not-found");
    assert_eq!(client.get("/v1/runs/not-a-uuid").await.problem(404), "run-not-found");
    assert_eq!(client.get("/v1/plugins/nobody").await.problem(404), "plugin-not-found");
    assert_eq!(client.get("/v1/nothing").await.problem(404), "path-not-found");
    assert_eq!(client.send(Method::DELETE, "/v1/runs", &[], "").await.problem(405), "method-not-allowed");
    assert_eq!(client.get("/v1/runs?colour=red").await.problem(400), "invalid-query");
    assert_eq!(client.get("/v1/runs?limit=-1").await.problem(400), "invalid-query");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_stands_for_one_input() {
    let host = Host::plain().await;
    host.client().must_publish(COUNT).await;
    let submit = |n: i32| {
        let client = host.client().clone();
        async move {
            let key = [("idempotency-key", "order-7")];
            client.post_with("/v1/workflows/count/runs", &key, &json!({"input": {"n": n}})).await
        }
    };
    let first = submit(1).await.expect(202).json();
    host.client().finished(first["id"].as_str().expect("an id"), Duration::from_secs(20)).await;
    let again = submit(1).await;
    assert!(again.status.is_success(), "{}", again.text());
    assert_eq!(again.json()["id"], first["id"], "the same run");
    let other = submit(2).await;
    assert_eq!(other.problem(422), "key-reused");
    assert_eq!(other.json()["run"], first["id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_that_fails_on_this_data_fails_its_run_alone() {
    let host = Host::plain().await;
    let document = "
reipaz: 1
name: divide
steps:
  divide: {uses: transform@1, with: {data: '${ $input.a / $input.b }', filter: '.'}}
output: '${ $steps.divide.output }'
";
    host.client().must_publish(document).await;
    let failed = host.client().run("divide", &json!({"a": 1, "b": "x"})).await;
    assert_eq!(failed["status"], "failed", "{failed}");
    assert_eq!(failed["error"]["class"], "permanent", "{failed}");
    assert_eq!(failed["error"]["step"], "/divide", "{failed}");
    assert_eq!(failed["steps"]["/divide"]["attempts"], 1, "it is not tried again: {failed}");
    let good = host.client().run("divide", &json!({"a": 6, "b": 3})).await;
    assert_eq!(good["output"], 2, "{good}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runaway_expression_fails_its_run_alone() {
    let host = Host::plain().await;
    for (name, expression) in [
        ("recursion", "def f: 1 + f; f"),
        ("endless", "1 | last(repeat(1))"),
        ("large", "[range(1e9)] | length"),
    ] {
        let document = format!(
            "reipaz: 1\nname: {name}\nsteps:\n  s: {{uses: transform@1, timeout: 2s, retry: {{attempts: 1}}, with: {{data: '${{ {expression} }}', filter: '.'}}}}\n"
        );
        host.client().must_publish(&document).await;
        let run = host.client().run(name, &json!({})).await;
        assert_eq!(run["status"], "failed", "{run}");
        let class = run["error"]["class"].as_str().unwrap_or_default();
        assert!(["resource", "timeout"].contains(&class), "{name}: {run}");
    }
    // `env` is no secret door: it does not exist, or knows nothing.
    let document =
        "reipaz: 1\nname: spy\nsteps:\n  s: {uses: transform@1, with: {data: '${ env }', filter: '.'}}\n";
    let published = host.client().publish(document).await;
    if published.status.is_success() {
        let run = host.client().run("spy", &json!({})).await;
        assert_ne!(run["status"], "completed", "{run}");
    } else {
        assert_eq!(published.problem(422), "invalid-document");
    }
    host.client().must_publish(COUNT).await;
    assert_eq!(host.client().run("count", &json!({"n": 1})).await["output"], 4, "the host goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_not_ours_is_refused_with_a_reason() {
    let host = Host::plain().await;
    let install = |bytes: Vec<u8>| {
        let client = host.client().clone();
        async move {
            client.send(Method::POST, "/v1/plugins", &[("content-type", "application/wasm")], bytes).await
        }
    };
    let core_module = install(b"\0asm\x01\0\0\0".to_vec()).await;
    assert_eq!(core_module.problem(422), "plugin-refused");
    assert_eq!(core_module.json()["code"], "core_module");

    // An empty component exports no handler.
    let empty = install(b"\0asm\x0d\0\x01\0".to_vec()).await;
    assert_eq!(empty.problem(422), "plugin-refused");
    assert_eq!(empty.json()["code"], "missing_export");

    let noise = install(b"#!/bin/sh\necho hello\n".to_vec()).await;
    assert_eq!(noise.problem(422), "plugin-refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_needs_a_grant_is_not_installed_without() {
    // Given a component that asks for HTTP.
    let witness = scaffold::component("witness").await;
    let path = witness.to_str().expect("UTF-8");
    let host = Host::plain().await;

    // Without a grant it is refused, with what to do.
    let refused = host.cli().run(&["plugin", "install", path]).await;
    assert!(!refused.status.success());
    assert!(refused.stderr.contains("http=POST *"), "{}", refused.stderr);
    assert!(refused.stderr.contains("--no-grants"), "{}", refused.stderr);
    assert_eq!(host.client().get("/v1/plugins/witness").await.problem(404), "plugin-not-found");

    // With one, or with the operator's word that it gets none, it is installed; a later version keeps what it had.
    host.cli().run(&["plugin", "install", path, "--no-grants"]).await.success();
    host.cli().run(&["plugin", "install", path, "--grant", "http=POST example.com"]).await.success();
    host.cli().run(&["plugin", "install", path]).await.success();
    let plugin = host.client().get("/v1/plugins/witness").await.expect(200).json();
    assert_eq!(plugin["grants"]["http"], json!(["POST example.com"]), "{plugin}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_a_grant_is_denied_and_not_asked() {
    let upstream = Upstream::start(|_| async { "secret" }).await;
    let document = CALL.replace("with:", "grants: {http: [\"GET 127.0.0.1:1\"]}\n    with:");
    let host = Host::plain().await;
    host.client().must_publish(&document).await;
    let run = host.client().run("call", &json!({"url": upstream.url("/")})).await;
    assert_eq!(run["status"], "failed", "{run}");
    assert_eq!(run["error"]["class"], "denied", "{run}");
    assert_eq!(run["steps"]["/call"]["attempts"], 1, "{run}");
    assert!(upstream.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_asked_for_where_they_are_configured() {
    let host = Host::start(Settings::new().with_env("REIPAZ_TOKENS", "a-token-of-enough-length")).await;
    assert_eq!(host.client().get("/v1/runs").await.problem(401), "unauthorized");
    let wrong = [("authorization", "Bearer another-token-of-length")];
    assert_eq!(host.client().send(Method::GET, "/v1/runs", &wrong, "").await.problem(401), "unauthorized");
    let right = [("authorization", "Bearer a-token-of-enough-length")];
    host.client().send(Method::GET, "/v1/runs", &right, "").await.expect(200);
    host.client().get("/healthz").await.expect(200);
}
