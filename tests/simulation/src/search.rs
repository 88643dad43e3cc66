//! A search through seeds: each on some thread, and the first that fails ends it with the line that replays it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

/// Seeds per test run, unless `REIPAZ_SIMULATION_SEEDS` says otherwise.
const SEEDS: u64 = 10_000;
/// A search of more seeds than this tells how far it is, each time it has done so many.
const TELL_EVERY: u64 = 50_000;

/// What is searched.
pub struct Search {
    /// One seed; it panics if anything is wrong.
    pub simulate: fn(u64),
    /// What comes after `REIPAZ_SIMULATION_SEED=...` in the line that replays a seed.
    pub replay: &'static str,
}

impl Search {
    /// The seeds that the environment names: one, or from one on, so many. Panics as the first that fails does.
    pub fn run(&self) {
        let searched = match number("REIPAZ_SIMULATION_SEED") {
            Some(seed) => self.one(seed),
            None => {
                let from = number("REIPAZ_SIMULATION_FROM").unwrap_or(0);
                self.all(from, from + number("REIPAZ_SIMULATION_SEEDS").unwrap_or(SEEDS))
            }
        };
        if let Err(panic) = searched {
            std::panic::resume_unwind(panic);
        }
    }

    fn one(&self, seed: u64) -> thread::Result<()> {
        simulate(self.simulate, seed).inspect_err(|_| {
            eprintln!("\nreplay: REIPAZ_SIMULATION_SEED={seed} {}\n", self.replay);
        })
    }

    fn all(&self, from: u64, to: u64) -> thread::Result<()> {
        let (next, failed) = (AtomicU64::new(from), AtomicBool::new(false));
        let work = || {
            while !failed.load(Ordering::Relaxed) {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= to {
                    break;
                }
                self.one(seed).inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
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
}

/// One seed; what it panicked with, if anything is wrong.
pub fn simulate(one: fn(u64), seed: u64) -> thread::Result<()> {
    catch_unwind(AssertUnwindSafe(|| one(seed)))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}
