//! What a `retry` says about failures of one kind.

use std::time::Duration;

use reipaz_core::retry::{Case, Numbers, Treatment};

use crate::{
    refused::{case, in_step},
    support::accepted,
};

#[test]
fn retry_rules_are_put_together_number_by_number() {
    let text = format!(
        "defaults: {{retry: {{by_error: {{out_of_memory: {{attempts: 4, base: 1s}}, 409: never, 410: {{attempts: 2}}}}}}}}\n{}",
        in_step("    retry: {by_error: {out_of_memory: {base: 3s}, 409: {attempts: 9}, 410: never}}\n")
    );
    let checked = accepted(&text);
    assert_eq!(checked.warnings, []);
    let by_error = &checked.plan.steps[0].retry.by_error;
    let code = |code: &str| by_error[&Case::Code(code.into())];
    let base = Some(Duration::from_secs(3));
    assert_eq!(
        code("out_of_memory"),
        Treatment::Again(Numbers { attempts: Some(4), base, ..Numbers::default() })
    );
    assert_eq!(code("http_409"), Treatment::Again(Numbers { attempts: Some(9), ..Numbers::default() }));
    assert_eq!(code("http_410"), Treatment::Never);
}

#[test]
fn cases_of_a_retry_rule_that_are_hardly_meant_are_warned_of() {
    let checked = accepted(&in_step(
        "    retry: {by_error: {step_timeout: never, breaker_open: never, host_lost: {attempts: 2}, netwrk: never}}\n",
    ));
    let told: Vec<_> = checked.warnings.iter().map(|warning| (warning.code, &*warning.pointer)).collect();
    let pointer = |name: &str| format!("/steps/a/retry/by_error/{name}");
    let expected = [
        ("bad_value", &*pointer("step_timeout")),
        ("bad_value", &*pointer("breaker_open")),
        ("bad_value", &*pointer("host_lost")),
        ("unknown_key", &*pointer("netwrk")),
    ];
    assert_eq!(told, expected);
    let code = |code: &str| Case::Code(code.into());
    let by_error = &checked.plan.steps[0].retry.by_error;
    assert!(by_error.contains_key(&code("netwrk")) && !by_error.contains_key(&code("host_lost")));
}

#[test]
fn what_is_no_kind_of_failures_is_refused() {
    case(
        &in_step("    retry: {by_error: {«Out-Of-Memory»: never}}\n"),
        "/steps/a/retry/by_error/Out-Of-Memory",
        "bad_value",
        "no class, status or code",
    );
}
