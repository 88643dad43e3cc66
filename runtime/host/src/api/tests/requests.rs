//! What a right request gets.

use std::time::Duration;

use axum::body::Body;
use http::Method;
use reipaz_core::{
    ids::RunId,
    partition::{Again, RunStatus, StartFrom},
};
use serde_json::{Value, json};

use super::{super::routes, Api, Settings, double::WORKFLOW};
use crate::facade::{Change, FacadeError};

#[tokio::test]
async fn a_submission_is_answered_with_the_run_and_its_place() {
    let api = Api::new();
    let body = r#"{"input": {"n" : [1, 2.50]}, "version": 2, "metadata": {"trace": "abc"}}"#;
    let answer = api.post("/v1/workflows/orders/runs", &[], body).await;
    assert_eq!(answer.status, 202);
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(answer.header("location"), format!("/v1/runs/{id}"));
    assert_eq!(answer.header("preference-applied"), "");

    let submitted = &api.host.submitted()[0];
    assert_eq!((submitted.workflow.as_str(), submitted.version), (WORKFLOW, Some(2)));
    assert_eq!(&*submitted.input, r#"{"n":[1,2.50]}"#, "the text goes on as it is, without its white space");
    assert_eq!(submitted.metadata, [("trace".into(), "abc".into())]);
}

#[tokio::test]
async fn a_wait_that_sufficed_is_answered_with_the_end() {
    let api = Api::new();
    let answer = api.post("/v1/workflows/orders/runs", &[("prefer", "wait=300")], "{}").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("preference-applied"), "wait=30", "what was asked for is clamped");
    assert_eq!(answer.json()["output"], 7);
    assert_eq!(api.host.submitted()[0].wait.as_secs(), 30);
}

#[tokio::test]
async fn a_submission_without_a_body_has_null_for_input() {
    let api = Api::new();
    let answer = api.send(Method::POST, "/v1/workflows/orders/runs", &[], Body::empty()).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(&*api.host.submitted()[0].input, "null");
}

#[tokio::test]
async fn an_idempotency_key_is_handed_on_and_a_replay_is_marked() {
    let api = Api::new();
    for key in ["known", "\"known\""] {
        let answer = api.post("/v1/workflows/orders/runs", &[("idempotency-key", key)], "{}").await;
        assert_eq!(answer.header("idempotency-replayed"), "true");
    }
    let keys: Vec<_> = api.host.submitted().into_iter().map(|request| request.idempotency_key).collect();
    assert_eq!(keys, [Some("known".into()), Some("known".into())], "with or without quotes");
}

#[tokio::test]
async fn a_run_reads_as_documented() {
    let api = Api::new();
    let id = api.host.add_run(1);
    let run = api.get(&format!("/v1/runs/{id}")).await.json();
    let expected = json!({"id": id, "workflow": "orders", "version": 1, "status": "pending", "seq": 1, "input": null,
        "output": null, "error": null, "steps": {}, "created_at": "2026-01-01T00:00:00.001000Z", "started_at": null,
        "finished_at": null});
    assert_eq!(run, expected);
}

#[tokio::test]
async fn changes_reach_the_host() {
    let api = Api::new();
    let id = api.host.add_run(1);
    let path = |what: &str| format!("/v1/runs/{id}/{what}");
    assert_eq!(api.post(&path("cancel"), &[], r#"{"reason": "enough"}"#).await.status, 200);
    assert_eq!(api.send(Method::POST, &path("pause"), &[], Body::empty()).await.status, 200);
    assert_eq!(api.post(&path("resume"), &[], "{}").await.status, 200);
    assert_eq!(api.post(&path("retry"), &[], r#"{"step": "/a"}"#).await.status, 200);
    let again = r#"{"from": "start", "input": {"n": 1.50}}"#;
    assert_eq!(api.post(&path("retry"), &[], again).await.status, 200);
    assert_eq!(api.post(&path("retry"), &[], r#"{"input": null}"#).await.status, 200);
    assert_eq!(api.post(&path("retry"), &[], r#"{"from": "start", "step": "/a"}"#).await.status, 400);
    assert_eq!(api.post(&path("retry"), &[], r#"{"from": "here"}"#).await.status, 400);
    let changes: Vec<Change> = api.host.changes().into_iter().map(|(_, change)| change).collect();
    let expected = [
        Change::Cancel { reason: Some("enough".into()) },
        Change::Pause { reason: None },
        Change::Resume { reason: None },
        Change::Retry(Again { from: StartFrom::Step("/a".into()), input: None }),
        Change::Retry(Again { from: StartFrom::Start, input: Some(r#"{"n":1.50}"#.into()) }),
        Change::Retry(Again { from: StartFrom::Failed, input: Some("null".into()) }),
    ];
    assert_eq!(changes, expected);
}

#[tokio::test(start_paused = true)]
async fn many_runs_are_changed_a_part_at_a_time() {
    // Given 150 runs that go on, and one that has ended.
    let api = Api::new();
    let ids: Vec<RunId> = (0..150).map(|number| api.host.add_run(number)).collect();
    api.host.event(ids[0], "run_finished");
    let begin = tokio::time::Instant::now();
    let bulk = |more: &str| format!(r#"{{"change": "cancel", "workflow": "orders"{more}}}"#);

    // When somebody asks what it would be for, nothing happens.
    let dry = api.post("/v1/runs/bulk", &[], &bulk(r#", "dry_run": true, "limit": 3"#)).await.json();
    let newest: Vec<String> = ids.iter().rev().take(3).map(ToString::to_string).collect();
    assert_eq!(dry["runs"], json!(newest));
    assert_eq!(api.host.changes(), []);

    // Then two calls do it, each run once, at a bounded rate.
    let first = api.post("/v1/runs/bulk", &[], &bulk(r#", "reason": "enough""#)).await.json();
    assert_eq!(first["runs"].as_array().map(Vec::len), Some(100));
    let next = first["next"].as_str().expect("there are more");
    let second = api.post("/v1/runs/bulk", &[], &bulk(&format!(r#", "cursor": "{next}""#))).await.json();
    assert_eq!((second["runs"].as_array().map(Vec::len), &second["next"]), (Some(49), &Value::Null));
    assert!(begin.elapsed() >= Duration::from_millis(147 * 20), "{:?}", begin.elapsed());
    let changed: Vec<RunId> = api.host.changes().iter().map(|(id, _)| *id).collect();
    assert_eq!(changed, ids.iter().skip(1).rev().copied().collect::<Vec<_>>());
    assert_eq!(api.host.changes()[0].1, Change::Cancel { reason: Some("enough".into()) });

    // One that refuses is listed; where nobody can be asked, the call says so.
    api.host.refuse(FacadeError::WrongStatus { run: ids[149], status: RunStatus::Completed });
    let refused = api.post("/v1/runs/bulk", &[], &bulk(r#", "limit": 1"#)).await.json();
    assert_eq!(refused["refused"][0]["type"], "/problems/wrong-status", "{refused}");
    api.host.refuse(FacadeError::StorageFull);
    assert_eq!(api.post("/v1/runs/bulk", &[], &bulk("")).await.problem(), (507, "storage-full".to_owned()));

    // What is for everything, or says nothing that can be done, is refused.
    for wrong in [
        r#"{"change": "cancel"}"#,
        r#"{"change": "end", "workflow": "orders"}"#,
        r#"{"change": "retry", "workflow": "orders", "reason": "again"}"#,
        r#"{"change": "retry", "workflow": "orders", "limit": 101}"#,
    ] {
        assert_eq!(api.post("/v1/runs/bulk", &[], wrong).await.problem(), (400, "malformed-body".to_owned()));
    }
    let wrong = api.post("/v1/runs/bulk", &[], &bulk(r#", "status": ["lost"]"#)).await;
    assert_eq!(wrong.problem(), (400, "invalid-query".to_owned()));
}

#[tokio::test]
async fn runs_are_paged_without_gaps_or_doubles() {
    // Given seven runs.
    let api = Api::new();
    let mut ids: Vec<String> = (0..7).map(|number| api.host.add_run(number).to_string()).collect();
    ids.reverse();

    // When they are read three at a time, and one more comes meanwhile.
    let mut seen = Vec::new();
    let mut cursor = String::new();
    for page in 0.. {
        let answer = api.get(&format!("/v1/runs?limit=3{cursor}")).await.json();
        let runs = answer["runs"].as_array().expect("runs").clone();
        seen.extend(runs.iter().map(|run| run["id"].as_str().expect("an id").to_owned()));
        if page == 0 {
            api.host.add_run(50);
        }
        match answer["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }

    // Then each of the seven was seen once, newest first.
    assert_eq!(seen, ids);
}

#[tokio::test]
async fn statuses_are_asked_for_together_or_one_by_one() {
    let api = Api::new();
    let running = api.host.add_run(1);
    api.host.event(running, "attempt_started");
    let ended = api.host.add_run(2);
    api.host.event(ended, "run_finished");
    api.host.add_run(3);
    for query in ["status=running,completed", "status=running&status=completed", "status=running%2Ccompleted"]
    {
        let page = api.get(&format!("/v1/runs?{query}")).await.json();
        assert_eq!(page["runs"].as_array().map(Vec::len), Some(2), "{query}");
    }
}

#[tokio::test]
async fn workflows_are_published_and_paged() {
    let api = Api::new();
    let yaml = [("content-type", "application/yaml; charset=utf-8")];
    let answer = api.send(Method::POST, "/v1/workflows", &yaml, "name: x").await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (201, "/v1/workflows/orders/versions/3"));
    assert_eq!(api.send(Method::POST, "/v1/workflows", &yaml, "name: old").await.status, 200);
    assert_eq!(api.send(Method::POST, "/v1/workflows/validate", &yaml, "name: x").await.status, 200);

    let first = api.get("/v1/workflows?limit=2").await.json();
    assert_eq!((&first["workflows"][1]["name"], &first["next"]), (&json!("b"), &json!("b")));
    let last = api.get("/v1/workflows?limit=2&after=b").await.json();
    assert_eq!((&last["workflows"][0]["name"], &last["next"]), (&json!("c"), &Value::Null));
}

#[tokio::test]
async fn a_plugin_comes_with_its_grants() {
    let api = Api::new();
    let wasm = [("content-type", "application/wasm")];
    let path = "/v1/plugins?grant=http%3DGET%20a.example&grant=http=POST+b.example&replace=true";
    let answer = api.send(Method::POST, path, &wasm, "\0asm").await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("location"), "/v1/plugins/acme/score?version=1.2.0");
    api.send(Method::POST, "/v1/plugins?grants=none", &wasm, "\0asm").await;
    api.send(Method::POST, "/v1/plugins", &wasm, "\0asm").await;

    let installs = api.host.installs();
    assert_eq!(installs[0].grants.as_ref().expect("some")["http"], ["GET a.example", "POST b.example"]);
    assert!(installs[0].replace && !installs[1].replace);
    assert!(installs[1].grants.as_ref().is_some_and(std::collections::BTreeMap::is_empty));
    assert_eq!(installs[2].grants, None);
}

#[tokio::test]
async fn a_plugin_name_may_have_a_slash() {
    let api = Api::new();
    for path in ["/v1/plugins/acme/score", "/v1/plugins/acme%2Fscore", "/v1/plugins/acme/score?version=1.2.0"]
    {
        assert_eq!(api.get(path).await.json()["name"], "acme/score", "{path}");
    }
    assert_eq!(api.get("/v1/plugins/acme/score?version=9").await.problem().0, 404);
}

#[tokio::test]
async fn a_statement_goes_to_clickhouse_and_its_answer_comes_back() {
    let api = Api::new();
    let sql = [("content-type", "text/plain")];
    let answer = api.send(Method::POST, "/v1/sql?format=CSV", &sql, " SELECT 1 ").await;
    assert_eq!(
        (answer.text().as_str(), answer.header("content-type")),
        ("CSV: SELECT 1", "text/csv; charset=utf-8")
    );
}

#[tokio::test]
async fn what_the_host_says_of_itself() {
    let api = Api::new();
    assert_eq!(api.get("/healthz").await.json()["status"], "ok");
    assert_eq!(api.get("/readyz").await.status, 200);
    assert_eq!(api.get("/metrics").await.text(), "metric 1\n");
    api.host.drain();
    let draining = api.get("/readyz").await;
    assert_eq!((draining.status.as_u16(), &draining.json()["ready"]), (503, &json!(false)));
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_sees_what_it_needs() {
    let settings = Settings {
        cors_origins: vec!["https://shop.example".to_owned()],
        tokens: vec!["a-token-of-enough-length".to_owned()],
        ..Settings::default()
    };
    let api = Api::with(settings);
    let origin = ("origin", "https://shop.example");
    let asked =
        [origin, ("access-control-request-method", "POST"), ("access-control-request-headers", "prefer")];
    let preflight = api.send(Method::OPTIONS, "/v1/workflows/x/runs", &asked, Body::empty()).await;
    assert_eq!(preflight.status, 200, "before any token is asked for");
    assert_eq!(preflight.header("access-control-allow-origin"), "https://shop.example");
    let answer = api.send(Method::GET, "/v1/runs", &[origin], Body::empty()).await;
    assert_eq!(answer.problem().0, 401);
    for exposed in ["location", "retry-after", "preference-applied", "x-request-id"] {
        assert!(answer.header("access-control-expose-headers").contains(exposed), "{exposed}");
    }
    let other = api.send(Method::GET, "/healthz", &[("origin", "https://evil.example")], Body::empty()).await;
    assert_eq!(other.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn a_request_keeps_its_id_or_gets_one() {
    let api = Api::new();
    let own = api.send(Method::GET, "/healthz", &[("x-request-id", "abc-1")], Body::empty()).await;
    assert_eq!(own.header("x-request-id"), "abc-1");
    let bad = "x".repeat(65);
    let first = api.send(Method::GET, "/healthz", &[("x-request-id", &bad)], Body::empty()).await;
    let second = api.get("/healthz").await;
    assert!(!first.header("x-request-id").is_empty());
    assert_ne!(first.header("x-request-id"), bad);
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
    assert_eq!(second.header("cache-control"), "no-store");
}

#[tokio::test]
async fn the_description_and_the_routes_are_the_same() {
    // Given the description that is served and the table that is routed by.
    let served = Api::new().get("/openapi.json").await.json();
    let mut described: Vec<(String, String)> = Vec::new();
    for (path, item) in served["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("methods") {
            assert!(
                operation["summary"].is_string() && operation["responses"].is_object(),
                "{method} {path}"
            );
            described.push((path.clone(), method.clone()));
        }
    }
    let mut routed: Vec<(String, String)> = routes::all()
        .iter()
        .flat_map(|route| {
            route.methods.iter().map(|method| (route.path.replace("{*", "{"), (*method).to_owned()))
        })
        .collect();

    // Then neither has what the other lacks.
    described.sort();
    routed.sort();
    assert_eq!(described, routed);

    // And the table tells the truth about its handlers, and each reference leads somewhere.
    let api = Api::new();
    for (path, method) in &routed {
        let path =
            path.replace("{name}", "x").replace("{id}", "x").replace("{version}", "1").replace("{slug}", "x");
        let method: Method = method.to_uppercase().parse().expect("a method");
        let answer = api.send(method.clone(), &path, &[], Body::empty()).await;
        assert_ne!(answer.status, 405, "{method} {path}");
        let unrouted = answer.status == 404 && answer.text().contains("path-not-found");
        assert!(!unrouted || path.starts_with("/problems/"), "{method} {path}");
    }
    references(&served, &served);
}

fn references(document: &Value, part: &Value) {
    match part {
        Value::Object(members) => {
            if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                let pointer = reference.trim_start_matches('#');
                assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
            }
            members.values().for_each(|member| references(document, member));
        }
        Value::Array(items) => items.iter().for_each(|item| references(document, item)),
        _ => {}
    }
}
