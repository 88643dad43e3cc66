//! Rows to text. The columns are those given, or all that occur, in the order of their first occurrence.

use csv::{Terminator, WriterBuilder};
use indexmap::{IndexMap, IndexSet};
use reipaz_sdk::{Classify as _, StepError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{MAX_COLUMNS, MAX_ROWS, delimiter};

/// What to write.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WriteInput {
    /// An object for each row, or a list of cells. Null is an empty cell; a list or an object in a cell is written as JSON.
    pub rows: Vec<RowIn>,
    /// The columns and their order; all that occur, in the order of their first occurrence, if not said.
    #[serde(default)]
    pub columns: Option<Vec<String>>,
    /// Whether the first line names the columns; true if not said. Rows that are lists need `columns` for that.
    #[serde(default = "yes")]
    pub header: bool,
    /// One character; `,` if not said.
    #[serde(default)]
    pub delimiter: Option<String>,
}

fn yes() -> bool {
    true
}

/// One row.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RowIn {
    /// Cells by column.
    Named(#[schemars(with = "serde_json::Map<String, Value>")] IndexMap<String, Value>),
    /// Cells in their order.
    Listed(Vec<Value>),
}

/// The text.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Written {
    /// CSV, each line ending with a line feed.
    pub text: String,
    /// How many rows, without the header.
    pub count: usize,
}

pub(crate) fn write(input: &WriteInput) -> Result<Written, StepError> {
    if input.rows.len() > MAX_ROWS {
        return Err(StepError::permanent("csv_too_large", format!("more than {MAX_ROWS} rows")));
    }
    let columns = columns(input)?;
    let mut writer = WriterBuilder::new()
        .delimiter(delimiter(input.delimiter.as_deref())?)
        .terminator(Terminator::Any(b'\n'))
        .flexible(true)
        .from_writer(Vec::new());
    if input.header && !columns.is_empty() {
        writer.write_record(&columns).or_permanent("csv_write")?;
    }
    for (i, row) in input.rows.iter().enumerate() {
        let cells: Vec<String> = match row {
            RowIn::Named(cells) => {
                if let Some(stray) = cells.keys().find(|name| !columns.contains(*name)) {
                    return Err(row_error(i, format!("has a column {stray:?} that `columns` does not name")));
                }
                columns.iter().map(|name| cells.get(name).map_or_else(String::new, cell)).collect()
            }
            RowIn::Listed(cells) if columns.is_empty() || cells.len() == columns.len() => {
                cells.iter().map(cell).collect()
            }
            RowIn::Listed(cells) => {
                return Err(row_error(i, format!("has {} cells for {} columns", cells.len(), columns.len())));
            }
        };
        writer.write_record(&cells).or_permanent("csv_write")?;
    }
    let bytes = writer.into_inner().map_err(|error| StepError::permanent("csv_write", error.error()))?;
    Ok(Written { text: String::from_utf8(bytes)?, count: input.rows.len() })
}

fn columns(input: &WriteInput) -> Result<IndexSet<String>, StepError> {
    let columns: IndexSet<String> = match &input.columns {
        Some(given) => given.iter().cloned().collect(),
        None => input
            .rows
            .iter()
            .filter_map(|row| match row {
                RowIn::Named(cells) => Some(cells.keys().cloned()),
                RowIn::Listed(_) => None,
            })
            .flatten()
            .collect(),
    };
    if columns.len() > MAX_COLUMNS {
        return Err(StepError::permanent("csv_too_large", format!("more than {MAX_COLUMNS} columns")));
    }
    Ok(columns)
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Rows are counted from 1, as people do.
fn row_error(index: usize, what: String) -> StepError {
    let row = index + 1;
    StepError::permanent("csv_row", format!("row {row} {what}")).with_details(json!({ "row": row }))
}
