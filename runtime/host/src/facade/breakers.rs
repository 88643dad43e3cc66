//! What is shown of circuit breakers, and what can be asked of one.

use std::sync::Arc;

use reipaz_core::time::Timestamp;
use reipaz_engine::{BreakerKind, BreakerState};
use serde::{Deserialize, Serialize};

/// The breakers of one host.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BreakersView {
    /// By kind and name. One is there from its first call on.
    pub breakers: Vec<BreakerView>,
}

/// One of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BreakerView {
    /// What it is for.
    pub kind: BreakerKind,
    /// `acme/score@1.2.0`, `https://shop.example:443`.
    pub name: Arc<str>,
    /// Where it stands.
    pub state: BreakerState,
    /// Held open by hand, until it is closed by hand.
    pub held: bool,
    /// Since when it stands there.
    pub since: Timestamp,
    /// Open: how long until it lets probes through.
    pub opens_in_ms: Option<u64>,
    /// Failures in its window.
    pub failures: u32,
    /// All outcomes in its window.
    pub calls: u32,
}

/// What a hand does to a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerHand {
    /// Opens it, until it is closed by hand.
    Open,
    /// Closes it; from there it goes on by itself.
    Close,
}
