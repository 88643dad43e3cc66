//! Makes a table of the prelude's definitions: a guest starts anew for every attempt, and reading the prelude each time would
//! cost more than the filter.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

#[path = "src/library/names.rs"]
mod names;

fn main() {
    println!("cargo:rerun-if-changed=src/prelude.jq");
    println!("cargo:rerun-if-changed=src/library/names.rs");
    let prelude = std::fs::read_to_string("src/prelude.jq").expect("src/prelude.jq");
    let definitions = definitions(&prelude);

    let mut table = String::from("static DEFINITIONS: &[Definition] = &[\n");
    for (name, source) in &definitions {
        let _ = writeln!(table, "    Definition {{ name: {name:?}, source: {source:?} }},");
    }
    table.push_str("];\n\nstatic REACHED: &[(&str, &[u16])] = &[\n");
    let by_name: BTreeMap<&str, Vec<usize>> = by_name(&definitions);
    for name in by_name.keys() {
        let _ = writeln!(table, "    ({name:?}, &{:?}),", reached(name, &definitions, &by_name));
    }
    table.push_str("];\n");
    let out = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    std::fs::write(Path::new(&out).join("definitions.rs"), table).expect("OUT_DIR can be written");
}

/// Name and text of each definition in order: a line that begins with `def` begins one, and lines that are neither indented
/// nor empty end it.
fn definitions(prelude: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut start = None;
    let mut offset = 0;
    for line in prelude.split_inclusive('\n').chain(["end"]) {
        if !line.starts_with([' ', '\n'])
            && let Some(start) = start.take()
        {
            let source = &prelude[start..offset];
            let name = names::identifiers(&source["def ".len()..]).next().expect("a definition has a name");
            found.push((name, source));
        }
        if line.starts_with("def ") {
            start = Some(offset);
        }
        offset += line.len();
    }
    found
}

fn by_name<'a>(definitions: &[(&'a str, &'a str)]) -> BTreeMap<&'a str, Vec<usize>> {
    let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, (name, _)) in definitions.iter().enumerate() {
        by_name.entry(name).or_default().push(i);
    }
    by_name
}

/// The definitions of that name and all that they name, directly or through others, in order.
fn reached(name: &str, definitions: &[(&str, &str)], by_name: &BTreeMap<&str, Vec<usize>>) -> Vec<usize> {
    let mut reached = vec![false; definitions.len()];
    let mut left = by_name[name].clone();
    while let Some(i) = left.pop() {
        if !std::mem::replace(&mut reached[i], true) {
            let named = names::identifiers(definitions[i].1).filter_map(|name| by_name.get(name));
            left.extend(named.flatten());
        }
    }
    (0..definitions.len()).filter(|i| reached[*i]).collect()
}
