//! Reading typed values out of the tree. Each reader reports what does not fit and goes on, so that one look finds
//! every mistake.

use std::time::Duration;

use super::{
    diagnostic::{Place, Report, code},
    hint,
    tree::{Field, Kind, Node, Span},
};
use crate::time::{format_duration, parse_duration};

/// No name is longer, in bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// A value and its place.
#[derive(Clone)]
pub(super) struct At<'n> {
    pub(super) node: &'n Node,
    pub(super) place: Place,
}

impl<'n> At<'n> {
    /// The value of a field inside this one.
    pub(super) fn field(&self, field: &'n Field) -> Self {
        At { node: &field.value, place: self.place.child(&field.key, spot(field)) }
    }

    /// An item of this list.
    pub(super) fn item(&self, index: usize, item: &'n Node) -> Self {
        At { node: item, place: self.place.child(&index.to_string(), item.span) }
    }

    /// What stands at an RFC 6901 pointer inside this value, or what is nearest to it.
    pub(super) fn inside(&self, pointer: &str) -> Self {
        let mut at = self.clone();
        for token in pointer.split('/').skip(1) {
            let key = token.replace("~1", "/").replace("~0", "~");
            let next = match &at.node.kind {
                Kind::Object(_) => at.node.field(&key).map(|field| at.field(field)),
                Kind::Array(items) => {
                    let index = key.parse::<usize>().ok();
                    index.and_then(|index| Some(at.item(index, items.get(index)?)))
                }
                _ => None,
            };
            match next {
                Some(next) => at = next,
                None => break,
            }
        }
        at
    }
}

/// What to point at for a field's value: the value, or its key where the value is empty or spreads over lines.
pub(super) fn spot(field: &Field) -> Span {
    match field.value.kind {
        Kind::Object(_) | Kind::Array(_) | Kind::Null => field.key_span,
        _ => field.value.span,
    }
}

/// An object's fields, of which each is taken by name; what nobody may take is reported.
pub(super) struct Fields<'n> {
    pub(super) at: At<'n>,
    fields: &'n [Field],
}

impl<'n> Fields<'n> {
    /// The fields of an object; anything else is reported. `known` are the keys of the language, `later` those that
    /// this version lacks.
    pub(super) fn of(
        at: At<'n>,
        what: &str,
        known: &[&str],
        later: &[&str],
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let Kind::Object(fields) = &at.node.kind else {
            wrong_type(&at, what, "an object", report);
            return None;
        };
        for field in fields {
            let key = field.key.as_str();
            let place = at.place.child(key, field.key_span);
            if later.contains(&key) {
                let message = format!("this version of Reipaz has no `{key}` yet");
                report.mistake(&place, code::NOT_SUPPORTED_YET, message);
            } else if !known.contains(&key) && key != "<<" {
                let hint = match hint::nearest(key, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("{what} has {}", list(known.iter().copied())),
                };
                report.hinted(&place, code::UNKNOWN_KEY, format!("{what} has no key `{key}`"), hint);
            }
        }
        Some(Self { fields, at })
    }

    pub(super) fn get(&self, key: &str) -> Option<At<'n>> {
        self.fields.iter().find(|field| field.key == key).map(|field| self.at.field(field))
    }

    /// A field that must be there.
    pub(super) fn require(&self, key: &str, what: &str, report: &mut Report<'_>) -> Option<At<'n>> {
        let found = self.get(key);
        if found.is_none() {
            report.mistake(
                &self.at.place,
                code::MISSING_KEY,
                format!("{what} has no `{key}`, which it needs"),
            );
        }
        found
    }

    pub(super) fn duration(
        &self,
        key: &str,
        least: Duration,
        most: Duration,
        report: &mut Report<'_>,
    ) -> Option<Duration> {
        let at = self.get(key)?;
        let text = match &at.node.kind {
            Kind::String(text, _) => text,
            Kind::Number(number) => {
                let hint = format!("write a unit: `{number}s`");
                report.hinted(&at.place, code::BAD_DURATION, format!("{number} is no duration"), hint);
                return None;
            }
            _ => {
                wrong_type(&at, &format!("`{key}`"), "a duration such as `10s`", report);
                return None;
            }
        };
        match parse_duration(text) {
            Err(error) => report.mistake(&at.place, code::BAD_DURATION, error.to_string()),
            Ok(duration) if duration < least || duration > most => {
                let (least, most) = (format_duration(least), format_duration(most));
                let message = format!("`{key}` is at least {least} and at most {most}");
                report.mistake(&at.place, code::OUT_OF_RANGE, message);
            }
            Ok(duration) => return Some(duration),
        }
        None
    }

    pub(super) fn number(&self, key: &str, least: f64, most: f64, report: &mut Report<'_>) -> Option<f64> {
        let at = self.get(key)?;
        let Kind::Number(number) = &at.node.kind else {
            wrong_type(&at, &format!("`{key}`"), "a number", report);
            return None;
        };
        let value = number.as_f64().filter(|value| (least..=most).contains(value));
        if value.is_none() {
            let message = format!("`{key}` is at least {least} and at most {most}");
            report.mistake(&at.place, code::OUT_OF_RANGE, message);
        }
        value
    }

    pub(super) fn whole_number(
        &self,
        key: &str,
        least: u32,
        most: u32,
        report: &mut Report<'_>,
    ) -> Option<u32> {
        let at = self.get(key)?;
        let value = self.number(key, least.into(), most.into(), report)?;
        if value.fract() != 0.0 {
            report.mistake(&at.place, code::BAD_VALUE, format!("`{key}` is a whole number"));
            return None;
        }
        Some(value as u32)
    }
}

/// A string.
pub(super) fn string<'n>(at: &At<'n>, what: &str, report: &mut Report<'_>) -> Option<&'n str> {
    match &at.node.kind {
        Kind::String(text, _) => Some(text),
        _ => {
            wrong_type(at, what, "a string", report);
            None
        }
    }
}

/// The items of a list.
pub(super) fn items<'n>(at: &At<'n>, what: &str, report: &mut Report<'_>) -> Vec<At<'n>> {
    match &at.node.kind {
        Kind::Array(items) => items.iter().enumerate().map(|(index, item)| at.item(index, item)).collect(),
        _ => {
            wrong_type(at, what, "a list", report);
            Vec::new()
        }
    }
}

pub(super) fn wrong_type(at: &At<'_>, what: &str, expected: &str, report: &mut Report<'_>) {
    let message = format!("{what} must be {expected}, not {}", at.node.kind_name());
    report.mistake(&at.place, code::WRONG_TYPE, message);
}

/// Whether a text is a name: `[a-z][a-z0-9_]*`, of at most [`MAX_NAME_BYTES`].
pub(super) fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME_BYTES
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

/// Reports what is not a name, with one that is.
pub(super) fn check_name(text: &str, what: &str, place: &Place, report: &mut Report<'_>) -> bool {
    if is_name(text) {
        return true;
    }
    let shown: String = text.chars().take(MAX_NAME_BYTES).collect();
    let message = format!(
        "{what} `{shown}` is no name: a small letter, then small letters, digits and `_`, at most {MAX_NAME_BYTES}"
    );
    report.hinted(place, code::BAD_NAME, message, as_name(text).map(|name| format!("write `{name}`")));
    false
}

/// What a text might be as a name.
fn as_name(text: &str) -> Option<String> {
    let mut name = String::new();
    for c in text.chars() {
        if c.is_ascii_uppercase() && name.ends_with(|c: char| c.is_ascii_lowercase()) {
            name.push('_');
        }
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' => name.push(c.to_ascii_lowercase()),
            _ if name.is_empty() || name.ends_with('_') => {}
            _ => name.push('_'),
        }
    }
    Some(name.trim_end_matches('_').to_owned()).filter(|name| is_name(name))
}

/// `a, b and c`, each as code.
pub(super) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
