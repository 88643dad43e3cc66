//! Servers that attack whoever calls them. Each does one thing to every connection until the other side has closed it, and
//! counts what is left open and how much it got rid of.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A certificate for 127.0.0.1 that signs itself, and its key, which is no secret.
const UNTRUSTED: &[u8] = include_bytes!("untrusted.pem");

/// A whole answer.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// How a request without a length ends.
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// How long the other side may take to close what it wants no more of.
const CLOSED_WITHIN: Duration = Duration::from_secs(3);

/// What a server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Attack {
    /// Once it has been sent something, sends this, then that for ever.
    Flood(&'static str, &'static str),
    /// The same, then a byte every 20 ms for ever.
    Drip(&'static str),
    /// Accepts, and neither reads nor writes.
    Mute,
    /// Once it has been sent something, answers in full, and never reads on.
    DeafAnswer,
    /// The same, but it reads on.
    EarlyAnswer,
    /// TLS with a certificate that nobody trusts.
    Untrusted,
}

/// Listens on a port of its own until it is dropped.
pub(crate) struct Attacker {
    pub(crate) authority: String,
    attack: Attack,
    counts: Arc<Counts>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    accepted: AtomicUsize,
    open: AtomicUsize,
    sent_bytes: AtomicU64,
    whole: AtomicUsize,
}

/// Counts a connection as open for as long as it lives.
struct Open(Arc<Counts>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Attacker {
    pub(crate) async fn start(attack: Attack) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let counts = Arc::new(Counts::default());
        let of_task = counts.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                of_task.accepted.fetch_add(1, Ordering::SeqCst);
                of_task.open.fetch_add(1, Ordering::SeqCst);
                let open = Open(of_task.clone());
                tokio::spawn(async move { serve(stream, attack, &open.0).await });
            }
        });
        Self { authority, attack, counts, task }
    }

    pub(crate) fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::SeqCst)
    }

    /// How much it could send, in bytes, the kernel's buffers included.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.counts.sent_bytes.load(Ordering::SeqCst)
    }

    /// How many requests came to their proper end, of those that were answered early.
    pub(crate) fn whole(&self) -> usize {
        self.counts.whole.load(Ordering::SeqCst)
    }

    /// That the other side has closed every connection.
    pub(crate) async fn assert_closed(&self) {
        let began = tokio::time::Instant::now();
        while self.counts.open.load(Ordering::SeqCst) > 0 {
            let open = self.counts.open.load(Ordering::SeqCst);
            assert!(
                began.elapsed() < CLOSED_WITHIN,
                "{:?}: {open} of {} connections are still open",
                self.attack,
                self.accepted()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Ends when the other side has closed, and not before.
async fn serve(mut stream: TcpStream, attack: Attack, counts: &Counts) {
    if matches!(attack, Attack::Flood(..) | Attack::Drip(_) | Attack::DeafAnswer | Attack::EarlyAnswer) {
        let _ = stream.read(&mut [0; 4_096]).await;
    }
    match attack {
        Attack::Flood(first, rest) => {
            let rest = rest.repeat((16 << 10) / rest.len());
            let mut next = if first.is_empty() { rest.as_bytes() } else { first.as_bytes() };
            while let Ok(bytes @ 1..) = stream.write(next).await {
                counts.sent_bytes.fetch_add(bytes as u64, Ordering::SeqCst);
                next = match &next[bytes..] {
                    [] => rest.as_bytes(),
                    left => left,
                };
            }
        }
        Attack::Drip(first) => {
            let mut written = stream.write_all(first.as_bytes()).await;
            while written.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
                written = stream.write_all(b"x").await;
            }
        }
        Attack::Mute => deaf(&stream).await,
        Attack::DeafAnswer => {
            let _ = stream.write_all(ANSWER).await;
            deaf(&stream).await;
        }
        Attack::EarlyAnswer => {
            let _ = stream.write_all(ANSWER).await;
            let mut request = Vec::new();
            let _ = stream.read_to_end(&mut request).await;
            if request.ends_with(LAST_CHUNK) {
                counts.whole.fetch_add(1, Ordering::SeqCst);
            }
        }
        Attack::Untrusted => {
            let certificates = CertificateDer::pem_slice_iter(UNTRUSTED).map(Result::unwrap).collect();
            let key = PrivateKeyDer::from_pem_slice(UNTRUSTED).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = rustls::ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(certificates, key)
                .unwrap();
            if let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await {
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        }
    }
}

/// Until the other side has closed, without reading what it sends: that stays in the way of everything behind it.
async fn deaf(stream: &TcpStream) {
    let ready = stream.ready(tokio::io::Interest::ERROR);
    let closed = async {
        while !is_closed(stream) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        _ = ready => (),
        () = closed => (),
    }
}

/// Whether the kernel knows the other side's end as established no more (`01` in `/proc/net/tcp`). Its farewell says nothing
/// here: it stands behind what is not read.
fn is_closed(stream: &TcpStream) -> bool {
    let ports =
        |stream: &TcpStream| Some((stream.peer_addr().ok()?.port(), stream.local_addr().ok()?.port()));
    let Some((theirs, ours)) = ports(stream) else { return true };
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    !table.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = |field: &str| u16::from_str_radix(field.rsplit(':').next().unwrap_or_default(), 16);
        port(fields[1]) == Ok(theirs) && port(fields[2]) == Ok(ours) && fields[3] == "01"
    })
}
