//! Connections between requests. Each keeps the address that it was checked for, and is handed only to a request whose own
//! grants admit that address: what one plugin may reach, another cannot inherit.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hyper::client::conn::http1::SendRequest;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi_http::WasiBody;

use crate::grants::Host;
use crate::http::address::Gate;
use crate::limits;

/// Where a connection leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) https: bool,
    pub(crate) host: Host,
    pub(crate) port: u16,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

/// An HTTP/1.1 connection.
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<WasiBody>,
    /// The checked address at its other end.
    pub(crate) remote: IpAddr,
    /// What reads and writes it. It ends with the connection's last holder and not when the other side lets it: hyper
    /// flushes and says goodbye first, and a server that never reads would keep the socket for ever.
    pub(crate) _io: AbortOnDropHandle<()>,
}

/// Idle connections, newest last.
#[derive(Clone, Default)]
pub(crate) struct Pool {
    idle: Arc<Mutex<HashMap<Key, Vec<Idle>>>>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

impl Pool {
    /// A connection that is open, to an address that `gate` admits.
    pub(crate) fn take(&self, key: &Key, gate: &Gate) -> Option<Connection> {
        let mut idle = self.idle();
        let here = idle.get_mut(key)?;
        here.retain(Idle::is_usable);
        let found = here
            .iter()
            .rposition(|idle| gate.admits(idle.connection.remote))
            .map(|at| here.remove(at).connection);
        if here.is_empty() {
            idle.remove(key);
        }
        found
    }

    /// Keeps the connection once its response has been read to the end, which `over` says by being dropped. One whose
    /// response is abandoned closes, and so does one whose request is still being sent a while after.
    pub(crate) fn give_back(
        &self,
        key: Key,
        mut connection: Connection,
        over: oneshot::Receiver<Infallible>,
    ) {
        let pool = self.clone();
        tokio::spawn(async move {
            // Nothing is ever sent: it ends with an error by design.
            let _ = over.await;
            let settled = tokio::time::timeout(limits::HTTP_SETTLE_TIME, connection.sender.ready()).await;
            if let Ok(Ok(())) = settled {
                pool.keep(key, connection);
            }
        });
    }

    fn keep(&self, key: Key, connection: Connection) {
        let mut idle = self.idle();
        if idle.values().map(Vec::len).sum::<usize>() >= limits::HTTP_IDLE {
            idle.retain(|_, here| {
                here.retain(Idle::is_usable);
                !here.is_empty()
            });
        }
        let full = idle.values().map(Vec::len).sum::<usize>() >= limits::HTTP_IDLE;
        let here = idle.entry(key).or_default();
        if !full && here.len() < limits::HTTP_IDLE_PER_HOST {
            here.push(Idle { connection, since: Instant::now() });
        }
    }

    fn idle(&self) -> MutexGuard<'_, HashMap<Key, Vec<Idle>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    fn is_usable(&self) -> bool {
        self.connection.sender.is_ready() && self.since.elapsed() < limits::HTTP_IDLE_TIME
    }
}
