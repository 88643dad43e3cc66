//! `transform@1`: runs a jq filter over data and gives its single result.
//!
//! It only joins two things: [`reipaz_jq_core`], which owns the language, and the step contract. The data stays raw JSON text
//! until jq reads it, so that numbers keep their digits.

use reipaz_jq_core::{self as jq, Program, RunError};
use reipaz_sdk::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What to transform, and how.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Any JSON: the filter's input (`.`).
    #[schemars(with = "serde_json::Value")]
    pub data: Box<RawValue>,
    /// A jq filter that gives exactly one value, such as `map(.price) | add`.
    pub filter: String,
}

/// The filter's result.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Output(#[schemars(with = "serde_json::Value")] Box<RawValue>);

/// Runs a jq filter over data and gives its single result.
#[reipaz_sdk::step(name = "transform", version = "1.0.0")]
pub fn transform(input: Input) -> Result<Output, StepError> {
    let program = Program::compile(&input.filter, &[])
        .map_err(|error| StepError::permanent("jq_parse", error).with_details(&input.filter))?;
    let data = jq::read(input.data.get()).or_permanent("bad_data")?;
    let result = program.run(&[], data).map_err(|error| {
        let code = match error {
            RunError::Failed(_) => "jq_failed",
            RunError::NoResult => "jq_no_result",
            RunError::ManyResults => "jq_many_results",
        };
        StepError::permanent(code, error)
    })?;
    let text = jq::write(&result).or_permanent("jq_not_json")?;
    Ok(Output(RawValue::from_string(text)?))
}
