//! A partition of runs as a value: inputs in, decisions out. Nothing here waits, reads a clock or draws randomness.

mod input;
mod status;

pub use input::*;
pub use status::*;
