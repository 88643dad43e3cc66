//! A step's `if` and `with`, and a run's `output`, evaluated.

use std::{collections::BTreeMap, sync::Arc};

use reipaz_core::{
    expression::{
        Expression, Template,
        evaluate::{
            MAX_RENDERED_BYTES, MAX_SCOPE_BYTES, Prepared, View, holds, prepare, render, scope_json, truthy,
        },
    },
    failure::{ErrorClass, Failure},
    partition::{Json0, Scope, ScopeStep, StepStatus},
    plan::Condition,
};
use serde_json::{Value, json};

pub(crate) fn scope() -> Scope {
    let step = |name: &str, status, output: &str, error: Option<&str>| ScopeStep {
        name: name.into(),
        status,
        output: output.into(),
        error: error.map(Into::into),
    };
    Scope {
        input: Json0(r#"{"url": "http://x", "n": 12345678901234567890123, "list": [1, [2, 3], {"a": null}], "no": false}"#.into()),
        trigger: None,
        error: Some(r#"{"code": "http_404"}"#.into()),
        steps: vec![
            step("fetch", StepStatus::Completed, r#"{"body": "line\n\"é\u00e9\"", "n": 1.50}"#, None),
            step("lost", StepStatus::Failed, "null", Some(r#"{"class":"network","code":"refused","message":"no"}"#)),
        ],
    }
}

fn secrets() -> BTreeMap<Arc<str>, String> {
    BTreeMap::from([("token".into(), "\u{1}secret:token\u{1}".to_owned())])
}

fn evaluate(value: Value, results: &[&str]) -> Result<String, Failure> {
    let (scope, secrets) = (scope(), secrets());
    let template = Template::parse(&value).expect("it parses");
    let view = View { scope: &scope, secrets: &secrets };
    let mut results = results.iter().map(|result| (*result).to_owned());
    render(&template, view, &mut results).map(|json| json.to_string())
}

#[test]
fn a_whole_string_keeps_its_type_and_every_digit() {
    assert_eq!(evaluate(json!("${ $input.n }"), &[]), Ok("12345678901234567890123".into()));
    assert_eq!(evaluate(json!("${ $steps.fetch.output.n }"), &[]), Ok("1.50".into()));
    assert_eq!(evaluate(json!({"a": "${ .input.list[1] }"}), &[]), Ok(r#"{"a":[2, 3]}"#.into()));
    assert_eq!(
        evaluate(json!(["${ $input.list[-1].a }", "${ $steps.lost.error.code }"]), &[]),
        Ok(r#"[null,"refused"]"#.into())
    );
    assert_eq!(evaluate(json!("${ $steps.lost.status }"), &[]), Ok(r#""failed""#.into()));
    assert_eq!(evaluate(json!("${ $trigger.body }"), &[]), Ok("null".into()));
    assert_eq!(evaluate(json!("${ -7 }"), &[]), Ok("-7".into()));
}

#[test]
fn in_a_text_strings_stand_as_they_are_and_the_rest_as_compact_json() {
    let text = json!("<${ $steps.fetch.output.body }> ${ $input.list } ${ $input.none } $${x}");
    assert_eq!(evaluate(text, &[]), Ok(r#""<line\n\"éé\"> [1,[2,3],{\"a\":null}] null ${x}""#.into()));
    assert_eq!(
        evaluate(json!("Bearer ${ $secrets.token }"), &[]),
        Ok("\"Bearer \\u0001secret:token\\u0001\"".into())
    );
}

#[test]
fn a_path_into_what_has_no_inside_fails_the_step_for_good() {
    for (path, words) in [
        ("$input.url.x", "a string has no key \"x\""),
        ("$input.url[0]", "a string has no item 0"),
        ("$input.no.x", "a boolean has no key \"x\""),
        ("$input.n.x", "a number has no key \"x\""),
        ("$input.list.x", "an array has no key \"x\""),
        ("$steps.lost.status.x", "a string has no key \"x\""),
    ] {
        let failure = evaluate(json!(format!("${{ {path} }}")), &[]).expect_err(path);
        assert_eq!((failure.class, &*failure.code), (ErrorClass::Permanent, "expression_failed"));
        assert!(failure.message.contains(words) && failure.message.contains(path), "{}", failure.message);
    }
}

#[test]
fn what_jq_gave_is_put_where_it_was_asked_for() {
    let value =
        json!({"a": "${ $input.list | length }", "b": ["x ${ $input.url + \"y\" }", "${ $input.url }"]});
    let template = Template::parse(&value).expect("it parses");
    let condition = Condition::Holds(Expression::parse("$input.n > 1").expect("it parses"));
    let prepared = prepare(&condition, &template);
    assert!(prepared.has_condition);
    assert_eq!(prepared.filters.len(), 3);
    assert!(prepared.filters[0].contains("$input.n > 1") && prepared.filters[1].contains("length"));
    assert_eq!(
        evaluate(value.clone(), &["3", "\"http://xy\""]),
        Ok(r#"{"a":3,"b":["x http://xy","http://x"]}"#.into())
    );
    assert_eq!(evaluate(value, &["3"]).expect_err("one is missing").class, ErrorClass::Permanent);
    let native = prepare(&Condition::Succeeded, &Template::parse(&json!("${ $input }")).expect("it parses"));
    assert_eq!(native, Prepared::default());
}

#[test]
fn a_native_condition_needs_no_engine() {
    let (scope, secrets) = (scope(), secrets());
    let view = View { scope: &scope, secrets: &secrets };
    let holds = |source: &str| holds(&Condition::Holds(Expression::parse(source).expect("it parses")), view);
    assert_eq!(holds("$input.list"), Some(Ok(true)));
    assert_eq!(holds("$input.no"), Some(Ok(false)));
    assert_eq!(holds("$input.none"), Some(Ok(false)));
    assert_eq!(holds("0"), Some(Ok(true)), "as in jq, only false and null are false");
    assert_eq!(
        (holds("true"), holds("false"), holds("null")),
        (Some(Ok(true)), Some(Ok(false)), Some(Ok(false)))
    );
    assert_eq!(holds("$input.no | not"), None);
    assert!(holds("$input.url.x").expect("it is native").is_err());
    assert_eq!(super::evaluating::always(view), Some(Ok(true)));
}

pub(crate) fn always(view: View<'_>) -> Option<Result<bool, Failure>> {
    holds(&Condition::Always, view)
}

#[test]
fn the_scope_is_one_json_value() {
    let text = scope_json(&scope(), &secrets()).expect("it is small");
    let value: Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(value["steps"]["fetch"]["output"]["body"], "line\n\"éé\"");
    assert_eq!(
        value["steps"]["lost"],
        json!({"output": null, "status": "failed", "error": {"class": "network", "code": "refused", "message": "no"}})
    );
    assert_eq!(value["trigger"], Value::Null);
    assert_eq!(value["secrets"]["token"], "\u{1}secret:token\u{1}");
}

#[test]
fn what_is_evaluated_is_bounded() {
    let mut scope = scope();
    scope.input = Json0(format!("\"{}\"", "x".repeat(MAX_RENDERED_BYTES / 2)).into());
    let secrets = BTreeMap::new();
    let view = View { scope: &scope, secrets: &secrets };
    let once = Template::parse(&json!(["${ $input }"])).expect("it parses");
    assert!(render(&once, view, &mut std::iter::empty()).is_ok());
    for thrice in
        [json!(["${ $input }", "${ $input }", "${ $input }"]), json!("${ $input }${ $input }${ $input }")]
    {
        let template = Template::parse(&thrice).expect("it parses");
        let failure = render(&template, view, &mut std::iter::empty()).expect_err("it is too large");
        assert_eq!((failure.class, &*failure.code), (ErrorClass::Resource, "payload_too_large"));
    }
}

#[test]
fn only_false_and_null_are_false() {
    for (value, expected) in [
        (json!(null), false),
        (json!(false), false),
        (json!(true), true),
        (json!(0), true),
        (json!(""), true),
        (json!([]), true),
        (json!({}), true),
    ] {
        assert_eq!(truthy(&value), expected, "{value}");
    }
}

#[test]
fn a_value_may_be_as_large_as_the_bound_and_no_larger() {
    let secrets = BTreeMap::new();
    let whole = Template::parse(&json!("${ $input }")).expect("it parses");
    let rendered = |bytes: usize| {
        let input = Json0(format!("\"{}\"", "x".repeat(bytes - 2)).into());
        let scope = Scope { input, ..scope() };
        let view = View { scope: &scope, secrets: &secrets };
        render(&whole, view, &mut std::iter::empty()).map(|json| json.len()).map_err(|failure| failure.code)
    };
    assert_eq!(rendered(MAX_RENDERED_BYTES), Ok(MAX_RENDERED_BYTES));
    assert_eq!(rendered(MAX_RENDERED_BYTES + 1), Err("payload_too_large".into()));
}

#[test]
fn the_inputs_and_outputs_of_a_scope_are_bounded_together() {
    let sized = |input: usize, outputs: &[usize]| {
        let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
        let step = |bytes: &usize| ScopeStep {
            name: "s".into(),
            status: StepStatus::Completed,
            output: text(*bytes).into(),
            error: None,
        };
        let steps = outputs.iter().map(step).collect();
        let scope = Scope { input: Json0(text(input).into()), trigger: None, error: None, steps };
        scope_json(&scope, &BTreeMap::new()).map(|_| ()).map_err(|failure| (failure.class, failure.code))
    };
    let too_large = Err((ErrorClass::Resource, "scope_too_large".into()));
    let part = MAX_SCOPE_BYTES / 4;
    assert_eq!(sized(2 * part, &[part, part]), Ok(()));
    assert_eq!(sized(2 * part, &[part, part + 1]), too_large);
    assert_eq!(sized(MAX_SCOPE_BYTES, &[]), Ok(()));
    assert_eq!(sized(MAX_SCOPE_BYTES + 2, &[]), too_large);
}

#[test]
fn what_stands_in_a_string_is_compact_and_its_own_strings_are_as_they_were() {
    let told = |input: &str| {
        let scope = Scope { input: Json0(input.into()), ..scope() };
        let template = Template::parse(&json!("got ${ $input.a }")).expect("it parses");
        let view = View { scope: &scope, secrets: &secrets() };
        let json = render(&template, view, &mut std::iter::empty()).expect("it is there");
        serde_json::from_str::<String>(&json).expect("a string")
    };
    for (a, shown) in [
        ("{ \"x\" : [ 1 ,\t2 ] }", r#"{"x":[1,2]}"#),
        (r#"[ "a b" , "c \" d" , "e \\" , " f" ]"#, r#"["a b","c \" d","e \\"," f"]"#),
        (r#"[ "\\\" g" , "h" ]"#, r#"["\\\" g","h"]"#),
        (r#"" i ""#, " i "),
        ("[\n\r1 ]", "[1]"),
    ] {
        assert_eq!(told(&format!(r#"{{"a": {a}}}"#)), format!("got {shown}"));
    }
}

#[test]
fn everything_can_be_reached_from_the_whole_scope() {
    let scope = Scope { trigger: Some(r#"{"kind": "task"}"#.into()), ..scope() };
    let view = View { scope: &scope, secrets: &secrets() };
    for (path, value) in [
        (".input.no", "false"),
        (".steps.lost.status", "\"failed\""),
        (".trigger.kind", "\"task\""),
        (".error.code", "\"http_404\""),
        (".secrets.token", "\"\\u0001secret:token\\u0001\""),
    ] {
        let template = Template::parse(&json!(format!("${{ {path} }}"))).expect("it parses");
        let json = render(&template, view, &mut std::iter::empty()).map(|json| json.to_string());
        assert_eq!(json.as_deref(), Ok(value), "{path}");
    }
}

#[test]
fn what_is_rendered_and_what_is_sent_are_bounded_as_the_documentation_says() {
    assert_eq!((MAX_RENDERED_BYTES, MAX_SCOPE_BYTES), (1_048_576, 16_777_216));
}
