//! Expressions in documents: jq in `${ }`. A plain path (`$steps.a.output.rows[0]`, `.input.x`) or a literal is
//! evaluated here, natively; anything else is untrusted code that the engine runs in Wasm, and stays text here.
//!
//! In scope: `$input`, `$steps`, `$trigger`, `$secrets`, `$error` (inside `on_failure` only), and `.` as `{input, steps,
//! trigger, secrets, error}`. A step in `$steps` is `{"output": ..., "status": "completed", "error": null}`.
//!
//! Which steps an expression reads must be known before it runs: the references are the workflow's edges. So
//! parsing walks the grammar (`references.rs`) and refuses what it cannot follow, such as `$steps[$name]`.

pub mod evaluate;
mod grammar;
mod references;
mod scan;
mod template;

use std::sync::Arc;

pub use references::Reference;
pub use template::{MAX_TEMPLATE_NESTING, TemplateError};

/// No expression is longer, in bytes. Long programs belong into a step's filter.
pub const MAX_EXPRESSION_BYTES: usize = 8 * 1024;
/// No expression has more brackets, strings and interpolations inside each other: jq's parser recurses.
pub const MAX_EXPRESSION_NESTING: usize = 32;
/// No expression has more operator characters and keywords: each may be one more level of recursion.
pub const MAX_EXPRESSION_OPERATORS: usize = 256;

/// One parsed expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    /// Its source, without `${ }`.
    pub source: Arc<str>,
    /// How it is evaluated.
    pub kind: ExpressionKind,
    /// The steps that it reads, in the order of their appearance.
    pub steps: Vec<Reference>,
    /// The secrets that it uses, in the order of their appearance.
    pub secrets: Vec<Reference>,
    /// Where `$error` first stands in it, in bytes from the start of the source.
    pub error_at: Option<usize>,
}

/// How an expression is evaluated.
#[derive(Clone, Debug, PartialEq)]
pub enum ExpressionKind {
    /// Natively: a root and steps into it.
    Path(Root, Vec<Segment>),
    /// Natively: this value.
    Literal(serde_json::Value),
    /// In the engine: this jq program, which takes the whole scope as its input and binds the variables itself.
    Jq(Arc<str>),
}

/// Where a plain path starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the variables")]
pub enum Root {
    Input,
    Steps,
    Trigger,
    Secrets,
    Error,
    /// `.`: the object of all of them.
    Scope,
}

/// One step of a plain path.
#[derive(Clone, Debug, PartialEq)]
pub enum Segment {
    /// `.name` or `["name"]`.
    Key(Arc<str>),
    /// `[3]`, negative from the end.
    Index(i64),
}

/// Why a text is no expression that a workflow may have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpressionError {
    /// Where, in bytes from the start of the source.
    pub offset: usize,
    /// What kind of mistake.
    pub kind: ExpressionErrorKind,
    /// One sentence.
    pub message: String,
    /// What to write instead, where that is known.
    pub hint: Option<String>,
}

/// What kind of mistake an expression has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpressionErrorKind {
    /// It does not parse.
    Syntax,
    /// Over one of the bounds.
    TooLong,
    /// It reads `$steps`, `$secrets` or `.` in a way that cannot be followed before it runs.
    Computed,
    /// A variable, function or field that does not exist.
    Unknown,
    /// It exists in the language, but not in this version.
    NotSupportedYet,
}

impl Expression {
    /// Parses an expression (without `${ }`); tells the first of its mistakes.
    pub fn parse(source: &str) -> Result<Self, ExpressionError> {
        Self::parse_all(source).map_err(|mut errors| errors.swap_remove(0))
    }

    /// Parses an expression; tells all of its mistakes (at least one).
    pub fn parse_all(source: &str) -> Result<Self, Vec<ExpressionError>> {
        scan::check(source).map_err(|error| vec![error])?;
        grammar::parse(source)
    }

    /// Whether it is evaluated here, without the engine.
    pub fn is_native(&self) -> bool {
        !matches!(self.kind, ExpressionKind::Jq(_))
    }
}

/// A JSON value with expressions in its strings.
#[derive(Clone, Debug, PartialEq)]
pub enum Template {
    /// No expression inside: the value itself.
    Literal(serde_json::Value),
    /// A string that is one expression as a whole: keeps its JSON type.
    Whole(Expression),
    /// A string with expressions among text: each becomes text (a string as it is, anything else as JSON).
    Text(Vec<Piece>),
    /// An array with expressions inside.
    Array(Vec<Template>),
    /// An object with expressions inside its values.
    Object(Vec<(String, Template)>),
}

/// A part of a string.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// As it stands (`$${` is already `${`).
    Text(String),
    /// To be evaluated.
    Expression(Expression),
}
