//! What the end-to-end tests stand on: a real `reipaz` host as a child process, a client that speaks its HTTP API, and
//! a local server that plays the outside world.
//!
//! The tests see the host as a user does: over HTTP, through its command line, and in ClickHouse. Only [`journal`] looks
//! inside, into a stopped host's files or the topic, because some promises are about them. The binary is found through
//! `REIPAZ_BIN` (`cargo xtask test` sets it), else in the target directory.
//!
//! Failures inside the harness panic with the reason: there is nothing that a test could do about them.
#![allow(clippy::missing_panics_doc, reason = "the harness panics so that tests need not")]

pub mod cli;
pub mod client;
pub mod host;
pub mod journal;
pub mod kafka;
pub mod load;
pub mod scaffold;
pub mod upstream;
pub mod wait;
pub mod workflows;
pub mod yaml;

/// A time as the API writes it, since 1970.
pub fn time(value: &serde_json::Value) -> std::time::Duration {
    let time: reipaz_core::time::Timestamp =
        serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}"));
    std::time::Duration::from_micros(time.0)
}
