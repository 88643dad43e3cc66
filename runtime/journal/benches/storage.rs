//! Which storage the journal stands on: our own segments, or fjall, an existing storage engine. A durable commit of 1 and
//! of 256 records of 200 bytes, and four partitions that commit at once, on the same disk.
//!
//! Ours is measured as an owner sees it, from calling `commit` in one task to being awake again, thread hops included.
//! fjall is measured at its best: called directly on the measuring thread. Run with `cargo bench -p reipaz-journal`; the
//! files are put below the target directory, because `/tmp` may be memory.
#![expect(clippy::unwrap_used, reason = "a benchmark's failure is its panic")]

use std::{
    path::PathBuf,
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use reipaz_journal::{Batch, Embedded, EmbeddedConfig, PartitionLog};
use tokio::runtime::Runtime;

const RECORD_BYTES: usize = 200;
const RECORDS: [usize; 2] = [1, 256];
const PARTITIONS: u32 = 4;

fn directory() -> tempfile::TempDir {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
    std::fs::create_dir_all(&target).unwrap();
    tempfile::tempdir_in(target).unwrap()
}

fn batch(records: usize) -> Batch {
    Batch { records: vec![Bytes::from(vec![7_u8; RECORD_BYTES]); records], ..Batch::default() }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap()
}

async fn logs(embedded: &Embedded) -> Vec<Box<dyn PartitionLog>> {
    let mut logs = Vec::new();
    for partition in 0..PARTITIONS {
        logs.push(embedded.journal().open(partition).await.unwrap().log);
    }
    logs
}

fn segments(criterion: &mut Criterion) {
    let runtime = runtime();
    let dir = directory();
    let embedded = runtime.block_on(Embedded::open(EmbeddedConfig::new(dir.path(), PARTITIONS))).unwrap();
    let mut logs = runtime.block_on(logs(&embedded));
    for records in RECORDS {
        let batch = batch(records);
        criterion.bench_function(&format!("segments/commit/{records}"), |bencher| {
            bencher.iter_custom(|count| {
                let mut log = logs.pop().unwrap();
                let batch = batch.clone();
                // In a task of its own, as an owner runs, not on the thread that blocks on it.
                let (log, elapsed) = runtime
                    .block_on(runtime.spawn(async move {
                        let start = Instant::now();
                        for _ in 0..count {
                            log.commit(batch.clone()).await.unwrap();
                        }
                        (log, start.elapsed())
                    }))
                    .unwrap();
                logs.push(log);
                elapsed
            });
        });
    }
    criterion.bench_function("segments/four_at_once/1", |bencher| {
        bencher.iter_custom(|count| {
            let batch = batch(1);
            let start = Instant::now();
            let tasks: Vec<_> = logs
                .drain(..)
                .map(|mut log| {
                    let batch = batch.clone();
                    runtime.spawn(async move {
                        for _ in 0..count {
                            log.commit(batch.clone()).await.unwrap();
                        }
                        log
                    })
                })
                .collect();
            logs = tasks.into_iter().map(|task| runtime.block_on(task).unwrap()).collect();
            start.elapsed()
        });
    });
    let latency = embedded.stats().commit_latency;
    println!(
        "segments: {} commits, p50 {} us, p99 {} us",
        latency.count(),
        latency.quantile_us(0.5),
        latency.quantile_us(0.99)
    );
}

fn commit_fjall(database: &Database, keyspace: &Keyspace, next: &AtomicU64, records: usize) {
    let first = next.fetch_add(records as u64, Ordering::Relaxed);
    let mut batch = database.batch().durability(Some(PersistMode::SyncData));
    for position in first..first + records as u64 {
        batch.insert(keyspace, position.to_be_bytes(), &[7_u8; RECORD_BYTES][..]);
    }
    batch.commit().unwrap();
}

fn fjall(criterion: &mut Criterion) {
    let dir = directory();
    let database = Database::builder(dir.path()).open().unwrap();
    let keyspace = database.keyspace("journal", KeyspaceCreateOptions::default).unwrap();
    let next = AtomicU64::new(1);
    for records in RECORDS {
        criterion.bench_function(&format!("fjall/commit/{records}"), |bencher| {
            bencher.iter(|| commit_fjall(&database, &keyspace, &next, records));
        });
    }
    criterion.bench_function("fjall/four_at_once/1", |bencher| {
        bencher.iter_custom(|count| {
            let barrier = Barrier::new(PARTITIONS as usize + 1);
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..PARTITIONS)
                    .map(|_| {
                        scope.spawn(|| {
                            barrier.wait();
                            (0..count).for_each(|_| commit_fjall(&database, &keyspace, &next, 1));
                        })
                    })
                    .collect();
                barrier.wait();
                let start = Instant::now();
                threads.into_iter().for_each(|thread| thread.join().unwrap());
                start.elapsed()
            })
        });
    });
}

criterion_group! {
    name = storage;
    config = Criterion::default().measurement_time(Duration::from_secs(8)).sample_size(50);
    targets = segments, fjall
}
criterion_main!(storage);
