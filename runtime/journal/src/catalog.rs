//! The catalogue's port: few, small, durable, keyed records that every owner needs (workflow versions, plugins).

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::error::JournalError;

/// Small durable keyed records, all of them in memory.
#[async_trait]
pub trait Catalog: Send + Sync {
    /// Stores `value` under `key`, durably, in place of what stood there.
    async fn put(&self, key: &str, value: Bytes) -> Result<(), JournalError>;

    /// Stores `value` under a `key` that has none yet, durably. Of several who do so at once, on whichever hosts, one is
    /// first; the others get what that one stored, and theirs counts for nothing.
    async fn insert(&self, key: &str, value: Bytes) -> Result<Option<Bytes>, JournalError>;

    /// The value under `key`.
    fn get(&self, key: &str) -> Option<Bytes>;

    /// All records, ordered by key.
    fn entries(&self) -> Vec<(String, Bytes)>;

    /// Waits until everything is here that was stored before this call, by whichever host.
    async fn sync(&self) -> Result<(), JournalError>;

    /// Grows by one with every stored record.
    fn changes(&self) -> watch::Receiver<u64>;
}
