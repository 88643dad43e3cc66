//! Documents in JSON. Their characters outside the first plane are pairs of escapes, which YAML would refuse: what has
//! one is read as JSON or not at all.

use serde_json::json;

use crate::{
    refused::case,
    support::{accepted, refused},
};

fn with(value: &str) -> String {
    format!(
        "{{\"reipaz\": 1, \"name\": \"w\", \"ui\": \"\\ud83d\\ude00\", \
         \"steps\": {{\"a\": {{\"uses\": \"acme/score\",\n\"with\": {value}}}}}}}"
    )
}

#[test]
fn every_kind_of_value_is_read() {
    let value = "[[], [ ], [1, [2.5, [-3e2]], {}], true, false, null, \
                 {\"a\": [true, false], \"b\": {\"c\": null}}, \"\\ud83d\\ude00 \\\"\\\\ \\u00e9\\n\", \"\"]";
    let checked = accepted(&with(value));
    let expected = json!([
        [],
        [],
        [1, [2.5, [-300.0]], {}],
        true,
        false,
        null,
        {"a": [true, false], "b": {"c": null}},
        "😀 \"\\ é\n",
        ""
    ]);
    assert_eq!(checked.pinned.document["steps"]["a"]["with"], expected);
    assert_eq!(checked.ui, Some("😀".into()));
}

#[test]
fn it_nests_as_deep_as_is_allowed() {
    // The root, `steps` and `a` are three levels.
    let lists = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    accepted(&with(&lists(14)));
    let objects = |levels: usize| format!("{}{{}}{}", "{\"a\": ".repeat(levels - 1), "}".repeat(levels - 1));
    accepted(&with(&objects(14)));
    assert_eq!(refused(&with(&objects(15)))[0].code, "too_deep");
    let deepest = format!("{}«[»{}", "[".repeat(14), "]".repeat(15));
    case(&with(&deepest), "", "too_deep", "16 levels");
}

#[test]
fn what_is_wrong_is_told_in_the_words_of_json() {
    case(&with("[1 «2»]"), "", "syntax", "expected `,` or `]`");
    case(&with("[1, «]»"), "", "syntax", "expected a value");
    case(&with("«\"»\\x\""), "", "syntax", "an escape that JSON does not have");
    case(&with("«\"»\\"), "", "syntax", "never closed");
    case(&with("«-»"), "", "syntax", "no number");
}
