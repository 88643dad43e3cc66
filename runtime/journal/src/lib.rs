//! What makes Reipaz durable: an append-only log of batches per partition, the way in for commands and messages, and a
//! small catalogue. Everything here is bytes, partitions and positions; this crate knows no workflow, no run, no event.
//!
//! The ports are [`Journal`] (with [`PartitionLog`] for the owner and [`Reader`] for the sink), [`Intake`] (with
//! [`Deliveries`] for the owner), [`Tasks`], [`Assignments`] and [`Catalog`]. [`Embedded`] keeps everything in one
//! directory of one process; [`Kafka`] in topics that many processes share. The ports' promises:
//!
//! - A [`Batch`] is atomic: its records, its messages to other partitions and its consumed cursor become durable
//!   together or not at all, and nobody reads any of them before that.
//! - A partition's records are numbered from 1 without gaps.
//! - A message is delivered to its destination after its batch is durable, and again after a restart until the
//!   destination commits a [`Cursor`] beyond it; so it takes effect exactly once.
//! - Damage is never passed over: what a crash can leave is mended, anything else refuses with the file, the offset and
//!   what to do.
#![warn(missing_docs)]

pub mod catalog;
mod commands;
pub mod embedded;
pub mod error;
pub mod intake;
pub mod kafka;
pub mod ports;
mod unblock;

pub use catalog::Catalog;
pub use embedded::{Embedded, EmbeddedConfig};
pub use error::{CommitError, JournalError};
pub use intake::{
    Arrived, Assignments, Change, Deliveries, Delivery, Full, Intake, NewTask, SendError, Source, Task, Tasks,
};
pub use kafka::{Kafka, KafkaConfig};
pub use ports::{
    Batch, Checkpoint, Committed, Cursor, Journal, Opened, Outgoing, Outlet, PartitionLog, Position,
    Published, Reader, Record, Tail,
};
