//! A deterministic simulation: an owner over a journal that loses what is not durable yet, with crashes, orderly stops,
//! late and doubled outcomes, clocks that jump both ways, and everything that users can ask, at random. After every
//! input it checks what must always hold; at the end the faults stop, and every run that was accepted must end.
//!
//! A failing seed prints the line that replays it. `cargo xtask simulate` searches longer.

mod audit;
mod random;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use world::World;

/// Seeds per test run, unless `REIPAZ_SIMULATION_SEEDS` says otherwise.
const SEEDS: u64 = 10_000;
/// Things that happen before the faults stop.
const HAPPENINGS: usize = 250;
/// A search of more seeds than this tells how far it is, each time it has done so many.
const TELL_EVERY: u64 = 50_000;

fn simulate(seed: u64) -> thread::Result<()> {
    catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed);
        for _ in 0..HAPPENINGS {
            world.something_happens();
        }
        world.settle();
    }))
    .inspect_err(|_| {
        eprintln!(
            "\nreplay: REIPAZ_SIMULATION_SEED={seed} cargo test -p reipaz-core --test partition simulation\n"
        );
    })
}

/// Each seed on some thread; the first that fails ends the search.
fn search(from: u64, to: u64) -> thread::Result<()> {
    let (next, failed) = (AtomicU64::new(from), AtomicBool::new(false));
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= to {
                break;
            }
            simulate(seed).inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
            if (seed + 1).is_multiple_of(TELL_EVERY) {
                eprintln!("simulated up to seed {seed}");
            }
        }
        Ok(())
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let working: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        working.into_iter().try_for_each(|thread| thread.join().and_then(|searched| searched))
    })
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn whatever_happens_every_accepted_run_ends_once() {
    let searched = match number("REIPAZ_SIMULATION_SEED") {
        Some(seed) => simulate(seed),
        None => {
            let from = number("REIPAZ_SIMULATION_FROM").unwrap_or(0);
            search(from, from + number("REIPAZ_SIMULATION_SEEDS").unwrap_or(SEEDS))
        }
    };
    if let Err(panic) = searched {
        resume_unwind(panic);
    }
}
