//! Between the attributed function and the host: JSON in, JSON out.
//!
//! The attribute implements [`Step`] for a type that it makes; both the component's glue and native tests go through
//! [`describe`] and [`run`], so that a test sees what the host would see.

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::manifest::{self, GrantRequest, Manifest};
use crate::{Context, StepError};

/// What a step can take: anything serde can read and schemars can describe.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a step's input",
    label = "the input needs `Deserialize` and `JsonSchema`",
    note = "derive them: #[derive(serde::Deserialize, schemars::JsonSchema)]; a step's input must own its data"
)]
pub trait StepInput: DeserializeOwned + JsonSchema {}
impl<T: DeserializeOwned + JsonSchema> StepInput for T {}

/// What a step can give: anything serde can write and schemars can describe.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a step's output",
    label = "the output needs `Serialize` and `JsonSchema`",
    note = "derive them: #[derive(serde::Serialize, schemars::JsonSchema)]"
)]
pub trait StepOutput: Serialize + JsonSchema {}
impl<T: Serialize + JsonSchema> StepOutput for T {}

/// What a step's function returns: a `Result` whose error becomes a [`StepError`].
#[diagnostic::on_unimplemented(
    message = "a step returns `Result<Output, StepError>`, not `{Self}`",
    label = "expected `Result<_, StepError>`",
    note = "a step that cannot fail ends with `Ok(value)`"
)]
pub trait StepReturn {
    /// What it gives when it succeeds.
    type Output: StepOutput;
    /// The result with the product's own error.
    fn into_result(self) -> Result<Self::Output, StepError>;
}

impl<T: StepOutput, E: Into<StepError>> StepReturn for Result<T, E> {
    type Output = T;
    fn into_result(self) -> Result<T, StepError> {
        self.map_err(Into::into)
    }
}

/// A step, as the attribute implements it.
pub trait Step {
    /// `[a-z][a-z0-9_]*`, or `owner/name`.
    const NAME: &'static str;
    /// A semantic version.
    const VERSION: &'static str;
    /// One line for people.
    const SUMMARY: &'static str;
    /// Kind, value and reason of each grant asked for.
    const GRANTS: &'static [(&'static str, &'static str, &'static str)];
    /// The function's first parameter.
    type Input: StepInput;
    /// The function's return type.
    type Return: StepReturn;
    /// Calls the function.
    fn call(input: Self::Input, context: Context) -> Self::Return;
}

/// What the host hears at install.
pub fn describe<S: Step>() -> Manifest {
    let grant = |(kind, value, why): &(&str, &str, &str)| GrantRequest {
        kind: (*kind).to_owned(),
        value: (*value).to_owned(),
        why: (*why).to_owned(),
    };
    Manifest {
        name: S::NAME.to_owned(),
        version: S::VERSION.to_owned(),
        summary: S::SUMMARY.to_owned(),
        input_schema: manifest::input_schema::<S::Input>(),
        output_schema: manifest::output_schema::<<S::Return as StepReturn>::Output>(),
        grants: S::GRANTS.iter().map(grant).collect(),
    }
}

/// One attempt: JSON in, JSON out.
///
/// # Errors
/// What the step returns; `bad_input` when the input is not what its type says; `bad_output` when the output cannot be JSON.
pub fn run<S: Step>(context: Context, input: &str) -> Result<String, StepError> {
    let input = serde_json::from_str(input)
        .map_err(|error| StepError::permanent("bad_input", format!("input: {error}")))?;
    let output = S::call(input, context).into_result()?;
    serde_json::to_string(&output)
        .map_err(|error| StepError::permanent("bad_output", format!("output: {error}")))
}

/// Exports a step from its component.
#[cfg(target_family = "wasm")]
#[doc(hidden)]
#[macro_export]
macro_rules! __export_step {
    ($step:ty) => {
        type Guest = $crate::__private::Guest<$step>;
        $crate::__private::bindings::__export_bindings!(Guest with_types_in $crate::__private::bindings);
    };
}

/// Outside of a component there is nothing to export.
#[cfg(not(target_family = "wasm"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __export_step {
    ($step:ty) => {};
}
