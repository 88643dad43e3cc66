//! A deterministic simulation: an owner over a journal that loses what is not durable yet, with crashes, orderly stops,
//! late and doubled outcomes, clocks that jump both ways, and everything that users can ask, at random. After every
//! input it checks what must always hold; at the end the faults stop, and every run that was accepted must end.
//!
//! A failing seed prints the line that replays it. `cargo xtask simulate` searches longer.

mod world;

use reipaz_simulation::Search;
use world::World;

/// Things that happen before the faults stop.
const HAPPENINGS: usize = 250;

fn simulate(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..HAPPENINGS {
        world.something_happens();
    }
    world.settle();
}

#[test]
fn whatever_happens_every_accepted_run_ends_once() {
    Search { simulate, replay: "cargo test -p reipaz-core --test partition simulation" }.run();
}
