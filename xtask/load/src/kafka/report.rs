//! The tables, in Markdown, with what a reader needs to judge them.

use std::fmt;

use super::{
    PARTITIONS,
    recovery::{CHECKPOINT_BYTES, KILLS, Recovery, TERMINAL_RUNS},
    throughput::{OverHttp, Tasks},
};
use crate::{
    options::Options,
    report::{machine, mib},
};

/// What was measured.
pub(crate) struct Report {
    machine: String,
    measured_s: u64,
    warm_up_s: u64,
    pub(crate) throughput: Vec<OverHttp>,
    pub(crate) tasks: Vec<Tasks>,
    pub(crate) recovery: Vec<Recovery>,
}

impl Report {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            machine: machine(),
            measured_s: options.measured.as_secs(),
            warm_up_s: options.warm_up.as_secs(),
            throughput: Vec::new(),
            tasks: Vec::new(),
            recovery: Vec::new(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| hosts | 3 silent steps | runs/s | p50 | p99 | commits per run |")?;
        writeln!(f, "|---:|---|---:|---:|---:|---:|")?;
        for OverHttp { hosts, row } in &self.throughput {
            let clients = if row.clients == 1 { "client" } else { "clients" };
            writeln!(
                f,
                "| {hosts} | HTTP, {} {clients} | {:.0} | {:.2} ms | {:.2} ms | {} |",
                row.clients,
                row.runs_per_second(),
                row.latency_ms(0.5),
                row.latency_ms(0.99),
                per_run(row.writes_per_run()),
            )?;
        }
        for Tasks { hosts, tasks, took, commits } in &self.tasks {
            let commits = commits.map(|commits| commits / *tasks as f64);
            let rate = *tasks as f64 / took.as_secs_f64();
            writeln!(f, "| {hosts} | {tasks} tasks in the topic | {rate:.0} | | | {} |", per_run(commits))?;
        }
        writeln!(
            f,
            "\n| journal | ended runs | live runs | checkpoints before | take-over | events read | from start to owned | \
             host RSS |"
        )?;
        writeln!(f, "|---|---:|---:|---:|---:|---:|---:|---:|")?;
        for row in &self.recovery {
            writeln!(
                f,
                "| {} | {} | {} | {} | {:.3} s | {} | {:.1} s | {:.0} MiB |",
                row.ground,
                row.history,
                row.live,
                row.checkpoints,
                row.take_over_s,
                row.events,
                row.until_owned.as_secs_f64(),
                mib(row.resident_bytes),
            )?;
        }
        writeln!(
            f,
            "\nMeasured on {}: hosts, one broker, load generator and outside server together; {PARTITIONS} partitions; \
             ClickHouse off; {} s a row after {} s of warm-up. Take-over: the slowest partition, the median of {KILLS} kills. \
             With ended runs: limits.checkpoint_bytes = {CHECKPOINT_BYTES}, limits.terminal_runs = {TERMINAL_RUNS}.",
            self.machine, self.measured_s, self.warm_up_s,
        )?;
        for pair in self.recovery.windows(2) {
            if let [before, after] = pair
                && before.history > 0
                && after.history > before.history
            {
                writeln!(
                    f,
                    "{}: {} times the history takes {:.2} times as long to take over.",
                    after.ground,
                    after.history / before.history,
                    after.take_over_s / before.take_over_s,
                )?;
            }
        }
        Ok(())
    }
}

fn per_run(count: Option<f64>) -> String {
    count.map_or("-".to_owned(), |count| format!("{count:.3}"))
}
