//! JSON in and out. jaq's values are more than JSON: byte strings, keys of any kind, NaN and the infinities; those are refused
//! here rather than changed, save that whole floats lose their `.0` as in jq.

use std::fmt::{self, Write as _};

use jaq_json::{Num, Val};

/// A value that JSON cannot express.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotJson(pub String);

impl fmt::Display for NotJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotJson {}

/// Reads one JSON value.
///
/// # Errors
/// When the text is not exactly one.
pub fn read(text: &str) -> Result<Val, NotJson> {
    jaq_json::read::parse_single(text.as_bytes()).map_err(|error| NotJson(error.to_string()))
}

/// Writes a value as JSON without white space.
///
/// # Errors
/// When JSON cannot express it.
pub fn write(value: &Val) -> Result<String, NotJson> {
    let mut text = String::new();
    write_value(&mut text, value)?;
    Ok(text)
}

fn write_value(text: &mut String, value: &Val) -> Result<(), NotJson> {
    match value {
        Val::Null => text.push_str("null"),
        Val::Bool(true) => text.push_str("true"),
        Val::Bool(false) => text.push_str("false"),
        Val::Num(number) => write_number(text, number)?,
        Val::TStr(bytes) => write_string(text, &String::from_utf8_lossy(bytes)),
        Val::BStr(_) => {
            return Err(NotJson(
                "a byte string is no JSON; `tojson` or `@base64` make text of it".to_owned(),
            ));
        }
        Val::Arr(items) => {
            text.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    text.push(',');
                }
                write_value(text, item)?;
            }
            text.push(']');
        }
        Val::Obj(entries) => {
            text.push('{');
            for (i, (key, value)) in entries.iter().enumerate() {
                if i > 0 {
                    text.push(',');
                }
                let Val::TStr(key) = key else {
                    return Err(NotJson(format!("an object's key must be a string, and {key} is none")));
                };
                write_string(text, &String::from_utf8_lossy(key));
                text.push(':');
                write_value(text, value)?;
            }
            text.push('}');
        }
    }
    Ok(())
}

fn write_number(text: &mut String, number: &Num) -> Result<(), NotJson> {
    /// Every whole number up to here is exact in a float, so it may be written as the whole number that it is.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match number {
        Num::Float(float) if !float.is_finite() => Err(NotJson(format!("{float} is no JSON number"))),
        Num::Float(float) if float.fract() == 0.0 && float.abs() < EXACT => {
            // Negative zero included: as an integer it is 0.
            let _ = write!(text, "{}", *float as i64);
            Ok(())
        }
        other => {
            let _ = write!(text, "{other}");
            Ok(())
        }
    }
}

fn write_string(text: &mut String, string: &str) {
    text.push('"');
    let mut rest = string;
    while let Some(place) = rest.find(|letter: char| letter < ' ' || letter == '"' || letter == '\\') {
        text.push_str(&rest[..place]);
        match rest.as_bytes()[place] {
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            other => {
                let _ = write!(text, "\\u{other:04x}");
            }
        }
        rest = &rest[place + 1..];
    }
    text.push_str(rest);
    text.push('"');
}
