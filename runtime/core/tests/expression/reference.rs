//! Paths here and in the engine's jq give the same: whether `| .` stands behind one must not matter.

use std::collections::BTreeMap;

use proptest::prelude::*;
use reipaz_core::{
    expression::{
        Expression, ExpressionKind, Template,
        evaluate::{View, render, scope_json},
    },
    partition::{Json0, Scope, ScopeStep, StepStatus},
};
use reipaz_jq_core::{Program, read, write};
use serde_json::Value;

/// What the engine's jq makes of an expression.
fn by_jq(source: &str, scope: &Scope) -> Result<Value, String> {
    let expression = Expression::parse(&format!("{source} | .")).map_err(|error| error.to_string())?;
    let ExpressionKind::Jq(program) = &expression.kind else { panic!("a pipe makes it jq") };
    let program = Program::compile(program, &[]).map_err(|error| error.to_string())?;
    let input = read(&scope_json(scope, &BTreeMap::new()).expect("it is small"))
        .map_err(|error| format!("{error:?}"))?;
    let value = program.run(&[], input).map_err(|error| error.to_string())?;
    let text = write(&value).map_err(|error| format!("{error:?}"))?;
    Ok(serde_json::from_str(&text).expect("jq writes JSON"))
}

fn here(source: &str, scope: &Scope) -> Result<Value, String> {
    let secrets = BTreeMap::new();
    let view = View { scope, secrets: &secrets };
    let template = Template::parse(&Value::String(format!("${{ {source} }}"))).expect("it parses");
    assert!(template.is_native());
    let text =
        render(&template, view, &mut std::iter::empty()).map_err(|failure| failure.message.to_string())?;
    Ok(serde_json::from_str(&text).expect("it is JSON"))
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-9..9_i64).prop_map(Value::from),
        "[a-c\"\\\\é]{0,2}".prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 30, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map("[a-c]", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn path() -> impl Strategy<Value = String> {
    let root = prop::sample::select(vec![
        "$input",
        "$steps.s.output",
        ".input",
        ".steps.s.output",
        "$trigger",
        "$steps.t.error",
    ]);
    let segment = prop::sample::select(vec![".a", ".b", "[\"c\"]", "[0]", "[1]", "[-1]", "[-3]", "[7]"]);
    (root, prop::collection::vec(segment, 0..4))
        .prop_map(|(root, segments)| format!("{root}{}", segments.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_path_gives_what_jq_gives(input in value(), output in value(), path in path()) {
        let step = |name: &str, output: &Value| ScopeStep {
            name: name.into(),
            status: StepStatus::Completed,
            output: output.to_string().into(),
            error: None,
        };
        let scope = Scope {
            input: Json0(input.to_string().into()),
            trigger: Some(output.to_string().into()),
            error: None,
            steps: vec![step("s", &output), step("t", &input)],
        };
        match (here(&path, &scope), by_jq(&path, &scope)) {
            (Ok(here), Ok(jq)) => prop_assert_eq!(here, jq),
            (Err(_), Err(_)) => {}
            (here, jq) => prop_assert!(false, "{path}: {here:?} here, {jq:?} in jq"),
        }
    }
}
