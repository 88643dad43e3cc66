//! ClickHouse: the schema, the rows that events project to, the queries of the API, and the embedded engine.
//!
//! Rows flow one way: the host reads events from the journal, a [`Projection`] makes rows of them, a [`RowBatch`]
//! carries them, [`Store::insert`] stores them. Nothing that is read here decides anything about a run.
//!
//! There is one dialect and one code path, the `clickhouse` crate over HTTP. An external server is a URL; the embedded
//! engine is libchdb in a child process that speaks the same interface on loopback ([`clickhouse_child_main`]).
//! This crate knows the core's events and nothing of the journal, the engine for guests, or the API.
#![warn(missing_docs)]

mod batch;
mod config;
mod embedded;
mod error;
pub mod examine;
mod guard;
mod insert;
pub mod library;
mod migrate;
mod projection;
mod queries;
mod reconnect;
mod rows;
mod schema;
mod sql;
mod status;
mod store;

pub use batch::RowBatch;
pub use config::{DATABASE, StoreConfig, Target};
pub use embedded::clickhouse_child_main;
pub use error::StoreError;
pub use migrate::Schema;
pub use projection::Projection;
pub use queries::{LogFilter, RunFilter, RunHead};
pub use rows::{AttemptRow, EventRow, LogRow, Pairs, PluginRow, RunRow, Word, WorkflowRow};
pub use status::Status;
pub use store::Store;
