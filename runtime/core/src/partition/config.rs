//! The partition's bounds, all in one place.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::limit::LimitRule;

/// How much a partition holds, and for how long. The defaults fit one of a few partitions on a small machine.
#[derive(Clone, Debug)]
pub struct PartitionConfig {
    /// Which partition this is.
    pub partition: u32,
    /// How many there are; at least 1.
    pub partitions: u32,
    /// How many attempts of a plugin there may be in all partitions together, by its name.
    pub plugin_limits: BTreeMap<Arc<str>, LimitRule>,
    /// Runs that are not terminal. Over it, submissions are refused until some end. 200,000 sleeping runs take some
    /// 400 MB.
    pub max_live_runs: usize,
    /// Timers that fire, places that are given under limits, interrupted attempts that are taken up again, keys that expire and runs that are forgotten
    /// in one decision (each), so that none delays others for long. What is left over follows in the next tick.
    pub due_per_tick: usize,
    /// How often the host may be lost under a step's attempts before the step fails with class `host`. Bounds what a
    /// step that kills its host can do.
    pub host_losses_max: u32,
    /// Reports of one attempt that carry progress alone; further ones are dropped (reports with log lines never are:
    /// the engine bounds those by size).
    pub max_progress_reports: u32,
    /// How long an idempotency key stands for its run after the run's end.
    pub idempotency_retention: Duration,
    /// Keys of forgotten runs. Over it the oldest go early.
    pub max_kept_keys: usize,
    /// How long a completed run stays in memory at least, once its rows are stored.
    pub terminal_min_age: Duration,
    /// Completed runs in memory. Over it the oldest go before their time, if their rows are stored.
    pub max_terminal_runs: usize,
    /// As `max_terminal_runs`, in estimated bytes of memory.
    pub max_terminal_bytes: u64,
    /// How long a failed or cancelled run stays at least, once its rows are stored: so long somebody can go on with it.
    pub failed_min_age: Duration,
    /// Failed and cancelled runs in memory. Over it the oldest go before their time, if their rows are stored.
    pub max_failed_runs: usize,
    /// As `max_failed_runs`, in estimated bytes of memory.
    pub max_failed_bytes: u64,
    /// Terminal runs of either kind in memory while nothing can be stored (ClickHouse is away). Over it the oldest are forgotten
    /// even so: the journal still has them and their rows follow, but until then nobody can read them.
    pub max_unstored_runs: usize,
    /// As `max_unstored_runs`, in estimated bytes of memory.
    pub max_unstored_bytes: u64,
}

impl Default for PartitionConfig {
    fn default() -> Self {
        Self {
            partition: 0,
            partitions: 1,
            plugin_limits: BTreeMap::new(),
            max_live_runs: 200_000,
            due_per_tick: 256,
            host_losses_max: 5,
            max_progress_reports: 1_000,
            idempotency_retention: Duration::from_secs(24 * 3600),
            max_kept_keys: 1_000_000,
            terminal_min_age: Duration::from_secs(60),
            max_terminal_runs: 20_000,
            max_terminal_bytes: 256 << 20,
            failed_min_age: Duration::from_secs(7 * 24 * 3600),
            max_failed_runs: 10_000,
            max_failed_bytes: 64 << 20,
            max_unstored_runs: 200_000,
            max_unstored_bytes: 1 << 30,
        }
    }
}
