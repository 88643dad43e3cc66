//! The component's side of `wit/jq.wit`: generated bindings, and the export. They are `unsafe` by nature, since they cross the
//! component boundary with raw memory.

#![allow(missing_docs, unreachable_pub, unsafe_code, unsafe_op_in_unsafe_fn, rust_2018_idioms, clippy::all)]

wit_bindgen::generate!({
    path: "../../wit/jq.wit",
    world: "jq",
});

use exports::reipaz::jq::evaluate as contract;

use crate::{ErrorKind, EvalError, Evaluated};

struct Component;

export!(Component);

impl contract::Guest for Component {
    fn eval(
        scope: String,
        condition: Option<String>,
        filters: Vec<String>,
    ) -> Result<contract::Evaluated, contract::EvalError> {
        crate::evaluate(&scope, condition.as_deref(), &filters).map(Into::into).map_err(Into::into)
    }
}

impl From<Evaluated> for contract::Evaluated {
    fn from(evaluated: Evaluated) -> Self {
        Self { condition: evaluated.condition, values: evaluated.values }
    }
}

impl From<EvalError> for contract::EvalError {
    fn from(error: EvalError) -> Self {
        Self {
            kind: match error.kind {
                ErrorKind::Scope => contract::ErrorKind::Scope,
                ErrorKind::Parse => contract::ErrorKind::Parse,
                ErrorKind::Runtime => contract::ErrorKind::Runtime,
                ErrorKind::NoResult => contract::ErrorKind::NoResult,
                ErrorKind::ManyResults => contract::ErrorKind::ManyResults,
                ErrorKind::NotJson => contract::ErrorKind::NotJson,
            },
            filter_index: error.filter.and_then(|place| u32::try_from(place).ok()),
            message: error.message,
        }
    }
}
