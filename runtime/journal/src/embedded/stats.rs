//! Counters that cost an atomic addition each.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Four buckets for every doubling of microseconds: a quantile is right within 19%.
const BUCKETS_PER_DOUBLING: u32 = 4;
const BUCKETS: usize = 96;

/// What the embedded journal has done since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Syncs of files and folders, of every kind.
    pub fsyncs: u64,
    /// Syncs of the log: one for each group of batches.
    pub groups: u64,
    /// Batches made durable.
    pub batches: u64,
    /// Records made durable.
    pub records: u64,
    /// Messages made durable.
    pub messages: u64,
    /// Bytes appended to the log, headers and padding included.
    pub bytes: u64,
    /// Segments that the log has now.
    pub segments: u64,
    /// Bytes between the oldest kept byte of the log and its end.
    pub log_bytes: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// From [`crate::PartitionLog::commit`] to durable.
    pub commit_latency: Latency,
}

/// A distribution of times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latency {
    buckets: Vec<u64>,
}

impl Default for Latency {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS] }
    }
}

impl Latency {
    /// How many times were measured.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The time that a share of `quantile` (0 to 1) did not exceed, in microseconds, rounded up to a bucket's end; zero
    /// when nothing was measured.
    pub fn quantile_us(&self, quantile: f64) -> u64 {
        let wanted = (self.count() as f64 * quantile.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return bucket_end_us(bucket as u32);
            }
        }
        0
    }
}

fn bucket_of(time_us: u64) -> usize {
    let doublings = f64::from(BUCKETS_PER_DOUBLING) * (time_us.max(1) as f64).log2();
    (doublings.ceil() as usize).min(BUCKETS - 1)
}

fn bucket_end_us(bucket: u32) -> u64 {
    2f64.powf(f64::from(bucket) / f64::from(BUCKETS_PER_DOUBLING)).floor() as u64
}

/// The counters behind [`Stats`].
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) groups: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) messages: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    latency: [AtomicU64; BUCKETS],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            groups: AtomicU64::default(),
            batches: AtomicU64::default(),
            records: AtomicU64::default(),
            messages: AtomicU64::default(),
            bytes: AtomicU64::default(),
            checkpoints: AtomicU64::default(),
            latency: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }
}

impl Counters {
    /// One batch became durable after `latency`.
    pub(crate) fn note_latency(&self, latency: Duration) {
        self.latency[bucket_of(latency.as_micros() as u64)].fetch_add(1, Relaxed);
    }

    /// The present counts; what is counted elsewhere is zero.
    pub(crate) fn read(&self) -> Stats {
        Stats {
            groups: self.groups.load(Relaxed),
            batches: self.batches.load(Relaxed),
            records: self.records.load(Relaxed),
            messages: self.messages.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            checkpoints: self.checkpoints.load(Relaxed),
            commit_latency: Latency {
                buckets: self.latency.iter().map(|count| count.load(Relaxed)).collect(),
            },
            ..Stats::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_come_from_the_bucket_that_holds_them() {
        let counters = Counters::default();
        for time_us in 1..=1000 {
            counters.note_latency(Duration::from_micros(time_us));
        }
        let latency = counters.read().commit_latency;
        assert_eq!(latency.count(), 1000);
        for (quantile, exact) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = latency.quantile_us(quantile) as f64;
            assert!(found >= exact && found <= exact * 1.2, "{quantile}: {found}");
        }
        assert_eq!(Latency::default().quantile_us(0.5), 0);
    }
}
