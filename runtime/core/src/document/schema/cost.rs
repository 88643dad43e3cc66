//! What a schema can cost, seen from its text alone. A validator looks at a part of a value once for each way that
//! leads to it through the schema; `anyOf: [{$ref: x}, {$ref: x}]` doubles the ways, a chain of such doubles again.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::document::escape_pointer;

/// Keywords that hold values, in which nothing is a schema.
const VALUES: [&str; 4] = ["const", "enum", "default", "examples"];
/// Keywords that refer to another part of the schema.
const REFERENCES: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];
/// Keywords with a schema, or a list of them, for the value itself.
const HERE: [&str; 7] = ["allOf", "anyOf", "oneOf", "not", "if", "then", "else"];
/// Keywords with schemas by names of properties, for the value itself.
const HERE_BY_NAME: [&str; 2] = ["dependentSchemas", "dependencies"];
/// Keywords with a schema, or a list of them, for what is one level deeper in the value.
const DEEPER: [&str; 8] = [
    "additionalProperties",
    "propertyNames",
    "unevaluatedProperties",
    "items",
    "prefixItems",
    "additionalItems",
    "unevaluatedItems",
    "contains",
];
/// Keywords with schemas by names of properties, for what is one level deeper.
const DEEPER_BY_NAME: [&str; 2] = ["properties", "patternProperties"];
/// Keywords with schemas by names that only references lead to.
const ASIDE_BY_NAME: [&str; 2] = ["$defs", "definitions"];

/// Which value a part of a schema looks at.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Here,
    Deeper,
    Aside,
}

/// The schemas right inside a schema, with pointers to them.
fn inside(schema: &Value) -> Vec<(Way, String, &Value)> {
    let Value::Object(fields) = schema else { return Vec::new() };
    let mut found = Vec::new();
    for (key, value) in fields {
        let has = |keywords: &[&str]| keywords.contains(&key.as_str());
        let (way, by_name) = match () {
            () if has(&VALUES) => continue,
            () if has(&HERE) => (Way::Here, false),
            () if has(&HERE_BY_NAME) => (Way::Here, true),
            () if has(&DEEPER) => (Way::Deeper, false),
            () if has(&DEEPER_BY_NAME) => (Way::Deeper, true),
            () if has(&ASIDE_BY_NAME) => (Way::Aside, true),
            () => (Way::Aside, false),
        };
        let pointer = format!("/{}", escape_pointer(key));
        match value {
            Value::Object(named) if by_name => {
                let named = named.iter();
                found.extend(
                    named.map(|(name, value)| (way, format!("{pointer}/{}", escape_pointer(name)), value)),
                );
            }
            Value::Array(items) => {
                let items = items.iter().enumerate();
                found.extend(items.map(|(index, value)| (way, format!("{pointer}/{index}"), value)));
            }
            value => found.push((way, pointer, value)),
        }
    }
    found
}

/// No way through a schema passes more of its parts: counting recurses, and so does a validator.
const MAX_WAY: usize = 200;
/// Values nest no deeper for which [`parts_at_depth`] is worth its time.
const MAX_DEPTH: usize = 16;

/// How many parts the schema has once each reference is replaced by what it refers to (one that leads back to itself
/// counts once). References that leave the schema are refused, with a pointer to them.
pub(super) fn parts(schema: &Value) -> Result<u64, (String, String)> {
    check_references(schema, "")?;
    Ok(Count::new(schema).parts(schema, usize::MAX))
}

/// The same, with references that lead back to themselves followed as deep as a value of that depth can lead.
pub(super) fn parts_at_depth(schema: &Value, depth: usize) -> u64 {
    if depth > MAX_DEPTH { u64::MAX } else { Count::new(schema).parts(schema, depth) }
}

/// How many levels of lists and objects a value has.
pub(super) fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// How many values a value has inside, itself included.
pub(super) fn size(value: &Value) -> u64 {
    match value {
        Value::Array(items) => 1 + items.iter().map(size).sum::<u64>(),
        Value::Object(fields) => 1 + fields.values().map(size).sum::<u64>(),
        _ => 1,
    }
}

fn check_references(schema: &Value, pointer: &str) -> Result<(), (String, String)> {
    for keyword in REFERENCES {
        if let Some(Value::String(target)) = schema.get(keyword)
            && !target.starts_with('#')
        {
            let message = "a reference leads into the schema itself: it starts with `#`";
            return Err((format!("{pointer}/{keyword}"), message.to_owned()));
        }
    }
    if !pointer.is_empty() && schema.get("$id").is_some_and(Value::is_string) {
        return Err((format!("{pointer}/$id"), "only the whole schema may have an `$id`".to_owned()));
    }
    inside(schema)
        .into_iter()
        .try_for_each(|(_, suffix, inner)| check_references(inner, &format!("{pointer}{suffix}")))
}

struct Count<'s> {
    root: &'s Value,
    anchors: HashMap<&'s str, &'s Value>,
    /// What was counted, by the part's address and how deep a value may still be.
    known: HashMap<(*const Value, usize), u64>,
    /// The parts that are being counted.
    open: HashSet<(*const Value, usize)>,
}

impl<'s> Count<'s> {
    fn new(root: &'s Value) -> Self {
        let mut anchors = HashMap::new();
        find_anchors(root, &mut anchors);
        Self { root, anchors, known: HashMap::new(), open: HashSet::new() }
    }

    /// `depth`: how deep the value may be; `usize::MAX` follows no reference back to what is being counted.
    fn parts(&mut self, part: &'s Value, depth: usize) -> u64 {
        let id = (std::ptr::from_ref(part), depth);
        if let Some(known) = self.known.get(&id) {
            return *known;
        }
        if self.open.contains(&id) {
            return 1;
        }
        if self.open.len() >= MAX_WAY {
            return u64::MAX;
        }
        self.open.insert(id);
        let mut count = 1_u64;
        for (way, _, inner) in inside(part) {
            let more = match (way, depth) {
                (Way::Aside, _) | (Way::Deeper, 0) => 0,
                (Way::Here, _) | (_, usize::MAX) => self.parts(inner, depth),
                (Way::Deeper, _) => self.parts(inner, depth - 1),
            };
            count = count.saturating_add(more);
        }
        for keyword in REFERENCES {
            let target = part.get(keyword).and_then(Value::as_str).and_then(|target| self.target(target));
            count = count.saturating_add(target.map_or(0, |target| self.parts(target, depth)));
        }
        self.open.remove(&id);
        self.known.insert(id, count);
        count
    }

    fn target(&self, reference: &str) -> Option<&'s Value> {
        let fragment = reference.strip_prefix('#')?;
        if fragment.is_empty() || fragment.starts_with('/') {
            return self.root.pointer(&unescape(fragment));
        }
        self.anchors.get(fragment).copied()
    }
}

fn find_anchors<'s>(schema: &'s Value, anchors: &mut HashMap<&'s str, &'s Value>) {
    for keyword in ["$anchor", "$dynamicAnchor"] {
        if let Some(Value::String(name)) = schema.get(keyword) {
            anchors.insert(name, schema);
        }
    }
    inside(schema).into_iter().for_each(|(_, _, inner)| find_anchors(inner, anchors));
}

/// A URI fragment's `%xx` as what they stand for.
fn unescape(fragment: &str) -> String {
    let mut out = Vec::new();
    let mut rest = fragment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = rest.get(1..3).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                out.push(byte);
                rest = &rest[3..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{depth, parts, parts_at_depth, size};

    #[test]
    fn a_chain_of_doubling_references_doubles_the_parts() {
        let chain = |length: usize| {
            let double = |i: usize| {
                let next = json!({"$ref": format!("#/$defs/d{}", i + 1)});
                (format!("d{i}"), json!({"anyOf": [next, next]}))
            };
            let mut defs: serde_json::Map<_, _> = (0..length).map(double).collect();
            defs.insert(format!("d{length}"), json!({"type": "string"}));
            json!({"$defs": defs, "$ref": "#/$defs/d0"})
        };
        let count = |length: usize| parts(&chain(length)).expect("its references lead into it");
        assert!(count(4) < 100 && count(12) > 4_096 && count(13) > 2 * 4_096);
        assert_eq!(count(200), u64::MAX);
    }

    #[test]
    fn a_schema_that_refers_to_itself_is_small_but_grows_with_the_values_depth() {
        let tree = json!({"$anchor": "n", "properties": {"a": {"anyOf": [{"$ref": "#n"}, {"$ref": "#"}]}}});
        assert!(parts(&tree).expect("its references lead into it") < 20);
        assert!(parts_at_depth(&tree, 2) < 60);
        assert!(parts_at_depth(&tree, 12) > 4_096);
        assert_eq!(parts_at_depth(&tree, 17), u64::MAX);
    }

    #[test]
    fn references_stay_inside() {
        for (schema, at) in [
            (json!({"$ref": "https://elsewhere.example/x"}), "/$ref"),
            (json!({"allOf": [{"$ref": "x.json"}]}), "/allOf/0/$ref"),
            (json!({"$defs": {"a": {"$id": "a.json"}}}), "/$defs/a/$id"),
        ] {
            assert_eq!(parts(&schema).expect_err("it leads outside").0, at);
        }
        assert!(parts(&json!({"$id": "x", "properties": {"$id": {}, "$ref": {}}})).is_ok());
        let hidden = json!({"properties": {"default": {"properties": {"const": {"$ref": "x.json"}}}}});
        assert_eq!(
            parts(&hidden).expect_err("a property may have any name").0,
            "/properties/default/properties/const/$ref"
        );
        assert!(parts(&json!({"default": {"$ref": "x.json"}, "enum": [{"$id": "y"}]})).is_ok());
    }

    #[test]
    fn a_values_depth_and_size() {
        for (value, levels, values) in [
            (json!(null), 0, 1),
            (json!([]), 1, 1),
            (json!({}), 1, 1),
            (json!([1, "two", []]), 2, 4),
            (json!({"a": [[1], 2], "b": 3}), 3, 6),
            (json!([{"a": {"b": [null]}}, []]), 4, 6),
        ] {
            assert_eq!((depth(&value), size(&value)), (levels, values), "{value}");
        }
    }

    /// Each part of these is looked at once, and nothing else is.
    #[test]
    fn a_part_is_what_looks_at_a_value() {
        let count = |schema: serde_json::Value| parts(&schema).expect("it refers to nothing");
        assert_eq!(count(json!({"type": "string"})), 1);
        let beside = |keyword: &str, value| count(json!({keyword: value})) - count(json!({}));
        let three = || json!({"a": {}, "b": {}, "c": {}});
        for keyword in ["properties", "patternProperties", "dependentSchemas", "dependencies"] {
            assert_eq!(beside(keyword, three()), 3, "{keyword}");
        }
        for keyword in ["$defs", "definitions", "default", "const", "x-comment"] {
            assert_eq!(beside(keyword, three()), 0, "{keyword}: only references lead there");
        }
        for keyword in ["items", "not", "additionalProperties"] {
            assert_eq!(beside(keyword, json!({})), 1, "{keyword}");
        }
        assert_eq!(beside("anyOf", json!([{}, {}])), 2);
    }

    #[test]
    fn what_a_value_of_a_depth_leads_to() {
        let deep = json!({"items": {"items": {"items": {"items": {}}}}, "anyOf": [{}, {}]});
        let counts = [0, 1, 2, 3, 4, 5].map(|depth| parts_at_depth(&deep, depth));
        assert_eq!(counts, [3, 4, 5, 6, 7, 7]);
        assert!(parts_at_depth(&deep, 16) < u64::MAX);
    }
}
