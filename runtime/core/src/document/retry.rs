//! A document's `retry`: the parts of a retry rule that it states; what it leaves out comes from the next in line.

use std::{collections::BTreeMap, time::Duration};

use super::{
    diagnostic::{Place, Report, code},
    hint,
    read::{At, Fields, is_name, string, wrong_type},
    tree::Kind,
};
use crate::{
    failure::{BREAKER_OPEN, ErrorClass, STEP_TIMEOUT},
    retry::{self, Case, Jitter, Numbers, RetryRule, Treatment},
};

/// No rule has more attempts.
pub const MAX_ATTEMPTS: u32 = 100;
/// No backoff grows faster.
const MAX_FACTOR: f64 = 100.0;
/// No backoff delay is longer.
const MAX_DELAY: Duration = Duration::from_secs(24 * 3600);
/// No step is tried for longer.
const MAX_WITHIN: Duration = Duration::from_secs(30 * 24 * 3600);
/// No rule treats more kinds of failures in their own way.
const MAX_CASES: usize = 32;

/// Codes of failures that end a step whatever its rule says.
const NEVER_RETRIED: [&str; 4] = [STEP_TIMEOUT, BREAKER_OPEN, "host_lost", "host_fault"];
const NUMBERS: [&str; 7] = ["attempts", "immediate", "base", "factor", "max_delay", "within", "jitter"];
const ALL: [&str; 8] =
    ["attempts", "immediate", "base", "factor", "max_delay", "within", "jitter", "by_error"];

/// What one `retry` says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RetryPart {
    numbers: Numbers,
    by_error: BTreeMap<Case, Treatment>,
}

impl RetryPart {
    /// Puts what this says over `rule`. What both say about the same failures is put together number by number.
    pub(crate) fn over(&self, mut rule: RetryRule) -> RetryRule {
        let mut by_error = std::mem::take(&mut rule.by_error);
        for (case, treatment) in &self.by_error {
            let merged = match (treatment, by_error.get(case)) {
                (Treatment::Again(ours), Some(Treatment::Again(next))) => Treatment::Again(ours.or(*next)),
                _ => *treatment,
            };
            by_error.insert(case.clone(), merged);
        }
        self.numbers.over(&rule, by_error)
    }

    /// Reads a `retry`.
    pub(super) fn read(at: At<'_>, report: &mut Report<'_>) -> Self {
        let Some(fields) = Fields::of(at, "`retry`", &ALL, &[], report) else { return Self::default() };
        let by_error = fields.get("by_error").map(|at| cases(&at, report)).unwrap_or_default();
        Self { numbers: numbers(&fields, report), by_error }
    }
}

fn numbers(fields: &Fields<'_>, report: &mut Report<'_>) -> Numbers {
    let millisecond = Duration::from_millis(1);
    Numbers {
        attempts: fields.whole_number("attempts", 1, MAX_ATTEMPTS, report),
        immediate: fields.whole_number("immediate", 0, MAX_ATTEMPTS, report),
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

/// `by_error`: by class (`rate_limited`), status (`409`) or code (`out_of_memory`), `never` or other numbers.
fn cases(at: &At<'_>, report: &mut Report<'_>) -> BTreeMap<Case, Treatment> {
    let Kind::Object(fields) = &at.node.kind else {
        wrong_type(at, "`by_error`", "an object of failures by class, status or code", report);
        return BTreeMap::new();
    };
    if fields.len() > MAX_CASES {
        let message = format!("`by_error` has at most {MAX_CASES} entries, not {}", fields.len());
        report.mistake(&at.place, code::OUT_OF_RANGE, message);
        return BTreeMap::new();
    }
    let mut cases = BTreeMap::new();
    for field in fields {
        let inner = at.field(field);
        let case = case(&field.key, &at.place.child(&field.key, field.key_span), report);
        let treatment = match &inner.node.kind {
            Kind::String(text, _) if text == "never" => Some(Treatment::Never),
            Kind::Object(_) => Fields::of(inner, "an entry of `by_error`", &NUMBERS, &[], report)
                .map(|fields| Treatment::Again(numbers(&fields, report))),
            _ => {
                wrong_type(
                    &inner,
                    "an entry of `by_error`",
                    "`never` or an object of a retry's numbers",
                    report,
                );
                None
            }
        };
        if let (Some(case), Some(treatment)) = (case, treatment) {
            cases.insert(case, treatment);
        }
    }
    cases
}

fn case(key: &str, place: &Place, report: &mut Report<'_>) -> Option<Case> {
    if let Some(class) = ErrorClass::ALL.into_iter().find(|class| class.as_str() == key) {
        if retry::may_be_retried(class) {
            return Some(Case::Class(class));
        }
        report.mistake(place, code::BAD_VALUE, format!("a failure of class `{key}` is never tried again"));
        return None;
    }
    let status = key.parse::<u16>().ok().filter(|status| (100..600).contains(status));
    match status {
        Some(status) => Some(Case::Code(format!("http_{status}").into())),
        None if NEVER_RETRIED.contains(&key) => {
            // No mistake: what was published before this was known still has to compile.
            report.warning(place, code::BAD_VALUE, format!("a failure `{key}` is never tried again"));
            None
        }
        None if is_name(key) => {
            if let Some(near) = hint::nearest(key, ErrorClass::ALL.map(ErrorClass::as_str)) {
                let message =
                    format!("`{key}` is taken for a failure's code, and resembles the class `{near}`");
                report.warning(place, code::UNKNOWN_KEY, message);
            }
            Some(Case::Code(key.into()))
        }
        None => {
            let classes = ErrorClass::ALL.into_iter().filter(|class| retry::may_be_retried(*class));
            let classes = classes.map(ErrorClass::as_str).collect::<Vec<_>>().join(", ");
            let hint = format!("a class ({classes}), an HTTP status (`409`) or a code (`out_of_memory`)");
            let message = format!("`{key}` is no class, status or code of failures");
            report.hinted(place, code::BAD_VALUE, message, hint);
            None
        }
    }
}
