//! Writing to the terminal or into a pipe. A reader that has gone (`reipaz list | head`) ends the program quietly.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write},
};

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

/// Writes a line to standard output. What a guest or a remote service said may stand in it, so on a terminal it cannot move
/// the cursor, change colours or set a title.
pub(crate) fn line(text: &str) {
    let shown = if is_terminal() { harmless(text) } else { Cow::Borrowed(text) };
    raw(format!("{shown}\n").as_bytes());
}

/// The text with its control characters spelt out, but for line breaks and tabs.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    let is_harmful = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let spell = |c: char| if is_harmful(c) { c.escape_unicode().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(spell).collect())
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
    complain(&if io::stderr().is_terminal() { harmless(text) } else { Cow::Borrowed(text) });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_control_a_terminal_is_spelt_out() {
        let told = "a\tb\nc é \u{1b}[2J\u{7}\r\u{9b}1m";
        assert_eq!(harmless(told), "a\tb\nc é \\u{1b}[2J\\u{7}\\u{d}\\u{9b}1m");
        assert!(matches!(harmless("a\tb\nc é"), Cow::Borrowed(_)));
    }
}
