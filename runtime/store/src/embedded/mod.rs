//! The real ClickHouse inside Reipaz: libchdb, loaded by a child process that speaks ClickHouse's HTTP interface on
//! loopback. The rest of the crate cannot tell it from a server; a crash of the engine is not the host's crash.

mod chdb;
mod child;
mod confine;
mod http;
mod insert_data;
mod process;
mod request;
mod sessions;

pub use child::clickhouse_child_main;
pub(crate) use process::{Engine, StartError};
