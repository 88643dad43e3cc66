//! What two simulations share: that of the partition alone (`runtime/core/tests/partition/simulation`), which models an
//! owner, and that of the real owner (`runtime/host/src/owner/simulation`). Random numbers and workflows, an audit of
//! whatever journal came out, and the search through seeds. It knows neither world.
#![allow(clippy::unwrap_used, reason = "tests")]

mod audit;
mod explain;
mod random;
mod search;
mod workflows;

pub use audit::Audit;
pub use explain::explain;
pub use random::Random;
pub use search::{Search, simulate};
pub use workflows::{LOUD, QUIET, plan, plugin_limits, workflow};
