//! Keeps a connection to ClickHouse: connects, migrates, notices the end, and tries again after a pause that grows with
//! each failure (the `backoff` crate's exponential one, with jitter). The only place that knows that connections break.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff as _};
use clickhouse::Client;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{DATABASE, StoreConfig, Target},
    embedded::{Engine, StartError},
    error::{StoreError, with_sources},
    library, migrate,
    status::Status,
    store::Link,
};

/// A connection that lasted this long starts the pauses anew.
const STABLE_AFTER: Duration = Duration::from_secs(30);
/// How long one ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection.
struct Connected {
    client: Client,
    version: String,
    /// The embedded engine, if it is one.
    engine: Option<Engine>,
}

/// Runs until `stop`.
pub(crate) async fn keep_connected(config: Arc<StoreConfig>, link: Arc<Link>, stop: CancellationToken) {
    let mut pauses: ExponentialBackoff = ExponentialBackoffBuilder::new()
        .with_initial_interval(config.reconnect_first)
        .with_max_interval(config.reconnect_max)
        .with_multiplier(2.0)
        .with_max_elapsed_time(None)
        .build();
    let mut known_bad = None;
    while !stop.is_cancelled() {
        let connected = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            connected = connect(&config, &mut known_bad) => connected,
        };
        let status = match connected {
            Ok(connected) => {
                let began = Instant::now();
                let why = hold(connected, &config, &link, &stop).await;
                if began.elapsed() > STABLE_AFTER {
                    pauses.reset();
                }
                Status::Down { why }
            }
            Err(status) => status,
        };
        if stop.is_cancelled() {
            break;
        }
        let pause = pauses.next_backoff().unwrap_or(config.reconnect_max);
        tracing::warn!(why = %status, pause_ms = pause.as_millis() as u64, "no ClickHouse; runs go on without it");
        link.lost(status);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => {}
        }
    }
    link.lost(Status::Down { why: "the host is stopping".to_owned() });
}

/// Publishes the connection until it is lost, and says why it was.
async fn hold(connected: Connected, config: &StoreConfig, link: &Link, stop: &CancellationToken) -> String {
    let Connected { client, version, engine } = connected;
    tracing::info!(%version, embedded = engine.is_some(), "ClickHouse is ready");
    link.connected(client.clone(), version, engine.as_ref().map(|engine| engine.process));
    let ended = async {
        match &engine {
            Some(engine) => engine.ended().await,
            None => std::future::pending().await,
        }
    };
    let why = tokio::select! {
        status = ended => format!("the embedded ClickHouse ended ({status})"),
        why = unanswered(&client, config.ping_every, link) => why,
        () = stop.cancelled() => "the host is stopping".to_owned(),
    };
    link.lost(Status::Down { why: why.clone() });
    if let Some(engine) = engine {
        engine.stop().await;
    }
    why
}

/// Comes back when the server does not answer a ping.
async fn unanswered(client: &Client, every: Duration, link: &Link) -> String {
    loop {
        // In time, or as soon as somebody has doubts.
        let _ = tokio::time::timeout(every, link.doubt.notified()).await;
        if let Err(why) = ping(client).await {
            return why;
        }
    }
}

async fn ping(client: &Client) -> Result<(), String> {
    let ping = client.query_raw("SELECT 1").fetch_one::<u8>();
    match tokio::time::timeout(PING_TIMEOUT, ping).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(with_sources(&error)),
        Err(_) => Err(format!("it did not answer within {} s", PING_TIMEOUT.as_secs())),
    }
}

/// A client of a server, without a database.
pub(crate) fn external(url: &str, user: Option<&str>, password: Option<&str>) -> Client {
    let client = Client::default().with_url(url);
    let client = user.into_iter().fold(client, |client, user| client.with_user(user));
    password.into_iter().fold(client, |client, password| client.with_password(password))
}

/// A client of the embedded engine, without a database.
pub(crate) fn embedded(engine: &Engine) -> Client {
    Client::default().with_url(&engine.url).with_user("reipaz").with_password(&engine.token)
}

async fn connect(config: &StoreConfig, known_bad: &mut Option<KnownBad>) -> Result<Connected, Status> {
    let (client, engine, database) = match &config.target {
        Target::External { url, database, user, password } => {
            (external(url, user.as_deref(), password.as_deref()), None, database.as_str())
        }
        Target::Embedded { library, dir, child } => {
            let engine = start_engine(library.as_deref(), dir, child, known_bad).await?;
            (embedded(&engine), Some(engine), DATABASE)
        }
    };
    let prepared = tokio::time::timeout(config.query_timeout, migrate::prepare(&client, database)).await;
    let version = match prepared {
        Ok(Ok(version)) => version,
        Ok(Err(error)) => return Err(Status::Down { why: with_sources(&error) }),
        Err(_) => {
            let why = StoreError::Timeout { seconds: config.query_timeout.as_secs() }.to_string();
            return Err(Status::Down { why });
        }
    };
    Ok(Connected { client: client.with_database(database), version, engine })
}

/// A library that turned out to be useless, as it was then; it is not tried again before its file changes.
struct KnownBad {
    path: PathBuf,
    modified: Option<SystemTime>,
    why: String,
}

impl KnownBad {
    fn new(path: &Path, why: String) -> Self {
        Self { path: path.to_path_buf(), modified: modified(path), why }
    }

    fn is_still(&self, path: &Path) -> bool {
        self.path == path && self.modified == modified(path)
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}

async fn start_engine(
    configured: Option<&Path>,
    dir: &Path,
    child: &[std::ffi::OsString],
    known_bad: &mut Option<KnownBad>,
) -> Result<Engine, Status> {
    let path = library::find(configured).map_err(|error| Status::Absent { why: error.to_string() })?;
    if let Some(bad) = known_bad.as_ref().filter(|bad| bad.is_still(&path)) {
        return Err(Status::Absent { why: bad.why.clone() });
    }
    let error = match Engine::start(child, &path, dir).await {
        Ok(engine) => return Ok(engine),
        Err(error) => error,
    };
    // A flipped bit shows as a library that cannot be loaded, or as a crash.
    if matches!(error, StartError::BadLibrary(_) | StartError::Died { .. }) {
        let file = path.clone();
        let verified = tokio::task::spawn_blocking(move || library::verify(&file)).await;
        let why = match (verified, &error) {
            (Ok(Err(corrupt)), _) => Some(corrupt.to_string()),
            (_, StartError::BadLibrary(why)) => {
                Some(format!("{why}. Delete it and run `{}`", library::SETUP_COMMAND))
            }
            _ => None,
        };
        if let Some(why) = why {
            *known_bad = Some(KnownBad::new(&path, why.clone()));
            return Err(Status::Absent { why });
        }
    }
    Err(Status::Down { why: error.to_string() })
}
