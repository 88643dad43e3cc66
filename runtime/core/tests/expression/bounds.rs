//! How long, how deep and how busy an expression may be, and where the first look at it finds its end.

use reipaz_core::expression::{
    Expression, ExpressionErrorKind, ExpressionKind, MAX_EXPRESSION_BYTES, MAX_EXPRESSION_NESTING,
    MAX_EXPRESSION_OPERATORS, Template,
};
use serde_json::{Value, json};

/// Where, and with which kind of mistake, an expression is refused.
fn refused(source: &str) -> (usize, ExpressionErrorKind) {
    let error = Expression::parse(source).expect_err(source);
    (error.offset, error.kind)
}

/// The offsets of all mistakes of a string with `${ }`.
fn offsets(text: &str) -> Vec<usize> {
    let errors = Template::parse(&json!(text)).expect_err(text);
    errors.into_iter().map(|error| error.error.offset).collect()
}

fn string_of(bytes: usize) -> String {
    format!("\"{}\"", "9".repeat(bytes - 2))
}

#[test]
fn an_expression_may_be_as_long_as_the_bound_and_no_longer() {
    let (longest, too_long) = (string_of(MAX_EXPRESSION_BYTES), string_of(MAX_EXPRESSION_BYTES + 1));
    assert!(Expression::parse(&longest).expect("it is at the bound").is_native());
    assert_eq!(refused(&too_long), (MAX_EXPRESSION_BYTES, ExpressionErrorKind::TooLong));

    let template = Template::parse(&json!(format!("${{{longest}}}"))).expect("it is at the bound");
    assert!(matches!(template, Template::Whole(_)));
    let errors = Template::parse(&json!(format!("${{{too_long}}}"))).expect_err("it is over the bound");
    assert_eq!(errors[0].error.kind, ExpressionErrorKind::TooLong);
    // A `}` right at the bound would still have ended it, so the byte after that is the one too many.
    assert_eq!(errors[0].error.offset, "${".len() + MAX_EXPRESSION_BYTES + 1);
}

#[test]
fn an_expression_may_nest_as_deep_as_the_bound_and_no_deeper() {
    let nested =
        |open: &str, close: &str, levels: usize| format!("{}1{}", open.repeat(levels), close.repeat(levels));
    // A string and an interpolation in it are two levels.
    for (open, close, levels_each) in [("(", ")", 1), ("[", "]", 1), ("{a:", "}", 1), ("\"\\(", ")\"", 2)] {
        let most = MAX_EXPRESSION_NESTING / levels_each;
        let deepest = nested(open, close, most);
        assert!(Expression::parse(&deepest).is_ok(), "{deepest}");
        let too_deep = (open.len() * most, ExpressionErrorKind::TooLong);
        assert_eq!(refused(&nested(open, close, most + 1)), too_deep, "{open}");
    }
    let beside_each_other = "(1)+".repeat(MAX_EXPRESSION_NESTING) + "(1)";
    assert!(Expression::parse(&beside_each_other).is_ok());
}

#[test]
fn an_expression_may_have_as_many_operators_as_the_bound_and_no_more() {
    for (operator, last_byte) in [("+", 0), (",", 0), ("|", 0), (" and ", 3)] {
        let of = |operators: usize| format!("{}1", format!("1{operator}").repeat(operators));
        let most = of(MAX_EXPRESSION_OPERATORS);
        assert!(Expression::parse(&most).is_ok(), "{operator}");
        let first_too_many = (1 + operator.len()) * MAX_EXPRESSION_OPERATORS + 1 + last_byte;
        let too_many = (first_too_many, ExpressionErrorKind::TooLong);
        assert_eq!(refused(&of(MAX_EXPRESSION_OPERATORS + 1)), too_many, "{operator}");
    }
    let numbers = vec!["1"; MAX_EXPRESSION_OPERATORS + 2].join(",");
    assert_eq!(refused(&format!("[{numbers}]")).1, ExpressionErrorKind::TooLong);
}

#[test]
fn commas_between_an_objects_fields_are_no_operators() {
    let fields: Vec<String> = (0..2 * MAX_EXPRESSION_OPERATORS).map(|n| format!("f{n}:1")).collect();
    assert!(Expression::parse(&format!("{{{}}}", fields.join(","))).is_ok());
}

#[test]
fn brackets_and_quotes_count_only_where_they_are_code() {
    let long_comment = format!("1 # {}\n+ 1", "+".repeat(MAX_EXPRESSION_OPERATORS + 1));
    for source in ["1 # ) \" (", "1 # it's \"open\n+ 2", "[1, # ]\n2]", "1 #\n+ 2", &long_comment] {
        assert!(Expression::parse(source).is_ok(), "{source}");
    }
    for (source, value) in [
        (r#""a\"(b""#, r#"a"(b"#),
        (r#""\"}""#, "\"}"),
        (r#""\\""#, "\\"),
        (r#""\\(""#, "\\("),
        ("\"# no comment\"", "# no comment"),
    ] {
        let template = Template::parse(&json!(format!("${{{source}}}"))).expect(source);
        let Template::Whole(expression) = template else { panic!("{source} is one expression") };
        assert_eq!(expression, Expression::parse(source).expect(source));
        let kind = ExpressionKind::Literal(Value::from(value));
        assert_eq!(expression.kind, kind, "{source}");
    }
}

#[test]
fn what_is_never_closed_is_told_where_it_opens() {
    for (source, offset) in [
        ("(1", 0),
        ("[1, (2]", 6),
        ("1 + {a: 1", 4),
        ("\"a\\(1", 3),
        ("\"a\\(1)", 0),
        ("\"a\\(\"b", 4),
        ("1 # (\n + (2", 9),
        ("\"\\\"\" + \"x", 7),
    ] {
        assert_eq!(refused(source), (offset, ExpressionErrorKind::Syntax), "{source}");
    }
}

#[test]
fn a_templates_mistakes_are_told_at_their_bytes_in_the_string() {
    for (text, told) in [
        ("${ 1", vec![0]),
        ("abcdé${ 1", vec![6]),
        ("${ $input } and ${ $input", vec![16]),
        ("$${ ${ 1 } ${ 2", vec![11]),
        ("${$nope}", vec![2]),
        ("${   $nope }", vec![5]),
        ("abcd ${ $nope } ${\n\n$none} ${ 1", vec![8, 20, 27]),
        ("${   }", vec![5]),
        ("${ ( } ${ ( }", vec![5]),
    ] {
        assert_eq!(offsets(text), told, "{text}");
    }
    let unclosed = Template::parse(&json!("${ 1")).expect_err("it has no end").swap_remove(0).error;
    assert_eq!(unclosed.hint.as_deref(), Some("`$${` is a literal `${`"));
}
