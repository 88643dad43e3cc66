//! A host's life: what is started in which order, what stops it, and what it says meanwhile.
//!
//! Start: configuration, port (taken first, so that a port in use is told at once), data directory and its lock,
//! engine, catalogue, ClickHouse (in the background), owners (recovered before the first request is answered), sink,
//! API. Stop: no new submissions, long polls end, attempts drain, journals close, the sink stores what is left.

use std::{net::SocketAddr, path::Path, sync::Arc};

use reipaz_core::partition::PartitionConfig;
use reipaz_engine::{Engine, EngineConfig};
use reipaz_journal::{Assignments, Embedded, EmbeddedConfig, Intake, Journal, Kafka, Tasks};
use reipaz_store::{Store, StoreConfig, Target};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    alerts::{Alerts, Watched},
    api,
    app::{App, Scale},
    breakers,
    catalog::{Binaries, Catalog, CatalogError, Install},
    config::{ClickHouseMode, Config, ConfigError},
    facade::{Facade, FacadeError},
    history::History,
    lag,
    metrics::Metrics,
    owner::{Command, OwnerError, OwnerStatus},
    owners::{Owners, Shared},
    peers::Peers,
    secrets::SecretStore,
    sink::{Kept, Lanes, Sink},
};

/// How long a stopping host waits for its sink: the journal has what the sink has not stored.
const SINK_STOPS_WITHIN: std::time::Duration = std::time::Duration::from_secs(8);

/// What the standard `http_request` may do when the operator says nothing: any public address. (The engine refuses
/// private ones that no grant names.)
const HTTP_REQUEST_GRANTS: [&str; 1] = ["* *"];

/// Why a host did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// See [`ConfigError`].
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory cannot be made or used.
    #[error("the data directory {dir} cannot be used: {source}")]
    DataDir {
        /// Which.
        dir: String,
        /// Why.
        source: std::io::Error,
    },
    /// The port is taken, or not ours to take.
    #[error("cannot listen on {address}: {source}{}", port_hint(source))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// See [`reipaz_journal::JournalError`].
    #[error(transparent)]
    Journal(#[from] reipaz_journal::JournalError),
    /// See [`OwnerError`].
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// See [`CatalogError`].
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The engine does not start on this machine.
    #[error("the WebAssembly engine does not start: {0}")]
    Engine(String),
    /// A standard plugin does not install.
    #[error("the standard plugin {name} does not install: {source}")]
    StandardPlugin {
        /// Which.
        name: String,
        /// Why.
        source: FacadeError,
    },
    /// The sink found a record that it cannot read.
    #[error("the sink stopped: {0}")]
    Sink(String),
    /// A part of the host panicked.
    #[error("a part of the host failed: {0}")]
    Panicked(String),
}

fn port_hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "; another process has it: stop that, or choose another with --listen"
        }
        std::io::ErrorKind::PermissionDenied => "; ports below 1024 need privileges: choose a higher one",
        _ => "",
    }
}

/// A running host.
pub struct Host {
    address: SocketAddr,
    app: Arc<App>,
    /// Long polls end, submissions are refused.
    draining: CancellationToken,
    /// Owners drain and close.
    stop_owners: CancellationToken,
    stop_sink: CancellationToken,
    stop_api: CancellationToken,
    owners: JoinSet<Result<(), OwnerError>>,
    sink: JoinSet<Result<(), HostError>>,
    api: JoinSet<()>,
    store: Option<Store>,
}

impl Host {
    /// Starts everything; the API answers when this returns.
    pub async fn start(config: Config) -> Result<Self, HostError> {
        config.check()?;
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(|source| HostError::Listen { address: config.listen, source })?;
        let address =
            listener.local_addr().map_err(|source| HostError::Listen { address: config.listen, source })?;
        let paths = config.paths();
        make_private_dir(&config.data_dir)?;

        let Ground { journal, records, intake, assignments, tasks, embedded } = ground(&config).await?;

        let engine =
            Engine::new(engine_config(&config)).map_err(|error| HostError::Engine(error.to_string()))?;
        let configured =
            config.plugins.iter().map(|(name, plugin)| (name.clone(), plugin.grants.clone())).collect();
        let binaries = Binaries::new(paths.plugins.clone(), config.plugin_store.as_deref(), tasks.is_some())
            .map_err(|error| ConfigError::Invalid(format!("plugin_store: {error}")))?;
        let catalog = Arc::new(Catalog::open(Arc::clone(&records), binaries, configured)?);
        install_standard_plugins(&catalog, &engine).await?;
        catalog.load_all(&engine).await;
        engine.prepare().await.map_err(|failure| HostError::Engine(failure.message))?;

        let stop_owners = CancellationToken::new();
        let stop_sink = CancellationToken::new();
        let mut sink = JoinSet::new();
        let store = start_store(&config).await;
        let lanes = match &store {
            Some(store) => {
                let kept = if tasks.is_some() { Kept::Store } else { Kept::File(paths.sink.clone()) };
                let (runs, lanes) =
                    Sink::new(store.clone(), Arc::clone(&catalog), Arc::clone(&journal), kept);
                let stop = stop_sink.clone();
                sink.spawn(async move {
                    runs.run(stop).await.map_err(|error| HostError::Sink(error.to_string()))
                });
                lanes
            }
            None => {
                let stop = stop_sink.clone();
                sink.spawn(async move {
                    stop.cancelled().await;
                    Ok(())
                });
                Lanes::without_store(Arc::clone(&journal))
            }
        };

        let url = config.advertise.clone().unwrap_or_else(|| format!("http://{address}"));
        let secrets = SecretStore::load(&config.secrets)?;
        let (alerts, watch) = Alerts::new(&config.alerts, &secrets)?;
        alerts.set_host(url.rsplit('/').next().unwrap_or_default().to_owned());
        let statuses: Vec<Arc<OwnerStatus>> = (0..config.partitions).map(|_| Arc::default()).collect();
        let scale = tasks.map(|tasks| {
            let token = config.tokens.first().map(String::as_str);
            Scale { tasks, peers: Peers::new(url.clone(), Arc::clone(&records), statuses.clone(), token) }
        });
        let peers = scale.as_ref().map(|scale| Arc::clone(&scale.peers));
        let mut owners = Owners::new(
            Arc::new(Shared {
                journal,
                engine: engine.clone(),
                catalog: Arc::clone(&catalog),
                secrets: Arc::new(secrets),
                config: partition_config(&config),
                payload_bytes: config.limits.payload_bytes,
                checkpoint_bytes: config.limits.checkpoint_bytes,
                drain_timeout: config.drain_timeout,
                statuses: statuses.clone(),
                lanes,
                alerts: alerts.tap(),
                peers: peers.clone(),
            }),
            assignments,
        );
        match &scale {
            None => owners.take(config.partitions).await?,
            Some(scale) => {
                let lag = lag::watch(Arc::clone(&scale.tasks), statuses.clone());
                let (catalog, engine) = (Arc::clone(&catalog), engine.clone());
                let stop = stop_sink.clone();
                sink.spawn(async move {
                    stop.run_until_cancelled(async { tokio::join!(lag, catalog.follow(&engine)) }).await;
                    Ok(())
                });
            }
        }
        let mut owning = JoinSet::new();
        owning.spawn(owners.run(stop_owners.clone()));

        let draining = CancellationToken::new();
        let watched = Watched {
            owners: statuses.clone(),
            intake: Arc::clone(&intake),
            store: store.clone(),
            draining: draining.clone(),
        };
        let (stop, watching) = (stop_sink.clone(), watch.run(watched, url.clone()));
        sink.spawn(async move {
            stop.run_until_cancelled_owned(watching).await;
            Ok(())
        });
        let breaker_changes = Arc::<breakers::Changes>::default();
        let following = breakers::follow(engine.clone(), Arc::clone(&alerts), Arc::clone(&breaker_changes));
        let stop = stop_sink.clone();
        sink.spawn(async move {
            stop.run_until_cancelled_owned(following).await;
            Ok(())
        });
        let app = Arc::new(App {
            catalog,
            engine,
            intake,
            partitions: config.partitions,
            owners: statuses,
            history: History::new(store.clone()),
            alerts,
            breaker_changes,
            url,
            draining: draining.clone(),
            payload_bytes: config.limits.payload_bytes,
            scale,
        });
        let stop_api = CancellationToken::new();
        let mut api_tasks = JoinSet::new();
        let metrics = Metrics::new(Arc::clone(&app), embedded);
        let settings = api::Settings {
            tokens: config.tokens.clone(),
            cors_origins: config.cors_origins.clone(),
            payload_bytes: config.limits.payload_bytes,
            peers,
            ..api::Settings::default()
        };
        let facade = Arc::clone(&app) as Arc<dyn Facade>;
        let router = api::router(facade, settings, Arc::new(move || metrics.render()));
        api_tasks.spawn(api::serve(listener, router, stop_api.clone()));
        tracing::info!(%address, data_dir = %config.data_dir.display(), "listening");
        Ok(Self {
            address,
            app,
            draining,
            stop_owners,
            stop_sink,
            stop_api,
            owners: owning,
            sink,
            api: api_tasks,
            store,
        })
    }

    /// Where the API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The host as the API sees it.
    pub fn facade(&self) -> Arc<dyn Facade> {
        Arc::clone(&self.app) as Arc<dyn Facade>
    }

    /// Until a part of the host ends by itself, which none does in health.
    pub async fn failed(&mut self) -> HostError {
        let ended = |error: Option<HostError>| {
            error.unwrap_or_else(|| HostError::Panicked("a part of the host ended by itself".to_owned()))
        };
        tokio::select! {
            Some(owner) = self.owners.join_next() => match owner {
                Ok(result) => ended(result.err().map(HostError::Owner)),
                Err(error) => HostError::Panicked(error.to_string()),
            },
            Some(sink) = self.sink.join_next() => match sink {
                Ok(result) => ended(result.err()),
                Err(error) => HostError::Panicked(error.to_string()),
            },
            Some(api) = self.api.join_next() => match api {
                Ok(()) => ended(None),
                Err(error) => HostError::Panicked(error.to_string()),
            },
        }
    }

    /// Orderly: see the module. What attempts did not end is executed again by the next host.
    pub async fn stop(mut self) -> Result<(), HostError> {
        self.draining.cancel();
        self.app.engine.drain();
        self.stop_owners.cancel();
        while let Some(owner) = self.owners.join_next().await {
            owner.map_err(|error| HostError::Panicked(error.to_string()))??;
        }
        self.stop_sink.cancel();
        let stored = async {
            while let Some(sink) = self.sink.join_next().await {
                sink.map_err(|error| HostError::Panicked(error.to_string()))??;
            }
            Ok::<(), HostError>(())
        };
        match tokio::time::timeout(SINK_STOPS_WITHIN, stored).await {
            Ok(stopped) => stopped?,
            Err(_) => tracing::warn!("rows are left to store; whoever goes on with the journal stores them"),
        }
        self.stop_api.cancel();
        while self.api.join_next().await.is_some() {}
        if let Some(store) = self.store.take() {
            store.stop().await;
        }
        Ok(())
    }
}

/// What everything durable stands on: this host's own directory, or Kafka. Nothing above knows which.
struct Ground {
    journal: Arc<dyn Journal>,
    records: Arc<dyn reipaz_journal::Catalog>,
    intake: Arc<dyn Intake<Command>>,
    assignments: Box<dyn Assignments<Command>>,
    /// Where partitions are shared.
    tasks: Option<Arc<dyn Tasks>>,
    embedded: Option<Embedded>,
}

async fn ground(config: &Config) -> Result<Ground, HostError> {
    let bound = config.limits.queued_commands;
    if let Some(kafka) = &config.kafka {
        let kafka = Kafka::open(kafka.journal(config.partitions)?).await?;
        let (intake, assignments) = kafka.assignments(bound)?;
        let (journal, records, tasks) = (kafka.journal(), kafka.catalog(), Some(kafka.tasks()));
        return Ok(Ground { journal, records, intake, assignments, tasks, embedded: None });
    }
    let embedded = Embedded::open(EmbeddedConfig::new(&config.paths().journal, config.partitions)).await?;
    let (intake, assignments) = embedded.assignments(bound);
    let (journal, records) = (embedded.journal(), embedded.catalog());
    Ok(Ground { journal, records, intake, assignments, tasks: None, embedded: Some(embedded) })
}

fn partition_config(config: &Config) -> PartitionConfig {
    let share = |bound: usize| bound.div_ceil(config.partitions as usize);
    PartitionConfig {
        partitions: config.partitions,
        plugin_limits: crate::config::limits(&config.plugins),
        max_live_runs: share(config.limits.live_runs),
        max_terminal_runs: share(config.limits.terminal_runs),
        max_failed_runs: share(config.limits.failed_runs),
        failed_min_age: config.failed_retention,
        idempotency_retention: config.idempotency_retention,
        ..PartitionConfig::default()
    }
}

fn engine_config(config: &Config) -> EngineConfig {
    let defaults = EngineConfig::default();
    EngineConfig {
        permits: config.limits.attempts,
        threads: match config.limits.guest_threads {
            0 => defaults.threads,
            threads => threads,
        },
        cache_dir: config.paths().compiled,
        memory_bytes: config.limits.guest_memory_bytes,
        output_bytes: config.limits.payload_bytes,
        jq: Some(bytes::Bytes::from_static(reipaz_plugins::JQ)),
        breakers: config.breakers.rules(),
        ..defaults
    }
}

async fn start_store(config: &Config) -> Option<Store> {
    let target = match config.clickhouse.mode {
        ClickHouseMode::Off => return None,
        ClickHouseMode::External => Target::External {
            url: config.clickhouse.url.clone().unwrap_or_default(),
            database: config.clickhouse.database.clone(),
            user: config.clickhouse.user.clone(),
            password: config.clickhouse.password.clone(),
        },
        ClickHouseMode::Embedded => Target::Embedded {
            library: config.clickhouse.library.clone(),
            dir: config.paths().clickhouse,
            child: clickhouse_child(),
        },
    };
    Some(Store::start(StoreConfig { target, ..StoreConfig::default() }).await)
}

/// Program and first argument of what carries the embedded ClickHouse.
pub(crate) fn clickhouse_child() -> Vec<std::ffi::OsString> {
    let program = std::env::current_exe();
    vec![
        program.map_or_else(|_| "reipaz".into(), std::path::PathBuf::into_os_string),
        "internal-clickhouse".into(),
    ]
}

async fn install_standard_plugins(catalog: &Catalog, engine: &Engine) -> Result<(), HostError> {
    for bundled in reipaz_plugins::STANDARD {
        if catalog.has_standard(bundled.bytes) {
            continue;
        }
        let grants = (bundled.name == "http_request")
            .then(|| [("http".to_owned(), HTTP_REQUEST_GRANTS.map(ToOwned::to_owned).to_vec())].into());
        let install = Install {
            wasm: bytes::Bytes::from_static(bundled.bytes),
            grants,
            standard: true,
            replace: false,
        };
        let began = std::time::Instant::now();
        let installed = catalog
            .install(engine, install)
            .await
            .map_err(|source| HostError::StandardPlugin { name: bundled.name.to_owned(), source })?;
        tracing::info!(
            plugin = %installed.plugin.name,
            version = %installed.plugin.version,
            elapsed_ms = began.elapsed().as_millis() as u64,
            "standard plugin installed"
        );
    }
    Ok(())
}

/// Only the host's user reads it: inputs and outputs of runs are in there.
fn make_private_dir(dir: &Path) -> Result<(), HostError> {
    use std::os::unix::fs::DirBuilderExt;
    let refuse = |source| HostError::DataDir { dir: dir.display().to_string(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(refuse)
}
