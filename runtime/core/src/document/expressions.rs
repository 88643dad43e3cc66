//! Expressions where they stand in a document: parsed, their mistakes pointed at inside the string, and what they
//! read collected with its place.

use std::sync::Arc;

use super::{
    diagnostic::{Place, Report, code},
    read::{At, wrong_type},
    tree::Kind,
};
use crate::{
    expression::{Expression, ExpressionError, ExpressionErrorKind, ExpressionKind, Reference, Template},
    plan::Condition,
};

/// What some expressions read.
#[derive(Default)]
pub(crate) struct Reads {
    pub(crate) steps: Vec<(Arc<str>, Place)>,
    pub(crate) secrets: Vec<(Arc<str>, Place)>,
}

impl Reads {
    fn add(&mut self, at: &At<'_>, expression: &Expression, start: usize, report: &Report<'_>) {
        let place = |reference: &Reference| {
            let span = at.node.locate(report.source(), start + reference.offset, reference.name.len());
            (Arc::clone(&reference.name), at.place.at(span))
        };
        self.steps.extend(expression.steps.iter().map(place));
        self.secrets.extend(expression.secrets.iter().map(place));
    }
}

/// Reads a value with `${ }` in its strings.
pub(super) fn template(at: &At<'_>, reads: &mut Reads, report: &mut Report<'_>) -> Template {
    match &at.node.kind {
        Kind::String(text, _) => match Template::parse_text(text) {
            Ok((template, starts)) => {
                let mut starts = starts.into_iter();
                template.visit(&mut |expression| {
                    reads.add(at, expression, starts.next().unwrap_or_default(), report);
                });
                template
            }
            Err(errors) => {
                errors.into_iter().for_each(|error| tell(at, text, error, report));
                // Something that is an expression, so that no schema is held against it.
                Template::Whole(null())
            }
        },
        Kind::Array(items) => Template::array(
            items
                .iter()
                .enumerate()
                .map(|(index, item)| template(&at.item(index, item), reads, report))
                .collect(),
        ),
        Kind::Object(fields) => Template::object(
            fields
                .iter()
                .map(|field| (field.key.clone(), template(&at.field(field), reads, report)))
                .collect(),
        ),
        _ => Template::Literal(at.node.to_value()),
    }
}

/// Reads an `if`: `always`, `failed`, or an expression without `${ }`.
pub(super) fn condition(at: &At<'_>, reads: &mut Reads, report: &mut Report<'_>) -> Condition {
    let text = match &at.node.kind {
        Kind::String(text, _) => text,
        Kind::Bool(value) => {
            return Condition::Holds(Expression { kind: ExpressionKind::Literal((*value).into()), ..null() });
        }
        _ => {
            wrong_type(at, "`if`", "an expression, `always` or `failed`", report);
            return Condition::Succeeded;
        }
    };
    match text.trim() {
        "always" => return Condition::Always,
        "failed" => return Condition::Failed,
        source if source.starts_with("${") => {
            let inside = source.trim_start_matches("${").trim_end_matches('}').trim();
            let hint = format!("write `if: {inside}`");
            let message = "`if` takes an expression as it is, without `${ }`";
            report.hinted(&at.place, code::EXPRESSION_SYNTAX, message, hint);
            return Condition::Succeeded;
        }
        _ => {}
    }
    match Expression::parse_all(text) {
        Ok(expression) => {
            reads.add(at, &expression, 0, report);
            Condition::Holds(expression)
        }
        Err(errors) => {
            errors.into_iter().for_each(|error| tell(at, text, error, report));
            Condition::Succeeded
        }
    }
}

fn null() -> Expression {
    Expression {
        source: "null".into(),
        kind: ExpressionKind::Literal(serde_json::Value::Null),
        steps: Vec::new(),
        secrets: Vec::new(),
    }
}

/// Points at the word of the string that is wrong.
fn tell(at: &At<'_>, text: &str, error: ExpressionError, report: &mut Report<'_>) {
    let code = match error.kind {
        ExpressionErrorKind::Syntax => code::EXPRESSION_SYNTAX,
        ExpressionErrorKind::TooLong => code::EXPRESSION_TOO_LONG,
        ExpressionErrorKind::Computed => code::COMPUTED_REFERENCE,
        ExpressionErrorKind::Unknown => code::UNKNOWN_NAME,
        ExpressionErrorKind::NotSupportedYet => code::NOT_SUPPORTED_YET,
    };
    let rest = text.get(error.offset..).unwrap_or_default();
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '@');
    let length = match rest.find(|c| !word(c)).unwrap_or(rest.len()) {
        0 => rest.chars().next().map_or(0, char::len_utf8),
        length => length,
    };
    let span = at.node.locate(report.source(), error.offset, length);
    report.hinted(&at.place.at(span), code, error.message, error.hint);
}
