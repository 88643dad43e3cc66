//! What a step author depends on.
//!
//! A step is one function from a serde type to a serde type. The attribute makes a WebAssembly component of it that any
//! Reipaz host runs; WIT, bindings and JSON stay out of sight:
//!
//! ```
//! use reipaz_sdk::prelude::*;
//! use schemars::JsonSchema;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize, JsonSchema)]
//! struct Order {
//!     /// In cents.
//!     total: u64,
//! }
//!
//! #[derive(Serialize, JsonSchema)]
//! struct Score {
//!     risk: f64,
//! }
//!
//! /// Scores an order by its total.
//! #[reipaz_sdk::step]
//! fn score(order: Order) -> Result<Score, StepError> {
//!     if order.total == 0 {
//!         return Err(StepError::permanent("empty_order", "an order needs a total"));
//!     }
//!     info!("scored", total = order.total);
//!     Ok(Score { risk: order.total as f64 / 1e6 })
//! }
//! # fn main() {}
//! ```
//!
//! - `cargo build --target wasm32-wasip2 --release` gives the component; `cargo test` runs the function natively.
//! - Name, version and summary come from the Cargo package and the function's doc comment; the schemas from the types.
//! - A second parameter, [`Context`] or `&Context`, says which attempt this is.
//! - `?` turns any error into a [`StepError`] of the right class, [`http`] does requests, [`info!`] and its siblings write log
//!   lines, [`progress::report`] says how far a long step is.
//! - A panic is a trap: its message reaches the attempt's log, and the step fails as a bug, without retry.
//!
//! Idea to keep: everything a step does goes through its input, its output and these few calls, so the host can virtualise the
//! rest, and a step that calls neither [`http`] nor anything like it is *silent*: it imports nothing that could be seen outside.

pub mod context;
pub mod error;
#[cfg(target_family = "wasm")]
mod guest;
pub mod http;
pub mod log;
pub mod manifest;
pub mod progress;
pub mod step;
pub mod testing;

pub use context::Context;
pub use error::{Classify, ErrorClass, StepError};
pub use manifest::{GrantRequest, Manifest};
/// Makes a step of a function; see the crate's documentation and the attribute's own.
pub use reipaz_sdk_macros::step;
pub use {schemars, serde, serde_json};

/// What nearly every step uses: `use reipaz_sdk::prelude::*;`
pub mod prelude {
    pub use crate::error::{Classify, StepError};
    pub use crate::{Context, debug, error, http, info, progress, trace, warn};
}

/// What the macros expand to. Not an interface: it may change with any version.
#[doc(hidden)]
pub mod __private {
    #[cfg(target_family = "wasm")]
    pub use crate::guest::{Guest, bindings};
    pub use crate::step::{Step, StepInput, StepOutput, StepReturn};
}
