//! YAML 1.2 (core schema) into a spanned tree. What has no meaning in JSON is refused; aliases are replaced by what
//! they stand for, within a bound, so that a small text cannot become a large document.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use serde_json::Number;

use super::{
    MAX_DOCUMENT_BYTES, MAX_NESTING,
    diagnostic::{Place, Report, code, escape_pointer},
    json::SyntaxError,
    tree::{Field, Kind, Node, Span, Style},
};

/// Reads a text that is one YAML document; mistakes that leave a tree are reported.
pub(super) fn read(text: &str, report: &mut Report<'_>) -> Result<Node, SyntaxError> {
    let mut builder = Builder {
        text,
        // saphyr counts characters; where all of them are one byte there is nothing to map.
        offsets: (!text.is_ascii()).then(|| text.char_indices().map(|(at, _)| at).collect()),
        open: Vec::new(),
        anchors: HashMap::new(),
        alias_weight: 0,
        root: None,
        report,
    };
    for event in Parser::new_from_str(text) {
        match event {
            Ok((event, span)) => {
                let span = builder.span(span);
                if !builder.event(event, span)? {
                    break;
                }
            }
            Err(error) => return Err(builder.explain(builder.offset(error.marker().index()), error.info())),
        }
    }
    Ok(builder.root.unwrap_or(Node { kind: Kind::Null, span: Span::default() }))
}

/// Reports a key that stands twice.
pub(super) fn duplicate(report: &mut Report<'_>, pointer: &str, key: &str, first: Span, second: Span) {
    let (line, column) = report.source().position(first.start);
    let place = Place { span: second, pointer: pointer.to_owned() };
    let message = format!("the key `{key}` stands twice; the first is at {line}:{column}");
    report.mistake(&place, code::DUPLICATE_KEY, message);
}

/// A list or an object whose end has not come.
struct Open {
    start: usize,
    anchor: usize,
    contents: Contents,
}

enum Contents {
    List(Vec<Node>),
    Object { fields: Vec<Field>, known: HashMap<String, Span>, key: Option<(String, Span)> },
}

/// What an anchor names.
struct Anchored {
    node: Node,
    height: usize,
    weight: usize,
}

struct Builder<'t, 'r, 's> {
    text: &'t str,
    offsets: Option<Vec<usize>>,
    open: Vec<Open>,
    anchors: HashMap<usize, Anchored>,
    /// What aliases have added so far, about in bytes.
    alias_weight: usize,
    root: Option<Node>,
    report: &'r mut Report<'s>,
}

impl Builder<'_, '_, '_> {
    /// Takes one event; false once nothing more is to be read.
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<bool, SyntaxError> {
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                let place = Place { span, pointer: String::new() };
                let message = "a second document starts here; a text holds one workflow";
                self.report.mistake(&place, code::MULTIPLE_DOCUMENTS, message);
                return Ok(false);
            }
            Event::Scalar(text, style, anchor, tag) => {
                let span = self.trim(span, anchor != 0 || tag.is_some());
                let node = self.scalar(&text, style, tag.as_deref(), span);
                self.finished(node, anchor)?;
            }
            Event::SequenceStart(anchor, tag) => {
                self.collection_tag(tag.as_deref(), "seq", span);
                self.start(span, anchor, Contents::List(Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                self.collection_tag(tag.as_deref(), "map", span);
                let contents = Contents::Object { fields: Vec::new(), known: HashMap::new(), key: None };
                self.start(span, anchor, contents)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(false) };
                let (kind, last) = match open.contents {
                    Contents::List(items) => {
                        let last = items.last().map(|item| item.span.end);
                        (Kind::Array(items), last)
                    }
                    Contents::Object { fields, .. } => {
                        let last = fields.last().map(|field| field.value.span.end.max(field.key_span.end));
                        (Kind::Object(fields), last)
                    }
                };
                // A block has no bracket at its end; it ends with the last thing in it.
                let end = if span.end > span.start {
                    self.trim(span, false).end
                } else {
                    last.unwrap_or(open.start)
                };
                let span = Span { start: open.start, end: end.max(open.start) };
                self.finished(Node { kind, span }, open.anchor)?;
            }
            Event::Alias(id) => self.alias(id, span)?,
            _ => {}
        }
        Ok(true)
    }

    fn start(&mut self, span: Span, anchor: usize, contents: Contents) -> Result<(), SyntaxError> {
        if self.open.len() > MAX_NESTING {
            return Err(too_deep(span));
        }
        self.open.push(Open { start: self.trim(span, anchor != 0).start, anchor, contents });
        Ok(())
    }

    /// A node is complete: it goes into what is open, as a key or a value.
    fn finished(&mut self, node: Node, anchor: usize) -> Result<(), SyntaxError> {
        if anchor != 0 {
            let (height, weight) = (height(&node), weight(&node));
            self.anchors.insert(anchor, Anchored { node: node.clone(), height, weight });
        }
        let pointer = self.pointer();
        match self.open.last_mut().map(|open| &mut open.contents) {
            None => self.root = Some(node),
            Some(Contents::List(items)) => items.push(node),
            Some(Contents::Object { fields, known, key }) => match key.take() {
                None => *key = Some((self::key(&node, &pointer, self.report), node.span)),
                Some((key, key_span)) => match known.get(&key) {
                    Some(first) => duplicate(self.report, &pointer, &key, *first, key_span),
                    None => {
                        known.insert(key.clone(), key_span);
                        fields.push(Field { key, key_span, value: node });
                    }
                },
            },
        }
        Ok(())
    }

    fn alias(&mut self, id: usize, span: Span) -> Result<(), SyntaxError> {
        let Some(anchored) = self.anchors.get(&id) else {
            let message = "this alias stands inside what it names".to_owned();
            return Err(SyntaxError { span, code: code::NOT_JSON, message });
        };
        self.alias_weight += anchored.weight;
        if self.alias_weight > MAX_DOCUMENT_BYTES {
            let message =
                format!("with its aliases replaced, the document is larger than {MAX_DOCUMENT_BYTES} bytes");
            return Err(SyntaxError { span, code: code::TOO_LARGE, message });
        }
        if self.open.len() + anchored.height > MAX_NESTING + 1 {
            return Err(too_deep(span));
        }
        let node = anchored.node.clone();
        self.finished(node, 0)
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Node {
        let style = match style {
            ScalarStyle::Plain => Style::Plain,
            ScalarStyle::SingleQuoted => Style::Single,
            ScalarStyle::DoubleQuoted => Style::Double,
            ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
        };
        let string = || Kind::String(text.to_owned(), style);
        let refuse = |report: &mut Report<'_>, pointer: String, message: String| {
            report.mistake(&Place { span, pointer }, code::NOT_JSON, message);
            string()
        };
        let kind = match tag {
            None if style == Style::Plain => match plain(text) {
                Ok(kind) => kind.unwrap_or_else(string),
                Err(()) => refuse(self.report, self.pointer(), format!("JSON has no number `{text}`")),
            },
            None => string(),
            Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => string(),
            Some(tag) => match plain(text) {
                Ok(Some(kind)) if tag.is_yaml_core_schema() && tag.suffix == tag_of(&kind) => kind,
                _ => refuse(self.report, self.pointer(), format!("the tag `{tag}` has no meaning here")),
            },
        };
        Node { kind, span }
    }

    fn collection_tag(&mut self, tag: Option<&Tag>, suffix: &str, span: Span) {
        if let Some(tag) = tag.filter(|tag| !(tag.is_yaml_core_schema() && tag.suffix == suffix)) {
            let place = Place { span, pointer: self.pointer() };
            self.report.mistake(&place, code::NOT_JSON, format!("the tag `{tag}` has no meaning here"));
        }
    }

    /// The pointer to what is being read.
    fn pointer(&self) -> String {
        let mut pointer = String::new();
        for open in &self.open {
            match &open.contents {
                Contents::List(items) => pointer.push_str(&format!("/{}", items.len())),
                Contents::Object { key: Some((key, _)), .. } => {
                    pointer.push('/');
                    pointer.push_str(&escape_pointer(key));
                }
                Contents::Object { key: None, .. } => {}
            }
        }
        pointer
    }

    fn span(&self, span: saphyr_parser::Span) -> Span {
        let (start, end) = (self.offset(span.start.index()), self.offset(span.end.index()));
        Span { start, end: end.max(start) }
    }

    fn offset(&self, index: usize) -> usize {
        let offset = match &self.offsets {
            Some(offsets) => offsets.get(index).copied().unwrap_or(self.text.len()),
            None => index,
        };
        offset.min(self.text.len())
    }

    /// A span without the anchor or tag at its start, and without the white space at its end.
    fn trim(&self, span: Span, decorated: bool) -> Span {
        let Some(mut text) = self.text.get(span.start..span.end) else { return span };
        let end = span.start + text.trim_end().len().max(usize::from(!text.is_empty()));
        while decorated && text.starts_with(['&', '!']) {
            let word = text.find(char::is_whitespace).unwrap_or(text.len());
            text = text[word..].trim_start();
        }
        Span { start: (span.end - text.len()).min(end), end }
    }

    /// YAML's complaint in our words, where we have better ones.
    fn explain(&self, at: usize, info: &str) -> SyntaxError {
        let line_start = self.text[..at].rfind('\n').map_or(0, |at| at + 1);
        let line = self.text[line_start..].lines().next().unwrap_or_default();
        let indent = &line[..line.len() - line.trim_start().len()];
        if let Some(tab) = indent.find('\t') {
            let start = line_start + tab;
            let message = "YAML is indented with spaces; here is a tab".to_owned();
            return SyntaxError { span: Span { start, end: start + 1 }, code: code::TAB, message };
        }
        let width = self.text[at..].chars().next().map_or(0, char::len_utf8);
        let span = Span { start: at, end: at + width };
        if info.contains("recursion limit") {
            return too_deep(span);
        }
        let message = match info {
            "mapping values are not allowed in this context" => {
                "a `:` that starts a value is not allowed here; put the text in quotes if the colon belongs to it".into()
            }
            _ => info.to_owned(),
        };
        SyntaxError { span, code: code::SYNTAX, message }
    }
}

/// A key's text. JSON has only strings as keys: other scalars are taken as they are written.
fn key(node: &Node, pointer: &str, report: &mut Report<'_>) -> String {
    let place = || Place { span: node.span, pointer: pointer.to_owned() };
    match &node.kind {
        Kind::String(text, _) => {
            if text == "<<" {
                let hint = "use `defaults`, or an alias for the whole value".to_owned();
                report.hinted(&place(), code::NOT_JSON, "merge keys are not part of YAML 1.2", hint);
            }
            text.clone()
        }
        Kind::Null => "null".to_owned(),
        Kind::Bool(value) => value.to_string(),
        Kind::Number(number) => number.to_string(),
        Kind::Array(_) | Kind::Object(_) => {
            report.mistake(&place(), code::NOT_JSON, format!("{} cannot be a key", node.kind_name()));
            String::new()
        }
    }
}

/// What a plain scalar means in YAML's core schema; `None` for a string, an error for what JSON lacks.
fn plain(text: &str) -> Result<Option<Kind>, ()> {
    let number = |number: Number| Ok(Some(Kind::Number(number)));
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Some(Kind::Null)),
        "true" | "True" | "TRUE" => return Ok(Some(Kind::Bool(true))),
        "false" | "False" | "FALSE" => return Ok(Some(Kind::Bool(false))),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "-.inf" | ".nan" | ".NaN" | ".NAN" => return Err(()),
        _ => {}
    }
    for (prefix, radix) in [("0o", 8), ("0x", 16)] {
        if let Some(digits) = text.strip_prefix(prefix)
            && !digits.is_empty()
            && digits.chars().all(|c| c.is_digit(radix))
        {
            return u64::from_str_radix(digits, radix).map_or(Err(()), |value| number(value.into()));
        }
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !(digits(whole) && digits(part) && digits(exponent))
        || whole.len() + part.len() == 0
        || exponent.is_empty()
    {
        return Ok(None);
    }
    let signed = text.strip_prefix('+').unwrap_or(text);
    if let Ok(value) = signed.parse::<i64>() {
        return number(value.into());
    }
    if let Ok(value) = signed.parse::<u64>() {
        return number(value.into());
    }
    signed.parse::<f64>().ok().and_then(Number::from_f64).map_or(Err(()), number)
}

fn tag_of(kind: &Kind) -> &'static str {
    match kind {
        Kind::Null => "null",
        Kind::Bool(_) => "bool",
        Kind::Number(number) if number.is_f64() => "float",
        Kind::Number(_) => "int",
        Kind::String(..) => "str",
        Kind::Array(_) => "seq",
        Kind::Object(_) => "map",
    }
}

fn too_deep(span: Span) -> SyntaxError {
    let message = format!("a document nests at most {MAX_NESTING} levels deep");
    SyntaxError { span, code: code::TOO_DEEP, message }
}

/// How many levels of lists and objects a node has.
fn height(node: &Node) -> usize {
    match &node.kind {
        Kind::Array(items) => 1 + items.iter().map(height).max().unwrap_or(0),
        Kind::Object(fields) => 1 + fields.iter().map(|field| height(&field.value)).max().unwrap_or(0),
        _ => 0,
    }
}

/// About how many bytes a node has as JSON.
fn weight(node: &Node) -> usize {
    4 + match &node.kind {
        Kind::String(text, _) => text.len(),
        Kind::Array(items) => items.iter().map(weight).sum(),
        Kind::Object(fields) => fields.iter().map(|field| field.key.len() + 4 + weight(&field.value)).sum(),
        _ => 4,
    }
}
