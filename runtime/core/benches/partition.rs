//! What the core costs: a three-step run from submission to end, its events as bytes, and recovery.
//!
//! `cargo bench -p reipaz-core`
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

#[path = "../tests/partition/plans.rs"]
#[allow(dead_code, reason = "shared")]
mod plans;
#[path = "../tests/partition/support.rs"]
#[allow(dead_code, reason = "shared")]
mod support;

use std::{hint::black_box, sync::Arc};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use reipaz_core::{
    codec,
    event::{AttemptResult, Event},
    partition::{AttemptOutcome, Decision, Effect, Input, Partition, PartitionConfig},
    plan::Plan,
};
use support::{BEGIN, done, submission};

fn three_steps() -> Arc<Plan> {
    plans::workflow("bench")
        .step("a", &[])
        .step("b", &["a"])
        .step("c", &["b"])
        .output(plans::output_of("c"))
        .build()
}

/// Runs one run to its end: four inputs.
fn run_to_end(partition: &mut Partition, plan: &Arc<Plan>, number: u128, events: &mut Vec<Arc<Event>>) {
    let mut decision = partition.handle(Input::Submit(Box::new(submission(plan, number))), BEGIN);
    while let Some(Effect::StartAttempt(start)) = decision.effects.pop() {
        events.append(&mut decision.events);
        let output = AttemptOutcome::Result(AttemptResult::Output(r#"{"rows":[1,2,3]}"#.into()));
        decision = partition.handle(done(start.id, output), BEGIN);
    }
    let Decision { events: last, .. } = decision;
    events.extend(last);
}

fn decide(c: &mut Criterion) {
    let plan = three_steps();
    c.bench_function("decide a three-step run (4 inputs, 8 events)", |b| {
        let mut partition = Partition::new(PartitionConfig::default());
        let (mut number, mut events) = (0_u128, Vec::new());
        b.iter(|| {
            number += 1;
            events.clear();
            run_to_end(&mut partition, &plan, number, &mut events);
            // As the owner does: what is stored is forgotten.
            if number.is_multiple_of(64) {
                let _ = partition.handle(Input::Stored(partition.position()), BEGIN);
                let _ = partition.handle(Input::Tick, BEGIN.plus(support::MINUTE));
            }
        });
    });
}

fn code(c: &mut Criterion) {
    let plan = three_steps();
    let mut events = Vec::new();
    run_to_end(&mut Partition::new(PartitionConfig::default()), &plan, 1, &mut events);
    let records: Vec<_> = events.iter().map(|event| codec::encode(event)).collect();
    c.bench_function("encode its events", |b| {
        b.iter(|| events.iter().map(|event| codec::encode(black_box(event)).len()).sum::<usize>());
    });
    c.bench_function("decode its events", |b| {
        b.iter(|| records.iter().for_each(|record| drop(black_box(codec::decode(record).unwrap()))));
    });
}

fn recover(c: &mut Criterion) {
    const RUNS: u128 = 10_000;
    let plan = three_steps();
    let mut records = Vec::new();
    let mut partition = Partition::new(PartitionConfig::default());
    for number in 1..=RUNS {
        let decision = partition.handle(Input::Submit(Box::new(submission(&plan, number))), BEGIN);
        records.extend(decision.events.iter().map(|event| codec::encode(event)));
    }
    let mut group = c.benchmark_group("recovery");
    group.throughput(Throughput::Elements(RUNS as u64)).sample_size(10);
    group.bench_function("replay 10,000 live runs from bytes", |b| {
        let empty = || {
            let mut partition = Partition::new(PartitionConfig::default());
            partition.offer_plan(Arc::clone(&plan));
            partition
        };
        b.iter_batched(
            empty,
            |mut partition| {
                for record in &records {
                    partition.replay(Arc::new(codec::decode(record).unwrap())).unwrap();
                }
                let _ = partition.resume(BEGIN, false);
                partition
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, decide, code, recover);
criterion_main!(benches);
