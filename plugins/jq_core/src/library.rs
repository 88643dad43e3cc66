//! Which definitions and native functions a filter is compiled against.
//!
//! The definitions stand in `prelude.jq`. Absent are jaq's that reach outside of the filter (`debug`, `stderr`, `halt`,
//! `halt_error`; its native functions `now`, `env`, `input`, `localtime`, `strflocaltime`), some of mathematics that nobody asks
//! of a workflow (`gamma`, Bessel functions, `significand` and the like) and `@htmld`. The build script makes a table of them.

mod names;

use jaq_core::native::Fun;
use jaq_core::{data, load};
use jaq_json::Val;

use crate::natives;

/// One definition: its name without parameters, and its text.
struct Definition {
    name: &'static str,
    source: &'static str,
}

// `DEFINITIONS`, in the prelude's order, which compiles; `REACHED`, by name in alphabetical order: the places of the
// definitions of that name and of all that they name, directly or through others.
include!(concat!(env!("OUT_DIR"), "/definitions.rs"));

/// What a filter is compiled against.
pub(crate) struct Library {
    needed: Vec<bool>,
}

impl Library {
    /// What a filter can reach by the names in its text.
    ///
    /// Names are matched whatever their number of parameters and wherever they stand, a string for instance: a definition too
    /// many costs microseconds, one too few would be a wrong answer.
    pub(crate) fn of(filter: &str) -> Self {
        let mut needed = vec![false; DEFINITIONS.len()];
        for name in names::identifiers(filter) {
            if let Ok(place) = REACHED.binary_search_by(|(known, _)| known.cmp(&name)) {
                REACHED[place].1.iter().for_each(|definition| needed[usize::from(*definition)] = true);
            }
        }
        Self { needed }
    }

    /// In an order that compiles.
    pub(crate) fn definitions(&self) -> Vec<load::parse::Def<&'static str>> {
        self.texts()
            // That each parses, a test says.
            .flat_map(|definition| {
                load::parse(definition.source, |parser| parser.defs()).expect(definition.name)
            })
            .collect()
    }

    fn texts(&self) -> impl Iterator<Item = &'static Definition> {
        DEFINITIONS.iter().zip(&self.needed).filter_map(|(definition, needed)| needed.then_some(definition))
    }
}

/// The native functions.
pub(crate) fn natives() -> impl Iterator<Item = Fun<data::JustLut<Val>>> {
    jaq_core::funs().chain(jaq_std::base_funs()).chain(jaq_json::funs()).chain(natives::natives())
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
        let names = |filter| {
            Library::of(filter).definitions().iter().map(|definition| definition.name).collect::<Vec<_>>()
        };
        assert_eq!(names(".a.map | $add"), [""; 0]);
        assert_eq!(names("map(.x)"), ["map"]);
        assert!(names("add").contains(&"add"));
        assert!(Library::of("gsub(\"a\"; \"b\")").definitions().len() < DEFINITIONS.len() / 2);
    }
}
