//! Evaluating a step's `if` and `with`, or a run's `output`, in at most one call of the engine.
//!
//! The order is: [`prepare`] says which jq programs the engine must run (often none); [`holds`] decides the
//! condition; [`render`] puts the results of the programs, and of everything that is evaluated natively, into the
//! template. Values stay text all the way: a path into an output slices the output's own text, so numbers keep
//! every digit and nothing is built only to be written again.
//!
//! Paths mean what they mean in the engine's jq (jaq): a missing key, an index out of range and anything inside null
//! give null, as does a number as a key of an object; an array has no keys; nothing is inside the rest.

mod path;

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use self::path::Found;
use super::{Expression, ExpressionKind, Piece, Template};
use crate::{
    failure::{ErrorClass, Failure},
    json::Json,
    partition::Scope,
    plan::Condition,
};

/// No evaluated `with` or `output` is larger, in bytes: the bound on payloads.
pub const MAX_RENDERED_BYTES: usize = 1024 * 1024;
/// No scope that goes to the engine is larger, in bytes: sixteen payloads.
pub const MAX_SCOPE_BYTES: usize = 16 * 1024 * 1024;

/// The code of every failure to evaluate.
pub const EXPRESSION_FAILED: &str = "expression_failed";

/// What the engine must run for one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prepared {
    /// jq programs, each of which takes the whole scope ([`scope_json`]) and gives one value; the condition's first
    /// if `has_condition`, then those of the template in the order in which [`render`] asks for their results.
    pub filters: Vec<Arc<str>>,
    /// Whether the first filter is the condition's.
    pub has_condition: bool,
}

/// What the expressions of one evaluation may see.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The run's data.
    pub scope: &'a Scope,
    /// `$secrets`: the step's secrets, each as the placeholder that the host replaces in outgoing headers.
    pub secrets: &'a BTreeMap<Arc<str>, String>,
}

/// Which jq must be run in the engine for a step (none: everything is native).
pub fn prepare(condition: &Condition, with: &Template) -> Prepared {
    let mut prepared = Prepared::default();
    if let Condition::Holds(expression) = condition
        && let ExpressionKind::Jq(program) = &expression.kind
    {
        prepared.filters.push(Arc::clone(program));
        prepared.has_condition = true;
    }
    prepared.filters.extend(prepare_template(with).filters);
    prepared
}

/// Which jq must be run in the engine for a template alone (a run's output).
pub fn prepare_template(template: &Template) -> Prepared {
    let mut filters = Vec::new();
    template.visit(&mut |expression| {
        if let ExpressionKind::Jq(program) = &expression.kind {
            filters.push(Arc::clone(program));
        }
    });
    Prepared { filters, has_condition: false }
}

/// Whether a step's `if` lets it run, where that needs no engine; `None` where the engine's answer decides
/// ([`Prepared::has_condition`]). What the upstream steps came to is the partition's affair, not this one's.
pub fn holds(condition: &Condition, view: View<'_>) -> Option<Result<bool, Failure>> {
    match condition {
        Condition::Holds(expression) if !expression.is_native() => None,
        Condition::Holds(expression) => Some(native(expression, view).map(|found| found.truthy())),
        Condition::Succeeded | Condition::Always | Condition::Failed => Some(Ok(true)),
    }
}

/// jq's truth: everything but false and null.
pub fn truthy(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Bool(false))
}

/// The scope as the engine's input: `{"input", "steps", "trigger", "secrets", "error"}`.
pub fn scope_json(scope: &Scope, secrets: &BTreeMap<Arc<str>, String>) -> Result<Json, Failure> {
    let text = path::whole_scope(View { scope, secrets });
    let bytes: usize = scope.steps.iter().map(|step| step.output.len()).sum::<usize>() + scope.input.0.len();
    if bytes > MAX_SCOPE_BYTES {
        let message = format!(
            "its expressions read {bytes} bytes of inputs and outputs, more than the {MAX_SCOPE_BYTES} that are allowed"
        );
        return Err(Failure::new(ErrorClass::Resource, "scope_too_large", message));
    }
    Ok(text().into())
}

/// Evaluates a template. `results` gives, as JSON text, what the engine made of [`Prepared::filters`] without the
/// condition's, in their order.
pub fn render(
    template: &Template,
    view: View<'_>,
    results: &mut dyn Iterator<Item = String>,
) -> Result<Json, Failure> {
    let mut renderer = Renderer { view, results, out: String::new() };
    renderer.template(template)?;
    Ok(renderer.out.into())
}

struct Renderer<'a> {
    view: View<'a>,
    results: &'a mut dyn Iterator<Item = String>,
    out: String,
}

impl<'a> Renderer<'a> {
    fn template(&mut self, template: &Template) -> Result<(), Failure> {
        match template {
            Template::Literal(value) => self.push(&value.to_string()),
            Template::Whole(expression) => {
                let found = self.expression(expression)?;
                self.push(found.json())
            }
            Template::Text(pieces) => {
                let mut text = String::new();
                for piece in pieces {
                    match piece {
                        Piece::Text(piece) => text.push_str(piece),
                        Piece::Expression(expression) => text.push_str(&self.expression(expression)?.text()),
                    }
                    bound(text.len())?;
                }
                self.push(&Value::String(text).to_string())
            }
            Template::Array(items) => {
                self.push("[")?;
                for (index, item) in items.iter().enumerate() {
                    self.push(if index == 0 { "" } else { "," })?;
                    self.template(item)?;
                }
                self.push("]")
            }
            Template::Object(fields) => {
                self.push("{")?;
                for (index, (key, field)) in fields.iter().enumerate() {
                    self.push(if index == 0 { "" } else { "," })?;
                    self.push(&Value::from(key.as_str()).to_string())?;
                    self.push(":")?;
                    self.template(field)?;
                }
                self.push("}")
            }
        }
    }

    fn expression(&mut self, expression: &Expression) -> Result<Found<'a>, Failure> {
        if expression.is_native() {
            return native(expression, self.view);
        }
        let result = self.results.next().ok_or_else(|| {
            failed(format!("`{}` was not evaluated: the engine gave too few results", expression.source))
        })?;
        Ok(Found::Owned(result))
    }

    fn push(&mut self, text: &str) -> Result<(), Failure> {
        bound(self.out.len() + text.len())?;
        self.out.push_str(text);
        Ok(())
    }
}

fn native<'a>(expression: &Expression, view: View<'a>) -> Result<Found<'a>, Failure> {
    match &expression.kind {
        ExpressionKind::Path(root, segments) => path::follow(view, *root, segments)
            .map_err(|why| failed(format!("`{}` cannot be evaluated: {why}", expression.source))),
        ExpressionKind::Literal(value) => Ok(Found::Owned(value.to_string())),
        ExpressionKind::Jq(_) => Err(failed(format!("`{}` needs the engine", expression.source))),
    }
}

fn bound(bytes: usize) -> Result<(), Failure> {
    if bytes <= MAX_RENDERED_BYTES {
        return Ok(());
    }
    let message =
        format!("the evaluated value is larger than the {MAX_RENDERED_BYTES} bytes that are allowed");
    Err(Failure::new(ErrorClass::Resource, "payload_too_large", message))
}

fn failed(message: String) -> Failure {
    Failure::new(ErrorClass::Permanent, EXPRESSION_FAILED, message)
}
