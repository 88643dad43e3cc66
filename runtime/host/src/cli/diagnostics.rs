//! Mistakes of a document, shown in the document, as compilers do.

use std::{io::IsTerminal, ops::Range};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::client::Mistake;

/// How grave they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gravity {
    /// The document is refused.
    Error,
    /// It is taken.
    Warning,
}

/// Each mistake with the lines that it is about; in colour if standard error is a terminal.
pub(crate) fn render(name: &str, text: &str, mistakes: &[Mistake], gravity: Gravity) -> String {
    let renderer = if std::io::stderr().is_terminal() { Renderer::styled() } else { Renderer::plain() };
    mistakes
        .iter()
        .map(|mistake| one(&renderer, name, text, mistake, gravity))
        .collect::<Vec<_>>()
        .join("\n\n")
}

fn one(renderer: &Renderer, name: &str, text: &str, mistake: &Mistake, gravity: Gravity) -> String {
    let level = match gravity {
        Gravity::Error => Level::ERROR,
        Gravity::Warning => Level::WARNING,
    };
    let label = match (&mistake.step, mistake.pointer.as_str()) {
        (_, "") => String::new(),
        (Some(step), pointer) => format!("step {step}, {pointer}"),
        (None, pointer) => pointer.to_owned(),
    };
    let span = span(text, mistake);
    let snippet = Snippet::source(text)
        .path(name)
        .annotation(AnnotationKind::Primary.span(span).label((!label.is_empty()).then_some(label.as_str())));
    let mut group =
        Group::with_title(level.primary_title(&mistake.message).id(&mistake.code)).element(snippet);
    if let Some(hint) = &mistake.hint {
        group = group.element(Level::HELP.message(hint));
    }
    renderer.render(&[group])
}

/// Lines and columns (in characters, from 1) as a range of bytes; what lies outside the text is moved to its end.
fn span(text: &str, mistake: &Mistake) -> Range<usize> {
    let start = offset(text, mistake.line, mistake.column);
    let end = offset(text, mistake.end_line, mistake.end_column).max(start);
    // A mistake that spans lines (a whole step, say) is shown where it starts.
    let line_end = text[start..].find('\n').map_or(text.len(), |length| start + length);
    start..end.min(line_end)
}

fn offset(text: &str, line: u32, column: u32) -> usize {
    let mut start = 0;
    for _ in 1..line {
        match text[start..].find('\n') {
            Some(length) => start += length + 1,
            None => return text.len(),
        }
    }
    let rest = &text[start..];
    let line = rest.split('\n').next().unwrap_or(rest);
    let columns = usize::try_from(column.saturating_sub(1)).unwrap_or(usize::MAX);
    start + line.char_indices().nth(columns).map_or(line.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "reipaz: 1\nname: wróng\nsteps:\n  a: {uses: nobody@1}\n";

    fn mistake() -> Mistake {
        Mistake {
            line: 4,
            column: 13,
            end_line: 4,
            end_column: 21,
            pointer: "/steps/a/uses".to_owned(),
            step: Some("a".to_owned()),
            code: "unknown_plugin".to_owned(),
            message: "no plugin is called `nobody`".to_owned(),
            hint: Some("install it, or take one of: csv, http_request, transform".to_owned()),
        }
    }

    #[test]
    fn a_mistake_is_shown_where_it_stands() {
        let shown = one(&Renderer::plain(), "flows/wrong.yaml", TEXT, &mistake(), Gravity::Error);
        let expected = "\
error[unknown_plugin]: no plugin is called `nobody`
 --> flows/wrong.yaml:4:13
  |
4 |   a: {uses: nobody@1}
  |             ^^^^^^^^ step a, /steps/a/uses
  |
  = help: install it, or take one of: csv, http_request, transform";
        assert_eq!(shown, expected);
    }

    #[test]
    fn columns_count_characters() {
        let place = Mistake { line: 2, column: 7, end_line: 2, end_column: 12, ..Mistake::default() };
        assert_eq!(&TEXT[span(TEXT, &place)], "wróng");
    }

    #[test]
    fn a_place_outside_the_text_is_its_end() {
        for (line, column) in [(0, 0), (4, 99), (99, 1), (5, 1)] {
            let place = Mistake { line, column, end_line: line, end_column: column, ..Mistake::default() };
            let span = span(TEXT, &place);
            assert!(span.end <= TEXT.len() && span.start <= span.end, "{line}:{column}");
            one(&Renderer::plain(), "x.yaml", TEXT, &place, Gravity::Warning);
            one(&Renderer::plain(), "x.yaml", "", &place, Gravity::Warning);
        }
    }
}
