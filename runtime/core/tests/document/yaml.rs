//! What YAML's words and tags mean.

use serde_json::{Value, json};

use crate::{
    refused::{case, in_step},
    support::accepted,
};

fn value(text: &str) -> Value {
    let document = accepted(&in_step(&format!("    with: {text}\n"))).pinned.document;
    document["steps"]["a"]["with"].clone()
}

#[test]
fn words_and_numbers_of_the_core_schema() {
    let words = "[true, True, TRUE, tRUE, false, False, FALSE, fALSE, null, Null, NULL, ~, yes, no]";
    let expected = "[true, true, true, \"tRUE\", false, false, false, \"fALSE\", null, null, null, null, \"yes\", \"no\"]";
    assert_eq!(value(words).to_string(), expected.replace(", ", ","));
    assert_eq!(
        value("[0o17, 0x1F, +5, -5, .5, 1e2, 0x, 1_000]"),
        json!([15, 31, 5, -5, 0.5, 100.0, "0x", "1_000"])
    );
}

#[test]
fn a_tag_says_what_a_value_is() {
    for (text, expected) in [
        ("!!str 5", json!("5")),
        ("!!str true", json!("true")),
        ("!!str x", json!("x")),
        ("!!str \"5\"", json!("5")),
        ("!!int 5", json!(5)),
        ("!!int -7", json!(-7)),
        ("!!float 1.5", json!(1.5)),
        ("!!bool false", json!(false)),
        ("!!null ~", json!(null)),
        ("!!seq [1]", json!([1])),
        ("!!map {a: !!str 1}", json!({"a": "1"})),
        ("!!map\n      a: 1", json!({"a": 1})),
    ] {
        assert_eq!(value(text), expected, "{text}");
    }
}

#[test]
fn a_tag_that_does_not_fit_is_refused() {
    for value in [
        "!!int «1.5»",
        "!!int «x»",
        "!!int «true»",
        "!!float «5»",
        "!!bool «yes»",
        "!!null «5»",
        "!!binary «aGk=»",
        "!int «5»",
        "!float «1.5»",
        "!str «x»",
        "!mine «x»",
        "«!!seq {»a: 1}",
        "«!!set {»a: 1}",
        "«!!map [»1]",
        "«!!omap [»1]",
        "«!map {»a: 1}",
        "«!seq [»1]",
    ] {
        case(
            &in_step(&format!("    with: {{a: {value}}}\n")),
            "/steps/a/with/a",
            "not_json",
            "has no meaning here",
        );
    }
}
