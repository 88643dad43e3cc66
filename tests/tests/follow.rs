//! Following a run from behind a proxy that cuts every connection: by long polls, and by an event stream.

use std::time::Duration;

use http::Method;
use http_body_util::BodyExt;
use reipaz_tests::{
    client::{Client, of_type, seq},
    host::Host,
    upstream::Upstream,
    workflows::{COUNT, chain},
};
use serde_json::{Value, json};

/// When the proxy cuts, whatever is under way.
const CUT_AFTER: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_cut_off_follows_a_run_of_a_minute_and_misses_nothing() {
    // Given a run of 20 steps of 3 s each.
    let upstream = Upstream::start(|_| async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        "done"
    })
    .await;
    let host = Host::plain().await;
    host.client().must_publish(&chain("minute", 20)).await;
    let id = host.client().submit("minute", &json!({"url": upstream.url("/")})).await;

    // When a client asks for events again and again, mostly within its 10 s, now and then for longer.
    let mut followed: Vec<Value> = Vec::new();
    let mut cut = 0;
    for poll in 0.. {
        let after = followed.last().map_or(0, seq);
        let path = format!("/v1/runs/{id}/events?after={after}");
        // A frontend's function opens a connection of its own each time.
        let client = Client::new(&host.url());
        let wait = if poll % 3 == 2 { 30 } else { 8 };
        match tokio::time::timeout(CUT_AFTER, client.get_waiting(&path, wait)).await {
            Ok(answer) => {
                let page = answer.expect(200).json();
                followed.extend(page["events"].as_array().expect("events").iter().cloned());
            }
            Err(_) => cut += 1,
        }
        if followed.last().is_some_and(|event| event["type"] == "run_finished") {
            break;
        }
        assert!(poll < 200, "the run does not end");
    }

    // Then it has each event once, in order, without a gap.
    let all = host.client().events(&id).await;
    println!("{} events; the client was cut off {cut} times", all.len());
    assert_eq!(followed, all);
    assert_eq!(all.iter().map(seq).collect::<Vec<_>>(), (1..=all.len() as u64).collect::<Vec<_>>());
    assert_eq!(of_type(&all, "attempt_finished").len(), 20);
    let run = host.client().get(&format!("/v1/runs/{id}")).await.expect(200).json();
    let took = reipaz_tests::time(&run["finished_at"]) - reipaz_tests::time(&run["created_at"]);
    assert!(took >= Duration::from_secs(60), "it took {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_waited_for_by_repeated_long_polls() {
    let upstream = Upstream::start(|_| async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        "done"
    })
    .await;
    let host = Host::plain().await;
    host.client().must_publish(&chain("short", 1)).await;
    let id = host.client().submit("short", &json!({"url": upstream.url("/")})).await;

    // A wait that is too short answers with the run as it stands, and says that it waited.
    let early = host.client().get_waiting(&format!("/v1/runs/{id}"), 1).await.expect(200);
    assert_eq!(early.header("preference-applied"), "wait=1");
    let early = early.json();
    assert_eq!(early["status"], "running", "{early}");

    // Waiting for the next change answers at the change, not at the end of the wait.
    let path = format!("/v1/runs/{id}?after={}", seq(&early));
    let changed = host.client().get_waiting(&path, 30).await.expect(200).json();
    assert!(seq(&changed) > seq(&early), "{changed}");
    let ended = host.client().finished(&id, Duration::from_secs(20)).await;
    assert_eq!(ended["status"], "completed", "{ended}");

    // A run that is over answers at once.
    let begin = std::time::Instant::now();
    host.client().get_waiting(&format!("/v1/runs/{id}?after={}", seq(&ended)), 30).await.expect(200);
    assert!(begin.elapsed() < Duration::from_secs(5));
}

/// One message of an event stream.
#[derive(Debug)]
struct Message {
    id: String,
    data: Value,
}

/// Reads a run's event stream after `last` until `enough` messages or its end.
async fn stream(host: &Host, id: &str, last: Option<&str>, enough: usize) -> Vec<Message> {
    let mut headers = vec![("accept", "text/event-stream")];
    headers.extend(last.map(|last| ("last-event-id", last)));
    let path = format!("/v1/runs/{id}/events");
    let response = host.client().open(Method::GET, &path, &headers, "").await.expect("an answer");
    assert_eq!(response.status(), 200);
    assert!(response.headers()["content-type"].to_str().expect("text").starts_with("text/event-stream"));
    let mut body = response.into_body();
    let (mut text, mut messages) = (String::new(), Vec::new());
    while messages.len() < enough {
        let frame = tokio::time::timeout(Duration::from_secs(40), body.frame())
            .await
            .expect("a stream with heartbeats");
        let Some(frame) = frame else { break };
        text.push_str(&String::from_utf8_lossy(
            &frame.expect("a whole frame").into_data().unwrap_or_default(),
        ));
        while let Some((block, rest)) = text.split_once("\n\n") {
            messages.extend(message(block));
            text = rest.to_owned();
        }
    }
    messages
}

/// A block of a stream, unless it is a comment or a setting.
fn message(block: &str) -> Option<Message> {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let data = field("data:")?;
    Some(Message { id: field("id:")?.to_owned(), data: serde_json::from_str(data).expect("JSON") })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_goes_on_where_it_broke_off() {
    // Given a run that is over.
    let host = Host::plain().await;
    host.client().must_publish(COUNT).await;
    let run = host.client().run("count", &json!({"n": 1})).await;
    let id = run["id"].as_str().expect("an id");
    let all = host.client().events(id).await;

    // When its stream is read, broken off after three events, and taken up again.
    let first = stream(&host, id, None, 3).await;
    let rest = stream(&host, id, Some(&first[2].id), usize::MAX).await;

    // Then nothing is missing or doubled, and the stream ends with the run.
    let joined: Vec<Value> = first.into_iter().take(3).chain(rest).map(|message| message.data).collect();
    assert_eq!(joined, all);
    assert_eq!(seq(all.last().expect("events")), seq(&run));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_shows_events_as_they_come() {
    let upstream = Upstream::start(|_| async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        "done"
    })
    .await;
    let host = Host::plain().await;
    host.client().must_publish(&chain("live", 3)).await;
    let id = host.client().submit("live", &json!({"url": upstream.url("/")})).await;
    let messages = stream(&host, &id, None, usize::MAX).await;
    assert_eq!(messages.last().expect("messages").data["type"], "run_finished");
    let ids: Vec<u64> = messages.iter().map(|message| message.id.parse().expect("ids are seqs")).collect();
    assert_eq!(ids, (1..=ids.len() as u64).collect::<Vec<_>>());
}
