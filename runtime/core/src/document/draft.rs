//! The language: what stands in the tree, read into what a workflow is made of, before names are resolved.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::Value;

use super::{
    MAX_STEPS, concurrency,
    diagnostic::{Place, Report, code},
    expressions::{self, Reads},
    grants,
    read::{At, Fields, check_name, items, string, wrong_type},
    retry::RetryPart,
    tree::{Kind, Node},
};
use crate::{
    expression::{Template, evaluate},
    plan::{Concurrency, Condition, Handles, OnFailure},
};

/// The version of the language.
const LANGUAGE: u64 = 1;
const TOP: [&str; 11] = [
    "reipaz",
    "name",
    "input",
    "timeout",
    "concurrency",
    "defaults",
    "secrets",
    "steps",
    "on_failure",
    "output",
    "ui",
];
const LATER_TOP: [&str; 1] = ["triggers"];
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
/// What the steps of a workflow's `on_failure` may take together, where it does not say.
const FAILURE_TIMEOUT: Duration = Duration::from_secs(15 * 60);
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
    pub(crate) concurrency: Option<Concurrency>,
    /// What its key reads.
    pub(crate) key_reads: Reads,
    /// How long the steps of its `on_failure` may take together, if it has one.
    pub(crate) on_failure: Option<Duration>,
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
    /// Without the steps that it names: those stand in [`Draft::steps`].
    pub(crate) on_failure: OnFailure,
    /// What a `continue_with` reads.
    pub(crate) failure_reads: Reads,
    /// The output of the steps in its `on_failure`, and what that reads.
    pub(crate) handled: Option<Template>,
    pub(crate) handled_reads: Reads,
    /// What it is there for, if it stands in an `on_failure`; counts in [`Draft::steps`].
    pub(crate) handles: Option<Handles>,
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
    if let Some(at) = fields.get("concurrency") {
        draft.concurrency = concurrency::read(at, &mut draft.key_reads, report);
    }
    if let Some(at) = fields.get("defaults")
        && let Some(defaults) = Fields::of(at, "`defaults`", &DEFAULTS, &[], report)
    {
        draft.times = times(&defaults, report);
        draft.retry = defaults.get("retry").map(|at| RetryPart::read(at, report)).unwrap_or_default();
    }
    if let Some(at) = fields.get("secrets") {
        draft.secrets = secrets(&at, report);
    }
    let mut handlers = Vec::new();
    if let Some(at) = fields.require("steps", "the workflow", report) {
        draft.steps = steps(&at, &mut handlers, report);
    }
    if let Some(at) = fields.get("on_failure")
        && let Some(fields) =
            Fields::of(at, "the workflow's `on_failure`", &["steps", "timeout"], &[], report)
    {
        let timeout = fields.duration("timeout", SHORTEST, MAX_RUN_TIMEOUT, report);
        draft.on_failure = Some(timeout.unwrap_or(FAILURE_TIMEOUT));
        if let Some(at) = fields.require("steps", "the workflow's `on_failure`", report) {
            handlers.extend(handlers_of(Handles::Run, &at, report));
        }
    }
    add_handlers(&mut draft, handlers, report);
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

/// The steps of an `on_failure`.
fn handlers_of<'n>(handles: Handles, at: &At<'n>, report: &mut Report<'_>) -> Vec<StepDraft<'n>> {
    let mut inner = Vec::new();
    let mut steps = steps(at, &mut inner, report);
    if steps.is_empty() && at.node.kind == Kind::Object(Vec::new()) {
        report.mistake(&at.place, code::BAD_VALUE, "an `on_failure` with `steps` has at least one");
    }
    if let Some(step) = inner.first() {
        let message = "the steps of an `on_failure` have no `on_failure` steps of their own";
        report.mistake(&step.place, code::BAD_VALUE, message);
    }
    for step in &mut steps {
        step.handles = Some(handles);
        if matches!(step.on_failure, OnFailure::Pause) {
            let message = "a step of an `on_failure` cannot pause the run: there would be nothing to retry";
            report.mistake(&step.place, code::BAD_VALUE, message);
        }
    }
    steps
}

/// Puts the steps of every `on_failure` behind the others. All share one space of names.
fn add_handlers<'n>(draft: &mut Draft<'n>, handlers: Vec<StepDraft<'n>>, report: &mut Report<'_>) {
    let count = draft.steps.len() + handlers.len();
    if count > MAX_STEPS && !handlers.is_empty() {
        let message = format!("a workflow has at most {MAX_STEPS} steps, not {count}");
        report.mistake(&handlers[0].place, code::TOO_MANY_STEPS, message);
        return;
    }
    for step in handlers {
        if draft.steps.iter().any(|known| known.name == step.name) {
            let message = format!("there is another step `{}`; names are unique in a workflow", step.name);
            report.mistake(&step.place, code::BAD_NAME, message);
        } else {
            draft.steps.push(step);
        }
    }
}

/// The steps of an object, and what stands in their `on_failure`s.
fn steps<'n>(at: &At<'n>, handlers: &mut Vec<StepDraft<'n>>, report: &mut Report<'_>) -> Vec<StepDraft<'n>> {
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
    let mut read = |(index, field): (usize, &'n super::tree::Field)| {
        let mut inner = at.field(field);
        inner.place.span = field.key_span;
        check_name(&field.key, "the step", &inner.place, report);
        let (step, of_failure) = step(&field.key, inner, report);
        handlers
            .extend(of_failure.map(|at| handlers_of(Handles::Step(index), &at, report)).unwrap_or_default());
        step
    };
    fields.iter().enumerate().map(&mut read).collect()
}

/// A step, and where the steps of its `on_failure` stand.
fn step<'n>(name: &str, at: At<'n>, report: &mut Report<'_>) -> (StepDraft<'n>, Option<At<'n>>) {
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
        handled: None,
        handled_reads: Reads::default(),
        handles: None,
        grants: None,
    };
    let Some(fields) = Fields::of(at, "a step", &STEP, &LATER_STEP, report) else {
        return (step, None);
    };
    let mut of_failure = None;
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
        of_failure = on_failure(&at, &mut step, report);
    }
    step.retry = fields.get("retry").map(|at| RetryPart::read(at, report)).unwrap_or_default();
    step.grants = fields.get("grants").map(|at| grants::read(at, report));
    (step, of_failure)
}

fn times(fields: &Fields<'_>, report: &mut Report<'_>) -> Times {
    Times {
        attempt: fields.duration("timeout", SHORTEST, MAX_STEP_TIMEOUT, report),
        total: fields.duration("total_timeout", SHORTEST, MAX_RUN_TIMEOUT, report),
        queue: fields.duration("queue_timeout", SHORTEST, MAX_STEP_TIMEOUT, report),
        heartbeat: fields.duration("heartbeat_timeout", SHORTEST, MAX_STEP_TIMEOUT, report),
    }
}

/// `fail`, `pause`, `{continue_with: VALUE}` or `{steps: {...}, output: VALUE}`. Comes back with where the steps stand.
fn on_failure<'n>(at: &At<'n>, step: &mut StepDraft<'n>, report: &mut Report<'_>) -> Option<At<'n>> {
    match &at.node.kind {
        Kind::String(text, _) if text == "fail" => return None,
        Kind::String(text, _) if text == "pause" => {
            step.on_failure = OnFailure::Pause;
            return None;
        }
        Kind::Object(_) => {}
        _ => {
            let expected = "`fail`, `pause`, `{continue_with: ...}` or `{steps: ...}`";
            wrong_type(at, "`on_failure`", expected, report);
            return None;
        }
    }
    let fields = Fields::of(at.clone(), "`on_failure`", &["continue_with", "steps", "output"], &[], report)?;
    let Some(steps) = fields.get("steps") else {
        if let Some(at) = fields.get("output") {
            let hint = "without steps, write `continue_with`".to_owned();
            report.hinted(&at.place, code::BAD_VALUE, "`output` goes with `steps`", hint);
        }
        let at = fields.require("continue_with", "`on_failure`", report)?;
        let template = plain(&at, "`continue_with`", &mut step.failure_reads, report);
        step.on_failure = OnFailure::ContinueWith(template);
        return None;
    };
    if let Some(at) = fields.get("continue_with") {
        let hint = "with `steps`, the value is `output`".to_owned();
        report.hinted(&at.place, code::BAD_VALUE, "`on_failure` has `steps` or `continue_with`", hint);
    }
    step.on_failure = OnFailure::Steps { steps: Vec::new(), output: None };
    step.handled = fields.get("output").map(|at| plain(&at, "its `output`", &mut step.handled_reads, report));
    Some(steps)
}

/// A template that needs no engine: it is rendered while the partition decides.
pub(super) fn plain(at: &At<'_>, what: &str, reads: &mut Reads, report: &mut Report<'_>) -> Template {
    let template = expressions::template(at, reads, report);
    if !evaluate::prepare_template(&template).filters.is_empty() {
        let message =
            format!("{what} takes values and plain paths such as `${{ $input.fallback }}`, no filters");
        report.mistake(&at.place, code::BAD_VALUE, message);
    }
    template
}
