//! A document's `retry`: the parts of a retry rule that it states; what it leaves out comes from the next in line.

use std::time::Duration;

use super::{
    diagnostic::{Report, code},
    read::{At, Fields, string},
};
use crate::retry::{Jitter, RetryRule};

/// No rule has more attempts.
pub const MAX_ATTEMPTS: u32 = 100;
/// No backoff grows faster.
const MAX_FACTOR: f64 = 100.0;
/// No backoff delay is longer.
const MAX_DELAY: Duration = Duration::from_secs(24 * 3600);
/// No step is tried for longer.
const MAX_WITHIN: Duration = Duration::from_secs(30 * 24 * 3600);

/// What one `retry` says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct RetryPart {
    attempts: Option<u32>,
    base: Option<Duration>,
    factor: Option<f64>,
    max_delay: Option<Duration>,
    within: Option<Duration>,
    jitter: Option<Jitter>,
}

impl RetryPart {
    /// Puts what this says over `rule`.
    pub(crate) fn over(self, rule: RetryRule) -> RetryRule {
        RetryRule {
            attempts: self.attempts.unwrap_or(rule.attempts),
            base: self.base.unwrap_or(rule.base),
            factor: self.factor.unwrap_or(rule.factor),
            max_delay: self.max_delay.unwrap_or(rule.max_delay),
            within: self.within.unwrap_or(rule.within),
            jitter: self.jitter.unwrap_or(rule.jitter),
        }
    }

    /// Reads a `retry`.
    pub(super) fn read(at: At<'_>, report: &mut Report<'_>) -> Self {
        let known = ["attempts", "base", "factor", "max_delay", "within", "jitter"];
        let Some(fields) = Fields::of(at, "`retry`", &known, &[], report) else { return Self::default() };
        let millisecond = Duration::from_millis(1);
        Self {
            attempts: fields.whole_number("attempts", 1, MAX_ATTEMPTS, report),
            base: fields.duration("base", millisecond, MAX_DELAY, report),
            factor: fields.number("factor", 1.0, MAX_FACTOR, report),
            max_delay: fields.duration("max_delay", millisecond, MAX_DELAY, report),
            within: fields.duration("within", Duration::ZERO, MAX_WITHIN, report),
            jitter: fields.get("jitter").and_then(|at| match string(&at, "`jitter`", report)? {
                "full" => Some(Jitter::Full),
                "none" => Some(Jitter::None),
                _ => {
                    report.mistake(&at.place, code::BAD_VALUE, "`jitter` is `full` or `none`");
                    None
                }
            }),
        }
    }
}
