//! Waiting for a run and following it: nobody polls, nothing is missed, a draining host lets everybody go.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use http::Method;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::task::JoinHandle;

use super::{Answer, Api, Settings};

/// Starts a request and waits until the host waits on its behalf.
async fn waiting(api: &Arc<Api>, path: String) -> JoinHandle<Answer> {
    let (api, before) = (Arc::clone(api), api.host.waiters());
    let host = Arc::clone(&api.host);
    let request =
        tokio::spawn(
            async move { api.send(Method::GET, &path, &[("prefer", "wait=20")], Body::empty()).await },
        );
    while host.waiters() == before {
        tokio::task::yield_now().await;
    }
    request
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_ends_with_the_run() {
    let api = Arc::new(Api::new());
    let id = api.host.add_run(1);
    let poll = waiting(&api, format!("/v1/runs/{id}")).await;
    api.host.event(id, "attempt_started");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!poll.is_finished(), "a change is not the end");
    api.host.event(id, "run_finished");
    let answer = poll.await.expect("answered");
    assert_eq!(
        (answer.json()["status"].clone(), answer.header("preference-applied")),
        (json!("completed"), "wait=20")
    );
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_with_after_ends_with_the_next_change() {
    let api = Arc::new(Api::new());
    let id = api.host.add_run(1);
    let poll = waiting(&api, format!("/v1/runs/{id}?after=1")).await;
    api.host.event(id, "attempt_started");
    let answer = poll.await.expect("answered").json();
    assert_eq!((&answer["status"], &answer["seq"]), (&json!("running"), &json!(2)));
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_that_waits_in_vain_gives_what_there_is() {
    let api = Arc::new(Api::new());
    let id = api.host.add_run(1);
    let begin = tokio::time::Instant::now();
    let answer = waiting(&api, format!("/v1/runs/{id}")).await.await.expect("answered");
    assert_eq!((answer.status.as_u16(), answer.json()["status"].clone()), (200, json!("pending")));
    assert_eq!(begin.elapsed().as_secs(), 20);
}

#[tokio::test]
async fn a_draining_host_lets_its_waiters_go() {
    let api = Arc::new(Api::new());
    let id = api.host.add_run(1);
    let run = waiting(&api, format!("/v1/runs/{id}")).await;
    let events = waiting(&api, format!("/v1/runs/{id}/events?after=1")).await;
    let logs = waiting(&api, format!("/v1/runs/{id}/logs")).await;
    api.host.drain();
    assert_eq!(run.await.expect("answered").json()["status"], "pending");
    assert_eq!(events.await.expect("answered").json()["events"], json!([]));
    assert_eq!(logs.await.expect("answered").json()["logs"], json!([]));
}

#[tokio::test]
async fn events_are_read_in_parts() {
    let api = Api::new();
    let id = api.host.add_run(1);
    for kind in ["attempt_started", "attempt_finished", "run_finished"] {
        api.host.event(id, kind);
    }
    let page = api.get(&format!("/v1/runs/{id}/events?after=1&limit=2")).await.json();
    let seqs: Vec<_> =
        page["events"].as_array().expect("events").iter().map(|event| event["seq"].clone()).collect();
    assert_eq!(seqs, [2, 3]);
    assert_eq!(
        (&page["next_after"], &page["seq"], &page["status"]),
        (&json!(3), &json!(4), &json!("completed"))
    );
    let none = api.get(&format!("/v1/runs/{id}/events?after=4")).await.json();
    assert_eq!((&none["events"], &none["next_after"]), (&json!([]), &json!(4)));
}

#[tokio::test(start_paused = true)]
async fn logs_are_waited_for() {
    let api = Arc::new(Api::new());
    let id = api.host.add_run(1);
    let poll = waiting(&api, format!("/v1/runs/{id}/logs")).await;
    api.host.event(id, "attempt_reported");
    let page = poll.await.expect("answered").json();
    assert_eq!((&page["logs"][0]["message"], &page["next_after"]), (&json!("said"), &json!("2.0")));
    let rest = api.get(&format!("/v1/runs/{id}/logs?after=2.0")).await.json();
    assert_eq!((&rest["logs"], &rest["next_after"]), (&json!([]), &json!("2.0")));
}

/// Opens a stream of events.
async fn stream(api: &Api, path: &str, headers: &[(&str, &str)]) -> http::Response<Body> {
    api.open(Method::GET, path, &[headers, &[("accept", "text/event-stream")]].concat(), Body::empty()).await
}

async fn piece(body: &mut Body) -> Option<String> {
    let frame = body.frame().await?.expect("no error");
    Some(String::from_utf8_lossy(&frame.into_data().expect("data")).into_owned())
}

#[tokio::test(start_paused = true)]
async fn a_stream_gives_every_event_once_and_then_its_end() {
    // Given a run with one event, and a client that listens.
    let settings = Settings { heartbeat: Duration::from_secs(15), ..Settings::default() };
    let api = Api::with(settings);
    let id = api.host.add_run(1);
    let response = stream(&api, &format!("/v1/runs/{id}/events"), &[]).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    assert_eq!(piece(&mut body).await.as_deref(), Some("retry: 1000\n\n"));
    let first = piece(&mut body).await.expect("an event");
    assert!(first.starts_with("id: 1\ndata: {\"run\":") && first.ends_with("}\n\n"), "{first:?}");

    // When nothing happens, then it hears that the host lives.
    assert_eq!(piece(&mut body).await.as_deref(), Some(": still here\n\n"));

    // When the run goes on and ends, then it hears all of it and the stream ends.
    api.host.event(id, "attempt_started");
    api.host.event(id, "run_finished");
    assert!(piece(&mut body).await.is_some_and(|text| text.starts_with("id: 2\n")));
    assert!(piece(&mut body).await.is_some_and(|text| text.starts_with("id: 3\n")));
    let end = piece(&mut body).await;
    assert_eq!(end.as_deref(), Some("event: end\ndata: {\"seq\":3,\"status\":\"completed\"}\n\n"));
    assert_eq!(piece(&mut body).await, None);
}

#[tokio::test]
async fn a_stream_goes_on_where_it_broke_off_and_stops_a_client_that_has_all() {
    let api = Api::new();
    let id = api.host.add_run(1);
    api.host.event(id, "attempt_started");
    let path = format!("/v1/runs/{id}/events");
    let mut body = stream(&api, &path, &[("last-event-id", "1")]).await.into_body();
    piece(&mut body).await.expect("the opening");
    assert!(piece(&mut body).await.is_some_and(|text| text.starts_with("id: 2\n")));

    api.host.event(id, "run_finished");
    assert_eq!(stream(&api, &path, &[("last-event-id", "3")]).await.status(), 204);
    assert_eq!(stream(&api, &path, &[("last-event-id", "x")]).await.status(), 400);
}

#[tokio::test]
async fn a_stream_ends_when_the_host_drains() {
    let api = Api::new();
    let id = api.host.add_run(1);
    let mut body = stream(&api, &format!("/v1/runs/{id}/events?after=1"), &[]).await.into_body();
    piece(&mut body).await.expect("the opening");
    api.host.drain();
    assert_eq!(piece(&mut body).await, None);
}
