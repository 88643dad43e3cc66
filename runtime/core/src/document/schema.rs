//! JSON Schemas that others wrote: a workflow's `input`, a plugin's `with`. They are untrusted, so nothing is ever
//! resolved over a network or from a file, and patterns run on an engine without backtracking (linear time).

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

/// The longest message that is passed on, in characters: they quote the value.
const MAX_MESSAGE_CHARS: usize = 200;

/// Compiles a schema.
pub(crate) fn compile(schema: &Value) -> Result<Validator, String> {
    jsonschema::options()
        .with_pattern_options(PatternOptions::regex())
        .build(schema)
        .map_err(|error| shorten(&error.to_string()))
}

/// Whether a value is a JSON Schema that can be used; else a pointer into it and why not.
pub(super) fn check(schema: &Value) -> Result<(), (String, String)> {
    jsonschema::options()
        .with_pattern_options(PatternOptions::regex())
        .build(schema)
        .map(drop)
        .map_err(|error| (error.instance_path().to_string(), shorten(&error.to_string())))
}

/// A message of bounded length.
pub(crate) fn shorten(message: &str) -> String {
    match message.char_indices().nth(MAX_MESSAGE_CHARS) {
        Some((at, _)) => format!("{}...", &message[..at]),
        None => message.to_owned(),
    }
}
