//! Which definitions and native functions a filter is compiled against.

use std::sync::LazyLock;

use jaq_core::native::Fun;
use jaq_core::{data, load};
use jaq_json::Val;

use crate::natives;

/// All definitions. Absent are jaq's that reach outside of the filter (`debug`, `stderr`, `halt`, `halt_error`; its native
/// functions `now`, `env`, `input`, `localtime`, `strflocaltime`), some of mathematics that nobody asks of a workflow (`gamma`,
/// Bessel functions, `significand` and the like) and `@htmld`.
const PRELUDE: &str = include_str!("prelude.jq");

/// One definition: its name without parameters, and its text.
struct Definition {
    name: &'static str,
    source: &'static str,
}

/// The prelude's definitions, in its order: a line that begins with `def` begins one, and lines that are neither indented nor
/// empty end it.
static DEFINITIONS: LazyLock<Vec<Definition>> = LazyLock::new(|| {
    let mut definitions: Vec<Definition> = Vec::with_capacity(192);
    let mut start = None;
    let mut offset = 0;
    let mut finish = |start: &mut Option<usize>, end: usize| {
        if let Some(start) = start.take() {
            let source = &PRELUDE[start..end];
            let name = identifiers(&source["def ".len()..]).next().unwrap_or_default();
            definitions.push(Definition { name, source });
        }
    };
    for line in PRELUDE.split_inclusive('\n') {
        if !line.starts_with([' ', '\n']) {
            finish(&mut start, offset);
        }
        if line.starts_with("def ") {
            start = Some(offset);
        }
        offset += line.len();
    }
    finish(&mut start, offset);
    definitions
});

/// The definitions that a filter can reach by the names in its text, in an order that compiles.
///
/// Names are matched whatever their number of parameters and wherever they stand, a string for instance: a definition too
/// many costs microseconds, one too few would be a wrong answer.
pub(crate) fn definitions_for(filter: &str) -> Vec<load::parse::Def<&'static str>> {
    let mut needed = vec![false; DEFINITIONS.len()];
    let mut sources = vec![filter];
    while let Some(source) = sources.pop() {
        for name in identifiers(source) {
            for (i, definition) in DEFINITIONS.iter().enumerate() {
                if definition.name == name && !needed[i] {
                    needed[i] = true;
                    sources.push(definition.source);
                }
            }
        }
    }
    let needed =
        DEFINITIONS.iter().zip(needed).filter_map(|(definition, needed)| needed.then_some(definition));
    needed
        .flat_map(|definition| {
            load::parse(definition.source, |parser| parser.defs())
                .expect("the prelude parses: a test says so")
        })
        .collect()
}

/// The native functions.
pub(crate) fn natives() -> impl Iterator<Item = Fun<data::JustLut<Val>>> {
    jaq_core::funs().chain(jaq_std::base_funs()).chain(jaq_json::funs()).chain(natives::natives())
}

/// Everything in a text that could name a definition: `map`, `@csv`; without variables (`$x`) and fields (`.x`).
fn identifiers(source: &str) -> impl Iterator<Item = &str> {
    let bytes = source.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() {
            let start = at;
            if !(bytes[start] == b'@' || is_letter(bytes[start])) {
                at += 1;
                continue;
            }
            at += 1;
            while at < bytes.len() && (is_letter(bytes[at]) || bytes[at].is_ascii_digit()) {
                at += 1;
            }
            let before = start.checked_sub(1).map(|before| bytes[before]);
            let field_of_something = before == Some(b'.') && (start < 2 || bytes[start - 2] != b'.');
            if before != Some(b'$') && !field_of_something {
                return Some(&source[start..at]);
            }
        }
        None
    })
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::Program;

    /// A call of each definition with as many parameters as it has.
    fn calls() -> Vec<String> {
        DEFINITIONS
            .iter()
            .flat_map(|definition| {
                load::parse(definition.source, |parser| parser.defs()).expect(definition.name)
            })
            .map(|definition| match definition.args.len() {
                0 => definition.name.to_owned(),
                n => format!("{}({})", definition.name, vec!["."; n].join("; ")),
            })
            .collect()
    }

    #[test]
    fn each_definition_compiles_with_just_what_it_names() {
        for call in calls() {
            if let Err(error) = Program::compile(&call, &[]) {
                panic!("{call}: {error}");
            }
        }
    }

    #[test]
    fn the_prelude_is_jaqs_but_for_what_is_left_out_on_purpose() {
        let name = |definition: load::parse::Def<&'static str>| (definition.name, definition.args.len());
        let jaqs: BTreeSet<_> =
            jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs()).map(name).collect();
        let ours: BTreeSet<_> = DEFINITIONS
            .iter()
            .flat_map(|definition| {
                load::parse(definition.source, |parser| parser.defs()).expect(definition.name)
            })
            .map(name)
            .collect();
        let missing: Vec<_> = jaqs.difference(&ours).map(|(name, _)| *name).collect();
        assert_eq!(
            missing,
            [
                "@htmld",
                "debug",
                "debug",
                "drem",
                "gamma",
                "halt",
                "halt_error",
                "halt_error",
                "logb",
                "nexttoward",
                "scalb",
                "significand",
                "stderr"
            ]
        );
    }

    #[test]
    fn a_filter_brings_only_what_it_names() {
        let names =
            |filter| definitions_for(filter).iter().map(|definition| definition.name).collect::<Vec<_>>();
        assert_eq!(names(".a.map | $add"), [""; 0]);
        assert_eq!(names("map(.x)"), ["map"]);
        assert!(names("add").contains(&"add"));
        assert!(definitions_for("gsub(\"a\"; \"b\")").len() < DEFINITIONS.len() / 2);
    }
}
