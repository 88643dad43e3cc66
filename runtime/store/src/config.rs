//! Where the rows go, and the bounds of talking to it.

use std::{ffi::OsString, path::PathBuf, time::Duration};

/// The database of the embedded engine, and the default one of an external server.
pub const DATABASE: &str = "reipaz";

/// How a [`crate::Store`] is started.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Which ClickHouse.
    pub target: Target,
    /// How long one query of a user may take.
    pub sql_timeout: Duration,
    /// Rows that a user's query may return; with more it fails and says so.
    pub sql_rows_max: u64,
    /// Bytes that a user's query may return.
    pub sql_bytes_max: u64,
    /// Memory that a user's query may take in ClickHouse, its result included.
    pub sql_memory_bytes_max: u64,
    /// Users' queries that run at once.
    pub sql_parallel_max: usize,
    /// How long an insert or a query of Reipaz's own may take.
    pub query_timeout: Duration,
    /// The pause after the first failure to connect; it doubles with each further one, with jitter.
    pub reconnect_first: Duration,
    /// The longest pause between two tries.
    pub reconnect_max: Duration,
    /// How often a connected server is asked whether it is still there.
    pub ping_every: Duration,
}

/// Which ClickHouse.
#[derive(Clone)]
pub enum Target {
    /// A server somewhere.
    External {
        /// Its HTTP interface, `http://127.0.0.1:8123`.
        url: String,
        /// Made if it is not there.
        database: String,
        /// The server's default user when absent.
        user: Option<String>,
        /// Its password.
        password: Option<String>,
    },
    /// The engine in a child process.
    Embedded {
        /// The configured path of libchdb; see [`crate::library::find`] for what else is looked at.
        library: Option<PathBuf>,
        /// The engine's data directory. It belongs to one host at a time.
        dir: PathBuf,
        /// Program and first arguments of the child (`reipaz internal-clickhouse`); it must call
        /// [`crate::clickhouse_child_main`] with the arguments that follow.
        child: Vec<OsString>,
    },
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // Without the password.
            Self::External { url, database, user, .. } => f
                .debug_struct("External")
                .field("url", url)
                .field("database", database)
                .field("user", user)
                .finish(),
            Self::Embedded { library, dir, child } => f
                .debug_struct("Embedded")
                .field("library", library)
                .field("dir", dir)
                .field("child", child)
                .finish(),
        }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            target: Target::Embedded {
                library: None,
                dir: PathBuf::from("clickhouse"),
                child: vec!["reipaz".into(), "internal-clickhouse".into()],
            },
            sql_timeout: Duration::from_secs(30),
            sql_rows_max: 100_000,
            sql_bytes_max: 64 << 20,
            sql_memory_bytes_max: 1 << 30,
            sql_parallel_max: 2,
            query_timeout: Duration::from_secs(60),
            reconnect_first: Duration::from_millis(100),
            reconnect_max: Duration::from_secs(10),
            ping_every: Duration::from_secs(5),
        }
    }
}
