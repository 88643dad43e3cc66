//! The language: what stands in the tree, read into what a workflow is made of, before names are resolved.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::Value;

use super::{
    MAX_STEPS,
    diagnostic::{Place, Report, code},
    expressions::{self, Reads},
    grants,
    read::{At, Fields, check_name, items, string, wrong_type},
    retry::RetryPart,
    tree::{Kind, Node},
};
use crate::{
    expression::{Template, evaluate},
    plan::{Condition, OnFailure},
};

/// The version of the language.
const LANGUAGE: u64 = 1;
const TOP: [&str; 9] = ["reipaz", "name", "input", "timeout", "defaults", "secrets", "steps", "output", "ui"];
const LATER_TOP: [&str; 3] = ["triggers", "concurrency", "on_failure"];
const STEP: [&str; 11] = [
    "uses",
    "with",
    "timeout",
    "total_timeout",
    "queue_timeout",
    "heartbeat_timeout",
    "retry",
    "grants",
    "needs",
    "if",
    "on_failure",
];
const LATER_STEP: [&str; 9] = [
    "for_each",
    "max_parallel",
    "on_item_failure",
    "steps",
    "output",
    "switch",
    "wait",
    "wait_for",
    "workflow",
];
const DEFAULTS: [&str; 5] = ["timeout", "total_timeout", "queue_timeout", "heartbeat_timeout", "retry"];

const SHORTEST: Duration = Duration::from_millis(1);
/// No run may take longer.
pub const MAX_RUN_TIMEOUT: Duration = Duration::from_secs(3_650 * 86_400);
/// No attempt may take longer.
pub const MAX_STEP_TIMEOUT: Duration = Duration::from_secs(7 * 86_400);

/// A workflow as it is written.
#[derive(Default)]
pub(crate) struct Draft<'n> {
    pub(crate) name: Option<String>,
    pub(crate) input: Option<(Value, Place)>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) times: Times,
    pub(crate) retry: RetryPart,
    pub(crate) secrets: Vec<(Arc<str>, Place)>,
    pub(crate) steps: Vec<StepDraft<'n>>,
    pub(crate) output: Option<Template>,
    pub(crate) output_reads: Reads,
}

/// How long a step's attempts may take.
#[derive(Clone, Copy, Default)]
pub(crate) struct Times {
    pub(crate) attempt: Option<Duration>,
    pub(crate) total: Option<Duration>,
    pub(crate) queue: Option<Duration>,
    pub(crate) heartbeat: Option<Duration>,
}

/// A step as it is written.
pub(crate) struct StepDraft<'n> {
    pub(crate) name: Arc<str>,
    pub(crate) place: Place,
    pub(crate) uses: Option<(String, Place)>,
    pub(super) with_at: Option<At<'n>>,
    pub(crate) with: Template,
    pub(crate) with_reads: Reads,
    pub(crate) condition: Condition,
    pub(crate) condition_reads: Reads,
    pub(crate) needs: Vec<(String, Place)>,
    pub(crate) times: Times,
    pub(crate) retry: RetryPart,
    pub(crate) on_failure: OnFailure,
    pub(crate) failure_reads: Reads,
    pub(crate) grants: Option<BTreeMap<String, Vec<String>>>,
}

/// Reads a whole document.
pub(crate) fn read<'n>(root: &'n Node, report: &mut Report<'_>) -> Draft<'n> {
    let mut draft = Draft::default();
    let start = super::tree::Span { start: root.span.start, end: root.span.start };
    let at = At { node: root, place: Place { span: start, pointer: String::new() } };
    if root.kind == Kind::Null {
        let hint = "a workflow has at least `reipaz: 1`, `name` and `steps`".to_owned();
        report.hinted(&at.place, code::EMPTY, "the document is empty", hint);
        return draft;
    }
    let Some(fields) = Fields::of(at, "a workflow", &TOP, &LATER_TOP, report) else { return draft };
    if let Some(at) = fields.require("reipaz", "the workflow", report)
        && !matches!(&at.node.kind, Kind::Number(number) if number.as_u64() == Some(LANGUAGE))
    {
        let message = "`reipaz` is the version of the language, which is 1";
        report.hinted(&at.place, code::BAD_VALUE, message, "write `reipaz: 1`".to_owned());
    }
    if let Some(at) = fields.require("name", "the workflow", report)
        && let Some(name) = string(&at, "`name`", report)
        && check_name(name, "the workflow's name", &at.place, report)
    {
        draft.name = Some(name.to_owned());
    }
    draft.input = fields.get("input").and_then(|at| match &at.node.kind {
        Kind::Object(_) | Kind::Bool(_) => Some((at.node.to_value(), at.place)),
        _ => {
            wrong_type(&at, "`input`", "a JSON Schema", report);
            None
        }
    });
    draft.timeout = fields.duration("timeout", SHORTEST, MAX_RUN_TIMEOUT, report);
    if let Some(at) = fields.get("defaults")
        && let Some(defaults) = Fields::of(at, "`defaults`", &DEFAULTS, &[], report)
    {
        draft.times = times(&defaults, report);
        draft.retry = defaults.get("retry").map(|at| RetryPart::read(at, report)).unwrap_or_default();
    }
    if let Some(at) = fields.get("secrets") {
        draft.secrets = secrets(&at, report);
    }
    if let Some(at) = fields.require("steps", "the workflow", report) {
        draft.steps = steps(&at, report);
    }
    if let Some(at) = fields.get("output") {
        draft.output = Some(expressions::template(&at, &mut draft.output_reads, report));
    }
    draft
}

fn secrets(at: &At<'_>, report: &mut Report<'_>) -> Vec<(Arc<str>, Place)> {
    let mut secrets: Vec<(Arc<str>, Place)> = Vec::new();
    for item in items(at, "`secrets`", report) {
        let Some(name) = string(&item, "a secret's name", report) else { continue };
        if secrets.iter().any(|(known, _)| &**known == name) {
            report.mistake(&item.place, code::BAD_VALUE, format!("the secret `{name}` stands twice"));
        } else if check_name(name, "the secret", &item.place, report) {
            secrets.push((name.into(), item.place));
        }
    }
    secrets
}

fn steps<'n>(at: &At<'n>, report: &mut Report<'_>) -> Vec<StepDraft<'n>> {
    let Kind::Object(fields) = &at.node.kind else {
        let expected = "an object of steps by their names";
        wrong_type(at, "`steps`", expected, report);
        return Vec::new();
    };
    if fields.len() > MAX_STEPS {
        let message = format!("a workflow has at most {MAX_STEPS} steps, not {}", fields.len());
        report.mistake(&at.place, code::TOO_MANY_STEPS, message);
        return Vec::new();
    }
    let read = |field: &'n super::tree::Field, report: &mut Report<'_>| {
        let mut inner = at.field(field);
        inner.place.span = field.key_span;
        check_name(&field.key, "the step", &inner.place, report);
        step(&field.key, inner, report)
    };
    fields.iter().map(|field| read(field, report)).collect()
}

fn step<'n>(name: &str, at: At<'n>, report: &mut Report<'_>) -> StepDraft<'n> {
    let mut step = StepDraft {
        name: name.into(),
        place: at.place.clone(),
        uses: None,
        with_at: None,
        with: Template::Literal(Value::Object(serde_json::Map::new())),
        with_reads: Reads::default(),
        condition: Condition::Succeeded,
        condition_reads: Reads::default(),
        needs: Vec::new(),
        times: Times::default(),
        retry: RetryPart::default(),
        on_failure: OnFailure::Fail,
        failure_reads: Reads::default(),
        grants: None,
    };
    let Some(fields) = Fields::of(at, "a step", &STEP, &LATER_STEP, report) else { return step };
    let another_kind = LATER_STEP.iter().any(|key| fields.get(key).is_some());
    let uses = if another_kind { fields.get("uses") } else { fields.require("uses", "the step", report) };
    if let Some(at) = uses
        && let Some(uses) = string(&at, "`uses`", report)
    {
        step.uses = Some((uses.to_owned(), at.place));
    }
    if let Some(at) = fields.get("with") {
        step.with = expressions::template(&at, &mut step.with_reads, report);
        step.with_at = Some(at);
    }
    if let Some(at) = fields.get("if") {
        step.condition = expressions::condition(&at, &mut step.condition_reads, report);
    }
    if let Some(at) = fields.get("needs") {
        for item in items(&at, "`needs`", report) {
            if let Some(name) = string(&item, "a step's name", report) {
                step.needs.push((name.to_owned(), item.place));
            }
        }
    }
    step.times = times(&fields, report);
    if let Some(at) = fields.get("on_failure") {
        step.on_failure = on_failure(&at, &mut step.failure_reads, report);
    }
    step.retry = fields.get("retry").map(|at| RetryPart::read(at, report)).unwrap_or_default();
    step.grants = fields.get("grants").map(|at| grants::read(at, report));
    step
}

fn times(fields: &Fields<'_>, report: &mut Report<'_>) -> Times {
    Times {
        attempt: fields.duration("timeout", SHORTEST, MAX_STEP_TIMEOUT, report),
        total: fields.duration("total_timeout", SHORTEST, MAX_RUN_TIMEOUT, report),
        queue: fields.duration("queue_timeout", SHORTEST, MAX_STEP_TIMEOUT, report),
        heartbeat: fields.duration("heartbeat_timeout", SHORTEST, MAX_STEP_TIMEOUT, report),
    }
}

/// `fail`, `pause` or `{continue_with: VALUE}`.
fn on_failure(at: &At<'_>, reads: &mut Reads, report: &mut Report<'_>) -> OnFailure {
    match &at.node.kind {
        Kind::String(text, _) if text == "fail" => OnFailure::Fail,
        Kind::String(text, _) if text == "pause" => OnFailure::Pause,
        Kind::Object(_) => {
            let Some(fields) = Fields::of(at.clone(), "`on_failure`", &["continue_with"], &["steps"], report)
            else {
                return OnFailure::Fail;
            };
            if fields.get("steps").is_some() {
                return OnFailure::Fail;
            }
            let Some(at) = fields.require("continue_with", "`on_failure`", report) else {
                return OnFailure::Fail;
            };
            let template = expressions::template(&at, reads, report);
            if evaluate::prepare_template(&template).filters.is_empty() {
                return OnFailure::ContinueWith(template);
            }
            let message =
                "`continue_with` takes values and plain paths such as `${ $input.fallback }`, no filters";
            report.mistake(&at.place, code::BAD_VALUE, message);
            OnFailure::Fail
        }
        _ => {
            wrong_type(at, "`on_failure`", "`fail`, `pause` or `{continue_with: ...}`", report);
            OnFailure::Fail
        }
    }
}
