//! The built-in jq component: evaluates a step's condition and templates in one call, inside the sandbox, because a jq filter is a
//! program that somebody else wrote.
//!
//! [`evaluate`] is the whole of it; the language is `reipaz_jq_core`'s. The component's glue is in `guest.rs`.

#[cfg(target_family = "wasm")]
mod guest;

use reipaz_jq_core::{CompileError, Program, RunError, Val, read, truthy, write};

/// The variables that expressions know: each key of the scope, null where it lacks one.
pub const VARIABLES: [&str; 6] = ["$input", "$steps", "$trigger", "$secrets", "$item", "$index"];

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluated {
    /// The condition's truth, when there was one.
    pub condition: Option<bool>,
    /// One JSON value for each filter, in order; empty when the condition is false.
    pub values: Vec<String>,
}

/// Which expression failed, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalError {
    /// How.
    pub kind: ErrorKind,
    /// The place among the filters; none when the condition failed or the scope is at fault.
    pub filter: Option<usize>,
    /// One sentence.
    pub message: String,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The scope is no JSON object.
    Scope,
    /// The expression does not parse, or names what does not exist.
    Parse,
    /// It failed on this data.
    Runtime,
    /// It gave no value.
    NoResult,
    /// It gave several values.
    ManyResults,
    /// It gave a value that JSON cannot express.
    NotJson,
}

/// Evaluates `condition` first and, unless it is false, each of `filters`, against a scope that is read once.
///
/// # Errors
/// For the first expression that fails or that gives not exactly one value.
pub fn evaluate(scope: &str, condition: Option<&str>, filters: &[String]) -> Result<Evaluated, EvalError> {
    let scope_error = |message: String| EvalError { kind: ErrorKind::Scope, filter: None, message };
    let scope = read(scope).map_err(|error| scope_error(error.to_string()))?;
    let Val::Obj(entries) = &scope else {
        return Err(scope_error("the scope is no object".to_owned()));
    };
    let variables = VARIABLES.map(|name| {
        let key = Val::utf8_str(name.trim_start_matches('$').as_bytes());
        entries.get(&key).cloned().unwrap_or(Val::Null)
    });

    let mut evaluated = Evaluated { condition: None, values: Vec::new() };
    if let Some(condition) = condition {
        let value = one(condition, &variables, &scope).map_err(|error| error.of(None))?;
        evaluated.condition = Some(truthy(&value));
        if !truthy(&value) {
            return Ok(evaluated);
        }
    }
    evaluated.values.reserve_exact(filters.len());
    for (place, filter) in filters.iter().enumerate() {
        let value = one(filter, &variables, &scope).and_then(|value| write(&value).map_err(Failed::not_json));
        evaluated.values.push(value.map_err(|error| error.of(Some(place)))?);
    }
    Ok(evaluated)
}

fn one(filter: &str, variables: &[Val], scope: &Val) -> Result<Val, Failed> {
    Ok(Program::compile(filter, &VARIABLES)?.run(variables, scope.clone())?)
}

/// An expression's failure before it is known which one it was.
struct Failed {
    kind: ErrorKind,
    message: String,
}

impl Failed {
    fn not_json(error: impl ToString) -> Self {
        Self { kind: ErrorKind::NotJson, message: error.to_string() }
    }

    fn of(self, filter: Option<usize>) -> EvalError {
        EvalError { kind: self.kind, filter, message: self.message }
    }
}

impl From<CompileError> for Failed {
    fn from(error: CompileError) -> Self {
        Self { kind: ErrorKind::Parse, message: error.message }
    }
}

impl From<RunError> for Failed {
    fn from(error: RunError) -> Self {
        let kind = match error {
            RunError::Failed(_) => ErrorKind::Runtime,
            RunError::NoResult => ErrorKind::NoResult,
            RunError::ManyResults => ErrorKind::ManyResults,
        };
        Self { kind, message: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCOPE: &str = r#"{"input":{"n":3},"steps":{"a":{"output":[1,2]}},"trigger":null,"secrets":{}}"#;

    fn eval(condition: Option<&str>, filters: &[&str]) -> Result<Evaluated, EvalError> {
        let filters: Vec<String> = filters.iter().map(|filter| (*filter).to_owned()).collect();
        evaluate(SCOPE, condition, &filters)
    }

    #[test]
    fn each_key_of_the_scope_is_a_variable_and_the_scope_is_the_input() {
        let evaluated =
            eval(None, &["$input.n + 1", ".input.n", "$steps.a.output | add", "[$item, $index, $trigger]"]);
        let values = ["4", "3", "3", "[null,null,null]"].map(str::to_owned).to_vec();
        assert_eq!(evaluated, Ok(Evaluated { condition: None, values }));
    }

    #[test]
    fn a_true_condition_lets_the_filters_run_and_a_false_one_does_not() {
        let yes = eval(Some("$input.n > 2"), &["1"]).expect("true");
        assert_eq!((yes.condition, yes.values.len()), (Some(true), 1));
        for no in ["$input.n > 3", "null", "$input.absent"] {
            let no = eval(Some(no), &["error(\"not reached\")"]).expect("false");
            assert_eq!((no.condition, no.values.len()), (Some(false), 0));
        }
    }

    #[test]
    fn an_error_says_which_expression_and_how() {
        let kind = |condition, filters: &[&str]| {
            let error = eval(condition, filters).expect_err("an error");
            (error.kind, error.filter)
        };
        assert_eq!(kind(Some("$nothing"), &[]), (ErrorKind::Parse, None));
        assert_eq!(kind(Some("empty"), &[]), (ErrorKind::NoResult, None));
        assert_eq!(kind(None, &["1", ".a |"]), (ErrorKind::Parse, Some(1)));
        assert_eq!(kind(None, &["1", "$input.n.x"]), (ErrorKind::Runtime, Some(1)));
        assert_eq!(kind(None, &["1, 2"]), (ErrorKind::ManyResults, Some(0)));
        assert_eq!(kind(None, &["nan"]), (ErrorKind::NotJson, Some(0)));
        assert_eq!(evaluate("[]", None, &[]).expect_err("no object").kind, ErrorKind::Scope);
        assert_eq!(evaluate("{", None, &[]).expect_err("no JSON").kind, ErrorKind::Scope);
    }
}
