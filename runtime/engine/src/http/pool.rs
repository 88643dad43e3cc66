//! Connections between requests. Each keeps the address that it was checked for, and is handed only to a request whose own
//! grants admit that address: what one plugin may reach, another cannot inherit.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hyper::client::conn::http1::SendRequest;
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

/// An HTTP/1.1 connection.
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<WasiBody>,
    /// The checked address at its other end.
    pub(crate) remote: IpAddr,
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

    /// Keeps the connection once its response has been read to the end. One whose response is abandoned closes.
    pub(crate) fn give_back(&self, key: Key, mut connection: Connection) {
        let pool = self.clone();
        tokio::spawn(async move {
            if connection.sender.ready().await.is_ok() {
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
