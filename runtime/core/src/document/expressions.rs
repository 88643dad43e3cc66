//! Expressions where they stand in a document: parsed, their mistakes pointed at inside the string, and what they
//! read collected with its place.

use std::sync::Arc;

use super::{
    diagnostic::{MAX_DIAGNOSTICS, Place, Report, code},
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
    /// Where `$error` stands.
    pub(crate) errors: Vec<Place>,
}

/// A step or a secret that some expression of a string names: where, in bytes from the string's start.
struct Named {
    offset: usize,
    name: Arc<str>,
    is_secret: bool,
}

impl Reads {
    /// Adds what the expressions of one string name. `starts` are the places of their sources in it.
    fn add<'e>(
        &mut self,
        at: &At<'_>,
        expressions: impl Iterator<Item = (usize, &'e Expression)>,
        report: &Report<'_>,
    ) {
        let mut found = Vec::new();
        let mut errors = Vec::new();
        for (start, expression) in expressions {
            errors.extend(expression.error_at.map(|offset| (start + offset, "$error".len())));
            let named = |reference: &Reference, is_secret| Named {
                offset: start + reference.offset,
                name: Arc::clone(&reference.name),
                is_secret,
            };
            found.extend(expression.steps.iter().map(|reference| named(reference, false)));
            found.extend(expression.secrets.iter().map(|reference| named(reference, true)));
        }
        let spans = at.node.locate(report.source(), errors.into_iter());
        self.errors.extend(spans.into_iter().map(|span| at.place.at(span)));
        found.sort_by_key(|named| named.offset);
        let spans =
            at.node.locate(report.source(), found.iter().map(|named| (named.offset, named.name.len())));
        for (named, span) in found.into_iter().zip(spans) {
            let list = if named.is_secret { &mut self.secrets } else { &mut self.steps };
            list.push((named.name, at.place.at(span)));
        }
    }
}

/// Reads a value with `${ }` in its strings.
pub(super) fn template(at: &At<'_>, reads: &mut Reads, report: &mut Report<'_>) -> Template {
    match &at.node.kind {
        Kind::String(text, _) => match Template::parse_text(text) {
            Ok((template, starts)) => {
                let mut expressions = Vec::new();
                template.visit(&mut |expression| expressions.push(expression));
                reads.add(at, starts.into_iter().zip(expressions), report);
                template
            }
            Err(errors) => {
                tell(at, text, errors, report);
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
    parsed(at, text, reads, report).map_or(Condition::Succeeded, Condition::Holds)
}

/// Reads an expression without `${ }`; null if it is none.
pub(super) fn bare(at: &At<'_>, what: &str, reads: &mut Reads, report: &mut Report<'_>) -> Expression {
    let parsed = match &at.node.kind {
        Kind::String(text, _) => parsed(at, text, reads, report),
        _ => {
            wrong_type(at, what, "an expression", report);
            None
        }
    };
    parsed.unwrap_or_else(null)
}

fn parsed(at: &At<'_>, text: &str, reads: &mut Reads, report: &mut Report<'_>) -> Option<Expression> {
    match Expression::parse_all(text) {
        Ok(expression) => {
            reads.add(at, std::iter::once((0, &expression)), report);
            Some(expression)
        }
        Err(errors) => {
            tell(at, text, errors, report);
            None
        }
    }
}

fn null() -> Expression {
    Expression {
        source: "null".into(),
        kind: ExpressionKind::Literal(serde_json::Value::Null),
        steps: Vec::new(),
        secrets: Vec::new(),
        error_at: None,
    }
}

/// Reports an expression's mistakes, each with the word of the string that is wrong.
fn tell(at: &At<'_>, text: &str, mut errors: Vec<ExpressionError>, report: &mut Report<'_>) {
    let length = |error: &ExpressionError| {
        let rest = text.get(error.offset..).unwrap_or_default();
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '@');
        match rest.find(|c| !word(c)).unwrap_or(rest.len()) {
            0 => rest.chars().next().map_or(0, char::len_utf8),
            length => length,
        }
    };
    errors.truncate(MAX_DIAGNOSTICS);
    errors.sort_by_key(|error| error.offset);
    let spans = at.node.locate(report.source(), errors.iter().map(|error| (error.offset, length(error))));
    for (error, span) in errors.into_iter().zip(spans) {
        let code = match error.kind {
            ExpressionErrorKind::Syntax => code::EXPRESSION_SYNTAX,
            ExpressionErrorKind::TooLong => code::EXPRESSION_TOO_LONG,
            ExpressionErrorKind::Computed => code::COMPUTED_REFERENCE,
            ExpressionErrorKind::Unknown => code::UNKNOWN_NAME,
            ExpressionErrorKind::NotSupportedYet => code::NOT_SUPPORTED_YET,
        };
        report.hinted(&at.place.at(span), code, error.message, error.hint);
    }
}
