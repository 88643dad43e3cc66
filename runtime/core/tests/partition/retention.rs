//! How long what is over stays, and what a checkpoint holds.

use std::time::Duration;

use reipaz_core::{
    codec,
    failure::ErrorClass,
    partition::{Again, Input, PartitionConfig, Refusal, Reply, RunStatus, Submit},
};

use crate::{
    plans::workflow,
    support::{MINUTE, Owner, SECOND, run_id, submission},
};

const HOUR: Duration = Duration::from_secs(3600);

fn finished(config: PartitionConfig, runs: u128) -> Owner {
    let plan = workflow("short").step("a", &[]).build();
    let mut owner = Owner::with(config);
    for number in 1..=runs {
        let submit = Submit { idempotency_key: Some("key".into()), ..submission(&plan, number) };
        owner.offer(submit);
        owner.complete(run_id(number), "a", "1");
    }
    owner
}

#[test]
fn a_terminal_run_stays_until_it_is_stored_and_a_minute_old() {
    let mut owner = finished(PartitionConfig::default(), 1);

    owner.pass(HOUR);
    assert_eq!(owner.partition.terminal_runs(), 1, "nobody else could answer for it yet");
    owner.give(Input::Stored(owner.partition.position() - 1));
    owner.pass(MINUTE);
    assert_eq!(owner.partition.terminal_runs(), 1, "its last row is not stored");
    owner.give(Input::Stored(owner.partition.position()));
    owner.pass(Duration::ZERO);

    assert_eq!(owner.partition.terminal_runs(), 0);
    let key = owner.partition.bytes();
    assert!(key > 0, "its key is kept for a day");
    owner.pass(24 * HOUR);
    assert_eq!(owner.partition.bytes(), 0);
}

#[test]
fn a_stored_run_stays_for_a_minute() {
    let mut owner = finished(PartitionConfig::default(), 1);
    owner.give(Input::Stored(owner.partition.position()));

    owner.pass(59 * SECOND);
    assert_eq!(owner.partition.terminal_runs(), 1);
    owner.pass(SECOND);

    assert_eq!(owner.partition.terminal_runs(), 0);
}

#[test]
fn over_the_bound_the_oldest_stored_runs_go_first_and_unstored_ones_stay() {
    let config = PartitionConfig { max_terminal_runs: 2, ..Default::default() };
    let mut owner = finished(config, 4);

    owner.give(Input::Tick);
    assert_eq!(owner.partition.terminal_runs(), 4);
    owner.give(Input::Stored(owner.partition.position()));
    owner.give(Input::Tick);

    assert_eq!(owner.partition.terminal_runs(), 2);
    assert!(owner.partition.run(run_id(1)).is_none() && owner.partition.run(run_id(4)).is_some());
}

#[test]
fn over_the_hard_bound_even_unstored_runs_go() {
    let config = PartitionConfig { max_unstored_runs: 3, ..Default::default() };
    let mut owner = finished(config, 5);

    owner.pass(Duration::ZERO);

    assert_eq!(owner.partition.terminal_runs(), 3);
}

#[test]
fn a_key_outlives_its_run_and_expires_a_day_after_the_end() {
    let mut owner = finished(PartitionConfig::default(), 1);
    let plan = workflow("short").step("a", &[]).build();
    let again = || Submit { idempotency_key: Some("key".into()), ..submission(&plan, 1) };
    owner.give(Input::Stored(owner.partition.position()));
    owner.pass(HOUR);
    assert!(owner.partition.run(run_id(1)).is_none());

    assert_eq!(owner.offer(again()), Reply::Accepted { run: run_id(1), existing: true });
    let other = Submit { input: "2".into(), ..again() };
    assert_eq!(owner.offer(other), Reply::Refused(Refusal::KeyReused(run_id(1))));
    owner.now = owner.now.plus(23 * HOUR);

    // The key is over though no tick has said so yet.
    assert_eq!(owner.offer(again()), Reply::Accepted { run: run_id(1), existing: false });
}

#[test]
fn a_failed_run_stays_for_a_week_and_does_not_hold_up_completed_ones() {
    let plan = workflow("short").step("a", &[]).build();
    let mut owner = Owner::new();
    let failed = owner.submit(&plan, 1);
    owner.fail(failed, "a", ErrorClass::Permanent);
    let completed = owner.submit(&plan, 2);
    owner.complete(completed, "a", "1");
    owner.give(Input::Stored(owner.partition.position()));

    owner.pass(HOUR);
    assert!(owner.partition.run(completed).is_none());
    owner.pass(6 * 24 * HOUR);
    assert!(owner.partition.run(failed).is_some(), "somebody may go on with it");
    owner.pass(24 * HOUR);
    assert!(owner.partition.run(failed).is_none());
}

#[test]
fn over_the_bound_the_oldest_failed_runs_go_first() {
    let config = PartitionConfig { max_failed_runs: 1, ..Default::default() };
    let plan = workflow("short").step("a", &[]).build();
    let mut owner = Owner::with(config);
    for number in 1..=3 {
        let run = owner.submit(&plan, number);
        owner.fail(run, "a", ErrorClass::Permanent);
    }
    owner.give(Input::Stored(owner.partition.position()));
    owner.pass(Duration::ZERO);
    assert!(owner.partition.run(run_id(3)).is_some() && owner.partition.run(run_id(2)).is_none());
}

#[test]
fn a_key_is_free_again_although_its_failed_run_is_still_there() {
    let plan = workflow("short").step("a", &[]).build();
    let submit = |input: &str| Submit {
        idempotency_key: Some("key".into()),
        input: input.into(),
        ..submission(&plan, 1)
    };
    let mut owner = Owner::new();
    assert_eq!(owner.offer(submit("1")), Reply::Accepted { run: run_id(1), existing: false });
    owner.fail(run_id(1), "a", ErrorClass::Permanent);
    owner.give(Input::Stored(owner.partition.position()));
    owner.pass(23 * HOUR);
    assert_eq!(owner.offer(submit("2")), Reply::Refused(Refusal::KeyReused(run_id(1))));
    owner.pass(HOUR);
    assert_eq!(owner.offer(submit("2")), Reply::Accepted { run: run_id(1), existing: false });
}

#[test]
fn a_retried_run_is_not_forgotten() {
    let plan = workflow("short").step("a", &[]).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    owner.fail(run, "a", ErrorClass::Permanent);
    owner.give(Input::Stored(owner.partition.position()));
    owner.pass(30 * SECOND);

    owner.give(Input::Retry(run, Again::default()));
    owner.pass(HOUR);

    assert!(owner.partition.run(run).is_some());
    assert_eq!(owner.partition.terminal_runs(), 0);
}

#[test]
fn a_checkpoint_and_the_rest_give_what_everything_gives() {
    let mut owner = finished(PartitionConfig::default(), 3);
    owner.give(Input::Stored(owner.partition.position()));
    owner.pass(MINUTE);
    let plan = workflow("other").step("a", &[]).step("b", &["a"]).build();
    let run = owner.submit(&plan, 9);
    owner.fail(run, "a", ErrorClass::Transient);

    let checkpoint: Vec<_> = owner.partition.checkpoint().iter().map(|event| codec::encode(event)).collect();
    let position = owner.journal.len();
    assert_eq!(position as u64, owner.partition.position());
    owner.pass(SECOND);
    owner.complete(run, "a", "1");

    let rest = &owner.journal[position..];
    let mut restored = owner.fold(&[checkpoint, rest.to_vec()].concat());
    restored.set_position(owner.partition.position());
    assert_eq!(restored, owner.partition);
    assert_eq!(restored.position(), owner.partition.position());
    // Positions are right too: what ends now is forgotten only once it is stored.
    let (before, now) = (owner.partition.position(), owner.now);
    let _ = restored.handle(Input::Cancel(run, None), now);
    let _ = restored.handle(Input::Stored(before), now);
    let _ = restored.handle(Input::Tick, now.plus(8 * 24 * HOUR));
    assert!(restored.run(run).is_some());
    let _ = restored.handle(Input::Stored(before + 1), now);
    let _ = restored.handle(Input::Tick, now.plus(8 * 24 * HOUR));
    assert!(restored.run(run).is_none());
}

#[test]
fn kept_keys_are_bounded() {
    let config = PartitionConfig { max_kept_keys: 2, ..Default::default() };
    let mut owner = finished(config, 4);
    owner.give(Input::Stored(owner.partition.position()));

    owner.pass(MINUTE);

    let plan = workflow("short").step("a", &[]).build();
    let again = |number| Submit { idempotency_key: Some("key".into()), ..submission(&plan, number) };
    assert_eq!(owner.offer(again(4)), Reply::Accepted { run: run_id(4), existing: true });
    assert_eq!(owner.offer(again(1)), Reply::Accepted { run: run_id(1), existing: false });
}

#[test]
fn no_run_goes_in_the_decision_that_ends_it() {
    let config = PartitionConfig { max_unstored_runs: 0, ..PartitionConfig::default() };
    let mut owner = Owner::with(config);
    let plan = workflow("short").step("a", &[]).timeout(SECOND).build();
    let run = owner.submit(&plan, 1);

    owner.now = owner.now.plus(MINUTE);
    owner.give(Input::Tick);
    assert_eq!(owner.status(run), RunStatus::Failed, "whoever is told of the end can look");
    assert!(owner.partition.next_timer().is_some_and(|due| due <= owner.now), "its turn comes at once");

    owner.give(Input::Tick);
    assert!(owner.partition.run(run).is_none());
}

#[test]
fn a_run_that_is_taken_up_again_counts_as_live_and_no_longer_as_over() {
    let plan = workflow("short").step("a", &[]).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    owner.fail(run, "a", ErrorClass::Permanent);
    assert_eq!((owner.partition.live_runs(), owner.partition.terminal_runs()), (0, 1));
    owner.give(Input::Retry(run, Again::default()));
    assert_eq!((owner.partition.live_runs(), owner.partition.terminal_runs()), (1, 0));
    owner.complete(run, "a", "1");
    assert_eq!((owner.partition.live_runs(), owner.partition.terminal_runs()), (0, 1));
}

#[test]
fn bounds_are_what_may_stay_and_not_what_may_not() {
    for (over, stays) in [(0, 3), (1, 2)] {
        // So many bytes as three have, or one less.
        let bytes = bytes_of(3) - over;
        let mut owner = finished(PartitionConfig { max_unstored_bytes: bytes, ..Default::default() }, 3);
        owner.pass(Duration::ZERO);
        assert_eq!(owner.partition.terminal_runs(), stays, "not stored");

        let mut owner = finished(PartitionConfig { max_terminal_bytes: bytes, ..Default::default() }, 3);
        owner.give(Input::Stored(owner.partition.position()));
        owner.give(Input::Tick);
        assert_eq!(owner.partition.terminal_runs(), stays, "stored");
    }
}

fn bytes_of(runs: u128) -> u64 {
    finished(PartitionConfig::default(), runs).partition.bytes()
}
