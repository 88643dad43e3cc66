//! The pure core of Reipaz: workflow documents, events, the partition state machine, the retry rule.
//!
//! It knows no clock, no randomness, no I/O, no async and no WebAssembly: time and seeds arrive as arguments, effects
//! leave as values. That is what lets a test drive it through any history and a new owner replay an old journal.
#![warn(missing_docs)]

mod cbor;
pub mod codec;
pub mod document;
pub mod event;
pub mod expression;
pub mod failure;
pub mod fault;
pub mod ids;
pub mod json;
pub mod limit;
pub mod partition;
pub mod plan;
pub mod retry;
pub mod time;
