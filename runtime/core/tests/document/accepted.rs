//! What is accepted, and what it means.

use std::{sync::Arc, time::Duration};

use reipaz_core::{
    expression::{ExpressionKind, Root, Template},
    limit::{LimitRule, Rate},
    plan::{Condition, Handles, OnFailure, PinnedWorkflow, Plan},
    retry::Jitter,
};
use serde_json::json;

use crate::{refused::in_step, support::accepted};

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

#[test]
fn the_steps_of_an_on_failure_stand_under_what_they_are_for() {
    let checked = accepted(
        r#"
reipaz: 1
name: careful
steps:
  first: {uses: acme/score}
  fetch:
    uses: acme/score
    needs: [first]
    on_failure:
      steps:
        cached: {uses: acme/score, with: {why: "${ $error.code }", was: "${ $steps.first.output }"}}
        tell: {uses: acme/score, with: "${ $steps.cached.output }"}
      output: "${ $steps.cached.output.rows }"
  last: {uses: acme/score, with: "${ $steps.fetch.output }"}
on_failure:
  timeout: 5m
  steps:
    page: {uses: acme/score, with: {text: "${ $error.message }", last: "${ $steps.last.status }"}}
"#,
    );
    let plan = &checked.plan;
    let paths: Vec<_> = plan.steps.iter().map(|step| step.path.as_str()).collect();
    let [first, fetch, last] = ["/first", "/fetch", "/last"];
    let [cached, tell, page] = ["/fetch/on_failure/cached", "/fetch/on_failure/tell", "/on_failure/page"];
    assert_eq!(paths, [first, fetch, last, cached, page, tell]);
    let step = |path| plan.steps.iter().find(|step| step.path.as_str() == path).expect("it is there");

    let OnFailure::Steps { steps, output: Some((_, reads)) } = &step(fetch).on_failure else {
        panic!("{:?}", step(fetch).on_failure)
    };
    assert_eq!((&steps[..], &reads[..]), (&[3, 5][..], &[3][..]));
    assert_eq!(step(cached).handles, Some(Handles::Step(1)));
    assert_eq!(
        (&step(cached).upstream[..], &step(cached).reads[..]),
        (&[][..], &[0][..]),
        "it is over by then"
    );
    assert_eq!(step(tell).upstream, [3]);
    assert_eq!(step(last).upstream, [1], "the output stands in for the step's own");

    let on_failure = plan.on_failure.as_ref().expect("it has one");
    assert_eq!((&on_failure.steps[..], on_failure.timeout.as_secs()), (&[4][..], 300));
    assert_eq!((step(page).handles, &step(page).reads[..]), (Some(Handles::Run), &[2][..]));
}

#[test]
fn how_many_runs_there_may_be() {
    let document = |concurrency: &str| {
        format!("reipaz: 1\nname: w\nconcurrency: {concurrency}\nsteps: {{a: {{uses: acme/score}}}}\n")
    };
    let read = |concurrency: &str| accepted(&document(concurrency)).plan.concurrency.expect("it has one");

    let both = read("{key: $input.customer, limit: 2, rate: {starts: 10, per: 1m}, max_queued: 7}");
    let rate = Some(Rate { starts: 10, per_ms: 60_000 });
    assert_eq!(both.rule, LimitRule { at_once: Some(2), rate, max_queued: 7, version: 0 });
    assert!(matches!(both.key, Some(Template::Whole(_))));
    let text = read("{key: '${ $input.region }/${ $input.customer }', limit: 1, when_full: reject}");
    assert_eq!(text.rule, LimitRule { at_once: Some(1), rate: None, max_queued: 0, version: 0 });
    assert!(matches!(text.key, Some(Template::Text(_))));
    assert_eq!(read("{limit: 1}").rule.max_queued, 1_000_000);
}

#[test]
fn what_is_the_default_may_be_written() {
    let step = accepted(&in_step("    on_failure: fail\n")).plan.steps[0].clone();
    assert!(matches!(step.on_failure, OnFailure::Fail));
}

#[test]
fn a_condition_may_be_a_boolean() {
    for value in [true, false] {
        let step = accepted(&in_step(&format!("    if: {value}\n"))).plan.steps[0].clone();
        let Condition::Holds(expression) = &step.condition else { panic!("{:?}", step.condition) };
        assert!(matches!(&expression.kind, ExpressionKind::Literal(literal) if *literal == value));
    }
}
