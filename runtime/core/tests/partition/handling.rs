//! Steps that run because another, or the run, has failed.

use reipaz_core::{
    event::{AttemptResult, SkipReason},
    failure::{ErrorClass, Failure},
    ids::StepPath,
    partition::{Again, Effect, Input, OutputDone, Refusal, Reply, RunStatus, StepStatus, WaitingFor},
    plan::Condition,
};

use crate::{
    plans::{evaluated, output_of, workflow},
    support::{MINUTE, Owner, SECOND},
};

use ErrorClass::{Permanent, Timeout};

fn failed_with(code: &str) -> Failure {
    Failure::new(Permanent, code, "no")
}

/// What `mend` is told of `a`.
fn mend_scope(owner: &mut Owner, run: reipaz_core::ids::RunId) -> StepStatus {
    let start = owner.starting_of(run, "mend");
    start.scope.steps.iter().find(|step| &*step.name == "a").map_or(StepStatus::Waiting, |step| step.status)
}

/// `a` with a `mend` and a `tell` behind it, and `b` after `a`.
fn mended() -> crate::plans::Planner {
    workflow("mended")
        .step("a", &[])
        .step("b", &["a"])
        .output(output_of("b"))
        .handler(Some("a"), "mend", &[])
        .handler(Some("a"), "tell", &["mend"])
}

#[test]
fn nothing_of_it_is_there_while_nothing_fails() {
    let plan = mended().handler(None, "page", &[]).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    let mend = owner.step(run, "mend");
    assert!(!mend.called && mend.waiting_for.is_none());
    assert_eq!((mend.status, mend.skipped), (StepStatus::Skipped, Some(&SkipReason::NothingFailed)));

    owner.complete(run, "a", "1");
    owner.complete(run, "b", "2");
    assert_eq!(owner.status(run), RunStatus::Completed);
    assert_eq!(
        owner.story(run),
        ["accepted", "/a 1 started", "/a 1 completed", "/b 1 started", "/b 1 completed", "completed"]
    );
}

#[test]
fn a_step_that_was_put_right_counts_as_completed() {
    let plan = mended().handled_output("a", output_of("mend")).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    let mut failure = Failure::new(Permanent, "http_404", "no such page");
    failure.details = Some("{\"body\":\"gone\"}".into());
    owner.fail_with(run, "a", failure);

    assert_eq!(mend_scope(&mut owner, run), StepStatus::Failed, "to its own steps it has failed");
    // Its steps know what failed, and the step says what it waits for.
    let mend = owner.started(run, "mend");
    assert_eq!(mend.id.path.as_str(), "/a/on_failure/mend");
    assert_eq!(
        mend.scope.error.as_deref(),
        Some(
            r#"{"attempt":1,"class":"permanent","code":"http_404","details":{"body":"gone"},"message":"no such page","step":"/a"}"#
        )
    );
    let a = owner.step(run, "a");
    let steps = ["/a/on_failure/mend", "/a/on_failure/tell"].map(|path| StepPath(path.into())).to_vec();
    assert_eq!((a.status, a.waiting_for), (StepStatus::Waiting, Some(WaitingFor::Steps { steps })));
    assert_eq!(a.error.map(|error| &*error.code), Some("http_404"));

    owner.complete_this(&mend, "7");
    owner.complete(run, "tell", "null");
    let b = owner.started(run, "b");
    assert_eq!(&*b.scope.steps[0].output, "7");
    assert_eq!(b.scope.error, None);
    owner.complete_this(&b, "8");
    assert_eq!(owner.status(run), RunStatus::Completed);
    assert_eq!(owner.step(run, "a").error.map(|error| &*error.code), Some("http_404"), "it is kept");
    assert_eq!(
        owner.story(run)[2..9],
        [
            "/a 1 failed permanent",
            "/a being handled",
            "/a/on_failure/mend 1 started",
            "/a/on_failure/mend 1 completed",
            "/a/on_failure/tell 1 started",
            "/a/on_failure/tell 1 completed",
            "/a continued with 7",
        ]
    );
}

#[test]
fn without_an_output_or_after_a_second_failure_the_step_has_failed() {
    let silent = mended().build();
    let mut owner = Owner::new();
    let run = owner.submit(&silent, 1);
    owner.fail(run, "a", Permanent);
    owner.complete(run, "mend", "7");
    assert_eq!(owner.status(run), RunStatus::Running, "its steps end before the run does");
    owner.complete(run, "tell", "null");
    assert_eq!(owner.status(run), RunStatus::Failed);
    assert_eq!(
        owner.step(run, "b").skipped,
        Some(&SkipReason::UpstreamFailed(owner.step(run, "a").path.clone()))
    );

    let with_output = mended().handled_output("a", output_of("mend")).build();
    let run = owner.submit(&with_output, 2);
    owner.fail_with(run, "a", failed_with("first"));
    owner.fail_with(run, "mend", failed_with("second"));
    assert_eq!(owner.status(run), RunStatus::Failed);
    let error = owner.run(run).error().unwrap();
    assert_eq!((&*error.code, error.step.as_ref().map(|step| step.as_str())), ("first", Some("/a")));
    assert_eq!(owner.step(run, "tell").status, StepStatus::Skipped);
}

#[test]
fn a_run_that_has_failed_ends_after_its_own_steps_did() {
    let plan = workflow("paged")
        .step("a", &[])
        .step("b", &[])
        .handler(None, "page", &[])
        .handler(None, "clean", &[])
        .build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    owner.fail_with(run, "a", failed_with("broken"));
    assert_eq!(owner.step(run, "page").status, StepStatus::Skipped, "what still can goes on first");
    owner.complete(run, "b", "1");

    let page = owner.started(run, "page");
    assert_eq!(page.id.path.as_str(), "/on_failure/page");
    assert!(page.scope.error.as_deref().unwrap().contains(r#""code":"broken""#));
    assert_eq!(owner.run(run).error().map(|error| &*error.code), Some("broken"), "it is known already");
    owner.complete_this(&page, "1");
    owner.fail_with(run, "clean", failed_with("also_broken"));
    assert_eq!(owner.status(run), RunStatus::Failed);
    assert_eq!(owner.run(run).error().map(|error| &*error.code), Some("broken"));
}

#[test]
fn a_run_whose_time_is_over_still_has_the_time_of_its_on_failure() {
    let plan = workflow("late").step("a", &[]).timeout(SECOND).handler(None, "page", &[]).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    owner.pass(SECOND);
    assert_eq!(owner.step_status(run, "a"), StepStatus::Cancelled);
    let interrupted =
        |effect: &Effect| matches!(effect, Effect::CancelAttempt(id) if id.path.as_str() == "/a");
    assert!(owner.effects.iter().any(interrupted));
    let page = owner.started(run, "page");
    assert!(page.scope.error.as_deref().unwrap().contains(r#""code":"run_timeout""#));

    // And no more than that.
    owner.pass(15 * MINUTE);
    assert_eq!(owner.status(run), RunStatus::Failed);
    let error = owner.run(run).error().unwrap();
    assert_eq!((error.class, &*error.code), (Timeout, "run_timeout"));
    assert_eq!(owner.step_status(run, "page"), StepStatus::Cancelled);
}

#[test]
fn a_pause_does_not_keep_it_from_running_when_the_time_is_over() {
    let plan = workflow("late").step("a", &[]).timeout(SECOND).handler(None, "page", &[]).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    owner.give(Input::Pause(run, None));
    owner.pass(SECOND);
    owner.complete(run, "page", "1");
    assert_eq!(owner.status(run), RunStatus::Failed);
}

#[test]
fn an_output_that_cannot_be_evaluated_is_a_failure_like_any_other() {
    let plan = workflow("wordy").step("a", &[]).output(evaluated()).handler(None, "page", &[]).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    owner.complete(run, "a", "1");
    let seq = owner.run(run).seq();
    let result = AttemptResult::Error(failed_with("expression_failed"));
    owner.give(Input::OutputDone(OutputDone { run, seq, result }));
    owner.complete(run, "page", "1");
    assert_eq!(owner.status(run), RunStatus::Failed);
    assert_eq!(owner.run(run).error().map(|error| &*error.code), Some("expression_failed"));
}

#[test]
fn cancelling_waits_for_nothing() {
    let plan = workflow("paged").step("a", &[]).handler(None, "page", &[]).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    owner.give(Input::Cancel(run, None));
    assert_eq!(owner.status(run), RunStatus::Cancelled);
    assert!(!owner.step(run, "page").called);

    let run = owner.submit(&plan, 2);
    owner.fail(run, "a", Permanent);
    owner.give(Input::Cancel(run, None));
    assert_eq!(owner.status(run), RunStatus::Cancelled);
    assert_eq!(owner.step_status(run, "page"), StepStatus::Cancelled);
}

#[test]
fn a_retried_run_handles_the_next_failure_as_it_did_the_first() {
    let plan = mended().handler(None, "page", &[]).timeout(60 * MINUTE).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    for attempt in 1..=2 {
        owner.fail(run, "a", Permanent);
        let mend = owner.started(run, "mend");
        assert_eq!(mend.id.attempt, attempt);
        owner.complete_this(&mend, "7");
        owner.complete(run, "tell", "null");
        owner.complete(run, "page", "null");
        assert_eq!(owner.status(run), RunStatus::Failed);
        assert_eq!(owner.give(Input::Retry(run, Again::default())), Reply::Done);
    }
    assert!(matches!(owner.retry_from(run, "/a/on_failure/mend"), Reply::Refused(Refusal::WrongStatus(_))));
    owner.complete(run, "a", "1");
    owner.complete(run, "b", "2");
    assert_eq!(owner.status(run), RunStatus::Completed);
    assert!(!owner.step(run, "mend").called);
}

#[test]
fn a_step_of_an_on_failure_is_no_place_to_retry_from() {
    let plan = mended().build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    owner.fail(run, "a", Permanent);
    owner.fail(run, "mend", Permanent);
    assert_eq!(owner.status(run), RunStatus::Failed);
    let refused = owner.retry_from(run, "/a/on_failure/mend");
    assert!(matches!(refused, Reply::Refused(Refusal::UnknownStep(_))), "{refused:?}");
}

#[test]
fn its_steps_have_conditions_and_retries_like_others() {
    let plan = workflow("careful")
        .step("a", &[])
        .handler(Some("a"), "mend", &[])
        .with(|step| step.retry.attempts = 2)
        .handler(Some("a"), "worse", &["mend"])
        .when(Condition::Failed)
        .handled_output("a", output_of("mend"))
        .build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    owner.fail(run, "a", Permanent);
    owner.fail(run, "mend", ErrorClass::Network);
    owner.complete(run, "mend", "7");
    assert_eq!(owner.step(run, "worse").skipped, Some(&SkipReason::NothingFailed));
    assert_eq!(owner.status(run), RunStatus::Completed);
}

#[test]
fn a_new_owner_goes_on_where_the_last_one_was() {
    let plan = mended().handled_output("a", output_of("mend")).handler(None, "page", &[]).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    owner.fail(run, "a", Permanent);
    owner.restart(false);
    owner.complete(run, "mend", "7");
    owner.restart(false);
    owner.complete(run, "tell", "null");
    owner.fail(run, "b", Permanent);
    owner.restart(false);
    owner.complete(run, "page", "1");
    assert_eq!(owner.status(run), RunStatus::Failed);
    assert_eq!(owner.step_status(run, "page"), StepStatus::Completed);
}
