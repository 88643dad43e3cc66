//! What a name stands for: variables and functions of the expression itself, those of jq, and what there is not.

use reipaz_core::expression::{Expression, ExpressionError, ExpressionErrorKind};

fn expression(source: &str) -> Expression {
    Expression::parse(source).unwrap_or_else(|error| panic!("{source}: {error}"))
}

fn mistakes(source: &str) -> Vec<ExpressionError> {
    Expression::parse_all(source).expect_err(source)
}

fn hint(source: &str) -> String {
    mistakes(source).swap_remove(0).hint.expect(source)
}

#[test]
fn a_function_is_known_by_its_name_and_its_number_of_arguments() {
    for takes_everything in [
        "def f: 1; tojson",
        "def f(g): tojson; f(1)",
        "def length(f): 1; length",
        "def tojson: 1; tojson(2)",
        "def f(g): g(1); f(2)",
        "null(1)",
        "def null: 1; null(1)",
    ] {
        let told: Vec<_> = mistakes(takes_everything).iter().map(|error| error.kind).collect();
        assert_eq!(told, [ExpressionErrorKind::Computed], "{takes_everything}");
    }
    for takes_nothing in [
        "def tojson: 1; tojson",
        "def f(tojson): tojson; f($input)",
        "def length(f): 1; length($input)",
        "def null(f): 1; null(2)",
        "def true: false; true",
    ] {
        let found = expression(takes_nothing);
        assert!(!found.is_native() && found.steps.is_empty(), "{takes_nothing}");
    }
}

#[test]
fn what_gives_back_its_argument_or_input_can_be_followed() {
    for source in [
        "first(.steps) | .a.output",
        "last($steps) | .a.output",
        "limit(1; .steps) | .a.output",
        "skip(0; .steps) | .a.output",
        "nth(0; .steps).a.output",
        "select(.) | .steps.a",
        ".steps | select(.a.output) | $input",
        "if $input then .steps else .steps end | .a",
        "(.steps, .steps) | .a",
        "isempty($steps.a) | .x",
    ] {
        let names: Vec<_> = expression(source).steps.iter().map(|step| step.name.to_string()).collect();
        assert_eq!(names, ["a"], "{source}");
    }
}

#[test]
fn what_takes_the_scope_is_told_once() {
    for source in [
        "range(.)",
        "range(0; .)",
        "range(.; 2)",
        "isempty(.)",
        "limit(.; 1)",
        "nth(.; 1)",
        "error(.) | .nope",
        "add(.) | .steps",
        "range($steps) | tojson",
        "(., .) | tojson",
        "$steps // $steps",
        "if $input then $secrets else $secrets end | length",
    ] {
        let told: Vec<_> = mistakes(source).iter().map(|error| error.kind).collect();
        assert_eq!(told, [ExpressionErrorKind::Computed], "{source}");
    }
}

#[test]
fn every_way_to_name_a_secret_or_the_error_is_found() {
    for (source, offset) in [
        ("$secrets.token", 9),
        (".secrets.token", 9),
        (".secrets[\"token\"]", 10),
        ("\"Bearer \\($secrets.token)\"", 19),
        (". as {secrets: {token: $x}} | $x", 16),
    ] {
        let found: Vec<_> = expression(source)
            .secrets
            .iter()
            .map(|secret| (secret.name.to_string(), secret.offset))
            .collect();
        assert_eq!(found, [("token".to_owned(), offset)], "{source}");
        assert!(expression(source).steps.is_empty(), "{source}");
    }
    for (source, at) in [
        ("$error.code", Some(0)),
        ("1, $error.code, $error.message", Some(3)),
        (".error.code", Some(1)),
        ("[.error]", Some(2)),
        ("$steps.a.error", None),
        ("$input.error", None),
    ] {
        assert_eq!(expression(source).error_at, at, "{source}");
    }
}

#[test]
fn a_mistake_says_what_to_write_instead() {
    let secret = "name the secret: `$secrets.NAME`";
    let any = "name what it needs: `$input`, `$steps.NAME.output`";
    for (source, expected) in [
        ("$secrets[]", secret),
        ("$steps[]", any),
        ("tojson", any),
        ("(., $secrets) | tojson", any),
        ("($steps, $secrets) | tojson", any),
        ("$input as $total | $totl", "did you mean `$total`?"),
        ("$step", "did you mean `$steps`?"),
        ("$unlike", "there are `$input`, `$steps`, `$trigger`, `$secrets` and `$error`"),
        ("$ENV.HOME", "expressions cannot read the environment"),
        ("$__prog_args", "expressions cannot read the environment"),
    ] {
        assert_eq!(hint(source), expected, "{source}");
    }
}
