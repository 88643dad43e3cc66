//! A partition of runs as a value: inputs in, decisions out. Nothing here waits, reads a clock or draws randomness.
//!
//! The one idea: state is the fold of events. [`Partition::handle`] changes state only by applying the events that it
//! returns, through the same function that [`Partition::replay`] uses, so whoever folds the journal stands where the
//! partition stood that wrote it.
//!
//! | file | holds |
//! |---|---|
//! | `input.rs` | inputs, decisions, effects, replies |
//! | `decide.rs` | what each input leads to |
//! | `advance.rs` | which steps start, are skipped or tried again; how a run ends |
//! | `recover.rs` | what a new owner takes up again, and what a stopping one writes down |
//! | `retain.rs` | how long runs and keys stay, checkpoints |
//! | `apply.rs` | how each event changes state: nothing else does |
//! | `run.rs`, `status.rs` | one run's state, and what others may see of it |
//! | `limits.rs` | the limits that have their home here: who has a place, who waits |
//! | `slots.rs` | the places that runs and their steps ask for, wherever the limit's home is |
//! | `timers.rs`, `config.rs`, `error.rs` | the timer index, the bounds, why a journal is refused |
//! | `invariants.rs` | what must always hold |

mod advance;
mod apply;
mod config;
mod decide;
mod error;
mod input;
mod invariants;
mod limits;
mod recover;
mod retain;
mod run;
mod slots;
mod status;
mod timers;

use std::{collections::BTreeSet, sync::Arc};

use rustc_hash::FxHashMap;

pub use config::PartitionConfig;
pub use error::ReplayError;
pub use input::*;
pub use limits::LimitView;
pub use run::Run;
pub use status::*;

use crate::{
    event::{Event, KeptKey},
    ids::{Digest, RunId},
    plan::Plan,
    time::Timestamp,
};

/// All runs of one partition.
#[derive(Debug, Default)]
pub struct Partition {
    config: PartitionConfig,

    // What the journal determines.
    last_time: Timestamp,
    plans: FxHashMap<Digest, PinnedInUse>,
    /// Boxed: a map has more places than entries.
    runs: FxHashMap<RunId, Box<Run>>,
    live: usize,
    bytes: u64,
    timers: timers::Timers,
    completed: retain::Ended,
    /// Those that failed or were cancelled: somebody may go on with them.
    failed: retain::Ended,
    keys: FxHashMap<RunId, KeptKey>,
    /// Keys by their expiry.
    expiries: BTreeSet<(Timestamp, RunId)>,
    limits: limits::Limits,

    // What the owner told, or what is under way.
    position: u64,
    stored: u64,
    recovery: recover::Recovery,
    offered: FxHashMap<Digest, Arc<Plan>>,
}

/// A workflow version and how many runs use it; it goes with the last of them.
#[derive(Debug)]
struct PinnedInUse {
    pinned: Arc<run::Pinned>,
    event: Arc<Event>,
    runs: usize,
}

impl Partition {
    /// An empty partition.
    pub fn new(config: PartitionConfig) -> Self {
        Self { config, ..Self::default() }
    }

    /// Decides about one input. `now` is the owner's clock; a time before the last journalled one counts as that.
    pub fn handle(&mut self, input: Input, now: Timestamp) -> Decision {
        let mut deciding = decide::Deciding::new(self, now);
        deciding.input(input);
        deciding.finish()
    }

    /// Takes a journalled event. In the journal's order: first those of a checkpoint, if there is one, then the rest.
    pub fn replay(&mut self, mut event: Arc<Event>) -> Result<(), ReplayError> {
        self.share_texts(&mut event);
        self.apply(&event)
    }

    /// Takes up what was under way, once everything is replayed. After an unclean stop the hosts of all attempts
    /// without an outcome count as lost; after a clean one nothing counts. The decision is bounded: what it leaves
    /// over follows in ticks that [`Partition::next_timer`] asks for at once.
    pub fn resume(&mut self, now: Timestamp, clean_stop: bool) -> Decision {
        self.offered = FxHashMap::default();
        self.recovery = recover::Recovery::of(self.runs(), clean_stop);
        let mut deciding = decide::Deciding::new(self, now);
        deciding.recover();
        deciding.finish()
    }

    /// Spares replay the compiling of a plan that the owner has at hand. Forgotten at [`Partition::resume`].
    pub fn offer_plan(&mut self, plan: Arc<Plan>) {
        self.offered.insert(plan.digest, plan);
    }

    /// When the owner should give the next [`Input::Tick`]; in the past when there is work left over.
    pub fn next_timer(&self) -> Option<Timestamp> {
        if !self.recovery.is_empty() || self.keys.len() > self.config.max_kept_keys {
            return Some(self.last_time);
        }
        let expiry = self.expiries.first().map(|&(at, _)| at);
        let looks = [self.timers.first(), expiry, self.next_forgetting(), self.limits.next_look()];
        looks.into_iter().flatten().min()
    }

    /// A run in memory.
    pub fn run(&self, id: RunId) -> Option<&Run> {
        self.runs.get(&id).map(Box::as_ref)
    }

    /// All runs in memory, in no particular order.
    pub fn runs(&self) -> impl ExactSizeIterator<Item = &Run> {
        self.runs.values().map(Box::as_ref)
    }

    /// The last journalled time.
    pub fn last_time(&self) -> Timestamp {
        self.last_time
    }

    /// Runs that are not over.
    pub fn live_runs(&self) -> usize {
        self.live
    }

    /// Runs in memory that are over.
    pub fn terminal_runs(&self) -> usize {
        self.completed.len() + self.failed.len()
    }

    /// Estimated memory of all runs, kept keys and limits in bytes; what a checkpoint takes grows and falls with it.
    pub fn bytes(&self) -> u64 {
        self.bytes + self.keys.len() as u64 * retain::KEPT_KEY_BYTES + self.limits.bytes()
    }

    /// The journal position of the last event decided. Every event is one record, so the partition counts them.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Says at which journal position the last replayed event stands. To be called once, after the replay.
    pub fn set_position(&mut self, position: u64) {
        let ahead = position.saturating_sub(self.position);
        for run in self.runs.values_mut() {
            run.position += ahead;
        }
        self.position = position;
    }
}

impl PartialEq for PinnedInUse {
    fn eq(&self, other: &Self) -> bool {
        (&self.event, self.runs) == (&other.event, other.runs)
    }
}

/// Equal when their journals say the same.
impl PartialEq for Partition {
    fn eq(&self, other: &Self) -> bool {
        let numbers = |it: &Self| (it.last_time, it.live, it.bytes);
        numbers(self) == numbers(other)
            && self.plans == other.plans
            && self.runs == other.runs
            && self.timers == other.timers
            && self.completed == other.completed
            && self.failed == other.failed
            && self.keys == other.keys
            && self.expiries == other.expiries
            && self.limits == other.limits
    }
}
