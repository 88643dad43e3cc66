//! Whether a run's input satisfies its workflow's schema. The compiled schema is kept with the plan, so that a
//! submission costs a walk over the input and nothing else.

use std::sync::OnceLock;

use super::Plan;
use crate::document::schema::{Schema, shorten};

/// At most this many mistakes of one input are told; more would not help anybody.
const MAX_MISTAKES: usize = 32;

/// One way in which an input does not satisfy the schema.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct InputMistake {
    /// RFC 6901 pointer into the input.
    pub pointer: String,
    /// One sentence.
    pub message: String,
}

/// A plan's input schema, compiled at first use.
#[derive(Debug, Default)]
pub struct InputCheck(OnceLock<Result<Schema, String>>);

impl Plan {
    /// Checks a run's input against [`Plan::input_schema`]; without one, anything goes.
    pub fn check_input(&self, input: &serde_json::Value) -> Result<(), Vec<InputMistake>> {
        let Some(schema) = &self.input_schema else { return Ok(()) };
        let whole = |message: String| vec![InputMistake { pointer: String::new(), message }];
        let compiled = self.input_check.0.get_or_init(|| {
            let schema = serde_json::from_str(schema).map_err(|error| error.to_string())?;
            Schema::compile(&schema).map_err(|(_, message)| message)
        });
        let schema = compiled
            .as_ref()
            .map_err(|message| whole(format!("the workflow's input schema cannot be used: {message}")))?;
        if schema.is_valid(input) {
            return Ok(());
        }
        let told = schema.mistakes(input).into_iter().flatten().take(MAX_MISTAKES);
        let mistakes: Vec<_> = told
            .map(|error| InputMistake {
                pointer: error.instance_path().to_string(),
                message: shorten(&error.to_string()),
            })
            .collect();
        if mistakes.is_empty() {
            return Err(whole("the input does not satisfy the workflow's input schema".to_owned()));
        }
        Err(mistakes)
    }
}
