//! What the host holds: the machine, the plugins in it, the permits and the guests' own threads.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wasmtime::component::Linker;

use crate::artefact::{Cache, CacheError};
use crate::attempt::{Attempt, Class, Failure, NoSecrets, Outcome, Usage};
use crate::bindings::step::StepPre;
use crate::bindings::step::exports::reipaz::step::handler;
use crate::breaker::{Breakers, Parked, Told};
use crate::config::EngineConfig;
use crate::driver::{self, Bounds, Ended, Given};
use crate::evaluate::Jq;
use crate::grants::Grants;
use crate::guest::state::{self, Denials, State};
use crate::http::{Client, Outbound};
use crate::machine::{self, Pool};
use crate::threads::Threads;
use crate::ticker::Ticker;
use crate::{limits, output, verdict};

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
    pub(crate) threads: Threads,
}

#[derive(Default)]
pub(crate) struct Counters {
    attempts: AtomicU64,
    pub(crate) evaluations: AtomicU64,
    pub(crate) cpu_us: AtomicU64,
    pub(crate) compilations: AtomicU64,
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
        let threads = Threads::start(config.threads).map_err(EngineError::Threads)?;
        let inner = Inner {
            permits: Arc::new(Semaphore::new(pool.permits)),
            client: Client::new(&config),
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
            threads,
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
        let by = [attempt.start_by, attempt.end_by].into_iter().flatten().min();
        let Some(plugin) = self.inner.plugin(&attempt.digest) else {
            return Outcome::failed(Failure::new(
                Class::Transient,
                "plugin_not_loaded",
                "The plugin is not loaded on this host yet.",
            ));
        };
        let place = self.inner.permit(by, &attempt.cancel).await;
        let queued_us = u64::try_from(queued.elapsed().as_micros()).unwrap_or(u64::MAX);
        let permit = match place {
            Ok(permit) => permit,
            Err(failure) => {
                let usage = Usage { queued_us, ..Usage::default() };
                return Outcome { usage, ..Outcome::failed(failure) };
            }
        };
        let asked = attempt
            .plugin
            .as_ref()
            .map(|plugin| self.inner.client.breakers.ask_for_plugin(plugin, &attempt.context.workflow));
        let ticket = match asked.transpose() {
            Ok(ticket) => ticket,
            Err(parked) => return Outcome::parked(parked),
        };
        let inner = self.inner.clone();
        let guest = async move {
            let ended = inner.attempt(&plugin, attempt).await;
            drop(permit);
            ended
        };
        let ended = self.inner.threads.run(guest).await;
        let (mut outcome, told) = ended.unwrap_or_else(|| (Outcome::failed(lost()), Told::Nothing));
        ticket.into_iter().for_each(|ticket| ticket.tell(told));
        outcome.usage.queued_us = queued_us;
        let counters = &self.inner.counters;
        counters.attempts.fetch_add(1, Ordering::Relaxed);
        counters.cpu_us.fetch_add(outcome.usage.cpu_us, Ordering::Relaxed);
        outcome
    }

    /// From now on guests that report progress are told to stop; they are not interrupted.
    pub fn drain(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
    }

    /// The circuit breakers of plugins and of the authorities that they call.
    pub fn breakers(&self) -> &Breakers {
        &self.inner.client.breakers
    }

    /// The guests' own threads, where each begins.
    pub fn handle(&self) -> &Handle {
        self.inner.threads.fast()
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

    /// A place in the pool by that time, or why there is none.
    pub(crate) async fn permit(
        &self,
        by: Option<Instant>,
        cancel: &CancellationToken,
    ) -> Result<OwnedSemaphorePermit, Failure> {
        let cancelled = || Failure::new(Class::Cancelled, "cancelled", "The attempt was cancelled.");
        if cancel.is_cancelled() {
            return Err(cancelled());
        }
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            return Ok(permit);
        }
        tokio::select! {
            permit = self.permits.clone().acquire_owned() => permit.map_err(|_| lost()),
            () = cancel.cancelled() => Err(cancelled()),
            () = until(by) => Err(verdict::not_started()),
        }
    }

    /// A way out that allows nothing.
    pub(crate) fn no_way_out(&self, denials: Denials) -> Outbound {
        Outbound::new(
            self.client.clone(),
            Arc::default(),
            Arc::new(NoSecrets),
            denials,
            CancellationToken::new(),
        )
    }

    /// What came of it, and what that says about the plugin.
    async fn attempt(&self, plugin: &Plugin, attempt: Attempt) -> (Outcome, Told) {
        let Attempt { context, input, grants, secrets, clock_start_us, .. } = attempt;
        let left = attempt.end_by.map(|by| by.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(attempt.timeout, |left| left.min(attempt.timeout));
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
        let cancel = bounds.cancel.clone();
        let outbound = move |denials| Outbound::new(client, grants, secrets, denials, cancel);
        let ended = driver::drive(self, bounds, given, outbound, async |store| {
            let step = plugin.pre.instantiate_async(&mut *store).await?;
            step.reipaz_step_handler().call_run(&mut *store, &context, &input).await
        })
        .await;
        self.outcome(ended)
    }

    fn outcome(&self, ended: Ended<Result<String, handler::StepError>>) -> (Outcome, Told) {
        let result = match ended.returned {
            Ok(Ok(returned)) => output::check(returned, self.config.output_bytes),
            Ok(Err(error)) => Err(verdict::reported(error, &ended.denials)),
            // A guest that dies because it was denied something was denied; its time and its limits are its own.
            Err(failure) if failure.class == Class::Trap => Err(ended.denials.failure().unwrap_or(failure)),
            Err(failure) => Err(failure),
        };
        let (called, parked) = ended.denials.calls();
        let told = match &result {
            Ok(_) => Told::Passed,
            Err(failure) => verdict::about_the_plugin(failure.class, called || parked.is_some()),
        };
        let (result, parked) = verdict::parked(result, called, parked);
        let outcome = Outcome {
            parked,
            result,
            usage: ended.usage,
            logs: ended.logs,
            logs_dropped_bytes: ended.logs_dropped_bytes,
        };
        (outcome, told)
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

/// That moment; never, if there is none.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

impl Outcome {
    fn failed(failure: Failure) -> Self {
        Self {
            result: Err(failure),
            parked: None,
            usage: Usage::default(),
            logs: Vec::new(),
            logs_dropped_bytes: 0,
        }
    }

    /// The plugin's own breaker is open.
    fn parked(parked: Parked) -> Self {
        let message = format!("The circuit breaker of {} is open.", parked.breaker);
        let failure = Failure::new(Class::Transient, "breaker_open", message);
        Self { parked: Some(parked), ..Self::failed(failure) }
    }
}

/// A guest whose task ended without an answer: the engine stops, or has a bug, which must not become the host's.
pub(crate) fn lost() -> Failure {
    Failure::new(Class::Transient, "engine_stopped", "The engine stopped while the attempt was running.")
}
