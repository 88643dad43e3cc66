//! The Reipaz host: configuration, the owner loop that joins core, engine, journal and store, the HTTP API, the CLI.
//!
//! [`facade`] is the seam inside it: the API and the CLI stand on one side and know only that, the rest on the other.
#![warn(missing_docs)]

pub mod api;
pub mod cli;
pub mod facade;
