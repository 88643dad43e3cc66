//! The store on the real engine: rows there and back, hostile SQL, outages. Without libchdb these tests fail and say how
//! to get it.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod interface;
mod lists;
mod load;
mod migrations;
mod outages;
mod rows;
mod sql;
mod support;
