//! The table, in Markdown, with what a reader needs to judge it.

use std::{fmt, fs};

use crate::{disk::Disk, options::Options, rounds::Row};

/// What was measured.
pub(crate) struct Report {
    machine: String,
    measured_s: u64,
    warm_up_s: u64,
    clickhouse: bool,
    disk: Disk,
    idle_bytes: u64,
    peak_bytes: u64,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(options: &Options, disk: Disk, idle_bytes: u64) -> Self {
        Self {
            machine: machine(),
            measured_s: options.measured.as_secs(),
            warm_up_s: options.warm_up.as_secs(),
            clickhouse: options.clickhouse,
            disk,
            idle_bytes,
            peak_bytes: 0,
            rows: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub(crate) fn finish(&mut self, peak_bytes: u64) {
        self.peak_bytes = peak_bytes;
    }
}

pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| workflow | clients | runs/s | p50 | p99 | fsyncs per run | engine time per step (CPU) | host RSS |"
        )?;
        writeln!(f, "|---|---:|---:|---:|---:|---:|---:|---:|")?;
        for row in &self.rows {
            let fsyncs = row.writes_per_run().map_or("-".to_owned(), |fsyncs| format!("{fsyncs:.3}"));
            writeln!(
                f,
                "| {} | {} | {:.0} | {:.2} ms | {:.2} ms | {fsyncs} | {:.0} us ({:.0} us) | {:.0} MiB |",
                row.workload.title(),
                row.clients,
                row.runs_per_second(),
                row.latency_ms(0.5),
                row.latency_ms(0.99),
                row.usage.wall_us,
                row.usage.cpu_us,
                mib(row.resident_bytes),
            )?;
        }
        writeln!(
            f,
            "\nMeasured on {}, load generator and outside server included; journal on {} (4 KiB append and fdatasync: {:.2} \
             ms, median); {}; {} s a row after {} s of warm-up. Idle host: {:.0} MiB; peak over all rows: {:.0} MiB{}.",
            self.machine,
            self.disk.file_system,
            self.disk.sync_p50.as_secs_f64() * 1000.0,
            if self.clickhouse {
                "rows projected into the embedded ClickHouse meanwhile"
            } else {
                "without ClickHouse"
            },
            self.measured_s,
            self.warm_up_s,
            mib(self.idle_bytes),
            mib(self.peak_bytes),
            if self.clickhouse { " (without the ClickHouse process)" } else { "" },
        )
    }
}

/// Cores and processor, as the kernel tells them.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    format!("{cores} cores ({})", model.map_or("unknown", |(_, name)| name.trim()))
}
