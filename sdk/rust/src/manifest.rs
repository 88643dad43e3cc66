//! What a component says about itself when it is installed.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

/// A capability that a step asks for. The operator decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantRequest {
    /// What kind: `http`.
    pub kind: String,
    /// Which: for `http` a method and a host, `GET api.example.com`; `*` stands for any.
    pub value: String,
    /// Why, for the operator who reads it.
    pub why: String,
}

/// What a component says about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// `[a-z][a-z0-9_]*`, or `owner/name`; documents write `uses: name@1`.
    pub name: String,
    /// A semantic version, `1.4.2`.
    pub version: String,
    /// One line for people.
    pub summary: String,
    /// The JSON Schema of the input, draft 2020-12.
    pub input_schema: Value,
    /// The JSON Schema of the output, draft 2020-12.
    pub output_schema: Value,
    /// What the step needs from outside.
    pub grants: Vec<GrantRequest>,
}

/// The schema of what a step reads: what serde accepts for `T`.
pub(crate) fn input_schema<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12().for_deserialize().into_generator().into_root_schema_for::<T>().into()
}

/// The schema of what a step writes: what serde produces for `T`.
pub(crate) fn output_schema<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>().into()
}
