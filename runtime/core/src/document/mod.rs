//! Workflow documents: from text to a pinned, compiled workflow, or to everything that is wrong with the text.
//!
//! A text goes through four stages, each of which reports and goes on: YAML or JSON into one spanned tree (`yaml`,
//! `json`, `tree`); the tree into a draft, key by key (`draft` and what it calls); the draft's names into a graph
//! (`graph`); plugins and their schemas (`plugins`, `inputs`). What was accepted is stored as a [`PinnedWorkflow`] and compiled
//! from that alone, by the same draft and graph, so a replayed journal gives the same plan.

mod concurrency;
mod diagnostic;
mod draft;
mod expressions;
mod grants;
mod graph;
pub(crate) mod hint;
mod inputs;
mod json;
mod plugins;
mod read;
mod retry;
pub(crate) mod schema;
mod tree;
mod yaml;

pub use diagnostic::{Diagnostic, MAX_DIAGNOSTICS, code};
pub use draft::{MAX_RUN_TIMEOUT, MAX_STEP_TIMEOUT};
pub use plugins::{KnownPlugin, Plugins, UnknownPlugin};
pub use read::MAX_NAME_BYTES;
pub use retry::MAX_ATTEMPTS;

pub(crate) use diagnostic::{Report, escape_pointer};
pub(crate) use draft::{Draft, StepDraft, read};
pub(crate) use graph::resolve;
pub(crate) use plugins::read_retry;
pub(crate) use tree::{Node, Source};

use self::diagnostic::Place;
use crate::plan::{PinnedWorkflow, Plan};

/// No document is larger, in bytes, as text or with its aliases replaced.
pub const MAX_DOCUMENT_BYTES: usize = 256 * 1024;
/// No document nests more lists and objects inside each other.
pub const MAX_NESTING: usize = 16;
/// No workflow has more steps.
pub const MAX_STEPS: usize = 1_000;

/// A document without mistakes.
#[derive(Debug)]
pub struct Checked {
    /// What is stored: the document and what its plugins were resolved to.
    pub pinned: PinnedWorkflow,
    /// `pinned`, compiled.
    pub plan: Plan,
    /// The document's `ui`, which belongs to its editor and is no part of the version.
    pub ui: Option<serde_json::Value>,
    /// What is allowed but hardly meant.
    pub warnings: Vec<Diagnostic>,
}

/// Checks a whole document, YAML or JSON: gives the workflow, or every mistake at once (at least one), in the order
/// of the text.
pub fn check(text: &str, plugins: &dyn Plugins) -> Result<Checked, Vec<Diagnostic>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > MAX_DOCUMENT_BYTES {
        let mut report = Report::new(Source::new(""));
        let message = format!("a document has at most {MAX_DOCUMENT_BYTES} bytes, not {}", text.len());
        report.mistake(&Place::default(), code::TOO_LARGE, message);
        return Err(report.mistakes);
    }
    let mut report = Report::new(Source::new(text));
    let Some(root) = parse(text, &mut report) else {
        report.sort();
        return Err(report.mistakes);
    };
    let draft = read(&root, &mut report);
    resolve(&draft, &mut report);
    if let Some(steps) =
        root.field("steps").filter(|steps| steps.value.kind == tree::Kind::Object(Vec::new()))
    {
        let place = Place { span: steps.key_span, pointer: "/steps".to_owned() };
        report.mistake(&place, code::BAD_VALUE, "a workflow has at least one step");
    }
    check_secrets(&draft, &mut report);
    check_errors(&draft, &mut report);
    if let Some((schema, place)) = &draft.input
        && let Err((pointer, message)) = schema::Schema::compile(schema)
    {
        let node = root.field("input").map(|field| field.value.nearest(&pointer));
        let span = node.filter(|_| !pointer.is_empty()).map_or(place.span, |node| node.span);
        let place = Place { span, pointer: format!("{}{pointer}", place.pointer) };
        report.mistake(&place, code::BAD_SCHEMA, format!("`input` is no JSON Schema: {message}"));
    }
    let pins = plugins::resolve(&draft, plugins, &mut report);
    report.sort();
    if !report.mistakes.is_empty() {
        return Err(report.mistakes);
    }
    let mut document = root.to_value();
    let ui = document.as_object_mut().and_then(|fields| fields.remove("ui"));
    let pinned = PinnedWorkflow { document, plugins: pins };
    match pinned.compile() {
        Ok(plan) => Ok(Checked { pinned, plan, ui, warnings: report.warnings }),
        // The same code read the same document a moment ago; still, a publisher deserves an answer, not a panic.
        Err(error) => {
            report.mistake(&Place::default(), code::BAD_VALUE, error.to_string());
            Err(report.mistakes)
        }
    }
}

/// Text into a tree. What begins like JSON is read as JSON first, for its own rules and better words; YAML's flow
/// style begins alike, so YAML has the second word.
fn parse(text: &str, report: &mut Report<'_>) -> Option<Node> {
    let mut chars = text.chars().filter(|c| !c.is_ascii_whitespace());
    let looks_like_json = match (chars.next(), chars.next()) {
        (Some('{'), second) => Some(matches!(second, Some('"' | '}') | None)),
        _ => None,
    };
    let Some(surely) = looks_like_json else {
        return yaml::read(text, report).map_err(|error| error.tell(report)).ok();
    };
    let mut as_json = Report::new(report.source().clone());
    match json::read(text, &mut as_json) {
        Ok(node) => {
            report.mistakes.append(&mut as_json.mistakes);
            Some(node)
        }
        Err(json_error) => match yaml::read(text, report) {
            Ok(node) => Some(node),
            Err(yaml_error) => {
                report.mistakes.clear();
                if surely { json_error } else { yaml_error }.tell(report);
                None
            }
        },
    }
}

/// Every secret that is used is declared, is used in a `with` only, and every declared one is used.
fn check_secrets(draft: &Draft<'_>, report: &mut Report<'_>) {
    let declared = |name: &str| draft.secrets.iter().any(|(known, _)| &**known == name);
    let mut used = Vec::new();
    for step in &draft.steps {
        for (name, place) in &step.with_reads.secrets {
            used.push(&**name);
            if !declared(name) {
                let known = draft.secrets.iter().map(|(known, _)| &**known);
                let hint = match hint::nearest(name, known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("declare it: `secrets: [{name}]`"),
                };
                let message = format!("the secret `{name}` is not declared");
                report.hinted(place, code::UNDECLARED_SECRET, message, hint);
            }
        }
        outside(&step.condition_reads.secrets, "`if`", report);
        outside(&step.failure_reads.secrets, "`on_failure`", report);
        outside(&step.handled_reads.secrets, "`on_failure`", report);
    }
    outside(&draft.output_reads.secrets, "the workflow's `output`", report);
    outside(&draft.key_reads.secrets, "`concurrency`", report);
    for (name, place) in &draft.secrets {
        if !used.contains(&&**name) {
            report.warning(place, code::UNUSED_SECRET, format!("no step uses the secret `{name}`"));
        }
    }
}

/// `$error` stands inside an `on_failure` only.
fn check_errors(draft: &Draft<'_>, report: &mut Report<'_>) {
    let main = draft.steps.iter().filter(|step| step.handles.is_none());
    let places = main.flat_map(|step| step.with_reads.errors.iter().chain(&step.condition_reads.errors));
    for place in places.chain(&draft.output_reads.errors).chain(&draft.key_reads.errors) {
        let hint = "another step's error is `$steps.NAME.error`".to_owned();
        report.hinted(place, code::UNKNOWN_NAME, "`$error` is there only inside an `on_failure`", hint);
    }
}

fn outside(secrets: &[(std::sync::Arc<str>, Place)], what: &str, report: &mut Report<'_>) {
    for (name, place) in secrets {
        let message = format!("the secret `{name}` stands in {what}; secrets are for a step's `with` only");
        report.mistake(place, code::SECRET_OUTSIDE_WITH, message);
    }
}
