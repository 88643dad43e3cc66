//! The retry rule: whether and when a failed attempt is followed by another. Pure arithmetic on arguments; the draw for
//! the jitter is one of them.
//!
//! The first [`IMMEDIATE_RETRIES`] retries after a network error or a timeout come at once, since most of those are
//! blips. Further ones back off exponentially, with "full jitter" (Brooker, "Exponential Backoff And Jitter", AWS
//! Architecture Blog, 2015) so that what failed together does not come back together. Where the other side says how
//! long it wants to be left alone, that is obeyed, or the step fails; it is never asked sooner.
//!
//! A rule may say otherwise about failures of one class or code ([`RetryRule::by_error`]): never again, or with other numbers.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use sha2::{Digest as _, Sha256};

use crate::{
    failure::{ErrorClass, Failure},
    fault,
    ids::StepPath,
    time::Timestamp,
};

/// So many retries of a step after network errors and timeouts come without a delay, unless its rule says otherwise.
pub const IMMEDIATE_RETRIES: u32 = 2;

/// When a failed step is tried again (a document's `retry`).
#[derive(Clone, Debug, PartialEq)]
pub struct RetryRule {
    /// Attempts in all; the first counts. At least 1.
    pub attempts: u32,
    /// How many retries after network errors and timeouts come without a delay.
    pub immediate: u32,
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
    /// What is different for certain failures. Of a code and a class that both fit, the code counts.
    pub by_error: BTreeMap<Case, Treatment>,
}

/// Which failures a rule treats in their own way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Case {
    /// Those with this code.
    Code(Arc<str>),
    /// Those of this class.
    Class(ErrorClass),
}

/// What becomes of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Treatment {
    /// They are not tried again.
    Never,
    /// They are, whatever their class, by these numbers.
    Again(Numbers),
}

/// Some of a rule's numbers; the others are the rule's own.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Numbers {
    /// See [`RetryRule::attempts`].
    pub attempts: Option<u32>,
    /// See [`RetryRule::immediate`]. For certain failures: so many of their retries, whatever their class.
    pub immediate: Option<u32>,
    /// See [`RetryRule::base`].
    pub base: Option<Duration>,
    /// See [`RetryRule::factor`].
    pub factor: Option<f64>,
    /// See [`RetryRule::max_delay`].
    pub max_delay: Option<Duration>,
    /// See [`RetryRule::within`].
    pub within: Option<Duration>,
    /// See [`RetryRule::jitter`].
    pub jitter: Option<Jitter>,
}

impl Numbers {
    /// These, and those of `next` where these say nothing.
    #[must_use]
    pub fn or(self, next: Self) -> Self {
        Self {
            attempts: self.attempts.or(next.attempts),
            immediate: self.immediate.or(next.immediate),
            base: self.base.or(next.base),
            factor: self.factor.or(next.factor),
            max_delay: self.max_delay.or(next.max_delay),
            within: self.within.or(next.within),
            jitter: self.jitter.or(next.jitter),
        }
    }

    /// `rule` with these numbers in place of its own, and with these differences.
    pub(crate) fn over(self, rule: &RetryRule, by_error: BTreeMap<Case, Treatment>) -> RetryRule {
        RetryRule {
            attempts: self.attempts.unwrap_or(rule.attempts),
            immediate: self.immediate.unwrap_or(rule.immediate),
            base: self.base.unwrap_or(rule.base),
            factor: self.factor.unwrap_or(rule.factor),
            max_delay: self.max_delay.unwrap_or(rule.max_delay),
            within: self.within.unwrap_or(rule.within),
            jitter: self.jitter.unwrap_or(rule.jitter),
            by_error,
        }
    }
}

/// How backoff delays are spread.
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
    /// 5 attempts within 15 minutes, two of them at once after network errors and timeouts; 1 s, doubled up to 60 s, full
    /// jitter.
    fn default() -> Self {
        Self {
            attempts: 5,
            immediate: IMMEDIATE_RETRIES,
            base: Duration::from_secs(1),
            factor: 2.0,
            max_delay: Duration::from_secs(60),
            within: Duration::from_secs(15 * 60),
            jitter: Jitter::Full,
            by_error: BTreeMap::new(),
        }
    }
}

/// How far a step has come in its rule. A run that somebody retries starts this afresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Attempts made; the failed one counts.
    pub attempts: u32,
    /// How many of the retries came immediately.
    pub immediate: u32,
    /// How many of the retries came after a backoff.
    pub backoffs: u32,
    /// When the first attempt started: where `within` counts from.
    pub first_started: Timestamp,
}

/// What the rule says about a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Try again after `delay` (whole milliseconds).
    Retry {
        /// From now.
        delay: Duration,
        /// Where the delay comes from.
        reason: Reason,
    },
    /// The step has failed.
    GiveUp(GiveUp),
}

/// Which part of the rule gave a delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// One of the first retries after a network error or a timeout.
    Immediate,
    /// Exponential, with jitter.
    Backoff,
    /// The other side said.
    RetryAfter,
}

impl Reason {
    /// The reason as it stands in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Immediate => "immediate",
            Self::Backoff => "backoff",
            Self::RetryAfter => "retry_after",
        }
    }
}

impl Reason {
    /// [`Reason::as_str`], shared by all events that say it.
    pub fn shared(self) -> Arc<str> {
        let index = match self {
            Self::Immediate => 0,
            Self::Backoff => 1,
            Self::RetryAfter => 2,
        };
        Arc::clone(&Self::texts()[index])
    }

    /// The shared text that is equal to this one, if there is one; else this one.
    pub fn share(text: &Arc<str>) -> Arc<str> {
        Arc::clone(Self::texts().iter().find(|shared| *shared == text).unwrap_or(text))
    }

    fn texts() -> &'static [Arc<str>; 3] {
        static TEXTS: OnceLock<[Arc<str>; 3]> = OnceLock::new();
        TEXTS.get_or_init(|| {
            [Self::Immediate, Self::Backoff, Self::RetryAfter].map(|it| Arc::from(it.as_str()))
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a step is not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GiveUp {
    /// Failures of this class would only repeat.
    Class,
    /// The rule says so of this class or code.
    Never,
    /// All attempts are used.
    Attempts,
    /// The next attempt would start after the rule's `within`.
    Window,
}

/// Whether failures of this class may pass by themselves.
pub fn is_retried(class: ErrorClass) -> bool {
    match class {
        ErrorClass::Transient | ErrorClass::Network | ErrorClass::Timeout | ErrorClass::RateLimited => true,
        ErrorClass::Permanent
        | ErrorClass::Resource
        | ErrorClass::Trap
        | ErrorClass::Denied
        | ErrorClass::Cancelled
        | ErrorClass::Host => false,
    }
}

/// Whether a rule may have failures of this class tried again.
pub fn may_be_retried(class: ErrorClass) -> bool {
    !matches!(class, ErrorClass::Cancelled | ErrorClass::Host)
}

/// A step's retries as its rule has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// In order.
    pub retries: Vec<ExplainedRetry>,
    /// Why there is none after them.
    pub gives_up: GiveUp,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExplainedRetry {
    /// The attempt that it makes; counts from 1.
    pub attempt: u32,
    /// Where its delay comes from.
    pub reason: Reason,
    /// The shortest delay.
    pub least: Duration,
    /// The longest.
    pub most: Duration,
    /// How long after the first attempt it starts at the latest, if attempts take no time.
    pub latest: Duration,
}

/// The number that spreads the delay after this attempt: the same for the same attempt, even over all of `u64`.
pub fn draw(run_seed: &[u8; 32], path: &StepPath, attempt: u32) -> u64 {
    let mut hash = Sha256::new();
    hash.update(b"retry jitter");
    hash.update(run_seed);
    hash.update(attempt.to_be_bytes());
    hash.update(path.as_str());
    let digest: [u8; 32] = hash.finalize().into();
    digest.iter().take(8).fold(0, |number, &byte| (number << 8) | u64::from(byte))
}

impl RetryRule {
    /// What follows a failure at `now`. `draw` is even over `u64` (see [`draw`]).
    pub fn decide(&self, pace: Pace, failure: &Failure, now: Timestamp, draw: u64) -> Verdict {
        let quick = matches!(failure.class, ErrorClass::Network | ErrorClass::Timeout);
        let (rule, immediate) = match self.treatment(failure) {
            Some(Treatment::Never) => return Verdict::GiveUp(GiveUp::Never),
            Some(Treatment::Again(numbers)) if may_be_retried(failure.class) => {
                let rule = numbers.over(self, BTreeMap::new());
                let immediate = if quick || numbers.immediate.is_some() { rule.immediate } else { 0 };
                (Cow::Owned(rule), immediate)
            }
            _ if !is_retried(failure.class) => return Verdict::GiveUp(GiveUp::Class),
            _ => (Cow::Borrowed(self), if quick { self.immediate } else { 0 }),
        };
        if pace.attempts >= rule.attempts {
            return Verdict::GiveUp(GiveUp::Attempts);
        }
        let (delay, reason) = if let Some(millis) = failure.retry_after_ms {
            (Duration::from_millis(millis), Reason::RetryAfter)
        } else if pace.immediate < immediate {
            (Duration::ZERO, Reason::Immediate)
        } else {
            (rule.spread(rule.backoff(pace.backoffs), draw), Reason::Backoff)
        };
        let outside = now.plus(delay) > pace.first_started.plus(rule.within);
        if outside && !fault::is_made("a retry past its window") {
            return Verdict::GiveUp(GiveUp::Window);
        }
        Verdict::Retry { delay, reason }
    }

    /// What is different for this failure.
    fn treatment(&self, failure: &Failure) -> Option<Treatment> {
        if self.by_error.is_empty() {
            return None;
        }
        let of = |case| self.by_error.get(&case).copied();
        of(Case::Code(Arc::clone(&failure.code))).or_else(|| of(Case::Class(failure.class)))
    }

    /// What follows if every attempt fails in this way the moment it starts.
    pub fn explain(&self, failure: &Failure) -> Explanation {
        let mut pace = Pace { attempts: 0, immediate: 0, backoffs: 0, first_started: Timestamp(0) };
        let mut explanation = Explanation { retries: Vec::new(), gives_up: GiveUp::Attempts };
        let mut latest = Timestamp(0);
        loop {
            pace.attempts += 1;
            let (delay, reason) = match self.decide(pace, failure, latest, u64::MAX) {
                Verdict::Retry { delay, reason } => (delay, reason),
                Verdict::GiveUp(why) => {
                    explanation.gives_up = why;
                    return explanation;
                }
            };
            let least = match self.decide(pace, failure, latest, 0) {
                Verdict::Retry { delay, .. } => delay,
                Verdict::GiveUp(_) => delay,
            };
            match reason {
                Reason::Immediate => pace.immediate += 1,
                Reason::Backoff => pace.backoffs += 1,
                Reason::RetryAfter => {}
            }
            latest = latest.plus(delay);
            explanation.retries.push(ExplainedRetry {
                attempt: pace.attempts + 1,
                reason,
                least,
                most: delay,
                latest: latest.since(Timestamp(0)),
            });
        }
    }

    /// The backoff before jitter, after so many earlier ones: `base * factor^earlier`, at most `max_delay`.
    pub fn backoff(&self, earlier: u32) -> Duration {
        let (base, max) = (self.base.as_secs_f64(), self.max_delay.as_secs_f64());
        // Multiplied step by step: exact for whole factors, and the same on every platform.
        let mut seconds = base.min(max);
        for _ in 0..earlier {
            if seconds >= max || self.factor <= 1.0 {
                break;
            }
            seconds = (seconds * self.factor).min(max);
        }
        Duration::from_millis((seconds * 1000.0).round() as u64)
    }

    fn spread(&self, delay: Duration, draw: u64) -> Duration {
        match self.jitter {
            Jitter::None => delay,
            Jitter::Full => {
                // The product's upper half: draw / 2^64 of the delay, both ends included.
                let millis = (delay.as_millis().saturating_add(1)).saturating_mul(u128::from(draw)) >> 64;
                Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
            }
        }
    }
}
