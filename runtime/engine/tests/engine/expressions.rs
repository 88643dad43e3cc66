//! jq in the engine: what it gives, what fails, and runaways.

use std::sync::{Arc, OnceLock};

use reipaz_engine::{Class, Evaluated, Evaluation, Failure};
use serde_json::json;
use tokio::time::Instant;

use crate::guests;
use crate::rig::Rig;

pub(crate) async fn rig() -> Rig {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    let jq = BUILT.get_or_init(|| guests::build("reipaz-jq")).clone();
    let rig = Rig::with(|config| config.jq = Some(jq.into())).await;
    rig.engine.prepare().await.unwrap();
    rig
}

pub(crate) fn evaluation(condition: Option<&str>, filters: &[&str]) -> Evaluation {
    let scope = json!({"input": {"n": 3, "rows": [1, 2, 3]}, "steps": {"fetch": {"output": {"body": "b"}}}});
    Evaluation {
        scope: scope.to_string().into(),
        condition: condition.map(Arc::from),
        filters: filters.iter().map(|f| Arc::from(*f)).collect(),
        seed: [1; 32],
        start_by: None,
        cancel: Default::default(),
    }
}

async fn fails(rig: &Rig, filter: &str) -> Failure {
    rig.engine.evaluate(evaluation(None, &[filter])).await.unwrap_err()
}

#[tokio::test]
async fn filters_see_the_scope_as_input_and_as_variables() {
    let rig = rig().await;
    let filters = ["$input.rows | map(. * 2)", ".steps.fetch.output.body", "$input.n + 1", "$item"];
    let evaluated = rig.engine.evaluate(evaluation(Some("$input.n > 2"), &filters)).await.unwrap();
    assert_eq!(
        evaluated,
        Evaluated {
            condition: Some(true),
            values: vec!["[2,4,6]".into(), "\"b\"".into(), "4".into(), "null".into()],
        }
    );
}

#[tokio::test]
async fn nothing_is_evaluated_behind_a_false_condition() {
    let rig = rig().await;
    let evaluated = rig.engine.evaluate(evaluation(Some("$input.n > 5"), &["error(\"no\")"])).await.unwrap();
    assert_eq!(evaluated, Evaluated { condition: Some(false), values: Vec::new() });
}

#[tokio::test]
async fn an_expression_that_fails_on_this_data_is_permanent_and_named() {
    let rig = rig().await;
    for filter in ["$input.rows + 1", "error(\"no\")", "empty", "$input.rows[]"] {
        let failure = fails(&rig, filter).await;
        assert_eq!(
            (failure.class, failure.code.as_str()),
            (Class::Permanent, "expression_failed"),
            "{filter}"
        );
        assert!(failure.message.contains(filter), "{}", failure.message);
    }
    assert_eq!(fails(&rig, "$input |").await.code, "expression_invalid");
}

#[tokio::test]
async fn runaways_are_stopped_and_fail_as_resource() {
    let rig = rig().await;
    for filter in [
        "def f: 1 + f; f",
        "def f: f; f",
        "last(repeat(1))",
        "[range(1e9)]",
        "[repeat(1)]",
        "[limit(1000000; repeat(\"x\" * 1000))]",
        "reduce range(1e9) as $i (0; . + $i)",
        "def f: [f]; f",
    ] {
        let began = Instant::now();
        let failure = fails(&rig, filter).await;
        assert_eq!(failure.class, Class::Resource, "{filter}: {failure:?}");
        assert!(began.elapsed().as_millis() < 2_500, "{filter}: {:?}", began.elapsed());
        println!("{filter}: {} after {:?}", failure.code, began.elapsed());
    }
    rig.assert_sound().await;
}

#[tokio::test]
async fn there_is_no_world_in_an_expression() {
    let rig = rig().await;
    for filter in
        ["env", "$ENV", "now", "input", "inputs", "halt", "input_filename", "localtime", "$__prog_args"]
    {
        let failure = fails(&rig, filter).await;
        assert_eq!(failure.class, Class::Permanent, "{filter}: {failure:?}");
        assert_eq!(failure.code, "expression_invalid", "{filter}: {failure:?}");
    }
}

#[tokio::test]
async fn an_evaluation_is_cancelled() {
    let rig = rig().await;
    let evaluation = evaluation(None, &["last(repeat(1))"]);
    let cancel = evaluation.cancel.clone();
    let (evaluated, ()) = tokio::join!(rig.engine.evaluate(evaluation), async {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        cancel.cancel();
    });
    assert_eq!(evaluated.unwrap_err().class, Class::Cancelled);
}

#[tokio::test]
async fn without_a_jq_component_every_evaluation_says_so() {
    let rig = Rig::new().await;
    assert_eq!(fails(&rig, ".").await.code, "expressions_unavailable");
}
