//! The retry rule: whether and when a failed attempt is followed by another. Pure arithmetic on arguments.

use std::time::Duration;

/// When a failed step is tried again (a document's `retry`).
#[derive(Clone, Debug, PartialEq)]
pub struct RetryRule {
    /// Attempts in all; the first counts. At least 1.
    pub attempts: u32,
    /// The first backoff delay, before jitter.
    pub base: Duration,
    /// What each further backoff delay is multiplied by. At least 1.
    pub factor: f64,
    /// No backoff delay is longer. (A `Retry-After` may be.)
    pub max_delay: Duration,
    /// No attempt starts later than this after the step's first.
    pub within: Duration,
    /// How backoff delays are spread.
    pub jitter: Jitter,
}

/// How backoff delays are spread, so that what failed together does not come back together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Jitter {
    /// Evenly between zero and the delay.
    #[default]
    Full,
    /// Not at all.
    None,
}

impl Default for RetryRule {
    /// 5 attempts within 15 minutes; 1 s, doubled up to 60 s, full jitter.
    fn default() -> Self {
        Self {
            attempts: 5,
            base: Duration::from_secs(1),
            factor: 2.0,
            max_delay: Duration::from_secs(60),
            within: Duration::from_secs(15 * 60),
            jitter: Jitter::Full,
        }
    }
}
