//! From an expression's text to what the rest of the core needs of it: how it is evaluated and what it refers to.
//! The grammar is jaq's own, so that what parses here parses in the engine.

use jaq_core::{
    load::{
        lex::{Lexer, StrPart},
        parse::{Parser, Term},
    },
    path::{Opt, Part},
};
use serde_json::Value;

use super::{
    Expression, ExpressionError, ExpressionErrorKind, ExpressionKind, Root, Segment,
    references::{self, References},
};

/// Parses a text whose bounds [`super::scan`] has checked.
pub(super) fn parse(source: &str) -> Result<Expression, Vec<ExpressionError>> {
    let tokens = Lexer::new(source).lex().map_err(|errors| {
        let tell = |(expected, found): (jaq_core::load::lex::Expect<&str>, &str)| {
            syntax(source, found, &format!("expected {}", expected.as_str()))
        };
        first(errors.into_iter().map(tell))
    })?;
    let term = Parser::new(&tokens).parse(|parser| parser.term()).map_err(|errors| {
        first(errors.into_iter().map(|(expected, found)| match found {
            Some(token) => {
                let found = token.as_str();
                let shown: String = found.chars().take(20).collect();
                syntax(source, found, &format!("expected {}, found `{shown}`", expected.as_str()))
            }
            None => syntax(source, &source[source.len()..], &format!("expected {}", expected.as_str())),
        }))
    })?;
    let References { steps, secrets, error_at, errors } = references::find(source, &term);
    if !errors.is_empty() {
        return Err(errors);
    }
    let kind = native(&term).unwrap_or_else(|| ExpressionKind::Jq(program(source).into()));
    Ok(Expression { source: source.into(), kind, steps, secrets, error_at })
}

/// The jq program that the engine runs: it takes the whole scope and binds the variables of the language itself, so
/// that the engine need not know them. The line break ends a comment that the source may end with.
fn program(source: &str) -> String {
    format!(". as {{$input, $steps, $trigger, $secrets, $error}} | ({source}\n)")
}

/// jaq tells follow-up errors too; the first in the text is the one to look at.
fn first(errors: impl Iterator<Item = ExpressionError>) -> Vec<ExpressionError> {
    errors.min_by_key(|error| error.offset).into_iter().collect()
}

fn syntax(source: &str, found: &str, message: &str) -> ExpressionError {
    let offset = offset(source, found);
    let message = if offset == source.trim_end().len() && offset > 0 {
        format!("{message}, found the end of the expression")
    } else if source.trim().is_empty() {
        "the expression is empty".to_owned()
    } else {
        message.to_owned()
    };
    ExpressionError { offset, kind: ExpressionErrorKind::Syntax, message, hint: None }
}

/// Where `part`, a slice of `source`, starts in it.
pub(super) fn offset(source: &str, part: &str) -> usize {
    (part.as_ptr() as usize).saturating_sub(source.as_ptr() as usize).min(source.len())
}

/// What can be evaluated without the engine.
fn native(term: &Term<&str>) -> Option<ExpressionKind> {
    let root = |term: &Term<&str>| match term {
        Term::Id => Some(Root::Scope),
        Term::Var("$input") => Some(Root::Input),
        Term::Var("$steps") => Some(Root::Steps),
        Term::Var("$trigger") => Some(Root::Trigger),
        Term::Var("$error") => Some(Root::Error),
        Term::Var("$secrets") => Some(Root::Secrets),
        _ => None,
    };
    if let Some(root) = root(term) {
        return Some(ExpressionKind::Path(root, Vec::new()));
    }
    if let Term::Path(head, path) = term {
        let segments = path.0.iter().map(|(part, opt)| match (part, opt) {
            (Part::Index(index), Opt::Essential) => match literal(index)? {
                Value::String(key) => Some(Segment::Key(key.into())),
                Value::Number(number) => number.as_i64().map(Segment::Index),
                _ => None,
            },
            _ => None,
        });
        return Some(ExpressionKind::Path(root(head)?, segments.collect::<Option<_>>()?));
    }
    literal(term).map(ExpressionKind::Literal)
}

/// The value of a term that is one.
fn literal(term: &Term<&str>) -> Option<Value> {
    match term {
        Term::Call("null", args) if args.is_empty() => Some(Value::Null),
        Term::Call("true", args) if args.is_empty() => Some(Value::Bool(true)),
        Term::Call("false", args) if args.is_empty() => Some(Value::Bool(false)),
        Term::Num(number) => integer(number),
        Term::Neg(number) => match &**number {
            Term::Num(number) => integer(&format!("-{number}")),
            _ => None,
        },
        _ => string(term).map(Value::String),
    }
}

/// Whole numbers only: how jq writes others is the engine's affair.
fn integer(number: &str) -> Option<Value> {
    number.parse::<i64>().ok().map(Value::from)
}

/// The text of a string without interpolations.
pub(super) fn string(term: &Term<&str>) -> Option<String> {
    let Term::Str(None, parts) = term else { return None };
    parts
        .iter()
        .map(|part| match part {
            StrPart::Str(text) => Some((*text).to_owned()),
            StrPart::Char(c) => Some(c.to_string()),
            StrPart::Term(_) => None,
        })
        .collect()
}
