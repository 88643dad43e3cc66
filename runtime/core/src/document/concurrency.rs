//! A workflow's `concurrency`: how many of its runs there may be, at one time and in a span of time.

use std::time::Duration;

use super::{
    diagnostic::{Report, code},
    draft::plain,
    expressions::{self, Reads},
    read::{At, Fields, string},
    tree::Kind,
};
use crate::{
    expression::Template,
    limit::{LimitRule, MAX_QUEUED, MAX_STARTS, Rate},
    plan::Concurrency,
};

const FIELDS: [&str; 5] = ["key", "limit", "rate", "when_full", "max_queued"];

/// The shortest span of a rate.
const SHORTEST: Duration = Duration::from_millis(1);
/// The longest.
const LONGEST: Duration = Duration::from_secs(31 * 86_400);

/// Reads a `concurrency`.
pub(super) fn read(at: At<'_>, reads: &mut Reads, report: &mut Report<'_>) -> Option<Concurrency> {
    let fields = Fields::of(at, "`concurrency`", &FIELDS, &[], report)?;
    let at_once = fields.whole_number("limit", 1, MAX_QUEUED, report);
    let rate = fields.get("rate").and_then(|at| rate(at, report));
    if fields.get("limit").is_none() && fields.get("rate").is_none() {
        let hint = "write `limit: 10`, or `rate: {starts: 10, per: 1m}`, or both".to_owned();
        let message = "`concurrency` says neither how many at one time nor how many in a span of time";
        report.hinted(&fields.at.place, code::MISSING_KEY, message, hint);
    }
    let most = fields.whole_number("max_queued", 1, MAX_QUEUED, report);
    let queues = match fields.get("when_full") {
        None => true,
        Some(at) => match string(&at, "`when_full`", report) {
            Some("queue") | None => true,
            Some("reject") => false,
            Some(_) => {
                report.mistake(&at.place, code::BAD_VALUE, "`when_full` is `queue` or `reject`");
                true
            }
        },
    };
    if let Some(at) = fields.get("max_queued").filter(|_| !queues) {
        report.mistake(&at.place, code::BAD_VALUE, "`max_queued` goes with `when_full: queue`");
    }
    let max_queued = if queues { most.unwrap_or(MAX_QUEUED) } else { 0 };
    let key = fields.get("key").map(|at| key(&at, reads, report));
    Some(Concurrency { key, rule: LimitRule { at_once, rate, max_queued, version: 0 } })
}

fn rate(at: At<'_>, report: &mut Report<'_>) -> Option<Rate> {
    let fields = Fields::of(at, "`rate`", &["starts", "per"], &[], report)?;
    fields.require("starts", "`rate`", report);
    fields.require("per", "`rate`", report);
    let starts = fields.whole_number("starts", 1, MAX_STARTS, report);
    let per = fields.duration("per", SHORTEST, LONGEST, report);
    Some(Rate { starts: starts?, per_ms: u64::try_from(per?.as_millis()).ok()? })
}

/// An expression as it is, or text with `${ }` in it. It is evaluated when the run is accepted, before any step.
fn key(at: &At<'_>, reads: &mut Reads, report: &mut Report<'_>) -> Template {
    let is_bare = matches!(&at.node.kind, Kind::String(text, _) if !text.contains("${"));
    let key = match is_bare {
        true => Template::Whole(expressions::bare(at, "`key`", reads, report)),
        false => plain(at, "`key`", reads, report),
    };
    if let Template::Whole(expression) = &key
        && is_bare
        && !expression.is_native()
    {
        let message = "`key` takes plain paths such as `$input.customer`, no filters";
        let hint =
            "several values make one key as text: \"${ $input.region }/${ $input.customer }\"".to_owned();
        report.hinted(&at.place, code::BAD_VALUE, message, hint);
    }
    for (name, place) in &reads.steps {
        let message = format!("`key` is needed before the step `{name}` starts");
        report.hinted(place, code::UNKNOWN_STEP, message, "it reads `$input` or `$trigger`".to_owned());
    }
    key
}
