//! Which steps and secrets an expression is found to read, and what is refused because that cannot be told.

use proptest::prelude::*;
use reipaz_core::expression::{Expression, ExpressionErrorKind, ExpressionKind, Template};
use serde_json::{Value, json};

fn steps(source: &str) -> Vec<String> {
    let expression = Expression::parse(source).unwrap_or_else(|error| panic!("{source}: {error}"));
    expression.steps.iter().map(|step| step.name.to_string()).collect()
}

fn refused(source: &str) -> ExpressionErrorKind {
    Expression::parse(source).map(|found| panic!("{source} was accepted: {found:?}")).unwrap_err().kind
}

#[test]
fn every_way_to_name_a_step_is_found() {
    for source in [
        "$steps.a",
        "$steps.a.output",
        "$steps[\"a\"].output.x",
        "$steps.\"a\".status",
        ".steps.a.output",
        ".[\"steps\"][\"a\"]",
        ".steps | .a.output",
        "$steps | .a | .output",
        "(.steps).a",
        "(. | .steps) | .a.error",
        "[$steps.a.output[] | .x] | length",
        "\"x \\($steps.a.output) y\"",
        "@base64 \"\\(.steps.a.output)\"",
        "{k: $steps.a.output}",
        "{($steps.a.output): 1}",
        ".steps | {a}",
        "if $steps.a.output then 1 else 2 end",
        "if . then $steps.a.output else 2 end",
        "reduce $steps.a.output[] as $x (0; . + $x)",
        "reduce range(3) as $x ($steps.a.output; . + $x)",
        "foreach range(3) as $x (0; . + $steps.a.output; .)",
        "$steps.a.output as $x | $x + 1",
        ".steps.a as {output: $x} | $x",
        ". as {steps: {a: $x}} | $x",
        "def f: $steps.a.output; f",
        "def f: .output; $steps.a | f",
        "def f(g): g + 1; f($steps.a.output)",
        "def f($x): $x + 1; f(.steps.a.output)",
        "def f(g): $input | g; f($steps.a.output)",
        "select(.steps.a.output) | $input",
        "first(.steps.a.output[])",
        "limit(1; .steps | .a.output)",
        "try $steps.a.output catch .",
        "try error(\"x\") catch $steps.a.output",
        "$input.x // $steps.a.output",
        "$input | $steps.a.output + .",
        "$input[$steps.a.output]",
        "$input[$steps.a.output:]",
        "label $out | $steps.a.output",
        "-$steps.a.output",
        "any($steps.a.output[]; . > 1)",
        "$steps.a.output | map(.x) | sort_by(.y) | .[0]",
    ] {
        assert_eq!(steps(source), ["a"], "{source}");
    }
    assert_eq!(steps("$steps.b.output + $steps.a.output + $steps.b.status"), ["b", "a", "b"]);
    assert_eq!(steps("\"$steps.a\" # $steps.b"), [""; 0]);
    assert_eq!(steps("$input.steps.a"), [""; 0]);
    assert_eq!(steps("$input | .steps.a"), [""; 0]);
}

#[test]
fn a_reference_that_must_be_run_to_be_known_is_refused() {
    for source in [
        ".",
        "$steps",
        "$secrets",
        ".steps",
        "$steps[$input.name]",
        "$steps[]",
        "$steps | keys",
        "$steps | .[$input.x]",
        "$steps as $s | $s.a",
        ". as $all | $all.steps.a",
        "tojson",
        "..",
        ".[]",
        "to_entries",
        "[.]",
        "{x: .}",
        "$steps == {}",
        "getpath([\"steps\", \"a\"])",
        "path(.steps.a)",
        "def f: .; f",
        "def f: .x; $steps | f",
        "def f(g): g; f(.)",
        "def f(g): g; f($steps)",
        "def f: .x; . | f",
        "reduce .[] as $x (0; .)",
        "reduce range(3) as $x (.; .)",
        "if $input then . else 1 end | keys",
        "select($input) | .[]",
        "($input, .) | tojson",
        "\"\\(.)\"",
        "first(.) | keys",
        ".input.x = 1",
        "map(.)",
        ".steps[\"a\\($input)\"]",
        "$secrets[]",
        "label $x | .",
        "try . catch .",
        "{steps}",
        "{$steps}",
        ". as [$x] | $x",
        "def f($x): 1; f($steps)",
        "def f: def g: .; g; f",
        "with_entries(.)",
    ] {
        assert_eq!(refused(source), ExpressionErrorKind::Computed, "{source}");
    }
}

#[test]
fn what_does_not_exist_is_told_before_it_runs() {
    for source in [
        "$inputs",
        "$ENV.HOME",
        "env.HOME",
        "now",
        "input",
        "halt",
        "localtime",
        ".foo",
        "$steps.a.body",
        "$x",
    ] {
        assert_eq!(refused(source), ExpressionErrorKind::Unknown, "{source}");
    }
    for source in ["$item", "$index", ".item"] {
        assert_eq!(refused(source), ExpressionErrorKind::NotSupportedYet, "{source}");
    }
}

#[test]
fn plain_paths_and_literals_are_native_and_the_rest_is_not() {
    for native in [
        "$input",
        "$input.a.b[0].c",
        ".input[\"a b\"][-1]",
        "$steps.a.output",
        "$trigger.body",
        "1",
        "-2",
        "\"x\"",
        "true",
        "false",
        "null",
        "($input.a)",
    ] {
        assert!(Expression::parse(native).expect("it parses").is_native(), "{native}");
    }
    for jq in [
        "$input.a?",
        "$input[]",
        "$input[1:]",
        "$input.a + 1",
        "$input.a | .b",
        "1.5",
        "$input[1.5]",
        "\"\\($input)\"",
    ] {
        let expression = Expression::parse(jq).expect("it parses");
        assert!(matches!(expression.kind, ExpressionKind::Jq(_)), "{jq}");
    }
}

#[test]
fn a_template_is_native_if_all_of_it_is() {
    for (value, native) in [
        (json!("plain"), true),
        (json!(["${ $input }", {"a": "x ${ $steps.a.output } ${ 1 }"}]), true),
        (json!("${ $input | keys }"), false),
        (json!("x ${ $input | keys } ${ $input }"), false),
        (json!(["${ $input }", {"a": "${ $input.n + 1 }"}, "${ $input }"]), false),
    ] {
        assert_eq!(Template::parse(&value).expect("it parses").is_native(), native, "{value}");
    }
}

#[test]
fn a_string_is_text_with_expressions_or_one_expression() {
    let parse = |text: &str| Template::parse(&json!(text)).expect("it parses");
    assert_eq!(parse("plain"), Template::Literal(json!("plain")));
    assert_eq!(parse("$${x} $ $1 $$"), Template::Literal(json!("${x} $ $1 $$")));
    assert!(matches!(parse("${ $input }"), Template::Whole(_)));
    assert!(matches!(parse("${$input}\n"), Template::Whole(_)), "a YAML block ends with a line break");
    assert!(matches!(parse("${ $input } "), Template::Text(pieces) if pieces.len() == 2));
    assert!(matches!(parse("a ${ {b: \"}\"} | .b } c"), Template::Text(pieces) if pieces.len() == 3));
    assert!(matches!(parse("${ \"\\(\"}\")\" }${ $input }"), Template::Text(pieces) if pieces.len() == 2));
    let nested = json!({"a": [1, "${ $input }", {"b": "x"}]});
    let Template::Object(fields) = Template::parse(&nested).expect("it parses") else { panic!("an object") };
    assert!(matches!(&fields[0].1, Template::Array(items) if matches!(items[2], Template::Literal(_))));
}

#[test]
fn a_templates_mistakes_are_all_told_with_their_pointers() {
    let value = json!({"a/b": ["${ ( }", "${ $nope }"], "c": "ok ${ .steps } ${ $input | }"});
    let errors = Template::parse(&value).expect_err("four mistakes");
    let told: Vec<_> = errors.iter().map(|error| (error.pointer.as_str(), error.error.offset)).collect();
    assert_eq!(told, [("/a~1b/0", 5), ("/a~1b/1", 3), ("/c", 7), ("/c", 26)]);
}

fn source() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "$input",
        ".input.a",
        "$steps.a.output[0]",
        "[$input[] | {a: \"}\"}]",
        "1 # a comment",
        "\"${\"",
        "\"\\(\"x\")\"",
        "-1",
    ])
    .prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = Value> {
    let piece = prop_oneof![
        source().prop_map(|source| format!("${{ {source}\n}}")),
        "[a-z é]{0,5}",
        Just("$${".to_owned()),
        Just("}".to_owned()),
        Just("a$ ".to_owned())
    ];
    let text = prop::collection::vec(piece, 0..4).prop_map(|pieces| Value::String(pieces.concat()));
    let leaf = prop_oneof![4 => text, 1 => any::<i64>().prop_map(Value::from), 1 => Just(Value::Null)];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map("[a-z/~ ]{0,4}", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_printed_parses_to_the_same(value in value()) {
        let template = Template::parse(&value).expect("it is made of what parses");
        prop_assert_eq!(Template::parse(&template.to_value()).expect("it parses again"), template);
    }

    #[test]
    fn no_text_panics(text in prop_oneof!["\\PC{0,80}", "[-$.a-f()\\[\\]{}|,;:\"\\\\#@?+=/ \n0-9]{0,60}"]) {
        let _ = Expression::parse_all(&text);
        let _ = Template::parse(&Value::String(text));
    }
}
