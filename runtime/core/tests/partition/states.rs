//! States that differ are told apart, and a journal that cannot be is refused instead of folded: what the other tests, and
//! hosts that take over, rely on.

use std::{sync::Arc, time::Duration};

use reipaz_core::{
    codec,
    event::{Event, Fact, HandlingStarted, RunEvent},
    failure::{ErrorClass, Failure},
    ids::RunId,
    limit::{Holder, LimitEvent, LimitFact, LimitId, LimitMessage, LimitRule},
    partition::{Again, Input, PartitionConfig, Refusal, Reply, RunStatus, Submit, WaitingFor},
    plan::Condition,
};

use crate::{
    plans::workflow,
    support::{BEGIN, MINUTE, Owner, failure, run_event, run_id, submission},
};

const ONE: LimitRule = LimitRule { at_once: Some(1), rate: None, max_queued: 9, version: 0 };

fn begun() -> (Owner, RunId) {
    let plan = workflow("w").step("a", &[]).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    (owner, run)
}

fn asked_by(number: u128) -> Input {
    let holder = Holder { partition: 0, run: run_id(number), asked: 7, at: BEGIN };
    Input::Limit(LimitMessage::Asked { limit: LimitId::workflow(&"v".into(), None), holder, rule: ONE })
}

#[test]
fn states_that_differ_in_one_respect_are_not_equal() {
    assert_eq!(begun().0.partition, begun().0.partition);
    let after = |inputs: Vec<Input>| {
        let (mut owner, _) = begun();
        inputs.into_iter().for_each(|input| drop(owner.give(input)));
        owner.partition
    };
    // In a limit alone; in who has a place; in who waits.
    assert_ne!(after(vec![]), after(vec![asked_by(5)]));
    assert_ne!(after(vec![asked_by(5)]), after(vec![asked_by(6)]));
    assert_ne!(after(vec![asked_by(5), asked_by(6)]), after(vec![asked_by(5), asked_by(7)]));
    // In a run's history alone.
    let paused = |why: &str| {
        let run = run_id(1);
        after(vec![Input::Pause(run, Some(why.into())), Input::Resume(run, None)])
    };
    assert_ne!(paused("a"), paused("b"));
    // In a workflow's record alone.
    let pinned = |record: &str| {
        let mut owner = Owner::new();
        let plan = workflow("w").step("a", &[]).build();
        owner.offer(Submit { pinned: record.into(), ..submission(&plan, 1) });
        owner.partition
    };
    assert_ne!(pinned("{}"), pinned("[]"));
}

/// The owner's state after its journal and one more event.
fn followed_by(owner: &Owner, event: Event) -> Result<(), String> {
    owner.replayed().replay(Arc::new(event)).map_err(|error| error.to_string())
}

/// The last event of the run, changed.
fn altered(owner: &Owner, run: RunId, change: impl FnOnce(&mut RunEvent)) -> Result<(), String> {
    let (last, before) = owner.journal.split_last().unwrap();
    let mut event = codec::decode(last).unwrap();
    let Event::Run(about) = &mut event else { panic!("{event:?}") };
    assert_eq!(about.run, run);
    change(about);
    owner.fold(before).replay(Arc::new(event)).map_err(|error| error.to_string())
}

#[test]
fn an_outcome_or_a_retry_of_another_attempt_is_refused() {
    let (mut owner, run) = begun();
    owner.fail(run, "a", ErrorClass::Transient);
    altered(&owner, run, |_| ()).unwrap();
    let late = altered(&owner, run, |about| {
        let Fact::RetryScheduled(retry) = &mut about.fact else { panic!("{about:?}") };
        retry.attempt += 1;
    });
    assert!(late.unwrap_err().contains("retry"));

    let plan = workflow("w").step("a", &[]).step("b", &["a"]).output(crate::plans::evaluated()).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    owner.complete(run, "a", "1");
    owner.complete(run, "b", "1");
    altered(&owner, run, |_| ()).unwrap();
    let other = altered(&owner, run, |about| {
        let Fact::AttemptFinished(finished) = &mut about.fact else { panic!("{about:?}") };
        finished.attempt += 1;
    });
    assert!(other.is_err());
}

#[test]
fn a_run_cannot_begin_to_fail_twice() {
    let plan = workflow("w").step("a", &[]).handler(None, "tell", &[]).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    owner.fail(run, "a", ErrorClass::Permanent);
    let seq = owner.run(run).history().len() as u32 + 1;
    let fact = Fact::HandlingStarted(Box::new(HandlingStarted { path: None, error: None, deadline: None }));
    let again = Event::Run(RunEvent { run, seq, at: BEGIN, fact });
    assert!(followed_by(&owner, again).unwrap_err().contains("failed before"));
}

#[test]
fn a_limit_in_use_is_not_idle() {
    let (mut owner, _) = begun();
    owner.give(asked_by(5));
    let limit = LimitId::workflow(&"v".into(), None);
    let idle = Event::Limit(Box::new(LimitEvent { limit, at: BEGIN, fact: LimitFact::Idle }));
    assert!(followed_by(&owner, idle).is_err());
}

#[test]
fn rows_of_a_run_are_stored_when_the_journal_says_so_wherever_it_began() {
    let (mut owner, run) = begun();
    owner.complete(run, "a", "1");
    // The journal begins at a checkpoint, ten records on.
    let position = owner.partition.position() + 10;
    owner.partition = owner.replayed();
    owner.partition.set_position(position);
    let now = BEGIN.plus(60 * MINUTE);
    drop(owner.partition.handle(Input::Stored(position - 1), now));
    drop(owner.partition.handle(Input::Tick, now));
    assert!(owner.partition.run(run).is_some());
    drop(owner.partition.handle(Input::Stored(position), now));
    drop(owner.partition.handle(Input::Tick, now));
    assert!(owner.partition.run(run).is_none());
}

#[test]
fn a_retry_needs_room_unless_the_run_is_live() {
    let plan = workflow("w").step("a", &[]).build();
    let mut owner = Owner::with(PartitionConfig { max_live_runs: 1, ..Default::default() });
    let run = owner.submit(&plan, 1);
    owner.fail(run, "a", ErrorClass::Permanent);
    owner.submit(&plan, 2);
    let full = Reply::Refused(Refusal::TooManyRuns { limit: 1 });
    assert_eq!(owner.give(Input::Retry(run, Again::default())), full);

    let plan =
        workflow("v").step("a", &[]).with(|step| step.on_failure = reipaz_core::plan::OnFailure::Pause);
    let plan = plan.build();
    let mut owner = Owner::with(PartitionConfig { max_live_runs: 1, ..Default::default() });
    let run = owner.submit(&plan, 1);
    owner.fail(run, "a", ErrorClass::Permanent);
    assert_eq!(owner.status(run), RunStatus::Paused);
    assert_eq!(owner.give(Input::Retry(run, Again::default())), Reply::Done, "it has its room");
}

#[test]
fn a_step_that_failed_is_started_afresh_once_though_it_is_named_too() {
    let (mut owner, run) = begun();
    owner.fail(run, "a", ErrorClass::Permanent);
    owner.retry_from(run, "a");
    assert_eq!(owner.story(run)[4], "retried [/a]");
}

#[test]
fn a_later_step_is_told_how_an_earlier_one_failed() {
    let plan = workflow("w").step("a", &[]).step("b", &["a"]).when(Condition::Always).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    owner.fail_with(run, "a", Failure::new(ErrorClass::Permanent, "no_such_city", "there is none"));
    let start = owner.started(run, "b");
    let error: serde_json::Value =
        serde_json::from_str(start.scope.steps[0].error.as_ref().unwrap()).unwrap();
    let expected =
        serde_json::json!({"class": "permanent", "code": "no_such_city", "message": "there is none"});
    assert_eq!(error, expected);
}

#[test]
fn an_event_names_its_run_and_writes_only_what_there_is() {
    let (mut owner, run) = begun();
    owner.fail_with(run, "a", failure(ErrorClass::Permanent));
    let events: Vec<Event> = owner.journal.iter().map(|record| codec::decode(record).unwrap()).collect();
    let runs: Vec<_> = events.iter().map(Event::run).collect();
    assert_eq!(runs, [None, Some(run), Some(run), Some(run), Some(run)], "the first pins the workflow");
    let finished = events.iter().find_map(|event| match event {
        Event::Run(event) if matches!(event.fact, Fact::AttemptFinished(_)) => Some(event.clone()),
        _ => None,
    });
    let mut finished = finished.unwrap();
    let dropped = |event: &RunEvent| serde_json::to_value(event).unwrap().get("logs_dropped_bytes").cloned();
    assert_eq!(dropped(&finished), None);
    let Fact::AttemptFinished(it) = &mut finished.fact else { unreachable!() };
    it.logs_dropped_bytes = 5;
    assert_eq!(dropped(&finished), Some(5.into()));
}

#[test]
fn several_attempts_of_one_run_wait_for_their_places_side_by_side() {
    let rule = LimitRule { at_once: Some(1), ..ONE };
    let plugin_limits = [("test".into(), rule)].into();
    let mut owner = Owner::with(PartitionConfig { plugin_limits, ..Default::default() });
    let plan = ["a", "b", "c", "d"].iter().fold(workflow("w"), |plan, name| {
        plan.step(name, &[]).with(|step| step.queue_timeout = Some(Duration::from_secs(3600)))
    });
    let run = owner.submit(&plan.build(), 1);
    for step in ["a", "b", "c", "d"] {
        owner.pass(MINUTE);
        owner.complete(run, step, "1");
    }
    assert_eq!(owner.status(run), RunStatus::Completed);
}

#[test]
fn a_run_says_when_it_started_what_happened_since_and_what_it_waits_for() {
    let plan = workflow("w").step("a", &[]).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    assert_eq!(owner.run(run).started_at(), Some(BEGIN));
    owner.fail(run, "a", ErrorClass::Transient);
    let later: Vec<u32> = owner
        .run(run)
        .history_after(2)
        .iter()
        .filter_map(|event| run_event(event))
        .map(|it| it.seq)
        .collect();
    assert_eq!(later, [3, 4]);
    assert!(owner.run(run).history_after(4).is_empty());
    let due = BEGIN.plus(Duration::from_secs(1));
    assert_eq!(owner.step(run, "a").waiting_for, Some(WaitingFor::Retry { attempt: 2, due }));
}

#[test]
fn statuses_in_words() {
    use RunStatus::{Cancelled, Completed, Failed, Paused, Pending, Running, Waiting};
    let words = [Pending, Running, Waiting, Paused, Completed, Failed, Cancelled].map(|it| it.to_string());
    assert_eq!(words, ["pending", "running", "waiting", "paused", "completed", "failed", "cancelled"]);
}

#[test]
fn a_step_that_waited_too_long_says_which_time_was_over() {
    let plugin_limits = [("test".into(), ONE)].into();
    let mut owner = Owner::with(PartitionConfig { plugin_limits, ..Default::default() });
    let plan = |name: &str, queue: Option<Duration>, total: Option<Duration>| {
        workflow(name).step("a", &[]).with(|step| {
            (step.queue_timeout, step.total_timeout) = (queue, total);
            (step.retry.attempts, step.timeout) = (3, MINUTE);
        })
    };
    let holder = owner.submit(&plan("holder", None, None).build(), 1);
    let queued =
        owner.submit(&plan("queued", Some(MINUTE), None).with(|step| step.retry.attempts = 1).build(), 2);
    owner.pass(MINUTE);
    assert_eq!(&*owner.run(queued).error().unwrap().code, "queue_timeout");
    // The time of all attempts begins with the first.
    let slow = owner.submit(&plan("slow", None, Some(3 * MINUTE)).build(), 3);
    owner.complete(holder, "a", "1");
    owner.fail(slow, "a", ErrorClass::Transient);
    owner.submit(&plan("holder", None, None).build(), 4);
    owner.pass(5 * MINUTE);
    assert_eq!(&*owner.run(slow).error().unwrap().code, "step_timeout");
}
