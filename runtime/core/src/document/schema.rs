//! JSON Schemas that others wrote: a workflow's `input`, a plugin's `with`. They are untrusted, so nothing is ever
//! resolved over a network or from a file, patterns run on an engine without backtracking (linear time), and what a
//! schema can cost is bounded before it is used ([`cost`]): references that fan out would take exponential time.

mod cost;

use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value;

/// The longest message that is passed on, in characters: they quote the value.
const MAX_MESSAGE_CHARS: usize = 200;
/// No schema has more parts once each reference is replaced by what it refers to.
const MAX_PARTS: u64 = 10_000;
/// Mistakes are told one by one where finding all of them takes at most about this many looks at a part of a value.
const MAX_WORK: u64 = 1_000_000;

/// A schema, ready for use.
#[derive(Debug)]
pub(crate) struct Schema {
    value: Value,
    validator: Validator,
}

impl Schema {
    /// Compiles a schema; else a pointer into it and why it cannot be used.
    pub(crate) fn compile(value: &Value) -> Result<Self, (String, String)> {
        let parts = cost::parts(value)?;
        if parts > MAX_PARTS {
            let message = format!(
                "with each reference replaced by what it refers to, it has more than {MAX_PARTS} parts"
            );
            return Err((String::new(), message));
        }
        let validator = jsonschema::options().with_pattern_options(PatternOptions::regex()).build(value);
        match validator {
            Ok(validator) => Ok(Self { value: value.clone(), validator }),
            Err(error) => Err((error.instance_path().to_string(), shorten(&error.to_string()))),
        }
    }

    /// Whether a value satisfies the schema.
    pub(crate) fn is_valid(&self, value: &Value) -> bool {
        // Its results are cached where a schema refers to itself, so depth does not multiply.
        self.validator.is_valid(value)
    }

    /// How a value does not satisfy the schema; `None` where it would take too long to say.
    pub(crate) fn mistakes<'v>(
        &'v self,
        value: &'v Value,
    ) -> Option<impl Iterator<Item = ValidationError<'v>>> {
        let work = cost::parts_at_depth(&self.value, cost::depth(value)).saturating_mul(cost::size(value));
        (work <= MAX_WORK).then(|| self.validator.iter_errors(value))
    }

    /// The names of the properties that stand beside the keyword at `path`.
    pub(super) fn siblings(&self, path: &str) -> Vec<&str> {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let properties = self.value.pointer(parent).and_then(|schema| schema.get("properties"));
        let names =
            properties.and_then(Value::as_object).map(|known| known.keys().map(String::as_str).collect());
        names.unwrap_or_default()
    }
}

/// A message of bounded length.
pub(crate) fn shorten(message: &str) -> String {
    match message.char_indices().nth(MAX_MESSAGE_CHARS) {
        Some((at, _)) => format!("{}...", &message[..at]),
        None => message.to_owned(),
    }
}
