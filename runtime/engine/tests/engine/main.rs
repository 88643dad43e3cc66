//! The engine with whole guests: what a step gets, what it cannot do, and what becomes of one that tries.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up should stop")]

mod attacker;
mod attempts;
mod expressions;
mod guests;
mod hostile;
mod http;
mod http_attacks;
mod install;
mod interruption;
mod rebinding;
mod rig;
mod server;
mod synthetic;
mod world;
