//! What the host counts, in Prometheus' text format. Counters that another part keeps anyway (the journal's, the
//! engine's, the owners') are read when somebody asks, not kept twice.

use std::sync::{Arc, OnceLock, atomic::Ordering};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use reipaz_engine::BreakerState;
use reipaz_journal::Embedded;

use crate::{api, app::App};

/// Renders everything.
pub(crate) struct Metrics {
    handle: Option<PrometheusHandle>,
    app: Arc<App>,
    journal: Option<Embedded>,
}

impl Metrics {
    /// One recorder serves all hosts of a process.
    pub(crate) fn new(app: Arc<App>, journal: Option<Embedded>) -> Self {
        static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
        let handle = RECORDER.get_or_init(|| {
            // Latencies of an API call, from a memory lookup to a full long poll.
            let buckets =
                [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];
            let built =
                PrometheusBuilder::new().set_buckets(&buckets).and_then(PrometheusBuilder::install_recorder);
            let handle = built.inspect_err(|error| tracing::warn!(%error, "no metrics recorder")).ok();
            api::describe_metrics();
            handle
        });
        Self { handle: handle.clone(), app, journal }
    }

    /// The page that Prometheus scrapes.
    pub(crate) fn render(&self) -> String {
        let Some(handle) = &self.handle else { return String::new() };
        self.read_owners();
        self.read_journal();
        self.read_engine();
        self.read_alerts();
        self.read_breakers();
        metrics::gauge!("reipaz_clickhouse_ready").set(if self.app.history.is_ready() { 1.0 } else { 0.0 });
        metrics::gauge!("reipaz_process_resident_bytes").set(resident_bytes() as f64);
        handle.run_upkeep();
        handle.render()
    }

    fn read_owners(&self) {
        for (partition, owner) in self.app.owners.iter().enumerate() {
            let partition = partition.to_string();
            let read = |value: &std::sync::atomic::AtomicU64| value.load(Ordering::Relaxed);
            let flag = |value: &std::sync::atomic::AtomicBool| f64::from(value.load(Ordering::Relaxed));
            metrics::gauge!("reipaz_runs_live", "partition" => partition.clone())
                .set(read(&owner.live_runs) as f64);
            metrics::gauge!("reipaz_runs_terminal_in_memory", "partition" => partition.clone())
                .set(read(&owner.terminal_runs) as f64);
            metrics::gauge!("reipaz_limits_held", "partition" => partition.clone())
                .set(read(&owner.limits_held) as f64);
            metrics::gauge!("reipaz_limits_queued", "partition" => partition.clone())
                .set(read(&owner.limits_queued) as f64);
            metrics::counter!("reipaz_events_total", "partition" => partition.clone())
                .absolute(read(&owner.events));
            metrics::counter!("reipaz_commits_total", "partition" => partition.clone())
                .absolute(read(&owner.commits));
            metrics::counter!("reipaz_checkpoints_total", "partition" => partition.clone())
                .absolute(read(&owner.checkpoints));
            metrics::gauge!("reipaz_partition_owned", "partition" => partition.clone())
                .set(flag(&owner.owned));
            let behind = read(&owner.durable).saturating_sub(read(&owner.stored));
            metrics::gauge!("reipaz_sink_lag_records", "partition" => partition.clone()).set(behind as f64);
            metrics::gauge!("reipaz_sink_lag_seconds", "partition" => partition.clone())
                .set(read(&owner.sink_lag_ms) as f64 / 1e3);
            metrics::gauge!("reipaz_recovery_seconds", "partition" => partition.clone())
                .set(read(&owner.recovery_us) as f64 / 1e6);
            metrics::gauge!("reipaz_recovery_events", "partition" => partition.clone())
                .set(read(&owner.recovery_events) as f64);
            if self.app.scale.is_some() {
                metrics::gauge!("reipaz_tasks_paused", "partition" => partition.clone())
                    .set(flag(&owner.paused));
                metrics::gauge!("reipaz_tasks_lag", "partition" => partition.clone())
                    .set(read(&owner.lag) as f64);
                metrics::counter!("reipaz_tasks_total", "partition" => partition.clone())
                    .absolute(read(&owner.tasks));
                metrics::counter!("reipaz_tasks_rejected_total", "partition" => partition)
                    .absolute(read(&owner.rejected));
            }
        }
        let full = self.app.owners.iter().any(|owner| owner.no_space.load(Ordering::Relaxed));
        metrics::gauge!("reipaz_journal_disk_full").set(if full { 1.0 } else { 0.0 });
    }

    fn read_journal(&self) {
        let Some(stats) = self.journal.as_ref().map(Embedded::stats) else { return };
        metrics::counter!("reipaz_journal_fsyncs_total").absolute(stats.fsyncs);
        metrics::counter!("reipaz_journal_batches_total").absolute(stats.batches);
        metrics::counter!("reipaz_journal_records_total").absolute(stats.records);
        metrics::counter!("reipaz_journal_bytes_total").absolute(stats.bytes);
        metrics::gauge!("reipaz_journal_log_bytes").set(stats.log_bytes as f64);
        metrics::gauge!("reipaz_journal_commit_p99_seconds")
            .set(stats.commit_latency.quantile_us(0.99) as f64 / 1e6);
    }

    fn read_breakers(&self) {
        // Those that never changed would be a name for everything that was ever called.
        for breaker in self.app.engine.breakers().list().into_iter().filter(|breaker| breaker.changed) {
            let state = match breaker.state {
                BreakerState::Closed => 0.0,
                BreakerState::HalfOpen => 1.0,
                BreakerState::Open => 2.0,
            };
            let (kind, name) = (breaker.id.kind.as_str(), breaker.id.name.to_string());
            metrics::gauge!("reipaz_breaker_state", "kind" => kind, "name" => name).set(state);
        }
        for (to, count) in self.app.breaker_changes.counts() {
            metrics::counter!("reipaz_breaker_changes_total", "to" => to.as_str()).absolute(count);
        }
    }

    fn read_alerts(&self) {
        let counts = self.app.alerts.counts();
        for (kind, firing) in counts.firing {
            metrics::gauge!("reipaz_alerts_firing", "kind" => kind.as_str()).set(firing as f64);
        }
        for (outcome, count) in counts.deliveries {
            metrics::counter!("reipaz_alert_deliveries_total", "outcome" => outcome).absolute(count);
        }
        for (what, count) in counts.dropped {
            metrics::counter!("reipaz_alerts_dropped_total", "what" => what).absolute(count);
        }
    }

    fn read_engine(&self) {
        let stats = self.app.engine.stats();
        metrics::counter!("reipaz_attempts_total").absolute(stats.attempts);
        metrics::counter!("reipaz_guest_cpu_microseconds_total").absolute(stats.cpu_us);
        metrics::counter!("reipaz_evaluations_total").absolute(stats.evaluations);
        metrics::counter!("reipaz_compilations_total").absolute(stats.compilations);
        metrics::gauge!("reipaz_attempt_permits_free").set(stats.permits_free as f64);
        metrics::gauge!("reipaz_plugins_loaded").set(stats.plugins as f64);
    }
}

/// The host's own memory, without its children. 0 where /proc does not say.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
