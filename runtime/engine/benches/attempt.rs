//! What a warm attempt takes: one after another, as one client would see it, with the kernel's `PAGEMAP_SCAN` and without.
//! CPU time an attempt is printed beside Criterion's wall time. Run it with `cargo bench -p reipaz-engine`.

#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use reipaz_engine::{
    Attempt, CompilerCommand, Context, Engine, EngineConfig, Evaluation, NoSecrets, Outcome, PagemapScan,
};
use tokio::runtime::Runtime;

#[path = "../tests/engine/guests.rs"]
mod guests;

struct Bench {
    engine: Engine,
    digest: [u8; 32],
    _cache: tempfile::TempDir,
}

fn set_up(runtime: &Runtime, pagemap_scan: PagemapScan) -> Bench {
    let cache = tempfile::tempdir().unwrap();
    let engine = Engine::new(EngineConfig {
        permits: 64,
        threads: 2,
        cache_dir: cache.path().to_owned(),
        compiler: CompilerCommand { argv: vec![env!("CARGO_BIN_EXE_reipaz-engine-compile").into()] },
        jq: Some(guests::build("reipaz-jq").into()),
        pagemap_scan,
        ..EngineConfig::default()
    })
    .unwrap();
    let digest = runtime.block_on(async {
        engine.prepare().await.unwrap();
        engine.install(guests::build("reipaz-guest-hostile").into()).await.unwrap().digest
    });
    Bench { engine, digest, _cache: cache }
}

impl Bench {
    fn attempt(&self) -> Attempt {
        Attempt {
            digest: self.digest,
            plugin: None,
            context: Context {
                run: "r".into(),
                workflow: "w".into(),
                step: "/s".into(),
                attempt: 1,
                ..Context::default()
            },
            input: r#"{"do": "echo", "value": {"a": [1, 2, 3], "b": "text"}}"#.into(),
            grants: Arc::default(),
            secrets: Arc::new(NoSecrets),
            seed: [1; 32],
            clock_start_us: 0,
            timeout: Duration::from_secs(10),
            start_by: None,
            end_by: None,
            heartbeat_timeout: None,
            cancel: Default::default(),
            reports: None,
        }
    }

    async fn run(&self) -> Outcome {
        let outcome = self.engine.run(self.attempt()).await;
        assert!(outcome.result.is_ok(), "{outcome:?}");
        outcome
    }
}

fn attempts(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for (name, scan) in [("pagemap_scan", PagemapScan::Auto), ("no_scan", PagemapScan::Off)] {
        let bench = set_up(&runtime, scan);
        let before = bench.engine.stats();
        c.bench_function(&format!("warm_step/{name}"), |b| {
            b.iter_custom(|n| {
                runtime.block_on(async {
                    let began = Instant::now();
                    for _ in 0..n {
                        bench.run().await;
                    }
                    began.elapsed()
                })
            });
        });
        // What a chain of steps costs when nobody has to be woken in between: the caller on the guests' own threads.
        c.bench_function(&format!("warm_step_on_guest_thread/{name}"), |b| {
            b.iter_custom(|n| {
                let (engine, attempt) = (bench.engine.clone(), bench.attempt());
                let work = bench.engine.handle().spawn(async move {
                    let began = Instant::now();
                    for _ in 0..n {
                        engine.run(attempt.clone()).await;
                    }
                    began.elapsed()
                });
                runtime.block_on(work).unwrap()
            });
        });
        let after = bench.engine.stats();
        let attempts = after.attempts - before.attempts;
        println!(
            "{name}: {:.1} us CPU an attempt over {attempts}",
            (after.cpu_us - before.cpu_us) as f64 / attempts.max(1) as f64
        );
        if scan == PagemapScan::Auto {
            expressions(c, &runtime, &bench);
        }
    }
}

fn expressions(c: &mut Criterion, runtime: &Runtime, bench: &Bench) {
    let evaluation = Evaluation {
        scope: r#"{"input": {"rows": [1, 2, 3]}, "steps": {}}"#.into(),
        condition: Some("($input.rows | length) > 2".into()),
        filters: vec!["$input.rows | map(. + 1)".into()],
        seed: [1; 32],
        start_by: None,
        cancel: Default::default(),
    };
    c.bench_function("warm_expression", |b| {
        b.iter_custom(|n| {
            runtime.block_on(async {
                let began = Instant::now();
                for _ in 0..n {
                    bench.engine.evaluate(evaluation.clone()).await.unwrap();
                }
                began.elapsed()
            })
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(4));
    targets = attempts
}
criterion_main!(benches);
