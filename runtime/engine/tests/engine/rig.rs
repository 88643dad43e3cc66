//! Engines and attempts for tests.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reipaz_engine::{
    Attempt, CompilerCommand, Context, Engine, EngineConfig, Failure, Grants, HttpGrant, NoSecrets, Outcome,
};
use serde_json::{Value, json};

use crate::guests;

/// The longest that a test's attempt may take unless it says otherwise.
const TIMEOUT: Duration = Duration::from_secs(20);

/// An engine with the hostile guest in it.
pub(crate) struct Rig {
    pub(crate) engine: Engine,
    pub(crate) digest: [u8; 32],
    permits: usize,
}

/// The compiler, which is this crate's own program.
pub(crate) fn compiler() -> CompilerCommand {
    CompilerCommand { argv: vec![env!("CARGO_BIN_EXE_reipaz-engine-compile").into()] }
}

/// A configuration for tests, with a cache of its own.
pub(crate) fn config(cache: &Path) -> EngineConfig {
    EngineConfig {
        permits: 32,
        threads: 2,
        cache_dir: cache.to_owned(),
        compiler: compiler(),
        ..EngineConfig::default()
    }
}

/// The guest that does what its input says.
pub(crate) fn hostile_guest() -> Vec<u8> {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    BUILT.get_or_init(|| guests::build("reipaz-guest-hostile")).clone()
}

impl Rig {
    /// The usual one. Its compiled code is kept between test runs.
    pub(crate) async fn new() -> Self {
        Self::with(|_| ()).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut EngineConfig)) -> Self {
        let mut config = config(&guests::target_dir().join("guests/compiled"));
        change(&mut config);
        let permits = config.permits;
        let engine = Engine::new(config).unwrap();
        let digest = engine.install(hostile_guest().into()).await.unwrap().digest;
        Self { engine, digest, permits }
    }

    /// An attempt of the hostile guest.
    pub(crate) fn attempt(&self, input: Value) -> Attempt {
        Attempt { digest: self.digest, ..attempt(input) }
    }

    pub(crate) async fn run(&self, input: Value) -> Outcome {
        self.engine.run(self.attempt(input)).await
    }

    /// Runs what must fail.
    pub(crate) async fn fails(&self, input: Value) -> Failure {
        self.run(input).await.result.unwrap_err()
    }

    /// Runs what must succeed.
    pub(crate) async fn gives(&self, input: Value) -> Value {
        serde_json::from_str(&self.run(input).await.result.unwrap()).unwrap()
    }

    /// That the engine still works, and has all its permits.
    pub(crate) async fn assert_sound(&self) {
        assert_eq!(self.gives(json!({"do": "echo", "value": [1]})).await, json!([1]));
        assert_eq!(self.engine.stats().permits_free, self.permits);
    }
}

/// An attempt of no plugin yet.
pub(crate) fn attempt(input: Value) -> Attempt {
    Attempt {
        digest: [0; 32],
        plugin: None,
        context: Context {
            run: "r1".into(),
            workflow: "orders".into(),
            step: "/score".into(),
            attempt: 1,
            idempotency_key: "r1/score".into(),
            metadata: vec![("tenant".into(), "a".into())],
        },
        input: input.to_string().into(),
        grants: Arc::default(),
        secrets: Arc::new(NoSecrets),
        seed: [7; 32],
        clock_start_us: 1_700_000_000_123_456,
        timeout: TIMEOUT,
        start_by: None,
        end_by: None,
        heartbeat_timeout: None,
        cancel: Default::default(),
        reports: None,
    }
}

/// Grants from their texts.
pub(crate) fn grants(http: &[&str]) -> Arc<Grants> {
    Arc::new(Grants {
        http: http.iter().map(|g| HttpGrant::parse(g).unwrap()).collect(),
        ..Grants::default()
    })
}
