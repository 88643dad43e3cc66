//! `csv@1`: text to rows and rows to text, by RFC 4180.
//!
//! Cells are text unless a workflow asks for more: `00123` may be a postcode, and only the author knows. [`parse`] and [`write`]
//! are the two actions; [`cell`] is the one place that knows what a cell's text means as JSON.

mod cell;
mod parse;
mod write;

use reipaz_sdk::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use cell::Type;
pub use parse::{ParseInput, Parsed, Row};
pub use write::{RowIn, WriteInput, Written};

/// How many rows one table may have. Bigger tables are no JSON values any more.
pub const MAX_ROWS: usize = 100_000;
/// How many columns one table may have.
pub const MAX_COLUMNS: usize = 1_000;

/// What to do.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Input {
    /// Text to rows.
    Parse(ParseInput),
    /// Rows to text.
    Write(WriteInput),
}

/// What came of it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Output {
    /// Of `parse`.
    Parsed(Parsed),
    /// Of `write`.
    Written(Written),
}

/// Parses CSV text to rows, or writes rows as CSV text.
#[reipaz_sdk::step(name = "csv", version = "1.0.0")]
pub fn csv(input: Input) -> Result<Output, StepError> {
    match input {
        Input::Parse(input) => parse::parse(&input).map(Output::Parsed),
        Input::Write(input) => write::write(&input).map(Output::Written),
    }
}

/// The delimiter as the one byte that it must be.
fn delimiter(text: Option<&str>) -> Result<u8, StepError> {
    match text.unwrap_or(",").as_bytes() {
        [byte] if !b"\"\r\n".contains(byte) => Ok(*byte),
        _ => Err(StepError::permanent(
            "bad_input",
            "delimiter: one ASCII character, such as `,`, `;` or a tab, that is neither a quote nor a line break",
        )),
    }
}
