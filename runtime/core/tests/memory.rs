//! What a sleeping run costs in memory: design section 11 allows 2 KB for one with a 200-byte input. Measured as the
//! growth of this process, which holds nothing else; where the system does not say, the partition's own estimate is
//! held to the bound.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "partition/plans.rs"]
#[allow(dead_code, reason = "shared")]
mod plans;
#[path = "partition/support.rs"]
#[allow(dead_code, reason = "shared")]
mod support;

use std::sync::Arc;

use reipaz_core::{
    codec,
    event::AttemptResult,
    failure::{ErrorClass, Failure},
    partition::{AttemptOutcome, Effect, Input, Partition, PartitionConfig, RunStatus},
};
use support::{BEGIN, done, submission};

const RUNS: u128 = 20_000;
const BOUND_BYTES: usize = 2_048;

/// Resident memory of this process in bytes, on Linux.
fn resident_bytes() -> Option<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

#[test]
fn a_sleeping_run_with_a_small_input_takes_less_than_two_kilobytes() {
    let plan = plans::workflow("sleepers").step("a", &[]).step("b", &["a"]).step("c", &["b"]).build();
    let mut partition = Partition::new(PartitionConfig::default());
    let before = resident_bytes();

    for number in 1..=RUNS {
        let mut submit = submission(&plan, number);
        submit.input = format!("{{\"n\":\"{}\"}}", "x".repeat(192)).into();
        let mut decision = partition.handle(Input::Submit(Box::new(submit)), BEGIN);
        let Some(Effect::StartAttempt(start)) = decision.effects.pop() else { panic!("not started") };
        let failure = Failure {
            retry_after_ms: Some(600_000),
            ..Failure::new(ErrorClass::RateLimited, "http_429", "the server answered 429 Too Many Requests")
        };
        let outcome = AttemptOutcome::Result(AttemptResult::Error(failure));
        let _ = partition.handle(done(start.id, outcome), BEGIN);
    }

    let decided = measure(&partition, before);
    let records: Vec<_> = partition.checkpoint().iter().map(|event| codec::encode(event)).collect();
    let before = resident_bytes();
    let mut recovered = Partition::new(PartitionConfig::default());
    recovered.offer_plan(plan);
    for record in &records {
        recovered.replay(Arc::new(codec::decode(record).unwrap())).unwrap();
    }
    let replayed = measure(&recovered, before);

    println!("a sleeping run takes {decided} bytes, and {replayed} after a recovery");
    assert!(decided < BOUND_BYTES && replayed < BOUND_BYTES, "{decided} bytes, {replayed} after a recovery");
}

/// Bytes a run.
fn measure(partition: &Partition, before: Option<usize>) -> usize {
    let sleeping = partition.runs().filter(|run| run.status() == RunStatus::Waiting).count();
    assert_eq!(sleeping as u128, RUNS);
    let estimate = partition.bytes() as usize / sleeping;
    let measured = resident_bytes().zip(before).map(|(now, before)| (now - before) / sleeping);
    let honest = measured.is_none_or(|measured| (measured / 2..measured * 2).contains(&estimate));
    assert!(honest, "the estimate {estimate} is far from {measured:?}");
    measured.unwrap_or(estimate)
}
