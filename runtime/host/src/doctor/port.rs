//! The API's port: free, or taken, and by whom.

use std::{io, net::SocketAddr, time::Duration};

use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::Finding;
use crate::config::Config;

const PORT: &str = "port";
/// How long whoever has it may take to say who it is.
const WITHIN: Duration = Duration::from_secs(3);
/// A host's answer is shorter.
const ANSWER_BYTES_MAX: u64 = 4096;

/// What a host says of itself at `/healthz`.
#[derive(Deserialize)]
struct Health {
    status: String,
    version: String,
}

pub(super) async fn examine(config: &Config) -> Finding {
    let address = config.listen;
    match TcpListener::bind(address).await {
        Ok(_) => Finding::ok(PORT, format!("{address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => taken(address).await,
        Err(error) => Finding::fail(
            PORT,
            format!("cannot listen on {address}: {error}"),
            "choose another with --listen; ports below 1024 need privileges, and the address must be this machine's",
        ),
    }
}

async fn taken(address: SocketAddr) -> Finding {
    match tokio::time::timeout(WITHIN, health(address)).await {
        Ok(Ok(Health { status, version })) if status == "ok" => {
            Finding::ok(PORT, format!("{address}: a Reipaz host answers, version {version}"))
        }
        _ => Finding::warn(
            PORT,
            format!("{address} is taken by another program"),
            "stop that, or choose another with --listen: no host starts there",
        ),
    }
}

async fn health(mut address: SocketAddr) -> io::Result<Health> {
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    serde_json::from_str(body).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::{super::Status, *};

    #[tokio::test]
    async fn a_port_is_free_or_somebodys() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let listen = listener.local_addr().expect("an address");
        let config = Config { listen, ..Config::default() };
        let stranger = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            stream.write_all(b"220 mail.example ready\r\n").await.expect("written");
        });
        assert_eq!(examine(&config).await.status, Status::Warn);
        stranger.await.expect("done");
        assert_eq!(examine(&config).await.status, Status::Ok, "the stranger has gone");
    }
}
