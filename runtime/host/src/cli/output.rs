//! Writing to the terminal or into a pipe. A reader that has gone (`reipaz list | head`) ends the program quietly.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

/// What a shell reports for a program that a closed pipe ended: 128 + SIGPIPE.
const CLOSED_PIPE: i32 = 141;

/// Whether a person looks at standard output.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Writes to standard output as it is.
pub(crate) fn raw(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    if written.is_err() {
        // Nobody reads any more, or the disk behind a redirection is full: there is nobody to tell but the shell.
        std::process::exit(CLOSED_PIPE);
    }
}

/// Writes a line to standard output.
pub(crate) fn line(text: &str) {
    raw(format!("{text}\n").as_bytes());
}

/// Writes a value as indented JSON.
pub(crate) fn json(value: &impl Serialize) {
    // These values came out of JSON, so they go back in.
    line(&serde_json::to_string_pretty(value).unwrap_or_default());
}

/// Writes a value as JSON in one line.
pub(crate) fn json_line(value: &impl Serialize) {
    line(&serde_json::to_string(value).unwrap_or_default());
}

/// Says something beside the output, on standard error.
pub(crate) fn note(text: &str) {
    complain(text);
}

/// Writes a line to standard error; if that is closed there is nothing left to do.
pub(crate) fn complain(text: &str) {
    let _nobody_listens = writeln!(io::stderr().lock(), "{text}");
}

/// Rows in columns, the first row as heading.
pub(crate) fn columns(rows: &[Vec<String>]) {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        line(cells.join("  ").trim_end());
    }
}
