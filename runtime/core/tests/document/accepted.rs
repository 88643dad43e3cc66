//! What is accepted, and what it means.

use std::{sync::Arc, time::Duration};

use reipaz_core::{
    expression::{ExpressionKind, Root, Template},
    plan::{Condition, PinnedWorkflow, Plan},
    retry::Jitter,
};
use serde_json::json;

use crate::support::accepted;

pub(crate) const ORDERS: &str = r#"
reipaz: 1
name: orders
input: {type: object, required: [url], properties: {url: {type: string}}}
timeout: 48h
defaults: {timeout: 20s, retry: {attempts: 3, within: 10m, jitter: none}}
secrets: [shop_token]
steps:
  report:
    uses: transform@1.0
    needs: [audit]
    if: ($steps.score.output | length) > 0
    with: {data: "${ $steps.score.output }", filter: "map(.id)"}
  fetch:
    uses: http_request@1
    with:
      url: ${ $input.url }
      headers: {authorization: "Bearer ${ $secrets.shop_token }"}
    timeout: 10s
    retry: {attempts: 2}
    grants: {http: ["GET shop.example"]}
  score:
    uses: acme/score
    with: {order: "${ $steps.fetch.output.body }", note: "costs $${5}"}
  audit:
    uses: acme/score@2.1.0
    if: always
    needs: [fetch]
output: ${ $steps.report.output }
ui: {positions: {fetch: [1, 2]}}
"#;

fn names(plan: &Plan, steps: &[usize]) -> Vec<String> {
    steps.iter().map(|step| plan.steps[*step].name.to_string()).collect()
}

fn step<'p>(plan: &'p Plan, name: &str) -> &'p reipaz_core::plan::StepPlan {
    plan.steps.iter().find(|step| &*step.name == name).expect("the step is in the plan")
}

#[test]
fn references_and_needs_are_edges_and_give_the_order() {
    let plan = accepted(ORDERS).plan;
    assert_eq!(names(&plan, &[0, 1, 2, 3]), ["fetch", "audit", "score", "report"]);
    let report = step(&plan, "report");
    assert_eq!(report.path.as_str(), "/report");
    assert_eq!(names(&plan, &report.upstream), ["audit", "score"]);
    assert_eq!(names(&plan, &report.reads), ["score"]);
    assert_eq!(names(&plan, &step(&plan, "fetch").downstream), ["audit", "score"]);
    assert!(matches!(report.condition, Condition::Holds(_)));
    assert!(matches!(step(&plan, "audit").condition, Condition::Always));
    assert_eq!(names(&plan, &plan.output_reads), ["report"]);
}

#[test]
fn a_step_comes_before_the_defaults_and_those_before_the_plugin() {
    let plan = accepted(ORDERS).plan;
    let fetch = step(&plan, "fetch");
    assert_eq!(fetch.timeout, Duration::from_secs(10));
    assert_eq!(fetch.retry.attempts, 2, "its own");
    assert_eq!(fetch.retry.within, Duration::from_secs(600), "the workflow's");
    assert_eq!(fetch.retry.jitter, Jitter::None, "the workflow's");
    assert_eq!(fetch.retry.base, Duration::from_secs(2), "the plugin's");
    assert_eq!(fetch.retry.factor, 2.0, "the host's");
    assert_eq!(step(&plan, "score").timeout, Duration::from_secs(20));
    assert_eq!(plan.timeout, Some(Duration::from_secs(48 * 3600)));
}

#[test]
fn what_a_step_may_have_is_only_what_it_names() {
    let plan = accepted(ORDERS).plan;
    assert_eq!(step(&plan, "fetch").secrets, [Arc::from("shop_token")]);
    assert!(step(&plan, "score").secrets.is_empty());
    let grants = step(&plan, "fetch").grants.as_ref().expect("it narrows its grants");
    assert_eq!(grants["http"], ["GET shop.example"]);
    assert_eq!(step(&plan, "score").grants, None);
}

#[test]
fn templates_keep_literals_and_paths_apart() {
    let plan = accepted(ORDERS).plan;
    let Template::Object(fields) = &step(&plan, "score").with else { panic!("an object") };
    assert_eq!(fields[0], ("note".into(), Template::Literal(json!("costs ${5}"))));
    let Template::Whole(order) = &fields[1].1 else { panic!("one expression") };
    assert!(matches!(&order.kind, ExpressionKind::Path(Root::Steps, segments) if segments.len() == 3));
    assert!(step(&plan, "fetch").with.is_native());
}

#[test]
fn the_same_content_gives_the_same_version_and_a_stored_version_the_same_plan() {
    let checked = accepted(ORDERS);
    assert!(checked.warnings.is_empty());
    assert!(checked.pinned.document.get("ui").is_none());
    let canonical = checked.pinned.canonical();
    let stored: PinnedWorkflow = serde_json::from_str(&canonical).expect("canonical JSON is JSON");
    assert_eq!(stored, checked.pinned);
    assert_eq!(stored.canonical(), canonical);
    let again = stored.compile().expect("what was accepted compiles");
    assert_eq!(format!("{again:?}"), format!("{:?}", checked.plan));
    let as_json = serde_json::to_string_pretty(&checked.pinned.document).expect("a document is JSON");
    assert_eq!(accepted(&as_json).plan.digest, checked.plan.digest);
    assert_eq!(accepted(&ORDERS.replace("[1, 2]", "[3, 4]")).plan.digest, checked.plan.digest);
    assert_ne!(accepted(&ORDERS.replace("48h", "47h")).plan.digest, checked.plan.digest);
}

#[test]
fn a_runs_input_is_held_against_the_schema() {
    let plan = accepted(ORDERS).plan;
    assert_eq!(plan.check_input(&json!({"url": "x"})), Ok(()));
    let mistakes = plan.check_input(&json!({"url": 5})).expect_err("a number is no string");
    assert_eq!(mistakes[0].pointer, "/url");
    assert_eq!(plan.check_input(&json!([])).expect_err("a list is no object")[0].pointer, "");
}
