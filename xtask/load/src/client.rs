//! One HTTP/1.1 keep-alive connection to the host.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// See the module.
pub(crate) struct Client {
    sender: http1::SendRequest<Full<Bytes>>,
    authority: String,
}

impl Client {
    /// Connects to the host.
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.context("cannot connect to the host")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the sender; what breaks it shows in the next request.
        tokio::spawn(connection);
        Ok(Self { sender, authority: address.to_string() })
    }

    /// Sends a request; gives status and body.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &'static str)],
        body: Bytes,
    ) -> Result<(StatusCode, Bytes)> {
        self.sender.ready().await.context("the connection is gone")?;
        let mut request = Request::builder().method(method).uri(path).header("host", self.authority.as_str());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.sender.send_request(request.body(Full::new(body))?).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }

    /// `GET path` as JSON.
    pub(crate) async fn json(&mut self, path: &str) -> Result<Value> {
        let (status, body) = self.send(Method::GET, path, &[], Bytes::new()).await?;
        ensure!(status.is_success(), "GET {path} was answered {status}: {}", String::from_utf8_lossy(&body));
        Ok(serde_json::from_slice(&body)?)
    }

    /// `GET path` as text.
    pub(crate) async fn text(&mut self, path: &str) -> Result<String> {
        let (status, body) = self.send(Method::GET, path, &[], Bytes::new()).await?;
        ensure!(status.is_success(), "GET {path} was answered {status}");
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}
