//! The partition and the retry rule, seen from outside: specifications first, then a simulation.
#![allow(clippy::unwrap_used, reason = "tests")]

mod breakers;
mod codec;
mod failures;
mod handling;
mod keys;
mod limits;
mod plans;
mod recovery;
mod retention;
mod retries;
mod runs;
mod simulation;
mod states;
mod support;
mod weights;
