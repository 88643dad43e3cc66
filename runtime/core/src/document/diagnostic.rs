//! What is wrong with a document, and where. Codes are stable: programs and editors may rely on them.

use serde::Serialize;

use super::tree::{Source, Span};

/// No document is told more mistakes than this at once.
pub const MAX_DIAGNOSTICS: usize = 100;

/// One mistake, or a warning, in a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Where it starts: line, counted from 1.
    pub line: u32,
    /// Column, counted from 1 in characters.
    pub column: u32,
    /// Where it ends: line.
    pub end_line: u32,
    /// The column after its last character.
    pub end_column: u32,
    /// RFC 6901 pointer to the value that is wrong (for a missing key: to the object that lacks it).
    pub pointer: String,
    /// The step that it stands in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// One of [`code`].
    pub code: &'static str,
    /// One sentence for a person.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {} [{}]", self.line, self.column, self.message, self.code)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

/// The codes of diagnostics.
pub mod code {
    /// The text is neither YAML nor JSON.
    pub const SYNTAX: &str = "syntax";
    /// A tab where YAML wants spaces.
    pub const TAB: &str = "tab";
    /// There is nothing in the text.
    pub const EMPTY: &str = "empty";
    /// Over the bound on bytes, as it stands or once its aliases are replaced.
    pub const TOO_LARGE: &str = "too_large";
    /// Over the bound on nesting.
    pub const TOO_DEEP: &str = "too_deep";
    /// A second document in the text.
    pub const MULTIPLE_DOCUMENTS: &str = "multiple_documents";
    /// One key twice.
    pub const DUPLICATE_KEY: &str = "duplicate_key";
    /// YAML that has no meaning in JSON: a tag, a list as a key, an infinite number, an alias inside itself.
    pub const NOT_JSON: &str = "not_json";
    /// A key that the language does not have.
    pub const UNKNOWN_KEY: &str = "unknown_key";
    /// A key that must be there.
    pub const MISSING_KEY: &str = "missing_key";
    /// A value of another type.
    pub const WRONG_TYPE: &str = "wrong_type";
    /// A value of the right type that is not allowed.
    pub const BAD_VALUE: &str = "bad_value";
    /// Not `[a-z][a-z0-9_]*`.
    pub const BAD_NAME: &str = "bad_name";
    /// Not a duration.
    pub const BAD_DURATION: &str = "bad_duration";
    /// A number or duration outside its bounds.
    pub const OUT_OF_RANGE: &str = "out_of_range";
    /// Part of the language, but not of this version.
    pub const NOT_SUPPORTED_YET: &str = "not_supported_yet";
    /// No step of that name.
    pub const UNKNOWN_STEP: &str = "unknown_step";
    /// A step that needs itself.
    pub const SELF_REFERENCE: &str = "self_reference";
    /// Steps that wait for each other.
    pub const CYCLE: &str = "cycle";
    /// More steps than a workflow may have.
    pub const TOO_MANY_STEPS: &str = "too_many_steps";
    /// Not `name`, `name@1` or `name@1.2.3`.
    pub const BAD_USES: &str = "bad_uses";
    /// No such plugin, or not that version of it.
    pub const UNKNOWN_PLUGIN: &str = "unknown_plugin";
    /// An expression that does not parse.
    pub const EXPRESSION_SYNTAX: &str = "expression_syntax";
    /// An expression over one of its bounds.
    pub const EXPRESSION_TOO_LONG: &str = "expression_too_long";
    /// A reference that would be known only at run time.
    pub const COMPUTED_REFERENCE: &str = "computed_reference";
    /// A variable, field or function that does not exist.
    pub const UNKNOWN_NAME: &str = "unknown_name";
    /// The plugin's schema refuses the step's `with`.
    pub const INPUT_REFUSED: &str = "input_refused";
    /// `input` is no JSON Schema.
    pub const BAD_SCHEMA: &str = "bad_schema";
    /// `$secrets.x` without `x` in `secrets`.
    pub const UNDECLARED_SECRET: &str = "undeclared_secret";
    /// A secret outside a step's `with`.
    pub const SECRET_OUTSIDE_WITH: &str = "secret_outside_with";
    /// A grant that cannot be understood.
    pub const BAD_GRANT: &str = "bad_grant";
    /// A warning: a declared secret that nothing uses.
    pub const UNUSED_SECRET: &str = "unused_secret";
    /// A warning: the plugin's manifest has a retry rule that cannot be read, and it is left out.
    pub const BAD_PLUGIN_RETRY: &str = "bad_plugin_retry";
}

/// Where something stands, in the text and in the tree.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Place {
    pub(crate) span: Span,
    pub(crate) pointer: String,
}

impl Place {
    /// The place of a key's or item's value inside this one.
    pub(crate) fn child(&self, key: &str, span: Span) -> Self {
        Self { span, pointer: format!("{}/{}", self.pointer, escape_pointer(key)) }
    }

    /// The same value, but another part of the text.
    pub(crate) fn at(&self, span: Span) -> Self {
        Self { span, pointer: self.pointer.clone() }
    }
}

/// A key as it stands in an RFC 6901 pointer.
pub(crate) fn escape_pointer(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Collects what is wrong with one document.
pub(crate) struct Report<'s> {
    source: Source<'s>,
    pub(crate) mistakes: Vec<Diagnostic>,
    pub(crate) warnings: Vec<Diagnostic>,
}

impl<'s> Report<'s> {
    pub(crate) fn new(source: Source<'s>) -> Self {
        Self { source, mistakes: Vec::new(), warnings: Vec::new() }
    }

    pub(crate) fn source(&self) -> &Source<'s> {
        &self.source
    }

    /// Whether no further mistake would be told.
    pub(crate) fn is_full(&self) -> bool {
        self.mistakes.len() >= MAX_DIAGNOSTICS
    }

    pub(crate) fn mistake(&mut self, place: &Place, code: &'static str, message: impl Into<String>) {
        self.add(place, code, message.into(), None);
    }

    pub(crate) fn hinted(
        &mut self,
        place: &Place,
        code: &'static str,
        message: impl Into<String>,
        hint: impl Into<Option<String>>,
    ) {
        self.add(place, code, message.into(), hint.into());
    }

    pub(crate) fn warning(&mut self, place: &Place, code: &'static str, message: impl Into<String>) {
        if self.warnings.len() < MAX_DIAGNOSTICS {
            let warning = self.diagnostic(place, code, message.into(), None);
            self.warnings.push(warning);
        }
    }

    fn add(&mut self, place: &Place, code: &'static str, message: String, hint: Option<String>) {
        if self.mistakes.len() < MAX_DIAGNOSTICS {
            let diagnostic = self.diagnostic(place, code, message, hint);
            self.mistakes.push(diagnostic);
        }
    }

    fn diagnostic(
        &self,
        place: &Place,
        code: &'static str,
        message: String,
        hint: Option<String>,
    ) -> Diagnostic {
        let (line, column) = self.source.position(place.span.start);
        let (end_line, end_column) = self.source.position(place.span.end);
        let step = place.pointer.strip_prefix("/steps/").and_then(|rest| rest.split('/').next());
        let step = step.map(|step| step.replace("~1", "/").replace("~0", "~"));
        let pointer = place.pointer.clone();
        Diagnostic { line, column, end_line, end_column, pointer, step, code, message, hint }
    }

    /// In the order in which they stand in the text.
    pub(crate) fn sort(&mut self) {
        let key = |diagnostic: &Diagnostic| (diagnostic.line, diagnostic.column, diagnostic.code);
        self.mistakes.sort_by_key(key);
        self.warnings.sort_by_key(key);
    }
}
