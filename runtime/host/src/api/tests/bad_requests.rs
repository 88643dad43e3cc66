//! What a wrong request gets: a problem document of its own type, and the host is not bothered.

use std::time::Duration;

use axum::body::Body;
use futures_util::StreamExt;
use http::Method;
use reipaz_core::{
    document::Diagnostic,
    ids::{RunId, StepPath},
    partition::RunStatus,
};
use serde_json::json;

use super::{super::kinds, Api, Settings};
use crate::facade::FacadeError;

const RUNS: &str = "/v1/workflows/orders/runs";

fn run() -> RunId {
    RunId::from_key("", "orders", "k")
}

#[tokio::test]
async fn every_refusal_of_the_host_has_a_type_and_a_status() {
    let retry_after = Duration::from_millis(1_500);
    let why = || "of that".to_owned();
    let cases = [
        (FacadeError::UnknownWorkflow { name: why(), near: vec![] }, 404, "workflow-not-found"),
        (FacadeError::UnknownVersion { name: why(), version: 2, newest: 1 }, 404, "version-not-found"),
        (FacadeError::UnknownRun(run()), 404, "run-not-found"),
        (FacadeError::UnknownPlugin { name: why(), near: vec![] }, 404, "plugin-not-found"),
        (FacadeError::Document(vec![]), 422, "invalid-document"),
        (FacadeError::Input(vec![]), 422, "invalid-input"),
        (FacadeError::UnknownStep("x".into()), 422, "unknown-step"),
        (FacadeError::KeyReused(run()), 422, "key-reused"),
        (FacadeError::RunExists(run()), 409, "run-exists"),
        (FacadeError::WrongStatus { run: run(), status: RunStatus::Completed }, 409, "wrong-status"),
        (FacadeError::NeverStarted(run()), 409, "never-started"),
        (FacadeError::Forgotten(run()), 409, "run-forgotten"),
        (FacadeError::StepRunning(StepPath::top("a")), 409, "step-running"),
        (FacadeError::PluginRefused { code: why(), message: why(), hint: None }, 422, "plugin-refused"),
        (FacadeError::PluginExists { name: why(), version: why() }, 409, "plugin-exists"),
        (FacadeError::Grant { grant: why(), message: why() }, 422, "invalid-grant"),
        (FacadeError::TooLarge { what: "it", actual_bytes: 2, limit_bytes: 1 }, 413, "too-large"),
        (FacadeError::Overloaded { why: why(), retry_after }, 429, "overloaded"),
        (FacadeError::StorageFull, 507, "storage-full"),
        (FacadeError::NotReady { why: why(), retry_after }, 503, "not-ready"),
        (FacadeError::StoreUnavailable { why: why() }, 503, "store-unavailable"),
        (FacadeError::Sql { message: why() }, 422, "sql-refused"),
        (FacadeError::Internal(why()), 500, "internal"),
    ];
    let api = Api::new();
    for (error, status, slug) in cases {
        let waits = matches!(slug, "overloaded" | "not-ready");
        api.host.refuse(error);
        let answer = api.post(RUNS, &[], "{}").await;
        assert_eq!(answer.problem(), (status, slug.to_owned()));
        assert_eq!(answer.json()["instance"], RUNS);
        if waits {
            assert_eq!(answer.header("retry-after"), "2", "whole seconds, rounded up");
        }
        // And its type can be looked up.
        assert_eq!(api.get(&format!("/problems/{slug}")).await.status, 200);
    }
}

#[tokio::test]
async fn an_internal_fault_keeps_its_words_to_itself() {
    let api = Api::new();
    api.host.refuse(FacadeError::Internal("the password is 1234".to_owned()));
    let answer = api.post(RUNS, &[("x-request-id", "r-7")], "{}").await;
    assert_eq!(answer.problem().1, "internal");
    assert!(!answer.text().contains("1234"));
    assert_eq!(answer.json()["request_id"], "r-7");
}

#[tokio::test]
async fn a_handler_that_panics_fails_its_request_alone() {
    let api = Api::new();
    let id = api.host.add_run(1);
    api.host.panic();
    let path = format!("/v1/runs/{id}");
    assert_eq!(api.get(&path).await.problem(), (500, "internal".to_owned()));
}

#[tokio::test]
async fn mistakes_of_a_document_come_with_their_places() {
    let mistake = |code: &'static str| Diagnostic {
        line: 4,
        column: 3,
        end_line: 4,
        end_column: 9,
        pointer: "/steps/a".to_owned(),
        step: Some("a".to_owned()),
        code,
        message: "it is wrong".to_owned(),
        hint: Some("mend it".to_owned()),
    };
    let api = Api::new();
    for (code, status, slug) in [
        ("unknown_key", 422, "invalid-document"),
        ("syntax", 400, "malformed-document"),
        ("tab", 400, "malformed-document"),
    ] {
        api.host.refuse(FacadeError::Document(vec![mistake(code)]));
        let answer = api.send(Method::POST, "/v1/workflows", &[("content-type", "text/yaml")], "x").await;
        assert_eq!(answer.problem(), (status, slug.to_owned()));
        let expected = json!([{"line": 4, "column": 3, "end_line": 4, "end_column": 9, "pointer": "/steps/a",
            "step": "a", "code": code, "message": "it is wrong", "hint": "mend it"}]);
        assert_eq!(answer.json()["diagnostics"], expected);
    }
}

#[tokio::test]
async fn a_body_that_is_not_what_it_should_be() {
    let api = Api::new();
    let cases = [
        ("{\"input\": {\"n\": 1}", "malformed-body", "an object that does not end"),
        ("{\"inptu\": 1}", "malformed-body", "an unknown key"),
        ("[]", "malformed-body", "no object"),
        ("{\"input\": 1} x", "malformed-body", "more than one value"),
        ("{\"input\": \"\\ud800\"}", "malformed-body", "half a character"),
        ("{\"version\": \"one\"}", "malformed-body", "a version that is no number"),
        ("{\"id\": \"seven\"}", "malformed-body", "an id that is no UUID"),
        ("{\"metadata\": {\"a\": 1}}", "malformed-body", "metadata that is no text"),
    ];
    for (body, slug, what) in cases {
        assert_eq!(api.post(RUNS, &[], body).await.problem(), (400, slug.to_owned()), "{what}");
    }
    let answer = api.send(Method::POST, RUNS, &[("content-type", "text/plain")], "{}").await;
    assert_eq!(answer.problem(), (415, "wrong-content-type".to_owned()));
    assert_eq!(answer.json()["accepts"], json!(["application/json"]));
    let untyped = api.send(Method::POST, RUNS, &[("content-length", "2")], "{}").await;
    assert_eq!(untyped.problem().0, 415);
    let latin = [("content-type", "application/yaml")];
    let answer = api.send(Method::POST, "/v1/workflows", &latin, &b"name: \xe9"[..]).await;
    assert_eq!(answer.problem(), (400, "malformed-body".to_owned()));
    assert!(api.host.submitted().is_empty(), "nothing was started");
}

#[tokio::test]
async fn a_body_over_its_limit_is_refused_announced_or_not() {
    let api = Api::with(Settings { payload_bytes: 1_000, ..Settings::default() });
    let large = format!("{{\"input\": \"{}\"}}", "x".repeat(2_000));
    let answer = api.post(RUNS, &[], &large).await;
    assert_eq!(answer.problem(), (413, "too-large".to_owned()));
    assert_eq!(answer.json()["limit_bytes"], 1_000);

    let json = ("content-type", "application/json");
    let announced =
        api.send(Method::POST, RUNS, &[json, ("content-length", "99999999")], Body::empty()).await;
    assert_eq!(announced.problem().0, 413);
    let pieces = futures_util::stream::repeat("x".repeat(1 << 16)).map(Ok::<_, std::convert::Infallible>);
    let endless = api.send(Method::POST, RUNS, &[json], Body::from_stream(pieces)).await;
    assert_eq!(endless.problem().0, 413);
    let yaml = [("content-type", "application/yaml")];
    let document = api.send(Method::POST, "/v1/workflows", &yaml, "x".repeat((256 << 10) + 1)).await;
    assert_eq!(document.problem().0, 413);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let api = Api::new();
    let never = Body::from_stream(futures_util::stream::pending::<Result<&str, std::io::Error>>());
    let answer = api.send(Method::POST, RUNS, &[("content-type", "application/json")], never).await;
    assert_eq!(answer.problem(), (408, "body-timeout".to_owned()));
}

#[tokio::test]
async fn headers_and_parameters_that_do_not_fit() {
    let api = Api::new();
    let long = "k".repeat(256);
    for key in ["", "\"\"", &long] {
        let answer = api.post(RUNS, &[("idempotency-key", key)], "{}").await;
        assert_eq!(answer.problem(), (400, "invalid-header".to_owned()), "{key:?}");
    }
    let both = format!("{{\"id\": \"{}\"}}", run());
    assert_eq!(api.post(RUNS, &[("idempotency-key", "k")], &both).await.problem().0, 400);

    let id = api.host.add_run(1);
    for path in [
        "/v1/runs?colour=red".to_owned(),
        "/v1/runs?limit=0".to_owned(),
        "/v1/runs?limit=-1".to_owned(),
        "/v1/runs?limit=1001".to_owned(),
        "/v1/runs?status=finished".to_owned(),
        "/v1/runs?cursor=abc".to_owned(),
        "/v1/runs?created_from=yesterday".to_owned(),
        format!("/v1/runs/{id}?after=x"),
        format!("/v1/runs/{id}?afer=1"),
        format!("/v1/runs/{id}/events?limit=5001"),
        format!("/v1/runs/{id}/logs?after=3"),
        format!("/v1/runs/{id}/logs?level=loud"),
    ] {
        assert_eq!(api.get(&path).await.problem(), (400, "invalid-query".to_owned()), "{path}");
    }
    let wasm = [("content-type", "application/wasm")];
    let grant = api.send(Method::POST, "/v1/plugins?grant=GET", &wasm, "x").await;
    assert_eq!(grant.problem(), (422, "invalid-grant".to_owned()));
    let format =
        api.send(Method::POST, "/v1/sql?format=a%20b", &[("content-type", "text/plain")], "SELECT 1").await;
    assert_eq!(format.problem(), (400, "invalid-query".to_owned()));
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_done() {
    let api = Api::new();
    assert_eq!(api.get("/v1/nothing").await.problem(), (404, "path-not-found".to_owned()));
    assert_eq!(api.get("/v1/runs/seven").await.problem(), (404, "run-not-found".to_owned()));
    assert_eq!(
        api.get(&format!("/v1/runs/{}/events", run())).await.problem(),
        (404, "run-not-found".to_owned())
    );
    assert_eq!(
        api.get(&format!("/v1/runs/{}/logs", run())).await.problem(),
        (404, "run-not-found".to_owned())
    );
    assert_eq!(api.get("/v1/workflows/ordres").await.json()["near"], json!(["orders"]));
    assert_eq!(api.get("/v1/workflows/orders/versions/9").await.json()["newest"], 3);
    assert_eq!(
        api.get("/v1/workflows/orders/versions/x").await.problem(),
        (404, "version-not-found".to_owned())
    );
    assert_eq!(api.get("/problems/nonsense").await.problem(), (404, "path-not-found".to_owned()));
    let deleted = api.send(Method::DELETE, "/v1/workflows", &[], Body::empty()).await;
    assert_eq!(deleted.problem(), (405, "method-not-allowed".to_owned()));
    let mut allowed: Vec<&str> = deleted.header("allow").split(',').collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
    let long = api.get(&format!("/v1/runs?workflow={}", "x".repeat(9_000))).await;
    assert_eq!(long.problem(), (414, "target-too-long".to_owned()));
}

#[tokio::test]
async fn strangers_are_kept_out() {
    let api = Api::new();
    let rebound = api.send(Method::GET, "/v1/runs", &[("host", "evil.example:7878")], Body::empty()).await;
    assert_eq!(rebound.problem(), (421, "host-refused".to_owned()));
    let foreign = api.post(RUNS, &[("origin", "https://evil.example")], "{}").await;
    assert_eq!(foreign.problem(), (403, "origin-refused".to_owned()));

    let api =
        Api::with(Settings { tokens: vec!["a-token-of-enough-length".to_owned()], ..Settings::default() });
    let answer = api.get("/v1/runs").await;
    assert_eq!(answer.problem(), (401, "unauthorized".to_owned()));
    assert!(answer.header("www-authenticate").starts_with("Bearer"));
    let right = [("authorization", "Bearer a-token-of-enough-length"), ("host", "anything.example")];
    assert_eq!(api.send(Method::GET, "/v1/runs", &right, Body::empty()).await.status, 200);
}

#[tokio::test]
async fn all_types_of_problems_are_listed() {
    let page = Api::new().get("/problems").await.text();
    assert!(kinds::ALL.iter().all(|kind| page.contains(&kind.path())));
}
