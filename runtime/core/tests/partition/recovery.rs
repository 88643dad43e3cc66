//! What happens to attempts when their host stops.

use reipaz_core::{
    event::AttemptResult,
    failure::ErrorClass,
    partition::{AttemptOutcome, Effect, Input, PartitionConfig, RunStatus, StepStatus},
};

use crate::{
    plans::{evaluated, workflow},
    support::{BEGIN, MINUTE, Owner, SECOND, done},
};

#[test]
fn an_attempt_whose_host_was_lost_is_executed_again_as_the_same_attempt() {
    let plan = workflow("lost").step("a", &[]).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    let before = owner.started(run, "a");

    owner.pass(MINUTE);
    owner.restart(false);

    let after = owner.started(run, "a");
    assert_eq!(after.id, before.id);
    assert_eq!(after.started_at, before.started_at, "its clock starts where it started");
    assert_eq!(after.run_seed, before.run_seed);
    assert_eq!(owner.story(run), ["accepted", "/a 1 started", "/a 1 interrupted HostLost"]);
}

#[test]
fn an_orderly_stop_does_not_count_however_often_it_comes() {
    let plan = workflow("deploys").step("a", &[]).build();
    let mut owner = Owner::with(PartitionConfig { host_losses_max: 0, ..Default::default() });
    let run = owner.submit(&plan, 1);

    for _ in 0..10 {
        owner.restart(true);
    }

    owner.complete(run, "a", "1");
    assert_eq!(owner.status(run), RunStatus::Completed);
}

#[test]
fn a_step_that_kills_its_host_is_given_up_after_its_bound() {
    let plan = workflow("killer").step("a", &[]).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);

    for _ in 0..5 {
        owner.restart(false);
        assert_eq!(owner.starting(), ["/a"]);
    }
    owner.restart(false);

    assert_eq!(owner.starting(), [""; 0]);
    let error = owner.run(run).error().unwrap();
    assert_eq!((error.class, &*error.code), (ErrorClass::Host, "host_lost"));
}

#[test]
fn retries_and_timeouts_outlive_their_host() {
    let plan = workflow("timers").step("a", &[]).step("b", &[]).timeout(10 * MINUTE).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    owner.fail(run, "a", ErrorClass::Transient);

    owner.restart(false);
    assert_eq!(owner.step_status(run, "a"), StepStatus::Retrying);
    owner.pass(SECOND);
    assert_eq!(owner.step(run, "a").attempts, 2);
    owner.pass(10 * MINUTE);

    assert_eq!(owner.run(run).error().unwrap().code.as_ref(), "run_timeout");
}

#[test]
fn a_run_past_its_timeout_is_not_taken_up_again() {
    let plan = workflow("late").step("a", &[]).timeout(SECOND).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);

    owner.now = owner.now.plus(MINUTE);
    owner.restart(false);

    assert_eq!(owner.starting(), [""; 0]);
    assert_eq!(owner.status(run), RunStatus::Failed);
}

#[test]
fn an_output_under_evaluation_is_evaluated_again() {
    let plan = workflow("output").step("a", &[]).output(evaluated()).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    owner.complete(run, "a", "1");
    let Some(Effect::EvaluateOutput(before)) = owner.effects.pop() else { panic!("not evaluated") };

    owner.restart(false);

    let Some(Effect::EvaluateOutput(after)) = owner.effects.pop() else { panic!("not evaluated again") };
    assert_eq!((after.seq, after.at), (before.seq, before.at));
    owner.output_done(run, after.seq, "1");
    assert_eq!(owner.status(run), RunStatus::Completed);
}

#[test]
fn recovery_is_bounded_per_decision_and_goes_on_in_ticks() {
    let plan = workflow("many").step("a", &[]).build();
    let mut owner = Owner::with(PartitionConfig { due_per_tick: 2, ..Default::default() });
    let runs: Vec<_> = (1..=5).map(|number| owner.submit(&plan, number)).collect();

    owner.restart(false);
    assert_eq!(owner.starting().len(), 2);
    assert!(owner.partition.next_timer().is_some_and(|due| due <= owner.now));
    // What ends meanwhile is not taken up.
    owner.give(reipaz_core::partition::Input::Cancel(runs[4], None));
    owner.pass(SECOND);

    assert_eq!(owner.starting().len(), 4);
    assert_eq!(owner.partition.next_timer(), None);
}

#[test]
fn an_outcome_after_the_shutdown_was_written_down_still_counts() {
    let plan = workflow("drained").step("a", &[]).step("b", &["a"]).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    let id = owner.started(run, "a").id;

    owner.give(reipaz_core::partition::Input::ShutDown);
    owner.give(done(id, AttemptOutcome::Result(AttemptResult::Output("1".into()))));
    owner.restart(true);

    assert_eq!(owner.starting(), ["/b"]);
}

#[test]
fn what_a_forgotten_run_left_is_not_taken_up_for_another_of_its_id() {
    let config = PartitionConfig { due_per_tick: 1, max_failed_runs: 0, ..PartitionConfig::default() };
    let mut owner = Owner::with(config);
    let plan = workflow("w").step("a", &[]).step("b", &[]).step("c", &[]).build();
    let run = owner.submit(&plan, 1);
    owner.restart(true);
    assert_eq!(owner.starting(), ["/a"], "one is taken up at a time");
    owner.give(Input::Cancel(run, None));
    owner.give(Input::Stored(u64::MAX));
    owner.give(Input::Tick);
    assert!(owner.partition.run(run).is_none(), "forgotten, while /c is still left over");
    owner.effects.clear();

    owner.submit(&plan, 1);
    owner.give(Input::Tick);
    assert_eq!(owner.starting(), ["/a", "/b", "/c"], "each once");
}

#[test]
fn an_orderly_stop_is_written_down_for_each_attempt_that_it_leaves() {
    let plan = workflow("deploys").step("a", &[]).step("b", &[]).step("c", &["a"]).build();
    let mut owner = Owner::new();
    let (both, one) = (owner.submit(&plan, 1), owner.submit(&plan, 2));
    owner.complete(one, "b", "1");

    owner.restart(true);

    let ends = |run| owner.story(run).split_off(3);
    assert_eq!(ends(both), ["/a 1 interrupted Shutdown", "/b 1 interrupted Shutdown"]);
    assert_eq!(ends(one), ["/b 1 completed", "/a 1 interrupted Shutdown"]);
    assert_eq!(owner.starting(), ["/a", "/b", "/a"], "they are executed again");
}

#[test]
fn an_output_is_evaluated_as_of_the_moment_at_which_it_was_due_however_late() {
    let plan = workflow("output").step("a", &[]).output(evaluated()).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    owner.pass(SECOND);
    owner.complete(run, "a", "1");
    let at = |owner: &Owner| {
        owner.effects.iter().find_map(|effect| match effect {
            Effect::EvaluateOutput(evaluate) => Some(evaluate.at),
            _ => None,
        })
    };
    assert_eq!(at(&owner), Some(BEGIN.plus(SECOND)));

    owner.pass(MINUTE);
    owner.restart(false);

    assert_eq!(at(&owner), Some(BEGIN.plus(SECOND)), "again as of then");
}
