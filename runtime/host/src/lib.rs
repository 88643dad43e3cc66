//! The Reipaz host: configuration, the owner loop that joins core, engine, journal and store, the HTTP API, the CLI.
//!
//! [`facade`] is the seam inside it: the API and the CLI stand on one side and know only that, the rest on the other.
#![warn(missing_docs)]

mod alerts;
pub mod api;
mod app;
mod attempts;
mod breakers;
mod catalog;
pub mod cli;
mod clock;
pub mod config;
mod doctor;
pub mod facade;
mod history;
mod json_text;
mod lag;
mod message;
mod metrics;
mod owner;
mod owners;
mod peers;
mod schedule;
mod secrets;
pub mod serve;
mod sink;
mod submission;
mod tasks;
mod view;
