//! Outgoing HTTP: what a grant allows, what is denied, what errors become, and what a guest never sees.

use std::sync::Arc;
use std::time::Duration;

use reipaz_engine::{Attempt, Class, Failure, Grants, Secrets};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::rig::{Rig, grants};
use crate::server::Server;

async fn try_http(rig: &Rig, granted: &Arc<Grants>, input: Value) -> Result<Value, Failure> {
    let mut input = input;
    input["do"] = json!("http");
    let attempt = Attempt { grants: granted.clone(), ..rig.attempt(input) };
    rig.engine.run(attempt).await.result.map(|output| serde_json::from_str(&output).unwrap())
}

/// A grant for everything on the server.
fn all_of(server: &Server) -> Arc<Grants> {
    grants(&[&format!("* {}", server.authority)])
}

#[tokio::test]
async fn a_granted_request_gets_its_answer() {
    let (rig, server) = (Rig::new().await, Server::start().await);
    let input = json!({
        "method": "POST", "authority": server.authority, "path": "/echo?a=1", "body": "hello",
        "headers": {"x-kind": "test"},
    });
    let answer = try_http(&rig, &all_of(&server), input).await.unwrap();
    assert_eq!(answer["status"], 200);
    let seen: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!(seen["line"], "POST /echo?a=1 HTTP/1.1");
    assert_eq!(
        (&seen["headers"]["x-kind"], &seen["headers"]["host"]),
        (&json!("test"), &json!(server.authority))
    );
    assert_eq!(seen["body"], "hello");
}

#[tokio::test]
async fn connections_are_reused_and_a_closed_one_is_not() {
    let (rig, server) = (Rig::new().await, Server::start().await);
    let granted = all_of(&server);
    for _ in 0..20 {
        try_http(&rig, &granted, json!({"authority": server.authority, "path": "/echo"})).await.unwrap();
    }
    // A connection is given back in the background, so now and then the next request is faster than that.
    assert!(server.connections() < 10, "{}", server.connections());
    for _ in 0..3 {
        try_http(&rig, &granted, json!({"authority": server.authority, "path": "/last"})).await.unwrap();
    }
    try_http(&rig, &granted, json!({"authority": server.authority, "path": "/echo"})).await.unwrap();
}

#[tokio::test]
async fn what_is_not_granted_is_denied_whatever_the_guest_makes_of_it() {
    let (rig, server) = (Rig::new().await, Server::start().await);
    let cases = [
        grants(&[]),
        grants(&[&format!("POST {}", server.authority)]),
        grants(&["GET 127.0.0.1"]),
        grants(&["GET example.com"]),
    ];
    for granted in cases {
        // The guest reports it as a network error; the host knows better.
        let input = json!({"authority": server.authority, "path": "/echo"});
        let failure = try_http(&rig, &granted, input).await.unwrap_err();
        assert_eq!((failure.class, failure.code.as_str()), (Class::Denied, "http_denied"), "{granted:?}");
        assert!(failure.message.contains(&server.authority), "{}", failure.message);
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_name_that_leads_to_a_private_address_is_denied() {
    let (rig, server) = (Rig::new().await, Server::start().await);
    let port = server.authority.rsplit_once(':').unwrap().1;
    // A wildcard grants names, and whoever controls a name may point it here.
    for host in ["localhost", "127.0.0.1", "[::ffff:127.0.0.1]", "2130706433", "0.0.0.0", "169.254.169.254"] {
        let input = json!({"authority": format!("{host}:{port}"), "path": "/echo"});
        let failure = try_http(&rig, &grants(&["* *:*"]), input).await.unwrap_err();
        assert_eq!(
            (failure.class, failure.code.as_str()),
            (Class::Denied, "http_denied"),
            "{host}: {failure:?}"
        );
    }
    assert_eq!(server.connections(), 0);
    // Listed by itself, it is what the operator meant.
    let listed = grants(&[&format!("GET localhost:{port}")]);
    let input = json!({"authority": format!("localhost:{port}"), "path": "/echo"});
    assert!(try_http(&rig, &listed, input.clone()).await.is_ok());
    // An idle connection made under that grant is none of another attempt's.
    let failure = try_http(&rig, &grants(&["* *:*"]), input).await.unwrap_err();
    assert_eq!(failure.class, Class::Denied);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_leads_nowhere_by_itself() {
    let (rig, server) = (Rig::new().await, Server::start().await);
    let input = json!({"authority": server.authority, "path": "/redirect"});
    let answer = try_http(&rig, &all_of(&server), input).await.unwrap();
    assert_eq!(answer["status"], 302);
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn what_goes_wrong_has_wasis_name_for_it() {
    let (rig, server) = (Rig::new().await, Server::start().await);
    let granted = grants(&[
        &format!("* {}", server.authority),
        "GET 127.0.0.1:1",
        "GET no-such-name.invalid",
        &format!("GET localhost:{}", server.authority.rsplit_once(':').unwrap().1),
    ]);
    let on_server = |path: &str| json!({"authority": server.authority, "path": path});
    let cases = [
        (json!({"authority": "127.0.0.1:1"}), "ConnectionRefused"),
        (json!({"authority": "no-such-name.invalid"}), "Dns"),
        (json!({"authority": server.authority, "scheme": "https"}), "Tls"),
        (
            json!({"authority": server.authority, "path": "/silent", "first_byte_ms": 50}),
            "ConnectionReadTimeout",
        ),
        (on_server("/hang_up"), "ncomplete"),
        (on_server("/cut"), "ncomplete"),
        (on_server("/nonsense"), "HttpProtocolError"),
        (on_server("/huge_header"), "HttpResponseHeaderSectionSize"),
    ];
    for (input, name) in cases {
        let failure = try_http(&rig, &granted, input.clone()).await.unwrap_err();
        assert_eq!(failure.class, Class::Network, "{input}: {failure:?}");
        assert!(failure.message.contains(name), "{input}: expected {name}, got {}", failure.message);
    }
}

#[tokio::test]
async fn bodies_are_bounded_both_ways() {
    let rig = Rig::with(|config| {
        config.http.request_bytes = 1 << 20;
        config.http.response_bytes = 1 << 20;
    })
    .await;
    let server = Server::start().await;
    let granted = all_of(&server);
    let get = |bytes: u64| json!({"authority": server.authority, "path": format!("/bytes/{bytes}"), "length_only": true});
    assert_eq!(try_http(&rig, &granted, get(1 << 20)).await.unwrap()["bytes"], 1 << 20);
    let failure = try_http(&rig, &granted, get((1 << 20) + 1)).await.unwrap_err();
    assert!(failure.message.contains("body size exceeds limit"), "{failure:?}");
    let post = |bytes: u64| json!({"method": "POST", "authority": server.authority, "path": "/swallow", "body_bytes": bytes});
    assert!(try_http(&rig, &granted, post(1 << 20)).await.is_ok());
    let failure = try_http(&rig, &granted, post(2 << 20)).await.unwrap_err();
    assert_eq!(failure.class, Class::Network, "{failure:?}");
}

#[tokio::test]
async fn a_request_in_progress_is_cut_at_the_deadline() {
    let (rig, server) = (Rig::new().await, Server::start().await);
    for path in ["/silent", "/slow_body"] {
        let input = json!({"do": "http", "authority": server.authority, "path": path});
        let mut attempt = Attempt { grants: all_of(&server), ..rig.attempt(input) };
        attempt.timeout = Duration::from_millis(100);
        let began = Instant::now();
        let failure = rig.engine.run(attempt).await.result.unwrap_err();
        assert_eq!(failure.class, Class::Timeout, "{path}");
        assert!(began.elapsed() < Duration::from_millis(300), "{path}: {:?}", began.elapsed());
    }
    rig.assert_sound().await;
}

struct OneSecret;

impl Secrets for OneSecret {
    fn substitute(&self, header_value: &str, host: &str) -> Option<String> {
        (host == "127.0.0.1")
            .then(|| header_value.replace("{{token}}", "s3cret"))
            .filter(|new| new != header_value)
    }
}

#[tokio::test]
async fn secrets_are_put_into_headers_on_the_way_out_and_nowhere_else() {
    let (rig, server) = (Rig::new().await, Server::start().await);
    let input = json!({
        "do": "http", "method": "POST", "authority": server.authority, "path": "/echo", "body": "{{token}}",
        "headers": {"authorization": "Bearer {{token}}"},
    });
    let attempt = Attempt { grants: all_of(&server), secrets: Arc::new(OneSecret), ..rig.attempt(input) };
    let output = rig.engine.run(attempt).await.result.unwrap();
    let answer: Value = serde_json::from_str(&output).unwrap();
    let seen: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!(seen["headers"]["authorization"], "Bearer s3cret");
    assert_eq!(seen["body"], "{{token}}");
}

#[tokio::test]
async fn many_requests_at_once_get_their_own_answers() {
    let (rig, server) = (Rig::new().await, Server::start().await);
    let granted = all_of(&server);
    let all = (0..24).map(|i| {
        let input =
            json!({"method": "POST", "authority": server.authority, "path": "/echo", "body": format!("{i}")});
        let (rig, granted) = (&rig, &granted);
        async move { (i, try_http(rig, granted, input).await.unwrap()) }
    });
    for (i, answer) in futures_util::future::join_all(all).await {
        let seen: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        assert_eq!(seen["body"], format!("{i}"));
    }
}
