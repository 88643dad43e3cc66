//! JSON (RFC 8259) into a spanned tree. YAML would read most of it, but not its surrogate pairs, and it would explain
//! a missing comma in YAML's words.

use serde_json::Number;

use super::{
    MAX_NESTING,
    diagnostic::{Place, Report, code, escape_pointer},
    tree::{Field, Kind, Node, Span, Style},
};

/// Where and why a text cannot be read on.
pub(super) struct SyntaxError {
    pub(super) span: Span,
    pub(super) code: &'static str,
    pub(super) message: String,
}

/// Reads a text that is one JSON value; keys that stand twice are reported.
pub(super) fn read(text: &str, report: &mut Report<'_>) -> Result<Node, SyntaxError> {
    let mut reader = Reader { text, at: 0, pointer: String::new(), report };
    reader.space();
    let node = reader.value(0)?;
    reader.space();
    if reader.at < text.len() { Err(reader.error("nothing may follow the value")) } else { Ok(node) }
}

struct Reader<'t, 'r, 's> {
    text: &'t str,
    at: usize,
    pointer: String,
    report: &'r mut Report<'s>,
}

impl Reader<'_, '_, '_> {
    fn value(&mut self, depth: usize) -> Result<Node, SyntaxError> {
        let start = self.at;
        if depth > MAX_NESTING {
            let message = format!("a document nests at most {MAX_NESTING} levels deep");
            return Err(SyntaxError { span: Span { start, end: start + 1 }, code: code::TOO_DEEP, message });
        }
        let kind = match self.peek() {
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.array(depth)?,
            Some(b'"') => Kind::String(self.string()?, Style::Double),
            Some(b'-' | b'0'..=b'9') => Kind::Number(self.number()?),
            _ => {
                let rest = &self.text[start..];
                let words = [("null", Kind::Null), ("true", Kind::Bool(true)), ("false", Kind::Bool(false))];
                let Some((word, kind)) = words.into_iter().find(|(word, _)| rest.starts_with(word)) else {
                    return Err(self.error("expected a value"));
                };
                self.at += word.len();
                kind
            }
        };
        Ok(Node { kind, span: Span { start, end: self.at } })
    }

    fn object(&mut self, depth: usize) -> Result<Kind, SyntaxError> {
        let mut fields: Vec<Field> = Vec::new();
        let mut known = std::collections::HashMap::new();
        self.at += 1;
        self.space();
        if self.eat(b'}') {
            return Ok(Kind::Object(fields));
        }
        loop {
            let start = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.error("expected a key in quotes"));
            }
            let key = self.string()?;
            let key_span = Span { start, end: self.at };
            self.space();
            if !self.eat(b':') {
                return Err(self.error("expected `:` after the key"));
            }
            self.space();
            let length = self.pointer.len();
            self.pointer.push('/');
            self.pointer.push_str(&escape_pointer(&key));
            let value = self.value(depth + 1)?;
            if let Some(first) = known.insert(key.clone(), key_span) {
                super::yaml::duplicate(self.report, &self.pointer, &key, first, key_span);
                known.insert(key, first);
            } else {
                fields.push(Field { key, key_span, value });
            }
            self.pointer.truncate(length);
            self.space();
            if self.eat(b'}') {
                return Ok(Kind::Object(fields));
            }
            if !self.eat(b',') {
                return Err(self.error("expected `,` or `}`"));
            }
            self.space();
        }
    }

    fn array(&mut self, depth: usize) -> Result<Kind, SyntaxError> {
        let mut items = Vec::new();
        self.at += 1;
        self.space();
        if self.eat(b']') {
            return Ok(Kind::Array(items));
        }
        loop {
            let length = self.pointer.len();
            self.pointer.push_str(&format!("/{}", items.len()));
            items.push(self.value(depth + 1)?);
            self.pointer.truncate(length);
            self.space();
            if self.eat(b']') {
                return Ok(Kind::Array(items));
            }
            if !self.eat(b',') {
                return Err(self.error("expected `,` or `]`"));
            }
            self.space();
        }
    }

    fn string(&mut self) -> Result<String, SyntaxError> {
        let bytes = self.text.as_bytes();
        let mut end = self.at + 1;
        loop {
            match bytes.get(end) {
                Some(b'"') => break,
                Some(b'\\') => end += 2,
                Some(b'\n') | None => return Err(self.error("the string is never closed")),
                Some(_) => end += 1,
            }
        }
        let raw = self.text.get(self.at..=end).ok_or_else(|| self.error("the string is never closed"))?;
        let text = serde_json::from_str(raw)
            .map_err(|_| self.error("the string has an escape that JSON does not have"))?;
        self.at = end + 1;
        Ok(text)
    }

    fn number(&mut self) -> Result<Number, SyntaxError> {
        let rest = &self.text[self.at..];
        let length =
            rest.find(|c: char| !matches!(c, '-' | '+' | '.' | 'e' | 'E' | '0'..='9')).unwrap_or(rest.len());
        let number = serde_json::from_str(&rest[..length]).map_err(|_| self.error("this is no number"))?;
        self.at += length;
        Ok(number)
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn error(&self, message: &str) -> SyntaxError {
        let width = self.text[self.at..].chars().next().map_or(0, char::len_utf8);
        let message = if width == 0 { format!("{message}, but the text ends") } else { message.to_owned() };
        SyntaxError { span: Span { start: self.at, end: self.at + width }, code: code::SYNTAX, message }
    }
}

/// A syntax error's place.
impl SyntaxError {
    pub(super) fn tell(self, report: &mut Report<'_>) {
        let place = Place { span: self.span, pointer: String::new() };
        report.mistake(&place, self.code, self.message);
    }
}
