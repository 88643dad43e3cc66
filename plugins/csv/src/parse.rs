//! Text to rows. A row that does not fit the table is an error that names its line, never a shifted or a shortened row.

use std::collections::{BTreeMap, HashSet};

use csv::{ReaderBuilder, StringRecord, Trim};
use reipaz_sdk::StepError;
use schemars::JsonSchema;
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use crate::cell::{NotOfType, Type};
use crate::{MAX_COLUMNS, MAX_ROWS, delimiter};

/// What to parse.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParseInput {
    /// The CSV text.
    pub text: String,
    /// One character; `,` if not said.
    #[serde(default)]
    pub delimiter: Option<String>,
    /// Whether the first row names the columns; true if not said.
    #[serde(default = "yes")]
    pub header: bool,
    /// Names for the columns, instead of the header's.
    #[serde(default)]
    pub columns: Option<Vec<String>>,
    /// Whether white space around cells goes; false if not said.
    #[serde(default)]
    pub trim: bool,
    /// Whether cells that read as a number, `true`, `false` or, when empty, null become such; false if not said.
    #[serde(default)]
    pub infer: bool,
    /// Types of columns by name; they win over `infer`.
    #[serde(default)]
    pub types: BTreeMap<String, Type>,
}

fn yes() -> bool {
    true
}

/// The table.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Parsed {
    /// The columns' names, in their order; empty when there are none.
    pub columns: Vec<String>,
    /// An object for each row, or a list when the columns have no names.
    #[schemars(with = "Vec<Value>")]
    pub rows: Vec<Row>,
    /// How many rows.
    pub count: usize,
}

/// One row: cells, and names for them if the columns have any.
#[derive(Debug)]
pub struct Row {
    columns: std::rc::Rc<[String]>,
    cells: Vec<Value>,
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.columns.is_empty() {
            return self.cells.serialize(serializer);
        }
        let mut map = serializer.serialize_map(Some(self.cells.len()))?;
        for (name, cell) in self.columns.iter().zip(&self.cells) {
            map.serialize_entry(name, cell)?;
        }
        map.end()
    }
}

pub(crate) fn parse(input: &ParseInput) -> Result<Parsed, StepError> {
    let text = input.text.strip_prefix('\u{feff}').unwrap_or(&input.text);
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter(input.delimiter.as_deref())?)
        .trim(if input.trim { Trim::All } else { Trim::None })
        .from_reader(text.as_bytes());

    let mut record = StringRecord::new();
    let names = column_names(input, &mut reader, &mut record)?;
    let types = column_types(input, &names)?;
    let default_type = if input.infer { Type::Infer } else { Type::Text };
    let columns: std::rc::Rc<[String]> = names.clone().into();

    let mut rows = Vec::new();
    // Without names the first row says how long rows are.
    let mut width = (!names.is_empty()).then_some(names.len());
    while read(&mut reader, &mut record)? {
        let line = record.position().map_or(0, csv::Position::line);
        let width = *width.get_or_insert(record.len());
        if record.len() != width {
            let message = format!("line {line}: {} cells where {width} were expected", record.len());
            return Err(row_error(line, None, message));
        }
        if width > MAX_COLUMNS {
            return Err(too_large(format!("more than {MAX_COLUMNS} columns")));
        }
        if rows.len() == MAX_ROWS {
            return Err(too_large(format!("more than {MAX_ROWS} rows; split the text before it is parsed")));
        }
        let mut cells = Vec::with_capacity(width);
        for (i, text) in record.iter().enumerate() {
            let cell = types.get(i).copied().flatten().unwrap_or(default_type).read(text);
            cells.push(cell.map_err(|NotOfType(expected)| {
                let column = names.get(i).map_or_else(|| (i + 1).to_string(), Clone::clone);
                let message = format!("line {line}, column {column}: {text:?} is no {expected}");
                row_error(line, Some(&column), message)
            })?);
        }
        rows.push(Row { columns: columns.clone(), cells });
    }
    Ok(Parsed { columns: names, count: rows.len(), rows })
}

/// Reads the next record; false at the end.
fn read(reader: &mut csv::Reader<&[u8]>, record: &mut StringRecord) -> Result<bool, StepError> {
    reader.read_record(record).map_err(|error| {
        let line = error.position().map_or(0, csv::Position::line);
        row_error(line, None, format!("line {line}: {error}"))
    })
}

/// The names that were given, or the header's; none when there is neither.
fn column_names(
    input: &ParseInput,
    reader: &mut csv::Reader<&[u8]>,
    record: &mut StringRecord,
) -> Result<Vec<String>, StepError> {
    let from_header = if input.header && read(reader, record)? {
        record.iter().map(str::to_owned).collect()
    } else {
        Vec::new()
    };
    let names = match &input.columns {
        Some(given) if input.header && given.len() != from_header.len() => {
            return Err(StepError::permanent(
                "csv_header",
                format!("columns: {} names for a table of {} columns", given.len(), from_header.len()),
            ));
        }
        Some(given) => given.clone(),
        None => from_header,
    };
    if let Some(twice) = repeated(&names) {
        return Err(StepError::permanent(
            "csv_header",
            format!("two columns are named {twice:?}; give names of your own with `columns`"),
        ));
    }
    Ok(names)
}

fn repeated(names: &[String]) -> Option<&String> {
    let mut seen = HashSet::new();
    names.iter().find(|name| !seen.insert(name.as_str()))
}

/// The type of each column that has one of its own.
fn column_types(input: &ParseInput, names: &[String]) -> Result<Vec<Option<Type>>, StepError> {
    if let Some(unknown) = input.types.keys().find(|name| !names.contains(name)) {
        return Err(StepError::permanent(
            "csv_unknown_column",
            format!("types: there is no column {unknown:?}; there are {}", names.join(", ")),
        ));
    }
    Ok(names.iter().map(|name| input.types.get(name).copied()).collect())
}

fn row_error(line: u64, column: Option<&str>, message: String) -> StepError {
    StepError::permanent("csv_row", message).with_details(json!({ "line": line, "column": column }))
}

fn too_large(message: String) -> StepError {
    StepError::permanent("csv_too_large", message)
}
