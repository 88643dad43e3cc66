//! The partition and the retry rule, seen from outside: specifications first, then a simulation.
#![allow(clippy::unwrap_used, reason = "tests")]

mod codec;
mod failures;
mod keys;
mod plans;
mod recovery;
mod retention;
mod retries;
mod runs;
mod simulation;
mod support;
