//! What becomes of a run when a step has failed for good, and how a person goes on with it.

use std::time::Duration;

use reipaz_core::{
    expression::Template,
    failure::{ErrorClass, Failure},
    partition::{Again, Input, Refusal, Reply, RunStatus, StartFrom, StepStatus},
    plan::OnFailure,
    retry::{Case, Numbers, Treatment},
};

use crate::{
    plans::{output_of, whole_input, workflow},
    support::{BEGIN, MINUTE, Owner, SECOND, failure},
};

use ErrorClass::{Network, Permanent, Timeout, Transient};

fn literal(json: serde_json::Value) -> OnFailure {
    OnFailure::ContinueWith(Template::Literal(json))
}

fn failed_with(code: &str) -> Failure {
    Failure::new(Permanent, code, "no")
}

#[test]
fn a_run_goes_on_with_a_value_in_place_of_what_failed() {
    let plan = workflow("lenient")
        .step("a", &[])
        .with(|step| step.on_failure = literal(serde_json::json!({"rows": []})))
        .step("b", &["a"])
        .output(output_of("a"))
        .build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);

    owner.fail(run, "a", Permanent);
    assert_eq!(owner.step_status(run, "a"), StepStatus::Completed);
    assert_eq!(owner.step(run, "a").error.map(|error| error.class), Some(Permanent), "the failure is kept");
    let start = owner.started(run, "b");
    assert_eq!(&*start.scope.steps[0].output, r#"{"rows":[]}"#);
    owner.complete_this(&start, "1");

    assert_eq!(owner.status(run), RunStatus::Completed);
    assert_eq!(owner.run(run).output().map(|output| &**output), Some(r#"{"rows":[]}"#));
    assert_eq!(
        owner.story(run),
        [
            "accepted",
            "/a 1 started",
            "/a 1 failed permanent",
            r#"/a continued with {"rows":[]}"#,
            "/b 1 started",
            "/b 1 completed",
            "completed",
        ]
    );
}

#[test]
fn retries_come_before_the_value_and_the_value_may_be_a_path() {
    let plan = workflow("lenient")
        .step("a", &[])
        .with(|step| {
            step.retry.attempts = 2;
            step.on_failure = OnFailure::ContinueWith(whole_input());
        })
        .output(output_of("a"))
        .build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    owner.fail(run, "a", Network);
    assert_eq!(owner.step_status(run, "a"), StepStatus::Running, "the second attempt comes at once");
    owner.fail(run, "a", Network);

    assert_eq!(owner.status(run), RunStatus::Completed);
    assert_eq!(owner.run(run).output(), Some(owner.run(run).input()));
}

#[test]
fn a_run_that_pauses_after_a_failure_can_be_retried_resumed_or_cancelled() {
    let plan = workflow("careful")
        .step("a", &[])
        .with(|step| step.on_failure = OnFailure::Pause)
        .step("b", &["a"])
        .timeout(60 * MINUTE)
        .build();
    let mut owner = Owner::new();

    let retried = owner.submit(&plan, 1);
    owner.fail(retried, "a", Permanent);
    assert_eq!(owner.status(retried), RunStatus::Paused);
    owner.pass(MINUTE);
    assert_eq!(owner.give(Input::Retry(retried, Again::default())), Reply::Done);
    let start = owner.started(retried, "a");
    assert_eq!(start.id.attempt, 2);
    owner.complete_this(&start, "1");
    owner.complete(retried, "b", "2");
    assert_eq!(owner.status(retried), RunStatus::Completed);
    assert_eq!(owner.run(retried).deadline(), Some(BEGIN.plus(60 * MINUTE)), "its time goes on");
    assert_eq!(owner.story(retried)[3..6], ["paused", "retried [/a]", "resumed"].map(str::to_owned));

    let resumed = owner.submit(&plan, 2);
    owner.fail(resumed, "a", Permanent);
    assert_eq!(owner.give(Input::Resume(resumed, None)), Reply::Done);
    assert_eq!(owner.status(resumed), RunStatus::Failed, "resumed, it goes on with the failure");

    let cancelled = owner.submit(&plan, 3);
    owner.fail(cancelled, "a", Permanent);
    assert_eq!(owner.give(Input::Cancel(cancelled, None)), Reply::Done);
    assert_eq!(owner.status(cancelled), RunStatus::Cancelled);
}

#[test]
fn a_paused_run_without_failures_is_not_retried() {
    let plan = workflow("sound").step("a", &[]).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    owner.give(Input::Pause(run, None));
    let refused = Reply::Refused(Refusal::WrongStatus(RunStatus::Paused));
    assert_eq!(owner.give(Input::Retry(run, Again::default())), refused);
}

#[test]
fn what_is_being_executed_does_not_start_afresh_beside_itself() {
    let plan = workflow("wide")
        .step("a", &[])
        .with(|step| step.on_failure = OnFailure::Pause)
        .step("b", &[])
        .build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    owner.fail(run, "a", Permanent);
    let Reply::Refused(Refusal::StepRunning(path)) = owner.retry_from(run, "b") else {
        panic!("it was allowed")
    };
    assert_eq!(path.as_str(), "/b");
    owner.complete(run, "b", "1");
    assert_eq!(owner.retry_from(run, "b"), Reply::Done);
    assert_eq!(owner.started(run, "b").id.attempt, 2);
}

#[test]
fn a_run_is_retried_with_another_input_from_the_start() {
    let plan = workflow("again").step("a", &[]).step("b", &["a"]).output(whole_input()).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    owner.complete(run, "a", "1");
    owner.fail(run, "b", Permanent);

    let again = Again { from: StartFrom::Start, input: Some("[7]".into()) };
    assert_eq!(owner.give(Input::Retry(run, again)), Reply::Done);
    let start = owner.started(run, "a");
    assert_eq!((start.id.attempt, &*start.scope.input.0), (2, "[7]"));
    owner.complete_this(&start, "1");
    owner.complete(run, "b", "1");
    assert_eq!(owner.run(run).output().map(|output| &**output), Some("[7]"));
    assert_ne!(&*owner.run(run).accepted().input, "[7]", "what it was accepted with stays known");
}

#[test]
fn the_time_of_all_attempts_bounds_each_and_ends_the_retries() {
    let plan = workflow("bounded")
        .step("a", &[])
        .with(|step| {
            step.total_timeout = Some(Duration::from_secs(40));
            step.retry.attempts = 9;
        })
        .build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    let first = owner.started(run, "a");
    assert_eq!((first.timeout, first.left), (30 * SECOND, Some(40 * SECOND)));

    owner.pass(30 * SECOND);
    owner.fail_this(&first, failure(Timeout));
    let second = owner.started(run, "a");
    assert_eq!((second.timeout, second.left), (30 * SECOND, Some(10 * SECOND)), "it has what is left");

    owner.pass(10 * SECOND);
    owner.fail_this(&second, Failure::new(Timeout, "step_timeout", "over"));
    assert_eq!(owner.status(run), RunStatus::Failed);
    assert_eq!(
        owner.run(run).error().map(|error| (&*error.code, error.attempt)),
        Some(("step_timeout", Some(2)))
    );
}

#[test]
fn no_retry_is_due_after_the_steps_time() {
    let plan = workflow("bounded")
        .step("a", &[])
        .with(|step| step.total_timeout = Some(Duration::from_secs(2)))
        .build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    owner.fail(run, "a", Transient);
    owner.pass(SECOND);
    owner.fail(run, "a", Transient);
    assert_eq!(owner.status(run), RunStatus::Failed, "two more seconds would be over its time");
}

#[test]
fn a_rule_treats_a_code_or_a_class_in_its_own_way() {
    let again = |attempts| Treatment::Again(Numbers { attempts: Some(attempts), ..Numbers::default() });
    let plan = workflow("particular")
        .step("a", &[])
        .with(|step| {
            step.retry.by_error = [
                (Case::Class(Network), Treatment::Never),
                (Case::Code("http_409".into()), again(3)),
                (Case::Class(Permanent), again(2)),
            ]
            .into();
        })
        .build();
    let attempts = |failures: &[Failure]| {
        let mut owner = Owner::new();
        let run = owner.submit(&plan, 1);
        for failure in failures {
            if owner.step_status(run, "a") == StepStatus::Retrying {
                owner.pass(MINUTE);
            }
            if owner.step_status(run, "a") == StepStatus::Running {
                owner.fail_with(run, "a", failure.clone());
            }
        }
        owner.step(run, "a").attempts
    };
    assert_eq!(attempts(&vec![failure(Network); 9]), 1, "never");
    assert_eq!(attempts(&vec![failed_with("http_409"); 9]), 3, "the code counts before the class");
    assert_eq!(attempts(&vec![failed_with("http_404"); 9]), 2, "a permanent failure may be tried again");
    assert_eq!(attempts(&vec![failure(Transient); 9]), 5, "the others go by the rule");
}
