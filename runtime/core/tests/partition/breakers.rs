//! Attempts that a circuit breaker did not let through.

use std::time::Duration;

use reipaz_core::{
    event::AttemptResult,
    failure::ErrorClass,
    partition::{AttemptOutcome, Input, RunStatus, StepStatus, WaitingFor},
};

use crate::{
    plans::{output_of, workflow},
    support::{BEGIN, MINUTE, Owner, SECOND, done},
};

fn park(owner: &mut Owner, run: reipaz_core::ids::RunId, recheck: Duration) -> u32 {
    let start = owner.started(run, "a");
    let breaker = "authority https://shop.example".into();
    owner.give(done(start.id.clone(), AttemptOutcome::Parked { breaker, recheck }));
    start.id.attempt
}

#[test]
fn a_parked_step_says_what_it_waits_for_and_looks_again_across_crashes() {
    let plan =
        workflow("w").step("a", &[]).with(|step| step.retry.attempts = 1).output(output_of("a")).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    park(&mut owner, run, 10 * SECOND);
    let a = owner.step(run, "a");
    let breaker = "authority https://shop.example".into();
    assert_eq!(
        (a.status, a.waiting_for),
        (StepStatus::Waiting, Some(WaitingFor::Breaker { breaker, due: BEGIN.plus(10 * SECOND) }))
    );
    assert_eq!(owner.status(run), RunStatus::Waiting);

    // Parked as often as it may be, it has still its one attempt.
    owner.restart(false);
    owner.pass(10 * SECOND);
    assert_eq!(park(&mut owner, run, 20 * SECOND), 2);
    owner.pass(19 * SECOND);
    assert!(owner.starting().is_empty());
    owner.pass(SECOND);
    owner.complete(run, "a", "1");
    assert_eq!(owner.status(run), RunStatus::Completed);
    assert_eq!(
        owner.story(run)[1..5],
        [
            "/a 1 started",
            "/a 1 parked for authority https://shop.example",
            "/a 2 started",
            "/a 2 parked for authority https://shop.example",
        ]
    );
}

#[test]
fn it_does_not_count_as_an_attempt_of_the_retry_rule() {
    let plan = workflow("w").step("a", &[]).with(|step| step.retry.attempts = 2).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    park(&mut owner, run, SECOND);
    owner.pass(SECOND);
    owner.fail(run, "a", ErrorClass::Network);
    park(&mut owner, run, SECOND);
    owner.pass(SECOND);
    owner.fail(run, "a", ErrorClass::Network);
    assert_eq!(owner.status(run), RunStatus::Failed, "two attempts, two parkings");
    assert_eq!(owner.step(run, "a").attempts, 4);
}

#[test]
fn a_breaker_stops_no_deadline() {
    let plan = workflow("w").step("a", &[]).with(|step| step.total_timeout = Some(MINUTE)).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    park(&mut owner, run, 10 * MINUTE);
    owner.pass(MINUTE);
    let start = owner.started(run, "a");
    assert_eq!(start.left, Some(Duration::ZERO));
    let breaker = "plugin a@1.0.0".into();
    owner.give(done(start.id, AttemptOutcome::Parked { breaker, recheck: SECOND }));
    assert_eq!(owner.run(run).error().map(|error| &*error.code), Some("step_timeout"));

    let plan = workflow("short").step("a", &[]).timeout(MINUTE).build();
    let run = owner.submit(&plan, 2);
    park(&mut owner, run, 10 * MINUTE);
    owner.pass(MINUTE);
    assert_eq!(owner.run(run).error().map(|error| &*error.code), Some("run_timeout"));
}

#[test]
fn a_step_waits_for_a_breaker_as_long_as_its_rule_would_have_it_tried_again() {
    let plan = workflow("w").step("a", &[]).with(|step| step.retry.within = MINUTE).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    park(&mut owner, run, 40 * SECOND);
    owner.pass(40 * SECOND);
    park(&mut owner, run, 40 * SECOND);
    owner.pass(20 * SECOND);
    park(&mut owner, run, 40 * SECOND);
    let error = owner.run(run).error().unwrap();
    assert_eq!((error.class, &*error.code, error.attempt), (ErrorClass::Network, "breaker_open", Some(3)));

    let plan = workflow("impatient").step("a", &[]).with(|step| step.retry.within = Duration::ZERO).build();
    let run = owner.submit(&plan, 2);
    park(&mut owner, run, SECOND);
    assert_eq!(owner.run(run).error().map(|error| &*error.code), Some("breaker_open"));
}

#[test]
fn a_breaker_that_names_no_time_does_not_make_a_run_turn_on_the_spot() {
    let plan = workflow("w").step("a", &[]).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    park(&mut owner, run, Duration::ZERO);
    assert!(owner.starting().is_empty());
    owner.pass(Duration::from_millis(100));
    assert_eq!(owner.starting(), ["/a"]);
}

#[test]
fn pause_and_cancel_reach_a_parked_step() {
    let plan = workflow("w").step("a", &[]).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    park(&mut owner, run, SECOND);
    owner.give(Input::Pause(run, None));
    owner.pass(MINUTE);
    assert!(owner.starting().is_empty());
    owner.give(Input::Resume(run, None));
    let start = owner.started(run, "a");
    owner.give(done(start.id, AttemptOutcome::Result(AttemptResult::Output("1".into()))));
    assert_eq!(owner.status(run), RunStatus::Completed);

    let run = owner.submit(&plan, 2);
    park(&mut owner, run, SECOND);
    owner.give(Input::Cancel(run, None));
    owner.pass(MINUTE);
    assert_eq!(owner.status(run), RunStatus::Cancelled);
}
