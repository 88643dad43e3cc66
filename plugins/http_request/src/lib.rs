//! `http_request@1`: one HTTP request, one answer.
//!
//! Statuses become failures by the product's retry rule (`reipaz_sdk::http::status`), so that a workflow needs no rule of its own:
//! a 503 is retried, a 404 is not. What a step changes outside must not happen twice because an attempt was repeated: POST and
//! PATCH carry the step's key as `Idempotency-Key`, the same in every attempt.
//!
//! [`input`] says what can be asked, [`output`] what is answered; this file joins them.

mod input;
mod output;

use reipaz_sdk::http::{Response, status};
use reipaz_sdk::prelude::*;

pub use input::{Input, Method, Parameter, Scalar};
pub use output::{Encoding, Output};

/// Sends one HTTP request and gives its answer, parsed when it is JSON.
#[reipaz_sdk::step(
    name = "http_request",
    version = "1.0.0",
    grants(http(
        "* *",
        why = "sends the requests that workflows describe; narrow it to the hosts that they need"
    ))
)]
pub fn http_request(input: Input, context: &Context) -> Result<Output, StepError> {
    let expected = input.expected_statuses.clone();
    let response = input.into_request(&context.idempotency_key)?.send()?;
    check_status(&response, expected.as_deref())?;
    Output::read(response)
}

/// A success is a 2xx, or exactly the statuses that the workflow expects.
fn check_status(response: &Response, expected: Option<&[u16]>) -> Result<(), StepError> {
    let status = response.status();
    match expected {
        None if response.is_success() => Ok(()),
        Some(expected) if expected.contains(&status) => Ok(()),
        Some(expected) if response.is_success() => {
            let expected: Vec<_> = expected.iter().map(u16::to_string).collect();
            let mut error = status::error(response);
            error.message = format!("the server answered {status}, expected was {}", expected.join(" or "));
            Err(error)
        }
        _ => Err(status::error(response)),
    }
}
