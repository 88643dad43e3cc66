//! The handle to ClickHouse. It comes back at once from [`Store::start`]; connecting, and connecting again, happens
//! behind it (`reconnect.rs`), and until that has succeeded every call says [`StoreError::Unavailable`].

use std::{
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use clickhouse::Client;
use tokio::{
    sync::{Notify, Semaphore, watch},
    task::JoinHandle,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{config::StoreConfig, error::StoreError, reconnect, status::Status};

/// ClickHouse, whatever state it is in. Clones share one connection; the last one dropped ends it.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: Arc<StoreConfig>,
    pub(crate) link: Arc<Link>,
    /// Turns for users' statements.
    pub(crate) sql_turns: Semaphore,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
    _stop_on_drop: DropGuard,
}

/// What the connecting task and the callers share.
pub(crate) struct Link {
    status: watch::Sender<Status>,
    client: RwLock<Option<Client>>,
    /// Somebody could not reach the server: look now.
    pub(crate) doubt: Notify,
    process: RwLock<Option<u32>>,
}

impl Link {
    /// Publishes a connection.
    pub(crate) fn connected(&self, client: Client, version: String, process: Option<u32>) {
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = Some(client);
        *self.process.write().unwrap_or_else(PoisonError::into_inner) = process;
        self.status.send_replace(Status::Ready { version });
    }

    /// Publishes that there is none.
    pub(crate) fn lost(&self, status: Status) {
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = None;
        *self.process.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.status.send_if_modified(|current| {
            let changed = *current != status;
            *current = status;
            changed
        });
    }
}

impl Store {
    /// Starts connecting, in the background, and comes back at once. Never fails: see [`Store::status`].
    #[allow(clippy::unused_async, reason = "must be called where tasks can be spawned")]
    pub async fn start(config: StoreConfig) -> Self {
        let config = Arc::new(config);
        let link = Arc::new(Link {
            status: watch::Sender::new(Status::Starting),
            client: RwLock::default(),
            doubt: Notify::new(),
            process: RwLock::default(),
        });
        let stop = CancellationToken::new();
        let task =
            tokio::spawn(reconnect::keep_connected(Arc::clone(&config), Arc::clone(&link), stop.clone()));
        Self {
            inner: Arc::new(Inner {
                sql_turns: Semaphore::new(config.sql_parallel_max),
                config,
                link,
                _stop_on_drop: stop.clone().drop_guard(),
                stop,
                task: Mutex::new(Some(task)),
            }),
        }
    }

    /// Where the connection stands.
    pub fn status(&self) -> Status {
        self.inner.link.status.borrow().clone()
    }

    /// Follows where the connection stands.
    pub fn status_watch(&self) -> watch::Receiver<Status> {
        self.inner.link.status.subscribe()
    }

    /// The embedded engine's process id, while it runs.
    pub fn engine_process(&self) -> Option<u32> {
        *self.inner.link.process.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until ClickHouse can be used; false if that takes longer than `at_most`.
    pub async fn wait_ready(&self, at_most: Duration) -> bool {
        let mut status = self.status_watch();
        matches!(tokio::time::timeout(at_most, status.wait_for(Status::is_ready)).await, Ok(Ok(_)))
    }

    /// The pause after a call that failed: until ClickHouse is ready again if it is not now, else the whole of
    /// `at_most`.
    pub async fn ready_again(&self, at_most: Duration) {
        let mut status = self.status_watch();
        if status.borrow_and_update().is_ready() {
            // The failure may have come before the connecting task saw it.
            let lost = tokio::time::timeout(at_most, status.wait_for(|status| !status.is_ready())).await;
            if lost.is_err() {
                return;
            }
        }
        self.wait_ready(at_most).await;
    }

    /// Ends the connection and the embedded engine, and waits until the engine has let go of its directory.
    pub async fn stop(&self) {
        self.inner.stop.cancel();
        let task = self.inner.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            // It ends by itself; if it panicked there is nothing left to wait for.
            let _ = task.await;
        }
    }

    /// The connection, if there is one.
    pub(crate) fn client(&self) -> Result<Client, StoreError> {
        let client = self.inner.link.client.read().unwrap_or_else(PoisonError::into_inner).clone();
        client.ok_or_else(|| StoreError::Unavailable(self.status().to_string()))
    }

    /// Runs one of Reipaz's own queries within the bound on its time.
    pub(crate) async fn timely<T>(
        &self,
        query: impl Future<Output = Result<T, clickhouse::error::Error>>,
    ) -> Result<T, StoreError> {
        let bound = self.inner.config.query_timeout;
        let result = match tokio::time::timeout(bound, query).await {
            Ok(result) => result.map_err(StoreError::from),
            Err(_) => Err(StoreError::Timeout { seconds: bound.as_secs() }),
        };
        if result.as_ref().is_err_and(StoreError::is_temporary) {
            self.inner.link.doubt.notify_one();
        }
        result
    }
}
