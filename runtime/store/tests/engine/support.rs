//! What the tests share: one engine for all that do it no harm, and a run's history to project.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use reipaz_core::{
    event::{
        AttemptFinished, AttemptResult, AttemptStarted, Event, Fact, FinalStatus, LogLevel, LogLine,
        RunAccepted, RunEvent, RunFinished, Usage,
    },
    ids::{Digest, RunId, StepPath},
    json::Json,
    time::Timestamp,
};
use reipaz_store::{Projection, RowBatch, Status, Store, StoreConfig, Target, library};
use tokio::runtime::Runtime;

/// Longer than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A directory of its own under the build's temporary directory, empty.
pub(crate) fn dir(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("store").join(name);
    if dir.exists() {
        std::fs::remove_dir_all(&dir).expect("the directory of the last run can be removed");
    }
    std::fs::create_dir_all(&dir).expect("the build's directory can be written");
    dir
}

/// An embedded store on `dir`.
pub(crate) fn config(dir: PathBuf) -> StoreConfig {
    let child = vec![env!("CARGO_BIN_EXE_reipaz-clickhouse").into()];
    StoreConfig { target: Target::Embedded { library: None, dir, child }, ..StoreConfig::default() }
}

/// Waits until it is ready; a test without an engine fails and says how to get it.
pub(crate) async fn ready(store: &Store) {
    library::find(None).expect("these tests need the real engine");
    let mut status = store.status_watch();
    let settled = status.wait_for(|status| !matches!(status, Status::Starting));
    let settled = tokio::time::timeout(LONG, settled).await.expect("settles").expect("lives").clone();
    assert!(settled.is_ready(), "{settled}");
}

/// The engine that most tests share, with the runtime that its connection lives in.
pub(crate) fn shared() -> &'static (Runtime, Store) {
    static SHARED: OnceLock<(Runtime, Store)> = OnceLock::new();
    SHARED.get_or_init(|| {
        let runtime = runtime();
        let store = runtime.block_on(async {
            let store = Store::start(config(dir("shared"))).await;
            ready(&store).await;
            store
        });
        (runtime, store)
    })
}

/// Runs a test on the shared engine.
pub(crate) fn with_shared<F: Future<Output = ()>>(test: impl FnOnce(Store) -> F) {
    let (runtime, store) = shared();
    runtime.block_on(test(store.clone()));
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// A moment in November 2026.
pub(crate) const BEGIN: Timestamp = Timestamp(1_795_000_000_000_000);

/// Writes a run's events with growing positions and times.
pub(crate) struct History {
    pub(crate) run: RunId,
    pub(crate) seq: u32,
    pub(crate) position: u64,
    pub(crate) now: Timestamp,
    pub(crate) projection: Projection,
    pub(crate) batch: RowBatch,
}

impl History {
    pub(crate) fn new() -> Self {
        Self {
            run: RunId(uuid::Uuid::new_v4()),
            seq: 0,
            position: 0,
            now: BEGIN,
            projection: Projection::new(),
            batch: RowBatch::default(),
        }
    }

    /// Another run, on with the positions.
    pub(crate) fn next_run(&mut self) {
        self.run = RunId(uuid::Uuid::new_v4());
        self.seq = 0;
        self.now = self.now.plus(Duration::from_millis(7));
    }

    pub(crate) fn event(&mut self, fact: Fact) -> Event {
        self.seq += 1;
        self.position += 1;
        self.now = self.now.plus(Duration::from_micros(123));
        Event::Run(RunEvent { run: self.run, seq: self.seq, at: self.now, fact })
    }

    pub(crate) fn push(&mut self, fact: Fact) -> &mut Self {
        let event = self.event(fact);
        self.projection.apply(3, self.position, &event, &mut self.batch);
        self
    }

    pub(crate) fn accept(&mut self, input: &str) -> &mut Self {
        self.accept_as("orders", input)
    }

    pub(crate) fn accept_as(&mut self, workflow: &str, input: &str) -> &mut Self {
        self.push(Fact::RunAccepted(Arc::new(RunAccepted {
            workflow: workflow.into(),
            version: 2,
            plan: Digest::of(b"plan"),
            input: input.into(),
            input_digest: Digest::of(input.as_bytes()),
            idempotency_key: Some("k-1".into()),
            metadata: vec![("order".into(), "42".into())],
            trigger: None,
            seed: [7; 32],
            deadline: Some(BEGIN.plus(Duration::from_secs(3600))),
            refused: None,
        })))
    }

    pub(crate) fn start(&mut self, step: &str, attempt: u32) -> &mut Self {
        self.push(Fact::AttemptStarted(AttemptStarted { path: StepPath::top(step), attempt }))
    }

    pub(crate) fn finish(&mut self, step: &str, attempt: u32, result: AttemptResult) -> &mut Self {
        self.finish_with_logs(step, attempt, result, Vec::new())
    }

    pub(crate) fn finish_with_logs(
        &mut self,
        step: &str,
        attempt: u32,
        result: AttemptResult,
        logs: Vec<LogLine>,
    ) -> &mut Self {
        let started_at = self.now;
        self.push(Fact::AttemptFinished(Box::new(AttemptFinished {
            path: StepPath::top(step),
            attempt,
            started_at,
            result,
            input_digest: Some(Digest::of(b"with")),
            usage: Usage { cpu_us: 11, wall_us: 22, memory_peak_bytes: 33, queued_us: 44 },
            logs,
            logs_dropped_bytes: 5,
        })))
    }

    pub(crate) fn complete(&mut self, output: &str) -> &mut Self {
        self.end(FinalStatus::Completed, output)
    }

    pub(crate) fn end(&mut self, status: FinalStatus, output: &str) -> &mut Self {
        let finished = RunFinished { status, output: output.into(), error: None, started_at: Some(BEGIN) };
        self.push(Fact::RunFinished(Box::new(finished)))
    }

    pub(crate) fn take(&mut self) -> RowBatch {
        std::mem::take(&mut self.batch)
    }
}

pub(crate) fn output(json: &str) -> AttemptResult {
    AttemptResult::Output(Json::from(json))
}

pub(crate) fn line(message: &str, level: LogLevel) -> LogLine {
    LogLine { at: BEGIN, level, message: message.into(), fields: vec![("n".into(), "1".into())] }
}

/// A users' query as text.
pub(crate) async fn sql(store: &Store, query: &str) -> String {
    let bytes = store.sql(query, "TSV").await.unwrap_or_else(|error| panic!("{query}: {error}"));
    String::from_utf8(bytes.to_vec()).expect("UTF-8").trim_end().to_owned()
}
