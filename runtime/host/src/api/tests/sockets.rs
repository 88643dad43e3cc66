//! The API on a socket: what no router sees.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{super::serve, Api};

async fn served(api: &Api) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve(listener, api.router.clone(), stop.clone()));
    (address, stop, server)
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    // A server that refuses a head does not read the rest of it.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = String::new();
    // A refused head may come with a reset, after the answer.
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

#[tokio::test]
async fn a_request_is_answered_and_a_stop_ends_the_server() {
    let api = Api::new();
    let (address, stop, server) = served(&api).await;
    let answer = ask(address, "GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    stop.cancel();
    server.await.expect("it ends");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_stop_lets_an_open_request_finish() {
    // Given a client in a long poll.
    let api = Api::new();
    let id = api.host.add_run(1);
    let (address, stop, server) = served(&api).await;
    let request = format!("GET /v1/runs/{id} HTTP/1.1\r\nhost: localhost\r\nprefer: wait=20\r\n\r\n");
    let client = tokio::spawn(async move { ask(address, &request).await });
    let host = Arc::clone(&api.host);
    while host.waiters() == 0 {
        tokio::task::yield_now().await;
    }

    // When the host drains and stops.
    host.drain();
    stop.cancel();

    // Then the client has its answer.
    let answer = client.await.expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\"pending\""), "{answer}");
    tokio::time::timeout(Duration::from_secs(10), server).await.expect("soon").expect("it ends");
}

#[tokio::test]
async fn a_head_over_its_limit_is_refused() {
    let api = Api::new();
    let (address, ..) = served(&api).await;
    let head = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let answer = ask(address, &head).await;
    // The answer may get lost in the reset that follows it; what matters is that nobody was served.
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer:?}");
}
