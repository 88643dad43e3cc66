//! Servers that attack: whatever a granted server sends, withholds or refuses to read, the attempt that called it ends in its
//! time with its own failure, and nothing of it is left behind: no permit, no connection, no answer to somebody else.

use std::sync::Arc;
use std::time::Duration;

use reipaz_engine::{Attempt, Class, Failure, Grants};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::attacker::{Attack, Attacker};
use crate::rig::{Rig, grants};
use crate::server::Server;

/// What the host may take from a server in excess of what it hands on, in bytes: its own buffers and the kernel's.
const IN_EXCESS_BYTES: u64 = 24 << 20;

/// The largest body in these tests, in bytes.
const BODY_BYTES: u64 = 64 << 10;

/// What an attempt may take when nothing but its timeout ends it.
const TIMEOUT: Duration = Duration::from_millis(400);

/// How much later than that it may end.
const LATE: Duration = Duration::from_millis(400);

/// Far more time than any of those needs that are refused for what they send.
const AMPLE: Duration = Duration::from_secs(20);

const HEADERS: Attack = Attack::Flood("HTTP/1.1 200 OK\r\n", "x: y\r\n");
const GIANT_HEADER: Attack = Attack::Flood("HTTP/1.1 200 OK\r\nx: ", "y");
const GIANT_STATUS: Attack = Attack::Flood("HTTP/1.1 200 ", "y");
const LONG_BODY: Attack = Attack::Flood("HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n", "x");
const ENDLESS_BODY: Attack = Attack::Flood("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", "x");
const TINY_CHUNKS: Attack =
    Attack::Flood("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "1\r\nx\r\n");
const GIANT_CHUNK: Attack =
    Attack::Flood("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffff0\r\n", "x");
const CHUNK_EXTENSION: Attack = Attack::Flood("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;", "x");
const TRAILERS: Attack =
    Attack::Flood("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", "x: y\r\n");
const GIANT_TRAILER: Attack =
    Attack::Flood("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: ", "y");
const CONTINUES: Attack = Attack::Flood("", "HTTP/1.1 100 Continue\r\n\r\n");
const EARLY_HINTS: Attack = Attack::Flood("", "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
const DRIPPING_HEAD: Attack = Attack::Drip("HTTP/1.1 200 OK\r\nx: ");
const DRIPPING_BODY: Attack = Attack::Drip("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n");
/// The head of a handshake record of 16 KiB, whose rest takes its time.
const DRIPPING_TLS: Attack = Attack::Drip("\u{16}\u{3}\u{3}\u{40}\u{0}");

async fn rig() -> Rig {
    Rig::with(|config| {
        config.http.response_bytes = BODY_BYTES;
        config.http.connect_timeout = TIMEOUT;
    })
    .await
}

fn all_of(attacker: &Attacker) -> Arc<Grants> {
    grants(&[&format!("* {}", attacker.authority)])
}

async fn call(rig: &Rig, attacker: &Attacker, input: &Value, timeout: Duration) -> Result<Value, Failure> {
    let mut input = input.clone();
    input["do"] = json!("http");
    input["authority"] = json!(attacker.authority);
    let attempt = Attempt { grants: all_of(attacker), timeout, ..rig.attempt(input) };
    rig.engine.run(attempt).await.result.map(|output| serde_json::from_str(&output).unwrap())
}

/// An attack, how it is called, and what of the failure's message says that the host saw through it.
type Case = (Attack, Value, &'static str);

/// Those that the host refuses for what they send, long before the attempt's time is over.
fn refused() -> Vec<Case> {
    let get = || json!({});
    vec![
        (HEADERS, get(), "HttpResponseHeaderSectionSize"),
        (GIANT_HEADER, get(), "HttpResponseHeaderSectionSize"),
        (GIANT_STATUS, get(), "HttpResponseHeaderSectionSize"),
        (LONG_BODY, get(), "body size exceeds limit"),
        (ENDLESS_BODY, get(), "body size exceeds limit"),
        (TINY_CHUNKS, get(), "body size exceeds limit"),
        (GIANT_CHUNK, get(), "body size exceeds limit"),
        (CHUNK_EXTENSION, get(), ""),
        (TRAILERS, get(), ""),
        (GIANT_TRAILER, get(), ""),
        (Attack::Untrusted, json!({"scheme": "https"}), "TlsCertificateError"),
        (CONTINUES, json!({"first_byte_ms": 200}), "ConnectionReadTimeout"),
        (EARLY_HINTS, json!({"first_byte_ms": 200}), "ConnectionReadTimeout"),
        (DRIPPING_HEAD, json!({"first_byte_ms": 200}), "ConnectionReadTimeout"),
        (DRIPPING_BODY, json!({"between_bytes_ms": 10}), "connection read timeout"),
        // The host's own bound for a connection covers its handshake.
        (Attack::Mute, json!({"scheme": "https"}), "ConnectionTimeout"),
        (DRIPPING_TLS, json!({"scheme": "https"}), "ConnectionTimeout"),
    ]
}

/// Those that only the attempt's own time ends.
fn cut() -> Vec<(Attack, Value)> {
    vec![
        (CONTINUES, json!({})),
        (EARLY_HINTS, json!({})),
        (DRIPPING_HEAD, json!({})),
        (DRIPPING_BODY, json!({})),
        (DRIPPING_BODY, json!({"between_bytes_ms": 10_000})),
        (Attack::Mute, json!({})),
        (Attack::Mute, json!({"method": "POST", "body_bytes": 15 << 20})),
        (Attack::DeafAnswer, json!({"method": "POST", "body_bytes": 15 << 20})),
    ]
}

#[tokio::test]
async fn what_is_without_end_or_without_trust_is_refused_at_once() {
    for (attack, input, name) in refused() {
        // Given
        let (rig, attacker) = (rig().await, Attacker::start(attack).await);
        let began = Instant::now();
        // When
        let failure = call(&rig, &attacker, &input, AMPLE).await.unwrap_err();
        // Then
        println!("{attack:?}: {} after {:?}", failure.message, began.elapsed());
        assert_eq!((failure.class, failure.code.as_str()), (Class::Network, "network"), "{attack:?}");
        assert!(failure.message.contains(name), "{attack:?}: expected {name}, got {}", failure.message);
        assert!(began.elapsed() < AMPLE / 4, "{attack:?}: {:?}", began.elapsed());
        attacker.assert_closed().await;
        assert_eq!(attacker.accepted(), 1, "{attack:?}");
        rig.assert_sound().await;
    }
}

#[tokio::test]
async fn what_stalls_is_cut_at_the_attempts_timeout() {
    for (attack, input) in cut() {
        let (rig, attacker) = (rig().await, Attacker::start(attack).await);
        let began = Instant::now();
        let failure = call(&rig, &attacker, &input, TIMEOUT).await.unwrap_err();
        println!("{attack:?}: {} after {:?}", failure.message, began.elapsed());
        assert_eq!(
            (failure.class, failure.code.as_str()),
            (Class::Timeout, "attempt_timeout"),
            "{attack:?}: {failure:?}"
        );
        assert!(began.elapsed() < TIMEOUT + LATE, "{attack:?}: {:?}", began.elapsed());
        attacker.assert_closed().await;
        rig.assert_sound().await;
    }
}

#[tokio::test]
async fn a_tls_handshake_that_stalls_is_cut_with_the_attempt_too() {
    for attack in [Attack::Mute, DRIPPING_TLS] {
        let rig = Rig::new().await;
        let attacker = Attacker::start(attack).await;
        let began = Instant::now();
        let failure = call(&rig, &attacker, &json!({"scheme": "https"}), TIMEOUT).await.unwrap_err();
        assert_eq!(failure.class, Class::Timeout, "{attack:?}: {failure:?}");
        assert!(began.elapsed() < TIMEOUT + LATE, "{attack:?}: {:?}", began.elapsed());
        attacker.assert_closed().await;
        rig.assert_sound().await;
    }
}

#[tokio::test]
async fn the_host_takes_no_more_than_the_guest_reads() {
    // Given servers that send for as long as anybody takes it, and a guest that takes its time.
    for attack in [LONG_BODY, ENDLESS_BODY, TINY_CHUNKS] {
        let (rig, attacker) = (rig().await, Attacker::start(attack).await);
        // When it is cut before it has read anything.
        let input = json!({"hold_ms": 60_000});
        let failure = call(&rig, &attacker, &input, Duration::from_secs(1)).await.unwrap_err();
        // Then
        assert_eq!(failure.class, Class::Timeout, "{attack:?}: {failure:?}");
        let sent = attacker.sent_bytes();
        println!("{attack:?}: sent {sent} bytes");
        assert!(sent < IN_EXCESS_BYTES, "{attack:?}: {sent} bytes");
        attacker.assert_closed().await;
    }
    // Heads and trailers, too, are refused before much of them was taken.
    for attack in [HEADERS, GIANT_HEADER, TRAILERS, GIANT_TRAILER, CHUNK_EXTENSION] {
        let (rig, attacker) = (rig().await, Attacker::start(attack).await);
        call(&rig, &attacker, &json!({}), AMPLE).await.unwrap_err();
        attacker.assert_closed().await;
        assert!(attacker.sent_bytes() < IN_EXCESS_BYTES, "{attack:?}: {} bytes", attacker.sent_bytes());
    }
}

#[tokio::test]
async fn an_answer_is_no_reason_to_keep_a_connection_to_a_server_that_never_reads() {
    // Given a server that answers at once and never reads what it is sent.
    let (rig, attacker) = (rig().await, Attacker::start(Attack::DeafAnswer).await);
    // When one guest after another fills the connection and is cut.
    for _ in 0..4 {
        let input = json!({"method": "POST", "body_bytes": 15 << 20});
        let failure = call(&rig, &attacker, &input, TIMEOUT).await.unwrap_err();
        assert_eq!(failure.class, Class::Timeout, "{failure:?}");
    }
    // Then the host keeps none of them.
    assert_eq!(attacker.accepted(), 4);
    attacker.assert_closed().await;
    rig.assert_sound().await;
}

#[tokio::test]
async fn a_request_that_is_cut_never_looks_whole() {
    // Given a server that has answered and reads on, and a guest that is cut while it still sends.
    let (rig, attacker) = (rig().await, Attacker::start(Attack::EarlyAnswer).await);
    let input = json!({"method": "POST", "body_bytes": 4_096, "unfinished_ms": 60_000});
    assert_eq!(call(&rig, &attacker, &input, TIMEOUT).await.unwrap_err().class, Class::Timeout);
    // Then the server sees that something is missing.
    attacker.assert_closed().await;
    assert_eq!((attacker.accepted(), attacker.whole()), (1, 0));
    // One that has sent everything is whole: its connection is kept, and closes with the engine.
    let input = json!({"method": "POST", "body_bytes": 4_096});
    assert_eq!(call(&rig, &attacker, &input, AMPLE).await.unwrap()["status"], 200);
    drop(rig);
    attacker.assert_closed().await;
    assert_eq!((attacker.accepted(), attacker.whole()), (2, 1));
}

#[tokio::test]
async fn all_attacks_at_once_harm_nobody_else() {
    // Given every attacker, and a server that does no harm.
    let (rig, server) = (rig().await, Server::start().await);
    let refused = refused().into_iter().map(|(attack, input, _)| (attack, input, AMPLE, Class::Network));
    let cut = cut().into_iter().map(|(attack, input)| (attack, input, TIMEOUT, Class::Timeout));
    let mut attackers = Vec::new();
    for (attack, input, timeout, class) in refused.chain(cut) {
        attackers.push((Attacker::start(attack).await, input, timeout, class));
    }
    // When all of them are called while others mind their own business.
    let attacks = attackers.iter().map(|(attacker, input, timeout, class)| {
        let rig = &rig;
        async move {
            let failure = call(rig, attacker, input, *timeout).await.unwrap_err();
            assert_eq!(failure.class, *class, "{input}: {failure:?}");
        }
    });
    let others = async {
        for n in 0..100 {
            let input = json!({
                "do": "http", "method": "POST", "authority": server.authority, "path": "/echo",
                "body": format!("{n}"),
            });
            let granted = grants(&[&format!("* {}", server.authority)]);
            let outcome = rig.engine.run(Attempt { grants: granted, ..rig.attempt(input) }).await;
            let answer: Value = serde_json::from_str(&outcome.result.unwrap()).unwrap();
            let seen: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
            assert_eq!(seen["body"], format!("{n}"));
            assert_eq!(rig.gives(json!({"do": "echo", "value": n})).await, json!(n));
        }
    };
    tokio::join!(futures_util::future::join_all(attacks), others);
    // Then
    for (attacker, ..) in &attackers {
        attacker.assert_closed().await;
    }
    rig.assert_sound().await;
}
