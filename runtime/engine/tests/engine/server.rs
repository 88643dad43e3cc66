//! An HTTP server that can misbehave, written on the socket, since no library lets one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Listens on a port of its own until it is dropped.
pub(crate) struct Server {
    pub(crate) authority: String,
    counts: Arc<Counts>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    connections: AtomicU64,
    requests: AtomicU64,
}

struct Request {
    line: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0").await.unwrap()
    }

    pub(crate) async fn start_at(address: &str) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let authority = listener.local_addr()?.to_string();
        let counts = Arc::new(Counts::default());
        let of_task = counts.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                of_task.connections.fetch_add(1, Ordering::SeqCst);
                let counts = of_task.clone();
                tokio::spawn(async move {
                    let _ = serve(stream, &counts).await;
                });
            }
        });
        Ok(Self { authority, counts, task })
    }

    pub(crate) fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn requests(&self) -> u64 {
        self.counts.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, counts: &Counts) -> std::io::Result<()> {
    while let Some(request) = read(&mut stream).await? {
        counts.requests.fetch_add(1, Ordering::SeqCst);
        let path = request.line.split(' ').nth(1).unwrap_or("/").to_owned();
        match path.split('?').next().unwrap_or("/") {
            "/silent" => std::future::pending::<()>().await,
            "/hang_up" => return Ok(()),
            "/nonsense" => return stream.write_all(b"what do you want?\r\n\r\n").await,
            "/cut" => {
                return stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this").await;
            }
            "/slow_body" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this").await?;
                std::future::pending::<()>().await;
            }
            "/huge_header" => {
                let head =
                    format!("HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 0\r\n\r\n", "y".repeat(200_000));
                stream.write_all(head.as_bytes()).await?;
            }
            "/redirect" => {
                let head =
                    b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(head).await?;
            }
            "/last" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
                return stream.shutdown().await;
            }
            "/swallow" => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?,
            path if path.starts_with("/redirect_to/") => {
                let to = path.strip_prefix("/redirect_to/").unwrap_or_default();
                let head = format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(head.as_bytes()).await?;
            }
            path => match path.strip_prefix("/bytes/").and_then(|n| n.parse().ok()) {
                Some(bytes) => answer(&mut stream, &vec![b'x'; bytes]).await?,
                None => {
                    let body = String::from_utf8_lossy(&request.body);
                    let seen = json!({"line": request.line, "headers": request.headers, "body": body});
                    answer(&mut stream, seen.to_string().as_bytes()).await?;
                }
            },
        }
    }
    Ok(())
}

async fn answer(stream: &mut TcpStream, body: &[u8]) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await
}

/// What a TLS client begins with.
const TLS_HANDSHAKE: [u8; 1] = [0x16];

/// Answers as plain servers do, and closes once the client has.
async fn refuse_tls(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await?;
    stream.shutdown().await?;
    stream.read_to_end(&mut Vec::new()).await.map(drop)
}

/// One request, or none when the other side has closed.
async fn read(stream: &mut TcpStream) -> std::io::Result<Option<Request>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
        if head == TLS_HANDSHAKE {
            refuse_tls(stream).await?;
            return Ok(None);
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.trim_end().split("\r\n");
    let line = lines.next().unwrap_or_default().to_owned();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut body = Vec::new();
    if let Some(length) = headers.get("content-length").and_then(|n| n.parse().ok()) {
        body.resize(length, 0);
        stream.read_exact(&mut body).await?;
    } else if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        loop {
            let mut size = String::new();
            while !size.ends_with("\r\n") {
                size.push(char::from(stream.read_u8().await?));
            }
            let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).await?;
            body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
    }
    Ok(Some(Request { line, headers, body }))
}
