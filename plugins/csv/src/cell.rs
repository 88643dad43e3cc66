//! What a cell's text is as JSON.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Number, Value};

/// What a column's cells are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Type {
    /// Text as it stands.
    Text,
    /// A JSON number; an empty cell is null, anything else an error.
    Number,
    /// `true` or `false`; an empty cell is null, anything else an error.
    Boolean,
    /// A number, `true`, `false` or, when empty, null where it reads as such, else text. `007` is text: JSON knows no such number.
    Infer,
}

/// Why a cell's text is not of its column's type.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotOfType(pub(crate) &'static str);

impl Type {
    /// The cell as JSON.
    pub(crate) fn read(self, text: &str) -> Result<Value, NotOfType> {
        match self {
            Self::Text => Ok(Value::String(text.to_owned())),
            Self::Number if text.is_empty() => Ok(Value::Null),
            Self::Number => number(text).map(Value::Number).ok_or(NotOfType("number")),
            Self::Boolean if text.is_empty() => Ok(Value::Null),
            Self::Boolean => boolean(text).map(Value::Bool).ok_or(NotOfType("boolean")),
            Self::Infer => Ok(infer(text)),
        }
    }
}

fn infer(text: &str) -> Value {
    if text.is_empty() {
        return Value::Null;
    }
    if let Some(number) = number(text) {
        return Value::Number(number);
    }
    boolean(text).map_or_else(|| Value::String(text.to_owned()), Value::Bool)
}

/// A number by JSON's grammar, so neither `007` nor `+1`, `.5`, `NaN` or `0x10`; and none whose digits would be lost: an integer
/// of more than 64 bits is somebody's identifier.
fn number(text: &str) -> Option<Number> {
    let starts_as_one = text.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    if !starts_as_one || !text.ends_with(|last: char| last.is_ascii_digit()) {
        return None;
    }
    let number: Number = serde_json::from_str(text).ok()?;
    let written_whole = !text.contains(['.', 'e', 'E']);
    (!written_whole || number.is_i64() || number.is_u64()).then_some(number)
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}
