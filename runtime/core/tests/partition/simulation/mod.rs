//! A deterministic simulation: an owner over a journal that loses what is not durable yet, with crashes, orderly stops,
//! late and doubled outcomes, clocks that jump both ways, and everything that users can ask, at random. After every
//! input it checks what must always hold; at the end the faults stop, and every run that was accepted must end.
//!
//! A failing seed prints the line that replays it. `REIPAZ_SIMULATION_SEEDS=5000` searches longer.

mod audit;
mod random;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use world::World;

/// Seeds per test run, unless `REIPAZ_SIMULATION_SEEDS` says otherwise: a few seconds.
const SEEDS: u64 = 250;
/// Things that happen before the faults stop.
const HAPPENINGS: usize = 250;

fn simulate(seed: u64) {
    let told = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed);
        for _ in 0..HAPPENINGS {
            world.something_happens();
        }
        world.settle();
    }));
    if let Err(panic) = told {
        eprintln!(
            "\nreplay: REIPAZ_SIMULATION_SEED={seed} cargo test -p reipaz-core --test partition simulation\n"
        );
        resume_unwind(panic);
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn whatever_happens_every_accepted_run_ends_once() {
    match number("REIPAZ_SIMULATION_SEED") {
        Some(seed) => simulate(seed),
        None => (0..number("REIPAZ_SIMULATION_SEEDS").unwrap_or(SEEDS)).for_each(simulate),
    }
}
