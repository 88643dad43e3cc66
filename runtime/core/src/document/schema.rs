//! JSON Schemas that others wrote: a workflow's `input`, a plugin's `with`. They are untrusted, so nothing is ever
//! resolved over a network or from a file, and patterns run on an engine without backtracking (linear time).

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

/// Compiles a schema of at most [`super::limits::MAX_SCHEMA_NESTING`] levels.
pub(crate) fn compile(schema: &Value) -> Result<Validator, String> {
    jsonschema::options()
        .with_pattern_options(PatternOptions::regex())
        .build(schema)
        .map_err(|error| error.to_string())
}
