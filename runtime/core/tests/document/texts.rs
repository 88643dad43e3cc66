//! Documents as text: YAML's tags and aliases, JSON's values, and where in a string a mistake stands, however the string is
//! written.

use serde_json::{Value, json};

use crate::{
    refused::{case, in_second, in_step},
    support::{accepted, refused},
};

/// What the step's `with` holds, as the stored form has it.
fn with(yaml: &str) -> Value {
    accepted(&in_step(&format!("    with: {yaml}\n"))).pinned.document["steps"]["a"]["with"].clone()
}

#[test]
fn a_tag_may_say_what_a_value_is_and_nothing_else() {
    for (yaml, value) in [
        ("!!str 5", json!("5")),
        ("!!str true", json!("true")),
        ("!!int 5", json!(5)),
        ("!!float 1.5", json!(1.5)),
        ("!!bool true", json!(true)),
        ("!!null ~", json!(null)),
        ("!!map {a: 1}", json!({"a": 1})),
        ("!!seq [1]", json!([1])),
        ("[False, FALSE, false, True, 'false']", json!([false, false, false, true, "false"])),
    ] {
        assert_eq!(with(yaml), value, "{yaml}");
    }
    for bad in ["!!int x", "!!int 1.5", "!!float 1", "!!bool 5", "!!null 5", "!str 5", "!thing 5"] {
        let (tag, value) = bad.split_once(' ').expect("a tag and a value");
        case(&in_step(&format!("    with: {{x: {tag} «{value}»}}\n")), "/steps/a/with/x", "not_json", "tag");
    }
    for bad in ["!!map [1]", "!!seq {a: 1}", "!map {a: 1}", "!seq [1]", "!!str [1]"] {
        let mistakes = refused(&in_step(&format!("    with: {{x: {bad}}}\n")));
        assert_eq!(mistakes.iter().map(|it| it.code).collect::<Vec<_>>(), ["not_json"], "{bad}");
        assert!(mistakes[0].message.contains("no meaning here"), "{}", mistakes[0]);
    }
}

#[test]
fn what_an_alias_stands_for_counts_towards_the_nesting() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let named = |depth: usize| format!("{}1{}", "{a: ".repeat(depth), "}".repeat(depth));
    // The root, `steps`, `a` and `with` are four levels, and sixteen are allowed inside the root.
    let used = |what: &str| format!("ui: &deep {what}\n{}", in_step("    with: {x: *deep}\n"));
    for what in [nested, named] {
        accepted(&used(&what(13)));
        let mistakes = refused(&used(&what(14)));
        assert_eq!(mistakes.iter().map(|it| it.code).collect::<Vec<_>>(), ["too_deep"]);
    }
    let mixed = |inner: usize| used(&format!("[1, {{a: 2, b: {}}}, []]", nested(inner)));
    accepted(&mixed(11));
    assert_eq!(refused(&mixed(12))[0].code, "too_deep");
}

#[test]
fn what_aliases_stand_for_counts_towards_the_size() {
    // Some 200,000 bytes in strings, keys or numbers; used a second time, they are too much.
    let long = "x".repeat(100_000);
    for what in [
        format!("{long}{long}"),
        format!("[{long}, {long}]"),
        format!("{{a: {long}, b: {long}}}"),
        format!("{{{}}}", (0..1_900).map(|n| format!("k{n:0>90}: {n}")).collect::<Vec<_>>().join(", ")),
        format!("[{}]", (0..24_000).map(|n| format!("{n}")).collect::<Vec<_>>().join(", ")),
    ] {
        let used = |uses: &str| format!("ui: &long {what}\n{}", in_step(&format!("    with: {uses}\n")));
        accepted(&used("[*long]"));
        assert_eq!(refused(&used("[*long, *long]"))[0].code, "too_large", "{}", &what[..10]);
    }
}

#[test]
fn json_is_read_with_its_lists_and_escapes() {
    let document = |with: &str| {
        format!(r#"{{"reipaz": 1, "name": "w", "steps": {{"a": {{"uses": "acme/score", "with": {with}}}}}}}"#)
    };
    let text = r#"[1, [], [true, false, null], ["a \" \\ \n \u00e9", {"b": [-1.5e3]}]]"#;
    let stored = accepted(&document(text)).pinned.document["steps"]["a"]["with"].clone();
    assert_eq!(stored, json!([1, [], [true, false, null], ["a \" \\ \n é", {"b": [-1500.0]}]]));
}

#[test]
fn json_nests_as_deep_as_yaml() {
    let document = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(
            r#"{{"reipaz": 1, "name": "w", "steps": {{"a": {{"uses": "acme/score", "with": {open}{close}}}}}}}"#
        )
    };
    // The root, `steps` and `a` are three levels.
    accepted(&document(14));
    let mistakes = refused(&document(15));
    assert_eq!(mistakes.len(), 1);
    let place = (mistakes[0].column, mistakes[0].end_column);
    assert_eq!((mistakes[0].code, place.1 - place.0), ("too_deep", 1));
    let innermost = document(15).find("]]").expect("there is one") as u32;
    assert_eq!(place.0, innermost, "columns count from 1, and it stands before its end");
}

/// The unknown name is pointed at wherever it stands, though the string is not written as what it stands for.
#[test]
fn a_place_in_a_string_is_found_behind_escapes_and_folds() {
    let x = "/steps/b/with/x";
    for text in [
        r#""\x41 ${ «$inptu» }""#,
        r#""\u00e9\u20ac ${ «$inptu» }""#,
        r#""\U0001F600 ${ «$inptu» }""#,
        r#""\N\_ ${ «$inptu» }""#,
        r#""\L\P ${ «$inptu» }""#,
        r#""\t\\\" ${ «$inptu» }""#,
        "\"a \\\n         b ${ «$inptu» }\"",
        "\"folded\n         twice\n         ${ «$inptu» }\"",
        "'it''s ''so'' ${ «$inptu» }'",
        "'folded\n\n         twice ${ «$inptu» }'",
        "plain\n         folded ${ «$inptu» }",
        "|2-\n          kept ${ «$inptu» }",
        ">\n        one\n        two\n\n        three ${ «$inptu» }\n",
        "!!str |\n        one\n        ${ «$inptu» }\n",
        "|\n        it''s \\u00e9 \\x41 ${ «$inptu» }\n",
        "it''s \\u00e9 \\x41 ${ «$inptu» }",
    ] {
        case(&in_second(&format!("    with:\n      x: {text}\n")), x, "unknown_name", "`$input`");
    }
    // JSON writes what is beyond the first 65,536 characters as two escapes.
    let document =
        r#"{"reipaz": 1, "name": "w", "steps": {"b": {"uses": "acme/score", "with": {"x": "TEXT"}}}}"#;
    for text in [r"\ud83d\ude00 ${ «$inptu» }", r"\u00e9\/\n\\ ${ «$inptu» }"] {
        case(&document.replace("TEXT", text), x, "unknown_name", "`$input`");
    }
}

#[test]
fn only_as_many_as_may_be() {
    let at = |text: &str| refused(text).iter().map(|it| it.code).collect::<Vec<_>>();
    let many = |count: usize, one: fn(usize) -> String| (0..count).map(one).collect::<Vec<_>>().join(", ");
    let cases = |count| {
        in_step(&format!("    retry: {{by_error: {{{}}}}}\n", many(count, |n| format!("code_{n}: never"))))
    };
    accepted(&cases(32));
    assert_eq!(at(&cases(33)).len(), 1);
    let grants = |count| {
        in_step(&format!("    grants: {{http: [{}]}}\n", many(count, |n| format!("GET h{n}.example"))))
    };
    accepted(&grants(100));
    assert_eq!(at(&grants(101)).len(), 1);
    // All is said of a hundred, and no more.
    let steps = |count| {
        let steps: String = (0..count).map(|n| format!("    unknown_{n}: 1\n")).collect();
        at(&in_step(&steps)).len()
    };
    assert_eq!([99, 100, 101].map(steps), [99, 100, 100]);
}

#[test]
fn durations_reach_from_their_least_to_their_most() {
    let step = |key: &'static str| move |value: &str| in_step(&format!("    {key}: {value}\n"));
    let retry = |key: &'static str| move |value: &str| in_step(&format!("    retry: {{{key}: {value}}}\n"));
    let top = |key: &'static str| move |value: &str| format!("{key}: {value}\n{}", in_step(""));
    let rate = |value: &str| format!("concurrency: {{rate: {{starts: 1, per: {value}}}}}\n{}", in_step(""));
    type Written<'a> = &'a dyn Fn(&str) -> String;
    let document: [(&str, Written<'_>, &str, &str); 6] = [
        ("a run's timeout", &top("timeout"), "3650d", "315360000001ms"),
        ("an attempt's timeout", &step("timeout"), "7d", "604800001ms"),
        ("a step's", &step("total_timeout"), "3650d", "315360000001ms"),
        ("a delay", &retry("max_delay"), "24h", "86400001ms"),
        ("a window", &retry("within"), "30d", "2592000001ms"),
        ("a rate's span", &rate, "31d", "2678400001ms"),
    ];
    for (what, document, most, more) in document {
        accepted(&document("1ms"));
        accepted(&document(most));
        let mistakes = refused(&document(more));
        assert_eq!(mistakes.len(), 1, "{what}: {}", crate::support::shown(&mistakes));
    }
    assert_eq!(refused(&step("timeout")("0ms")).len(), 1);
    accepted(&retry("within")("0ms"));
    // What the steps of an `on_failure` may take where it does not say: a quarter of an hour.
    let text = format!("on_failure: {{steps: {{tell: {{uses: acme/score}}}}}}\n{}", in_step(""));
    let timeout = accepted(&text).plan.on_failure.as_ref().map(|it| it.timeout);
    assert_eq!(timeout, Some(std::time::Duration::from_secs(900)));
}

#[test]
fn mistakes_say_where_they_are() {
    let mistakes = refused(&in_step("    wiht: 1\n"));
    let told = mistakes[0].to_string();
    assert!(told.starts_with("6:5: ") && told.contains("[unknown_key]"), "{told}");
}
