//! `reipaz serve`: a host in the foreground until a signal stops it.

use std::{
    io::IsTerminal,
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use super::{
    exit::{Code, Done, Failure},
    output,
};
use crate::{
    config::{ClickHouseMode, Config, ConfigError},
    serve::{Host, HostError},
};

/// What a shell reports for a program that an interrupt ended: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

/// Runs a host.
///
/// Configuration comes from the file, then REIPAZ_* variables, then flags; later ones win. A first interrupt
/// (or SIGTERM) drains the running attempts, a second one stops at once; nothing that was accepted is lost.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  reipaz serve --data-dir ./data --listen 127.0.0.1:7878
  reipaz serve --config reipaz.toml
  reipaz serve --kafka 10.0.0.1:9092 --clickhouse http://10.0.0.2:8123 --data-dir ./host-1")]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

/// What `serve`, `dev` and `doctor` take.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct HostArgs {
    /// Where everything durable lives [default: ./reipaz-data]
    #[arg(long, env = "REIPAZ_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where the API listens [default: 127.0.0.1:7878]
    #[arg(long, env = "REIPAZ_LISTEN", value_name = "HOST:PORT", value_parser = address)]
    pub(crate) listen: Option<SocketAddr>,
    /// A configuration file (TOML)
    #[arg(long, env = "REIPAZ_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Kafka's brokers, HOST:PORT,...: share the work with other hosts
    #[arg(long, env = "REIPAZ_KAFKA", value_name = "BROKERS")]
    pub(crate) kafka: Option<String>,
    /// A ClickHouse server, instead of the embedded one
    #[arg(long, env = "REIPAZ_CLICKHOUSE_URL", value_name = "URL")]
    pub(crate) clickhouse: Option<String>,
    /// Log lines as JSON
    #[arg(long)]
    pub(crate) log_json: bool,
}

impl HostArgs {
    /// The whole configuration.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        self.read().map_err(|error| Failure::new(Code::Config, error))
    }

    /// The whole configuration, or why it cannot be read.
    pub(crate) fn read(&self) -> Result<Config, ConfigError> {
        let mut config = Config::load(self.config.as_deref())?;
        if let Some(data_dir) = &self.data_dir {
            config.data_dir.clone_from(data_dir);
        }
        if let Some(listen) = self.listen {
            config.listen = listen;
        }
        if let Some(brokers) = &self.kafka {
            config.kafka.get_or_insert_default().brokers.clone_from(brokers);
        }
        if let Some(url) = &self.clickhouse {
            config.clickhouse.mode = ClickHouseMode::External;
            config.clickhouse.url = Some(url.clone());
        }
        config.log_json |= self.log_json;
        Ok(config)
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let mut found =
        text.to_socket_addrs().map_err(|error| format!("{error}; write HOST:PORT, as in 127.0.0.1:7878"))?;
    found.next().ok_or_else(|| format!("{text:?} stands for no address"))
}

/// See [`Args`].
pub(crate) async fn run(args: Args) -> Done {
    let config = args.host.config()?;
    start_logging(config.log_json, "info");
    raise_file_limit();
    let mut signals = Signals::new()?;
    let host = Host::start(config).await.map_err(failure)?;
    output::note(&format!("Reipaz answers at http://{} (Ctrl-C stops it)", host.address()));
    until_stopped(host, &mut signals).await
}

/// Waits for a signal, or for the host to fail, and stops it.
pub(crate) async fn until_stopped(mut host: Host, signals: &mut Signals) -> Done {
    tokio::select! {
        () = signals.next() => {}
        error = host.failed() => return Err(failure(error)),
    }
    output::note("stopping: running attempts may end; once more stops at once");
    tokio::select! {
        stopped = host.stop() => stopped.map_err(failure),
        () = signals.next() => std::process::exit(i32::from(INTERRUPTED)),
    }
}

/// SIGINT and SIGTERM.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From here on they no longer end the process.
    pub(crate) fn new() -> Result<Self, Failure> {
        let watch = |kind| {
            signal(kind)
                .map_err(|error| Failure::new(Code::Host, format!("cannot watch for signals: {error}")))
        };
        Ok(Self { interrupt: watch(SignalKind::interrupt())?, terminate: watch(SignalKind::terminate())? })
    }

    /// The next of either.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// What a host's own words are as an exit code.
pub(crate) fn failure(error: HostError) -> Failure {
    use reipaz_journal::JournalError;
    let code = match &error {
        HostError::Config(_) => Code::Config,
        HostError::Listen { .. } => Code::Listen,
        HostError::DataDir { .. } => Code::DataDir,
        HostError::Journal(JournalError::Locked { .. }) => Code::DataDir,
        HostError::Journal(JournalError::Partitions { .. } | JournalError::Config(_)) => Code::Config,
        HostError::Journal(JournalError::Damaged { .. } | JournalError::Version { .. }) => Code::Journal,
        _ => Code::Host,
    };
    Failure::new(code, error)
}

/// Logs go to standard error; `REIPAZ_LOG` (`debug`, `reipaz=trace,info`) says how much.
pub(crate) fn start_logging(json: bool, default: &str) {
    let filter = EnvFilter::try_from_env("REIPAZ_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let started = if json { registry.with(lines.json()).try_init() } else { registry.with(lines).try_init() };
    if let Err(error) = started {
        output::note(&format!("logs stay silent: {error}"));
    }
}

/// Every waiting client is an open file; many systems allow 1,024 unless a process asks for more.
pub(crate) fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let _as_it_was = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}
