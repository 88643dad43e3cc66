//! What the host holds: the machine, the plugins in it, the permits and the guests' own threads.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use tokio::runtime::{Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wasmtime::component::Linker;

use crate::artefact::{Cache, CacheError};
use crate::attempt::{Attempt, Class, Failure, NoSecrets, Outcome, Usage};
use crate::bindings::step::StepPre;
use crate::bindings::step::exports::reipaz::step::handler;
use crate::config::EngineConfig;
use crate::driver::{self, Bounds, Ended, Given};
use crate::evaluate::Jq;
use crate::grants::Grants;
use crate::guest::state::{self, Denials, State};
use crate::http::{Client, Outbound};
use crate::machine::{self, Pool};
use crate::ticker::Ticker;
use crate::{limits, output, verdict};

/// How often the guests' threads look for input and timers, in polls. A poll of a spinning guest takes a millisecond, so
/// tokio's usual 61 would make an answer or a deadline wait that long.
const EVENT_INTERVAL: u32 = 2;

/// Threads for names that are looked up; the system's resolver blocks.
const RESOLVER_THREADS: usize = 32;

/// See the crate. A clone is the same engine.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The configuration or this machine does not fit wasmtime: usually address space for so many permits.
    #[error("the WebAssembly engine cannot be set up (permits take address space; try fewer): {0:#}")]
    Machine(wasmtime::Error),
    /// Threads cannot be started.
    #[error("the engine's threads cannot be started: {0}")]
    Threads(std::io::Error),
    /// The cache's folder.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// What the engine has done since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Attempts that have ended.
    pub attempts: u64,
    /// Evaluations that have ended.
    pub evaluations: u64,
    /// CPU time of both, in microseconds.
    pub cpu_us: u64,
    /// Components that were compiled, and not found in the cache.
    pub compilations: u64,
    /// Permits that are free now.
    pub permits_free: usize,
    /// Plugins that are ready.
    pub plugins: usize,
}

pub(crate) struct Inner {
    pub(crate) config: EngineConfig,
    pub(crate) machine: wasmtime::Engine,
    pub(crate) linker: Linker<State>,
    pub(crate) cache: Cache,
    pub(crate) ticker: Ticker,
    plugins: RwLock<HashMap<[u8; 32], Arc<Plugin>>>,
    pub(crate) jq: tokio::sync::OnceCell<Arc<Jq>>,
    /// One compilation at a time.
    pub(crate) compiling: tokio::sync::Mutex<()>,
    permits: Arc<Semaphore>,
    pub(crate) client: Arc<Client>,
    draining: Arc<AtomicBool>,
    pub(crate) counters: Counters,
    runtime: Threads,
}

#[derive(Default)]
pub(crate) struct Counters {
    attempts: AtomicU64,
    pub(crate) evaluations: AtomicU64,
    pub(crate) cpu_us: AtomicU64,
    pub(crate) compilations: AtomicU64,
}

/// The guests' threads, which end without waiting: the engine may be dropped in another runtime.
struct Threads(Option<Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A component that is ready to run.
pub(crate) struct Plugin {
    pub(crate) pre: StepPre<State>,
    pub(crate) http: bool,
}

impl Engine {
    /// Reserves address space and starts the guests' threads; compiles nothing yet.
    pub fn new(config: EngineConfig) -> Result<Self, EngineError> {
        let pool = Pool { permits: config.permits.max(1), pagemap_scan: config.pagemap_scan };
        let machine = wasmtime::Engine::new(&machine::config(Some(pool))).map_err(EngineError::Machine)?;
        let linker = state::step_linker(&machine).map_err(EngineError::Machine)?;
        let cache = Cache::open(&config.cache_dir, machine::compatibility(&machine), config.cache_bytes)?;
        let ticker = Ticker::start(machine.weak()).map_err(EngineError::Threads)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.threads.max(1))
            .max_blocking_threads(RESOLVER_THREADS)
            .event_interval(EVENT_INTERVAL)
            .thread_name("reipaz-guest")
            .enable_all()
            .build()
            .map_err(EngineError::Threads)?;
        let inner = Inner {
            permits: Arc::new(Semaphore::new(pool.permits)),
            client: Client::new(config.http),
            config,
            machine,
            linker,
            cache,
            ticker,
            plugins: RwLock::default(),
            jq: tokio::sync::OnceCell::new(),
            compiling: tokio::sync::Mutex::new(()),
            draining: Arc::default(),
            counters: Counters::default(),
            runtime: Threads(Some(runtime)),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Whether the plugin can be run as it is.
    pub fn is_loaded(&self, digest: &[u8; 32]) -> bool {
        self.inner.plugin(digest).is_some()
    }

    /// Whether attempts of this plugin under these grants can neither change nor reveal anything outside: it sends no
    /// requests, or none is granted. Everything else that it may import is virtual. A plugin that is not loaded is not silent.
    pub fn is_silent(&self, digest: &[u8; 32], grants: &Grants) -> bool {
        self.inner.plugin(digest).is_some_and(|plugin| !plugin.http || grants.is_empty())
    }

    /// Executes one attempt. It always comes back, at most a few milliseconds after the timeout, which counts from the moment
    /// that a permit is free; dropping the future interrupts the guest. A caller that is on [`Engine::handle`]'s threads
    /// already saves a change of threads.
    pub async fn run(&self, attempt: Attempt) -> Outcome {
        let queued = Instant::now();
        let Some(plugin) = self.inner.plugin(&attempt.digest) else {
            return Outcome::failed(Failure::new(
                Class::Transient,
                "plugin_not_loaded",
                "The plugin is not loaded on this host yet.",
            ));
        };
        let cancel = attempt.cancel.clone();
        let waiting = self.inner.permit(&cancel);
        let permit = match attempt.queue_timeout {
            None => Ok(waiting.await),
            Some(within) => {
                tokio::time::timeout(within, waiting).await.map_err(|_| verdict::not_started(within))
            }
        };
        let permit =
            permit.and_then(|permit| permit.ok_or(verdict::Interrupted::Cancelled.failure(attempt.timeout)));
        let queued_us = u64::try_from(queued.elapsed().as_micros()).unwrap_or(u64::MAX);
        let permit = match permit {
            Ok(permit) => permit,
            Err(failure) => {
                let mut outcome = Outcome::failed(failure);
                outcome.usage.queued_us = queued_us;
                return outcome;
            }
        };
        let inner = self.inner.clone();
        let guest = async move {
            let outcome = inner.attempt(&plugin, attempt).await;
            drop(permit);
            outcome
        };
        let mut outcome = self.on_guest_threads(guest).await.unwrap_or_else(|| Outcome::failed(lost()));
        outcome.usage.queued_us = queued_us;
        let counters = &self.inner.counters;
        counters.attempts.fetch_add(1, Ordering::Relaxed);
        counters.cpu_us.fetch_add(outcome.usage.cpu_us, Ordering::Relaxed);
        outcome
    }

    /// Runs guest code on the guests' threads, as a task of its own unless the caller is there already. None: the engine stops.
    pub(crate) async fn on_guest_threads<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        if Handle::try_current().is_ok_and(|current| current.id() == self.handle().id()) {
            return Some(work.await);
        }
        Abort(self.handle().spawn(work)).join().await
    }

    /// From now on guests that report progress are told to stop; they are not interrupted.
    pub fn drain(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
    }

    /// The guests' own threads.
    pub fn handle(&self) -> &Handle {
        self.inner.runtime.0.as_ref().expect("the runtime is taken in drop only").handle()
    }

    /// What it has done and has left.
    pub fn stats(&self) -> Stats {
        let counters = &self.inner.counters;
        Stats {
            attempts: counters.attempts.load(Ordering::Relaxed),
            evaluations: counters.evaluations.load(Ordering::Relaxed),
            cpu_us: counters.cpu_us.load(Ordering::Relaxed),
            compilations: counters.compilations.load(Ordering::Relaxed),
            permits_free: self.inner.permits.available_permits(),
            plugins: self.inner.plugins.read().unwrap_or_else(PoisonError::into_inner).len(),
        }
    }
}

impl Inner {
    pub(crate) fn plugin(&self, digest: &[u8; 32]) -> Option<Arc<Plugin>> {
        self.plugins.read().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    pub(crate) fn insert(&self, digest: [u8; 32], plugin: Arc<Plugin>) {
        self.plugins.write().unwrap_or_else(PoisonError::into_inner).insert(digest, plugin);
    }

    /// A place in the pool; none when it was cancelled before there was one.
    pub(crate) async fn permit(&self, cancel: &CancellationToken) -> Option<OwnedSemaphorePermit> {
        if cancel.is_cancelled() {
            return None;
        }
        match self.permits.clone().try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => tokio::select! {
                permit = self.permits.clone().acquire_owned() => permit.ok(),
                () = cancel.cancelled() => None,
            },
        }
    }

    /// A way out that allows nothing.
    pub(crate) fn no_way_out(&self, denials: Denials) -> Outbound {
        Outbound::new(self.client.clone(), Arc::default(), Arc::new(NoSecrets), denials)
    }

    async fn attempt(&self, plugin: &Plugin, attempt: Attempt) -> Outcome {
        let Attempt { context, input, grants, secrets, clock_start_us, timeout, .. } = attempt;
        let input = String::from(&*input);
        let now_ms = clock_start_us / 1_000;
        let context = handler::Context {
            run: context.run,
            workflow: context.workflow,
            step: context.step,
            attempt: context.attempt,
            idempotency_key: context.idempotency_key,
            now_ms,
            deadline_ms: now_ms.saturating_add(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
            metadata: context.metadata,
        };
        let bounds = Bounds {
            timeout,
            heartbeat: attempt.heartbeat_timeout,
            memory_bytes: self.config.memory_bytes,
            log_bytes: self.config.log_bytes,
            cancel: attempt.cancel,
        };
        let given = Given {
            seed: attempt.seed,
            clock_start_us,
            reports: attempt.reports,
            draining: self.draining.clone(),
        };
        let client = self.client.clone();
        let outbound = move |denials| Outbound::new(client, grants, secrets, denials);
        let ended = driver::drive(&self.machine, &self.ticker, bounds, given, outbound, async |store| {
            let step = plugin.pre.instantiate_async(&mut *store).await?;
            step.reipaz_step_handler().call_run(&mut *store, &context, &input).await
        })
        .await;
        self.outcome(ended)
    }

    fn outcome(&self, ended: Ended<Result<String, handler::StepError>>) -> Outcome {
        let result = match ended.returned {
            Ok(Ok(returned)) => output::check(returned, self.config.output_bytes),
            Ok(Err(error)) => Err(verdict::reported(error, &ended.denials)),
            // A guest that dies because it was denied something was denied; its time and its limits are its own.
            Err(failure) if failure.class == Class::Trap => Err(ended.denials.failure().unwrap_or(failure)),
            Err(failure) => Err(failure),
        };
        Outcome { result, usage: ended.usage, logs: ended.logs, logs_dropped_bytes: ended.logs_dropped_bytes }
    }

    /// What describe runs under: no grants, no reports, a fixed world.
    pub(crate) fn nothing_given(&self, seed: [u8; 32]) -> Given {
        Given { seed, clock_start_us: 0, reports: None, draining: self.draining.clone() }
    }

    pub(crate) fn describe_bounds(&self) -> Bounds {
        Bounds {
            timeout: limits::DESCRIBE_TIMEOUT,
            heartbeat: None,
            memory_bytes: self.config.memory_bytes,
            log_bytes: self.config.log_bytes,
            cancel: CancellationToken::new(),
        }
    }
}

impl Outcome {
    fn failed(failure: Failure) -> Self {
        Self { result: Err(failure), usage: Usage::default(), logs: Vec::new(), logs_dropped_bytes: 0 }
    }
}

/// A guest whose task ended without an answer: the engine stops, or has a bug, which must not become the host's.
pub(crate) fn lost() -> Failure {
    Failure::new(Class::Transient, "engine_stopped", "The engine stopped while the attempt was running.")
}

/// Interrupts the guest when nobody waits for it any more.
struct Abort<T>(JoinHandle<T>);

impl<T> Abort<T> {
    /// What the task returns; none when it was aborted or panicked.
    async fn join(mut self) -> Option<T> {
        (&mut self.0)
            .await
            .inspect_err(|error| tracing::error!(%error, "a guest's task ended without an answer"))
            .ok()
    }
}

impl<T> Drop for Abort<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
