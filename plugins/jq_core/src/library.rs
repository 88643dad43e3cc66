//! Which definitions and native functions a filter is compiled against.

use std::sync::LazyLock;

use jaq_core::native::Fun;
use jaq_core::{DataT, load};
use jaq_json::Val;

/// jaq's own definitions (MIT, Michael Färber) without those that reach outside of the filter, and jq's that jaq lacks.
const PRELUDE: &str = include_str!("prelude.jq");

/// Native functions of jaq that do not exist here: they look at the clock, the environment, the host's zone, or write logs.
pub(crate) const ABSENT: [&str; 7] =
    ["now", "env", "localtime", "strflocaltime", "debug_empty", "stderr_empty", "halt"];

/// One definition: its name without parameters, and its text.
struct Definition {
    name: &'static str,
    source: &'static str,
}

/// The prelude's definitions in its order: later ones may use earlier ones, and a text of several lines is indented.
static DEFINITIONS: LazyLock<Vec<Definition>> = LazyLock::new(|| {
    let mut definitions: Vec<Definition> = Vec::with_capacity(192);
    let mut rest = PRELUDE;
    while let Some(start) = rest.find("\ndef ") {
        let from = &rest[start + 1..];
        let end = ["\ndef ", "\n#"].iter().filter_map(|next| from.find(next)).min().unwrap_or(from.len());
        let source = &from[..end];
        let name = identifiers(&source["def ".len()..]).next().unwrap_or_default();
        definitions.push(Definition { name, source });
        rest = &from[end..];
    }
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
pub(crate) fn natives<D: for<'a> DataT<V<'a> = Val>>() -> impl Iterator<Item = Fun<D>> {
    jaq_core::funs()
        .chain(jaq_std::base_funs())
        .chain(jaq_std::extra_funs())
        .chain(jaq_json::funs())
        .filter(|(name, ..)| !ABSENT.contains(name))
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
