//! Expressions in documents: jq in `${ }`. A plain path (`$steps.a.output.rows[0]`, `.input.x`, a literal) is
//! evaluated here, natively; anything else is untrusted code that the engine runs in Wasm, and stays text here.
//!
//! In scope: `$input`, `$steps`, `$trigger`, `$secrets`, and `.` as `{input, steps, trigger, ...}`. A step in `$steps`
//! is `{"output": ..., "status": "completed", "error": null}`.

use std::sync::Arc;

/// One parsed expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    /// Its source, without `${ }`.
    pub source: Arc<str>,
    /// How it is evaluated.
    pub kind: ExpressionKind,
}

/// How an expression is evaluated.
#[derive(Clone, Debug, PartialEq)]
pub enum ExpressionKind {
    /// Natively: a root and steps into it.
    Path(Root, Vec<Segment>),
    /// In the engine.
    Jq,
}

/// Where a plain path starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the variables")]
pub enum Root {
    Input,
    Steps,
    Trigger,
    Secrets,
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
