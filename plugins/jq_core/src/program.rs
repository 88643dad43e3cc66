//! One filter, compiled, and what becomes of a value that goes through it.

use std::fmt;

use jaq_core::load::{self, Arena, File, Loader};
use jaq_core::{Ctx, Vars, compile, data, unwrap_valr};
use jaq_json::Val;

use crate::library::{self, Library};

type Filter = jaq_core::Filter<data::JustLut<Val>>;

/// A compiled filter.
pub struct Program {
    filter: Filter,
}

/// A filter that does not parse, or that names what does not exist. The text says where and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileError {
    /// Byte offset into the filter.
    pub offset: usize,
    /// One sentence.
    pub message: String,
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CompileError {}

/// A filter that did not give exactly one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunError {
    /// It failed on this data.
    Failed(String),
    /// It gave nothing (`empty`, `.[]` of an empty array).
    NoResult,
    /// It gave more than one value.
    ManyResults,
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(message) => f.write_str(message),
            Self::NoResult => f.write_str(
                "the filter gives no value where one is needed; `// null` or `first(...)` may help",
            ),
            Self::ManyResults => f.write_str(
                "the filter gives several values where one is needed; wrap it in `[...]` to collect them",
            ),
        }
    }
}

impl std::error::Error for RunError {}

impl Program {
    /// Compiles a filter that knows those variables (with their `$`) and no others.
    ///
    /// # Errors
    /// When it does not parse or names what does not exist.
    pub fn compile(source: &str, variables: &[&str]) -> Result<Self, CompileError> {
        let arena = Arena::default();
        let loader = Loader::new(Library::of(source).definitions());
        let modules = loader
            .load(&arena, File { code: source, path: () })
            .map_err(|errors| load_error(source, errors))?;
        let filter = jaq_core::Compiler::default()
            .with_funs(library::natives())
            .with_global_vars(variables.iter().copied())
            .compile(modules)
            .map_err(|errors| undefined_error(source, errors))?;
        Ok(Self { filter })
    }

    /// The one value that the filter gives for this input. `variables` are the values of the variables that it was compiled
    /// with, in that order.
    ///
    /// # Errors
    /// When it fails, or gives none or several.
    pub fn run(&self, variables: &[Val], input: Val) -> Result<Val, RunError> {
        let context = Ctx::<data::JustLut<Val>>::new(&self.filter.lut, Vars::new(variables.iter().cloned()));
        let mut values = self.filter.id.run((context, input)).map(unwrap_valr);
        // A string that was raised is its own message, without quotes.
        let failed = |error: jaq_core::Error<Val>| match error.into_val() {
            Val::TStr(message) => RunError::Failed(String::from_utf8_lossy(&message).into_owned()),
            other => RunError::Failed(other.to_string()),
        };
        let first = values.next().ok_or(RunError::NoResult)?.map_err(failed)?;
        match values.next() {
            None => Ok(first),
            Some(Ok(_)) => Err(RunError::ManyResults),
            Some(Err(error)) => Err(failed(error)),
        }
    }
}

fn load_error(source: &str, errors: load::Errors<&str, ()>) -> CompileError {
    let unexpected = |expected: &str, found: &str| {
        let offset = if found.is_empty() { source.len() } else { load::span(source, found).start };
        let words = match found.chars().next() {
            None => "the end".to_owned(),
            Some(_) => format!("`{}`", found.split_whitespace().next().unwrap_or(found)),
        };
        CompileError { offset, message: format!("expected {expected} but found {words} at offset {offset}") }
    };
    let unreadable = |message: &str| CompileError { offset: 0, message: message.to_owned() };
    let first = match errors.into_iter().next().map(|(_, error)| error) {
        Some(load::Error::Lex(errors)) => {
            errors.first().map(|(expected, found)| unexpected(expected.as_str(), found))
        }
        Some(load::Error::Parse(errors)) => {
            errors.first().map(|(expected, found)| unexpected(expected.as_str(), found))
        }
        Some(load::Error::Io(_)) => Some(unreadable("modules cannot be included or imported")),
        None => None,
    };
    first.unwrap_or_else(|| unreadable("the filter cannot be read"))
}

fn undefined_error(source: &str, errors: compile::Errors<&str, ()>) -> CompileError {
    let undefined = errors.into_iter().flat_map(|(_, undefined)| undefined).next();
    match undefined {
        Some((name, what)) => {
            let offset = if source.as_bytes().as_ptr_range().contains(&name.as_ptr()) {
                load::span(source, name).start
            } else {
                0
            };
            CompileError { offset, message: format!("there is no {} `{name}`", what.as_str()) }
        }
        None => CompileError { offset: 0, message: "the filter cannot be compiled".to_owned() },
    }
}
