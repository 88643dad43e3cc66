//! The component's side of the contract: [`bindings`] generated from `wit/step.wit` (and kept equal to it by a test), and the export of a [`Step`].
//!
//! Exists in components only. The bindings are `unsafe` by nature (they cross the component boundary with raw memory);
//! they are generated, and nothing here adds to them.

use core::marker::PhantomData;

use crate::manifest::{GrantRequest, Manifest};
use crate::step::{self, Step};
use crate::{Context, ErrorClass, StepError};

#[allow(missing_docs, unreachable_pub, unsafe_code, unsafe_op_in_unsafe_fn, rust_2018_idioms, clippy::all)]
pub mod bindings;

use bindings::exports::reipaz::step::handler;
use bindings::reipaz::step::types;

/// What exports the step `S`.
pub struct Guest<S>(PhantomData<S>);

impl<S: Step> handler::Guest for Guest<S> {
    fn describe() -> types::Manifest {
        step::describe::<S>().into()
    }

    fn run(context: types::Context, input: String) -> Result<String, types::StepError> {
        step::run::<S>(context.into(), &input).map_err(Into::into)
    }
}

impl From<types::Context> for Context {
    fn from(context: types::Context) -> Self {
        Self {
            run: context.run,
            workflow: context.workflow,
            step: context.step,
            attempt: context.attempt,
            idempotency_key: context.idempotency_key,
            now_ms: context.now_ms,
            deadline_ms: context.deadline_ms,
            metadata: context.metadata,
        }
    }
}

impl From<Manifest> for types::Manifest {
    fn from(manifest: Manifest) -> Self {
        Self {
            name: manifest.name,
            version: manifest.version,
            summary: manifest.summary,
            input_schema: manifest.input_schema.to_string(),
            output_schema: manifest.output_schema.to_string(),
            grants: manifest.grants.into_iter().map(Into::into).collect(),
            extra: "{}".to_owned(),
        }
    }
}

impl From<GrantRequest> for types::GrantRequest {
    fn from(grant: GrantRequest) -> Self {
        Self { kind: grant.kind, value: grant.value, why: grant.why }
    }
}

impl From<StepError> for types::StepError {
    fn from(error: StepError) -> Self {
        Self {
            class: match error.class {
                ErrorClass::Permanent => types::ErrorClass::Permanent,
                ErrorClass::Transient => types::ErrorClass::Transient,
                ErrorClass::Network => types::ErrorClass::Network,
                ErrorClass::Timeout => types::ErrorClass::Timeout,
                ErrorClass::RateLimited => types::ErrorClass::RateLimited,
            },
            code: error.code,
            message: error.message,
            retry_after_ms: error
                .retry_after
                .map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
            details: error.details.map(|details| details.to_string()),
        }
    }
}
