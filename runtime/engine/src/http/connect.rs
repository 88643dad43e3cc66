//! From a checked name to a connection: every address is filtered after the name was resolved and before anything is sent,
//! and the connection goes to the very address that was checked, so that a name that changes in between gains nothing.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::client::conn::http1;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::{Error, Result, WasiBody};

use crate::grants::Host;
use crate::guest::state::Denials;
use crate::http::address::Gate;
use crate::http::pool::{Connection, Key};
use crate::http::resolve::Resolver;
use crate::http::tls::Tls;
use crate::limits;

/// How many of a name's addresses are tried.
const ADDRESSES: usize = 4;

/// How long a name may take to be resolved.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one address may take while another could be tried.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(3);

/// Connects, through TLS if the key says so.
pub(crate) async fn connect(
    key: &Key,
    gate: &Gate,
    resolver: &dyn Resolver,
    tls: &Tls,
    denials: &Denials,
) -> Result<Connection> {
    let addresses = admitted(key, gate, resolver, denials).await?;
    let stream = reach(&addresses).await?;
    let remote = stream.peer_addr().map_err(|_| Error::ConnectionTerminated)?.ip();
    let _ = stream.set_nodelay(true);
    if !key.https {
        return handshake(stream, remote).await;
    }
    let name = match &key.host {
        Host::Address(address) => ServerName::from(*address),
        Host::Name(name) => ServerName::try_from(name.clone()).map_err(|_| Error::HttpRequestUriInvalid)?,
    };
    let stream = tls.connector().connect(name, stream).await.map_err(|error| from_tls(&error))?;
    handshake(stream, remote).await
}

/// The addresses of the host that may be used; at least one.
async fn admitted(
    key: &Key,
    gate: &Gate,
    resolver: &dyn Resolver,
    denials: &Denials,
) -> Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = match &key.host {
        Host::Address(address) => vec![SocketAddr::new(*address, key.port)],
        Host::Name(name) => tokio::time::timeout(LOOKUP_TIMEOUT, resolver.lookup(name, key.port))
            .await
            .map_err(|_| Error::DnsTimeout)?
            .map_err(|error| {
                tracing::debug!(host = %name, %error, "a name cannot be resolved");
                Error::DnsError { rcode: Some("NXDOMAIN or no server".to_owned()), info_code: None }
            })?,
    };
    if found.is_empty() {
        return Err(Error::DnsError { rcode: Some("no address".to_owned()), info_code: None });
    }
    let mut admitted = gate.filter(found.iter().copied());
    if admitted.is_empty() {
        denials.add(
            "http_denied",
            format!(
                "{} leads to {}, which is not a public address. A grant may list that address itself, or the operator its \
                 network in private_networks.",
                key.host,
                found[0].ip()
            ),
        );
        return Err(Error::DestinationIpProhibited);
    }
    admitted.truncate(ADDRESSES);
    Ok(admitted)
}

/// The first address that answers.
async fn reach(addresses: &[SocketAddr]) -> Result<TcpStream> {
    let mut last = Error::DestinationNotFound;
    for (i, address) in addresses.iter().enumerate() {
        let connecting = TcpStream::connect(address);
        let connected = if i + 1 < addresses.len() {
            tokio::time::timeout(ADDRESS_TIMEOUT, connecting).await
        } else {
            // The last one has whatever time the request leaves it.
            Ok(connecting.await)
        };
        match connected {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = from_connect(&error),
            Err(_) => last = Error::ConnectionTimeout,
        }
    }
    Err(last)
}

async fn handshake<S>(stream: S, remote: std::net::IpAddr) -> Result<Connection>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(limits::HTTP_HEADER_BYTES)
        .max_headers(limits::HTTP_HEADERS)
        .handshake::<_, WasiBody>(TokioIo::new(stream))
        .await
        .map_err(|_| Error::ConnectionTerminated)?;
    let io = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an outgoing connection ended");
        }
    });
    Ok(Connection { sender, remote, _io: AbortOnDropHandle::new(io) })
}

fn from_connect(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        io::ErrorKind::TimedOut => Error::ConnectionTimeout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Error::DestinationIpUnroutable,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => Error::ConnectionTerminated,
        _ => Error::DestinationUnavailable,
    }
}

fn from_tls(error: &io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_)) => Error::TlsCertificateError,
        Some(rustls::Error::AlertReceived(alert)) => Error::TlsAlertReceived {
            alert_id: Some(u8::from(*alert)),
            alert_message: alert.as_str().map(str::to_owned),
        },
        Some(_) => Error::TlsProtocolError,
        None => Error::ConnectionTerminated,
    }
}
