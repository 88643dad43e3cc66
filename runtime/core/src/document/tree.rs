//! The one shape that YAML and JSON are read into: a JSON value of which every part knows where it stands.

use serde_json::{Number, Value};

/// A part of the text, in bytes: start inclusive, end exclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// The text of a document.
#[derive(Clone)]
pub(crate) struct Source<'s> {
    pub(crate) text: &'s str,
    /// Where each line starts.
    lines: Vec<usize>,
}

impl<'s> Source<'s> {
    pub(crate) fn new(text: &'s str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { text, lines: std::iter::once(0).chain(breaks).collect() }
    }

    /// Line and column of a byte, both counted from 1, the column in characters.
    pub(crate) fn position(&self, offset: usize) -> (u32, u32) {
        let offset = offset.min(self.text.len());
        let line = self.lines.partition_point(|start| *start <= offset).max(1);
        let start = self.lines[line - 1];
        let column = self.text.get(start..offset).map_or(offset - start, |before| before.chars().count());
        (line as u32, column as u32 + 1)
    }
}

/// How a string is written, which decides how an offset inside it maps to the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// As it is; over several lines, or in a block, white space may differ.
    Plain,
    /// Between apostrophes, which are doubled inside.
    Single,
    /// Between quotes, with escapes.
    Double,
    /// A YAML block behind `|` or `>`.
    Block,
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) span: Span,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Number(Number),
    String(String, Style),
    Array(Vec<Node>),
    Object(Vec<Field>),
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field {
    pub(crate) key: String,
    pub(crate) key_span: Span,
    pub(crate) value: Node,
}

impl Node {
    /// What a person calls it.
    pub(crate) fn kind_name(&self) -> &'static str {
        match self.kind {
            Kind::Null => "nothing",
            Kind::Bool(_) => "a boolean",
            Kind::Number(_) => "a number",
            Kind::String(..) => "a string",
            Kind::Array(_) => "a list",
            Kind::Object(_) => "an object",
        }
    }

    pub(crate) fn field(&self, key: &str) -> Option<&Field> {
        match &self.kind {
            Kind::Object(fields) => fields.iter().find(|field| field.key == key),
            _ => None,
        }
    }

    /// The value without its places.
    pub(crate) fn to_value(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Number(number) => Value::Number(number.clone()),
            Kind::String(text, _) => Value::String(text.clone()),
            Kind::Array(items) => items.iter().map(Self::to_value).collect(),
            Kind::Object(fields) => {
                fields.iter().map(|field| (field.key.clone(), field.value.to_value())).collect()
            }
        }
    }

    /// A value that stands nowhere.
    pub(crate) fn from_value(value: &Value) -> Self {
        let kind = match value {
            Value::Null => Kind::Null,
            Value::Bool(value) => Kind::Bool(*value),
            Value::Number(number) => Kind::Number(number.clone()),
            Value::String(text) => Kind::String(text.clone(), Style::Plain),
            Value::Array(items) => Kind::Array(items.iter().map(Self::from_value).collect()),
            Value::Object(fields) => Kind::Object(
                fields
                    .iter()
                    .map(|(key, value)| Field {
                        key: key.clone(),
                        key_span: Span::default(),
                        value: Self::from_value(value),
                    })
                    .collect(),
            ),
        };
        Self { kind, span: Span::default() }
    }

    /// What an RFC 6901 pointer leads to, or the last value on its way there.
    pub(crate) fn nearest(&self, pointer: &str) -> &Self {
        let mut node = self;
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            let next = match &node.kind {
                Kind::Object(_) => node.field(&token).map(|field| &field.value),
                Kind::Array(items) => token.parse().ok().and_then(|index: usize| items.get(index)),
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }

    /// Where parts of this string, each `(offset, length)` in bytes, stand in the text; the whole string where that
    /// cannot be told. The parts are in ascending order: one walk over the string finds them all.
    pub(crate) fn locate(
        &self,
        source: &Source<'_>,
        parts: impl Iterator<Item = (usize, usize)>,
    ) -> Vec<Span> {
        let raw = source.text.get(self.span.start..self.span.end);
        let (Kind::String(text, style), Some(raw)) = (&self.kind, raw) else {
            return parts.map(|_| self.span).collect();
        };
        let mut walk = Alignment::new(raw.as_bytes(), text.as_bytes(), *style);
        let mut place = |(offset, length): (usize, usize)| {
            let start = walk.as_mut()?.reach(offset)?;
            let end = walk.clone()?.reach(offset + length)?;
            Some(Span { start: self.span.start + start, end: self.span.start + end })
        };
        parts.map(|part| place(part).unwrap_or(self.span)).collect()
    }
}

/// A walk over a string as it is written and what it stands for, side by side; white space may differ (YAML folds and
/// strips it).
#[derive(Clone)]
struct Alignment<'t> {
    raw: &'t [u8],
    text: &'t [u8],
    style: Style,
    /// How far the walk is in `raw`.
    at: usize,
    /// How far it is in `text`.
    done: usize,
}

impl<'t> Alignment<'t> {
    fn new(raw: &'t [u8], text: &'t [u8], style: Style) -> Option<Self> {
        let at = match style {
            Style::Plain => 0,
            Style::Single | Style::Double => 1,
            // With an anchor or a tag before it, the span has the block's header too.
            Style::Block if matches!(raw.first(), Some(b'|' | b'>')) && raw.first() != text.first() => {
                raw.iter().position(|byte| *byte == b'\n')? + 1
            }
            Style::Block => 0,
        };
        Some(Self { raw, text, style, at, done: 0 })
    }

    /// Goes on to `offset` of the text and gives where that is in the raw string; `None` where they do not fit.
    fn reach(&mut self, offset: usize) -> Option<usize> {
        while self.done < offset.min(self.text.len()) {
            let (left, right) = (*self.raw.get(self.at)?, *self.text.get(self.done)?);
            let (raw, text) = match (left, right) {
                (b'\'', b'\'') if self.style == Style::Single => (2, 1),
                (b'\\', _) if self.style == Style::Double => escape(&self.raw[self.at..])?,
                (left, right) if left == right => (1, 1),
                _ if left.is_ascii_whitespace() && right.is_ascii_whitespace() => (1, 1),
                _ if left.is_ascii_whitespace() => (1, 0),
                _ if right.is_ascii_whitespace() => (0, 1),
                _ => return None,
            };
            self.at += raw;
            self.done += text;
        }
        // White space that YAML stripped stands before what is looked for.
        let white = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_whitespace);
        while self.done < self.text.len() && white(self.raw.get(self.at)) && !white(self.text.get(self.done))
        {
            self.at += 1;
        }
        Some(self.at)
    }
}

/// How long an escape is, and how many bytes it stands for.
fn escape(raw: &[u8]) -> Option<(usize, usize)> {
    let digits = match raw.get(1)? {
        b'x' => 2,
        b'u' => 4,
        b'U' => 8,
        b'\n' => return Some((2, 0)),
        b'\r' => return Some((3, 0)),
        b'N' | b'_' => return Some((2, 2)),
        b'L' | b'P' => return Some((2, 3)),
        _ => return Some((2, 1)),
    };
    let hex = std::str::from_utf8(raw.get(2..2 + digits)?).ok()?;
    let code = u32::from_str_radix(hex, 16).ok()?;
    match char::from_u32(code) {
        Some(c) => Some((2 + digits, c.len_utf8())),
        // The first half of a JSON surrogate pair: both stand for one character of four bytes.
        None => Some((2 + 2 * digits + 2, 4)),
    }
}
