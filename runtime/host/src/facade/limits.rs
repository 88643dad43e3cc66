//! What is shown of limits.

use std::sync::Arc;

use reipaz_core::{limit::LimitKind, time::Timestamp};
use serde::{Deserialize, Serialize};

/// Limits that somebody uses.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LimitsView {
    /// Those for which most wait come first.
    pub limits: Vec<LimitView>,
    /// How many there are, with those that are not listed.
    pub total: usize,
}

/// One of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LimitView {
    /// Of what.
    pub kind: LimitKind,
    /// The workflow's or plugin's name.
    pub name: Arc<str>,
    /// Which of the values that are counted each by itself: JSON.
    #[serde(with = "reipaz_core::json::optional_raw", default)]
    pub key: Option<reipaz_core::json::Json>,
    /// So many at one time.
    pub limit: Option<u32>,
    /// So many starts in any span of time.
    pub rate: Option<RateView>,
    /// Places taken.
    pub held: u32,
    /// Who wait.
    pub queued: u32,
    /// So many may.
    pub max_queued: u32,
    /// Since when the first of them waits.
    pub waiting_since: Option<Timestamp>,
}

/// At most so many starts in any span of this length.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct RateView {
    /// How many.
    pub starts: u32,
    /// The span, milliseconds.
    pub per_ms: u64,
}
