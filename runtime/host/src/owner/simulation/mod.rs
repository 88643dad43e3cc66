//! A deterministic simulation of the real owner: its loop, gate, log, desk and waiters, turned by hand over a journal, an intake,
//! an executor and clocks that fail in every way that they may. After every turn it checks what must always hold; at the end the
//! faults stop, and every run must end and every question be answered.
//!
//! | file | holds |
//! |---|---|
//! | `world.rs`, `requests.rs`, `work.rs` | what happens, what is asked, what becomes of attempts |
//! | `host.rs` | an owner, and what must hold after each of its turns |
//! | `journal.rs`, `intake.rs`, `executor.rs`, `clock.rs`, `workflows.rs` | the ports |
//! | `peer.rs` | the other partition, as far as limits go that have their home there |
//! | `truth.rs`, `clients.rs` | what is durable, and that nobody is told anything else |
//!
//! A failing seed prints the line that replays it. `cargo xtask simulate` searches longer.
#![allow(clippy::unwrap_used, reason = "tests")]

mod clients;
mod clock;
mod executor;
mod host;
mod intake;
mod journal;
mod peer;
mod requests;
mod truth;
mod work;
mod workflows;
mod world;

#[cfg(feature = "fault_points")]
mod faults;

use reipaz_simulation::Search;

use self::world::{Story, World};

/// Of the deployment; the owners here own the first.
const PARTITIONS: u32 = 2;

/// Things that happen before the faults stop.
const HAPPENINGS: usize = 250;

fn run(seed: u64) {
    story(seed);
}

/// One seed; what it came to.
fn story(seed: u64) -> Story {
    let mut world = World::new(seed);
    for _ in 0..HAPPENINGS {
        world.something_happens();
    }
    world.settle();
    world.story()
}

#[test]
fn whatever_happens_nothing_is_lost_and_nothing_is_said_too_early() {
    let replay = "cargo test --workspace --features reipaz/fault_points --lib -- owner::simulation::whatever";
    Search { simulate: run, replay }.run();
}

#[test]
fn a_seed_comes_to_the_same_again() {
    for seed in 0..100 {
        assert_eq!(story(seed), story(seed), "seed {seed}");
    }
}
