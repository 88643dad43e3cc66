//! How runs go: order, overlap, conditions, failure, output, cancel, pause, retry, timeout.

use reipaz_core::{
    event::{RunError, SkipReason},
    failure::ErrorClass,
    ids::StepPath,
    partition::{
        Again, AttemptOutcome, AttemptReport, Effect, Input, Refusal, Reply, RunStatus, StepStatus, Submit,
        WaitingFor,
    },
    plan::{Condition, PinnedWorkflow},
};

use crate::{
    plans::{evaluated, expression, output_of, whole_input, workflow},
    support::{MINUTE, Owner, SECOND, done, failure, run_id, submission},
};

#[test]
fn a_chain_runs_in_order_and_hands_outputs_on() {
    let plan = workflow("chain").step("a", &[]).step("b", &["a"]).output(output_of("b")).build();
    let mut owner = Owner::new();

    let run = owner.submit(&plan, 1);
    assert_eq!(owner.starting(), ["/a"]);
    assert_eq!(owner.status(run), RunStatus::Running);
    owner.complete(run, "a", "[1]");
    let scope = owner.effects.iter().find_map(|effect| match effect {
        Effect::StartAttempt(start) => Some(start.scope.clone()),
        _ => None,
    });
    let read = &scope.unwrap().steps[0];
    assert_eq!((&*read.name, read.status, &*read.output), ("a", StepStatus::Completed, "[1]"));
    owner.complete(run, "b", "[2]");

    assert_eq!(owner.status(run), RunStatus::Completed);
    assert_eq!(owner.run(run).output().unwrap().as_ref(), "[2]");
    let story = ["accepted", "/a 1 started", "/a 1 completed", "/b 1 started", "/b 1 completed", "completed"];
    assert_eq!(owner.story(run), story);
}

#[test]
fn independent_steps_start_in_one_decision() {
    let plan = workflow("fork").step("a", &[]).step("b", &[]).step("c", &["a", "b"]).build();
    let mut owner = Owner::new();

    let run = owner.submit(&plan, 1);

    assert_eq!(owner.starting(), ["/a", "/b"]);
    let waiting = owner.step(run, "c").waiting_for;
    assert_eq!(waiting, Some(WaitingFor::Steps { steps: ["a", "b"].map(StepPath::top).to_vec() }));
}

#[test]
fn a_workflow_without_steps_completes_at_once() {
    let plan = workflow("empty").output(whole_input()).build();
    let mut owner = Owner::new();

    let run = owner.submit(&plan, 1);

    assert_eq!(owner.status(run), RunStatus::Completed);
    assert_eq!(owner.run(run).output().unwrap().as_ref(), r#"{"n":1}"#);
    assert_eq!(owner.run(run).started_at(), None);
}

#[test]
fn other_branches_go_on_after_a_failure_and_the_first_failure_is_the_runs() {
    let plan = workflow("branches").step("a", &[]).step("b", &[]).step("c", &["a"]).step("d", &["b"]).build();
    let mut owner = Owner::new();

    let run = owner.submit(&plan, 1);
    owner.fail(run, "b", ErrorClass::Permanent);
    owner.complete(run, "a", "1");
    owner.fail(run, "c", ErrorClass::Trap);

    let error = owner.run(run).error().unwrap();
    assert_eq!(owner.status(run), RunStatus::Failed);
    assert_eq!((error.step.clone(), error.class), (Some(StepPath::top("b")), ErrorClass::Permanent));
    assert_eq!(owner.step(run, "d").skipped, Some(&SkipReason::UpstreamFailed(StepPath::top("b"))));
}

#[test]
fn a_false_condition_skips_the_step_and_those_after_it_but_not_one_that_always_runs() {
    let plan = workflow("conditions")
        .step("a", &[])
        .when(Condition::Holds(expression("$input.n > 1")))
        .step("b", &["a"])
        .step("always", &["b"])
        .when(Condition::Always)
        .step("failed", &["b"])
        .when(Condition::Failed)
        .build();
    let mut owner = Owner::new();

    let run = owner.submit(&plan, 1);
    let id = owner.started(run, "a").id;
    owner.give(done(id, AttemptOutcome::ConditionFalse));

    assert_eq!(owner.step(run, "a").skipped, Some(&SkipReason::ConditionFalse));
    assert_eq!(owner.step(run, "b").skipped, Some(&SkipReason::UpstreamSkipped(StepPath::top("a"))));
    assert_eq!(owner.step(run, "failed").skipped, Some(&SkipReason::NothingFailed));
    owner.complete(run, "always", "null");
    assert_eq!(owner.status(run), RunStatus::Completed);
}

#[test]
fn a_step_for_failures_runs_when_one_far_above_failed() {
    let plan = workflow("handler")
        .step("a", &[])
        .step("b", &["a"])
        .step("handler", &["b"])
        .when(Condition::Failed)
        .step("after", &["handler"])
        .build();
    let mut owner = Owner::new();

    let run = owner.submit(&plan, 1);
    owner.fail(run, "a", ErrorClass::Permanent);
    owner.complete(run, "handler", "null");
    owner.complete(run, "after", "null");

    assert_eq!(owner.step_status(run, "b"), StepStatus::Skipped);
    assert_eq!(owner.status(run), RunStatus::Failed, "the failure was told, not undone");
}

#[test]
fn an_output_with_expressions_is_evaluated_outside() {
    let plan = workflow("output").step("a", &[]).output(evaluated()).build();
    let mut owner = Owner::new();

    let run = owner.submit(&plan, 1);
    owner.complete(run, "a", "1");
    assert_eq!(owner.run(run).waiting_for(), Some(WaitingFor::Output));
    assert_eq!(owner.status(run), RunStatus::Running);
    let Some(Effect::EvaluateOutput(evaluate)) = owner.effects.pop() else { panic!("not evaluated") };
    owner.output_done(run, evaluate.seq - 1, "\"of an earlier evaluation\"");
    assert_eq!(owner.status(run), RunStatus::Running);
    owner.output_done(run, evaluate.seq, "\"length: 1\"");

    assert_eq!(owner.status(run), RunStatus::Completed);
    assert_eq!(owner.run(run).output().unwrap().as_ref(), "\"length: 1\"");
}

#[test]
fn a_failed_output_fails_the_run_and_a_retry_evaluates_it_again() {
    let plan = workflow("output").step("a", &[]).output(evaluated()).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    owner.complete(run, "a", "1");
    let Some(Effect::EvaluateOutput(first)) = owner.effects.pop() else { panic!("not evaluated") };

    let result = reipaz_core::event::AttemptResult::Error(failure(ErrorClass::Resource));
    owner.give(Input::OutputDone(reipaz_core::partition::OutputDone { run, seq: first.seq, result }));
    assert_eq!(owner.status(run), RunStatus::Failed);
    assert_eq!(owner.run(run).error().unwrap().step, None);
    assert_eq!(owner.give(Input::Retry(run, Again::default())), Reply::Done);

    let Some(Effect::EvaluateOutput(second)) = owner.effects.pop() else { panic!("not evaluated again") };
    assert!(second.seq > first.seq);
    owner.output_done(run, second.seq, "1");
    assert_eq!(owner.status(run), RunStatus::Completed);
}

#[test]
fn late_doubled_and_foreign_outcomes_change_nothing() {
    let plan = workflow("late").step("a", &[]).step("b", &["a"]).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    let first = owner.started(run, "a").id;
    let timed_out =
        AttemptOutcome::Result(reipaz_core::event::AttemptResult::Error(failure(ErrorClass::Timeout)));
    owner.give(done(first.clone(), timed_out));
    let records = owner.journal.len();

    let output = || AttemptOutcome::Result(reipaz_core::event::AttemptResult::Output("1".into()));
    owner.give(done(first.clone(), output()));
    owner.give(done(reipaz_core::ids::AttemptId { run: run_id(9), ..first.clone() }, output()));
    owner.give(done(reipaz_core::ids::AttemptId { path: StepPath::top("zzz"), ..first.clone() }, output()));
    let report = AttemptReport { id: first, progress: None, logs: Vec::new() };
    owner.give(Input::AttemptReport(report));

    assert_eq!(owner.journal.len(), records);
    assert_eq!(owner.step(run, "a").attempts, 2);
}

#[test]
fn cancel_ends_at_once_and_interrupts_what_runs() {
    let plan = workflow("cancel").step("a", &[]).step("b", &["a"]).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    let id = owner.started(run, "a").id;

    assert_eq!(owner.give(Input::Cancel(run, Some("not needed".into()))), Reply::Done);

    assert!(matches!(&owner.effects[..], [Effect::CancelAttempt(cancelled)] if *cancelled == id));
    assert_eq!(owner.status(run), RunStatus::Cancelled);
    assert_eq!(owner.run(run).error().unwrap().message.as_ref(), "not needed");
    assert_eq!(owner.step_status(run, "b"), StepStatus::Cancelled);
    assert_eq!(owner.give(Input::Cancel(run, None)), Reply::Done, "it is already so");
    let refused = Reply::Refused(Refusal::WrongStatus(RunStatus::Cancelled));
    assert_eq!(owner.give(Input::Pause(run, None)), refused);
}

#[test]
fn a_paused_run_lets_attempts_end_and_starts_none_until_resumed() {
    let plan = workflow("pause").step("a", &[]).step("b", &[]).step("c", &["a"]).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);

    owner.give(Input::Pause(run, None));
    owner.complete(run, "a", "1");
    owner.fail(run, "b", ErrorClass::Network);
    owner.pass(MINUTE);
    assert_eq!(owner.status(run), RunStatus::Paused);
    assert_eq!(owner.run(run).waiting_for(), Some(WaitingFor::Resume));
    assert_eq!(owner.step(run, "c").waiting_for, Some(WaitingFor::Resume));
    assert_eq!(owner.starting(), [""; 0]);
    assert_eq!(owner.partition.next_timer(), None);

    owner.give(Input::Resume(run, None));
    assert_eq!(owner.starting(), ["/b", "/c"]);
}

#[test]
fn a_run_that_is_paused_before_its_end_ends_when_resumed() {
    let plan = workflow("pause").step("a", &[]).output(evaluated()).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);

    owner.give(Input::Pause(run, None));
    owner.complete(run, "a", "1");
    assert!(owner.effects.is_empty());
    owner.give(Input::Resume(run, None));

    assert!(matches!(&owner.effects[..], [Effect::EvaluateOutput(_)]));
}

#[test]
fn a_retried_run_keeps_what_completed_and_counts_attempts_on() {
    let plan = workflow("retry").step("a", &[]).step("b", &["a"]).step("c", &["b"]).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    owner.complete(run, "a", "1");
    owner.fail(run, "b", ErrorClass::Permanent);
    assert_eq!(owner.status(run), RunStatus::Failed);

    assert_eq!(owner.give(Input::Retry(run, Again::default())), Reply::Done);
    let again = owner.started(run, "b");
    assert_eq!(again.id.attempt, 2);
    owner.give(done(again.id, AttemptOutcome::Result(reipaz_core::event::AttemptResult::Output("2".into()))));
    owner.complete(run, "c", "3");

    assert_eq!(owner.status(run), RunStatus::Completed);
    assert_eq!(owner.step(run, "a").attempts, 1);
    let refused = Reply::Refused(Refusal::WrongStatus(RunStatus::Completed));
    assert_eq!(owner.give(Input::Retry(run, Again::default())), refused);
}

#[test]
fn a_retry_can_start_at_a_step_that_completed() {
    let plan = workflow("retry").step("a", &[]).step("b", &["a"]).step("c", &["b"]).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    owner.complete(run, "a", "1");
    owner.complete(run, "b", "2");
    owner.fail(run, "c", ErrorClass::Permanent);

    let unknown = Reply::Refused(Refusal::UnknownStep("z".into()));
    assert_eq!(owner.retry_from(run, "z"), unknown);
    owner.retry_from(run, "b");

    assert_eq!(owner.starting(), ["/b"]);
    assert_eq!(owner.step_status(run, "c"), StepStatus::Waiting);
}

#[test]
fn a_run_past_its_timeout_fails_and_its_attempts_are_cut_to_what_is_left() {
    let plan = workflow("slow").step("a", &[]).step("b", &[]).timeout(20 * SECOND).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);

    let a = owner.started(run, "a");
    assert_eq!(a.timeout, 20 * SECOND, "of the step's 30 s");
    owner.pass(20 * SECOND);

    let error = owner.run(run).error().unwrap();
    assert_eq!((error.class, &*error.code), (ErrorClass::Timeout, "run_timeout"));
    assert_eq!(owner.step_status(run, "b"), StepStatus::Cancelled);
    let cancelled = owner.effects.iter().filter(|effect| matches!(effect, Effect::CancelAttempt(_))).count();
    assert_eq!(cancelled, 2);
    owner.give(Input::Retry(run, Again::default()));
    assert_eq!(owner.run(run).deadline(), Some(owner.now.plus(20 * SECOND)));
}

#[test]
fn over_the_bound_on_live_runs_submissions_are_refused_until_one_ends() {
    let plan = workflow("many").step("a", &[]).build();
    let config = reipaz_core::partition::PartitionConfig { max_live_runs: 1, ..Default::default() };
    let mut owner = Owner::with(config);
    let first = owner.submit(&plan, 1);

    let refused = Reply::Refused(Refusal::TooManyRuns { limit: 1 });
    assert_eq!(owner.offer(submission(&plan, 2)), refused);
    owner.complete(first, "a", "1");

    owner.submit(&plan, 2);
}

#[test]
fn time_never_runs_backwards() {
    let plan = workflow("clock").step("a", &[]).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    let accepted = owner.run(run).created_at();

    owner.now = reipaz_core::time::Timestamp(accepted.0 - 3_600_000_000);
    owner.complete(run, "a", "1");

    assert_eq!(owner.run(run).finished_at(), Some(accepted));
}

#[test]
fn progress_is_shown_while_the_attempt_runs_and_is_bounded() {
    let plan = workflow("progress").step("a", &[]).build();
    let config = reipaz_core::partition::PartitionConfig { max_progress_reports: 2, ..Default::default() };
    let mut owner = Owner::with(config);
    let run = owner.submit(&plan, 1);
    let id = owner.started(run, "a").id;

    for done in 1..=3 {
        let progress = reipaz_core::event::Progress { done, total: Some(3), note: "rows".into() };
        let report = AttemptReport { id: id.clone(), progress: Some(progress), logs: Vec::new() };
        owner.give(Input::AttemptReport(report));
    }

    assert_eq!(owner.step(run, "a").progress.unwrap().done, 2);
    assert_eq!(owner.run(run).seq(), 4);
}

#[test]
fn unknown_runs_are_said_to_be_unknown() {
    let mut owner = Owner::new();
    let refused = Reply::Refused(Refusal::UnknownRun(run_id(5)));
    assert_eq!(owner.give(Input::Cancel(run_id(5), None)), refused);
    assert_eq!(owner.give(Input::Retry(run_id(5), Again::default())), refused);
    assert_eq!(owner.give(Input::Tick), Reply::None);
}

#[test]
fn a_pause_while_the_output_is_evaluated_lets_it_end() {
    let plan = workflow("pause").step("a", &[]).output(evaluated()).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    owner.complete(run, "a", "1");
    let Some(Effect::EvaluateOutput(evaluate)) = owner.effects.pop() else { panic!("not evaluated") };

    owner.give(Input::Pause(run, None));
    owner.give(Input::Resume(run, None));
    assert!(owner.effects.is_empty(), "it is being evaluated already");
    owner.give(Input::Pause(run, None));
    owner.output_done(run, evaluate.seq, "1");

    assert_eq!(owner.status(run), RunStatus::Completed);
}

#[test]
fn a_run_that_was_promised_and_cannot_start_fails_for_good() {
    let plan = workflow("refused").step("a", &[]).build();
    let mut owner = Owner::new();
    let why = RunError {
        class: ErrorClass::Permanent,
        code: "invalid_input".into(),
        message: "at \"/n\": a number is expected".into(),
        step: None,
        attempt: None,
    };
    let submit = Submit { refused: Some(why.clone()), ..submission(&plan, 1) };
    let run = submit.run;

    assert_eq!(owner.offer(submit), Reply::Accepted { run, existing: false });

    assert_eq!(owner.status(run), RunStatus::Failed);
    assert_eq!(owner.run(run).error(), Some(&why));
    assert!(owner.effects.is_empty(), "nothing of it is executed");
    assert_eq!(owner.give(Input::Retry(run, Again::default())), Reply::Refused(Refusal::NeverStarted(run)));
    assert_eq!(owner.offer(submission(&plan, 1)), Reply::Accepted { run, existing: true });
}

#[test]
fn a_workflow_that_nobody_knows_is_a_plan_without_steps() {
    let plan = PinnedWorkflow::unknown("orders").compile().unwrap();
    assert_eq!((&*plan.name, plan.steps.len()), ("orders", 0));
    assert!(PinnedWorkflow::unknown("Not A Name").compile().is_err());
}
