//! Templates: from a JSON value with `${ }` in its strings, and back.

use std::fmt;

use serde_json::Value;

use super::{Expression, ExpressionError, ExpressionErrorKind, Piece, Template, scan};

/// No template nests deeper than a document may.
pub const MAX_TEMPLATE_NESTING: usize = crate::document::MAX_NESTING;

/// An expression that does not parse, and where it stands in the value.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{pointer}: {error}")]
pub struct TemplateError {
    /// RFC 6901 pointer to the string.
    pub pointer: String,
    /// What is wrong; its offset counts in bytes from the start of the string.
    pub error: ExpressionError,
}

impl Template {
    /// Parses every string in `value`; tells all mistakes (at least one).
    pub fn parse(value: &Value) -> Result<Self, Vec<TemplateError>> {
        let mut errors = Vec::new();
        let template = Self::build(value, &mut String::new(), &mut errors);
        if errors.is_empty() { Ok(template) } else { Err(errors) }
    }

    fn build(value: &Value, pointer: &mut String, errors: &mut Vec<TemplateError>) -> Self {
        let length = pointer.len();
        match value {
            Value::String(text) => {
                Self::parse_text(text).map(|(template, _)| template).unwrap_or_else(|mistakes| {
                    let pointer = pointer.clone();
                    errors.extend(
                        mistakes.into_iter().map(|error| TemplateError { pointer: pointer.clone(), error }),
                    );
                    Self::Literal(Value::Null)
                })
            }
            Value::Array(items) => {
                let items: Vec<_> = items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| {
                        pointer.push_str(&format!("/{index}"));
                        let item = Self::build(item, pointer, errors);
                        pointer.truncate(length);
                        item
                    })
                    .collect();
                Self::array(items)
            }
            Value::Object(fields) => {
                let fields: Vec<_> = fields
                    .iter()
                    .map(|(key, value)| {
                        pointer.push('/');
                        pointer.push_str(&crate::document::escape_pointer(key));
                        let value = Self::build(value, pointer, errors);
                        pointer.truncate(length);
                        (key.clone(), value)
                    })
                    .collect();
                Self::object(fields)
            }
            literal => Self::Literal(literal.clone()),
        }
    }

    /// An array, which is a literal if all its items are.
    pub(crate) fn array(items: Vec<Self>) -> Self {
        let literals = items.iter().map(|item| match item {
            Self::Literal(value) => Some(value.clone()),
            _ => None,
        });
        match literals.collect() {
            Some(values) => Self::Literal(Value::Array(values)),
            None => Self::Array(items),
        }
    }

    /// An object, which is a literal if all its fields are. Fields are sorted by name.
    pub(crate) fn object(mut fields: Vec<(String, Self)>) -> Self {
        fields.sort_by(|(a, _), (b, _)| a.cmp(b));
        let literals = fields.iter().map(|(key, field)| match field {
            Self::Literal(value) => Some((key.clone(), value.clone())),
            _ => None,
        });
        match literals.collect() {
            Some(values) => Self::Literal(Value::Object(values)),
            None => Self::Object(fields),
        }
    }

    /// Parses one string. A line break at its end, which a YAML block leaves there, does not keep it from being one
    /// expression as a whole. Also gives where the source of each expression starts, in bytes, in the order of
    /// [`Self::visit`].
    pub(crate) fn parse_text(text: &str) -> Result<(Self, Vec<usize>), Vec<ExpressionError>> {
        let mut pieces = Vec::new();
        let mut starts = Vec::new();
        let mut errors = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            literal.push_str(&rest[..dollar]);
            rest = &rest[dollar..];
            if let Some(after) = rest.strip_prefix("$${") {
                literal.push_str("${");
                rest = after;
            } else if let Some(inside) = rest.strip_prefix("${") {
                let start = text.len() - inside.len();
                let shift = |mut error: ExpressionError| {
                    error.offset += start;
                    error
                };
                let end = match scan::end(inside) {
                    Ok(Some(end)) => end,
                    Ok(None) => {
                        errors.push(unclosed(start - 2));
                        return Err(errors);
                    }
                    Err(error) => {
                        errors.push(shift(error));
                        return Err(errors);
                    }
                };
                let lead = inside.len() - inside.trim_start().len();
                let source = inside[..end].trim();
                match Expression::parse_all(source) {
                    Ok(expression) => {
                        if !literal.is_empty() {
                            pieces.push(Piece::Text(std::mem::take(&mut literal)));
                        }
                        pieces.push(Piece::Expression(expression));
                        starts.push(start + lead.min(end));
                    }
                    Err(mistakes) => errors.extend(mistakes.into_iter().map(|mut error| {
                        error.offset += lead.min(end);
                        shift(error)
                    })),
                }
                rest = &inside[end + 1..];
            } else {
                literal.push('$');
                rest = &rest[1..];
            }
        }
        literal.push_str(rest);
        if !errors.is_empty() {
            return Err(errors);
        }
        let only_break = !literal.is_empty() && literal.trim_end_matches('\n').is_empty();
        let template = match (pieces.as_slice(), literal.is_empty() || only_break) {
            ([], _) => Self::Literal(Value::String(literal)),
            ([Piece::Expression(expression)], true) => Self::Whole(expression.clone()),
            _ => {
                if !literal.is_empty() {
                    pieces.push(Piece::Text(literal));
                }
                Self::Text(pieces)
            }
        };
        Ok((template, starts))
    }

    /// Whether all of it is evaluated here, without the engine.
    pub fn is_native(&self) -> bool {
        let mut native = true;
        self.visit(&mut |expression| native &= expression.is_native());
        native
    }

    /// Calls `f` with every expression inside, in the order in which their results are asked for.
    pub fn visit<'a>(&'a self, f: &mut impl FnMut(&'a Expression)) {
        match self {
            Self::Literal(_) => {}
            Self::Whole(expression) => f(expression),
            Self::Text(pieces) => pieces.iter().for_each(|piece| match piece {
                Piece::Expression(expression) => f(expression),
                Piece::Text(_) => {}
            }),
            Self::Array(items) => items.iter().for_each(|item| item.visit(f)),
            Self::Object(fields) => fields.iter().for_each(|(_, field)| field.visit(f)),
        }
    }

    /// The value that parses to this template.
    pub fn to_value(&self) -> Value {
        match self {
            Self::Literal(value) => escape(value),
            Self::Whole(expression) => Value::String(format!("${{ {expression} }}")),
            Self::Text(pieces) => Value::String(pieces.iter().map(Piece::to_string).collect()),
            Self::Array(items) => items.iter().map(Self::to_value).collect(),
            Self::Object(fields) => {
                fields.iter().map(|(key, field)| (key.clone(), field.to_value())).collect()
            }
        }
    }
}

fn unclosed(offset: usize) -> ExpressionError {
    let message = "the `}` of this `${` is missing".to_owned();
    let hint = Some("`$${` is a literal `${`".to_owned());
    ExpressionError { offset, kind: ExpressionErrorKind::Syntax, message, hint }
}

fn escape(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace("${", "$${")),
        Value::Array(items) => items.iter().map(escape).collect(),
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), escape(value))).collect(),
        other => other.clone(),
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        // What is printed stands before a `}`, which a comment would swallow.
        if self.source.contains('#') { f.write_str("\n") } else { Ok(()) }
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&text.replace("${", "$${")),
            Self::Expression(expression) => write!(f, "${{ {expression} }}"),
        }
    }
}
