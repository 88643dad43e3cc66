//! The host that a command works with: one that answers already, else one of its own, in this process, that goes when
//! the command ends.

use std::path::{Path, PathBuf};

use super::{
    client::{Client, Connection, DEFAULT_URL},
    exit::{Code, Done, Failure},
    output, serve,
};
use crate::{config::Config, serve::Host};

/// See the module.
pub(crate) struct Session {
    client: Client,
    own: Option<Own>,
}

struct Own {
    host: Host,
    /// Deleted when it goes.
    _data: tempfile::TempDir,
}

impl Session {
    /// The host at the URL that somebody gave; without one, the host at the default URL if it answers, else an own one.
    /// An empty `REIPAZ_URL` asks for an own one. Says on standard error which it is.
    pub(crate) async fn open(connection: &Connection, config: Option<&Path>) -> Result<Self, Failure> {
        if connection.given_url().is_some() {
            return Ok(Self { client: connection.client()?, own: None });
        }
        let wants_own = connection.url.is_some() || config.is_some();
        let client = connection.client()?;
        if !wants_own && client.is_reachable().await {
            output::note(&format!("using the host at {}", client.url()));
            return Ok(Self { client, own: None });
        }
        let own = Own::start(config).await?;
        let url = format!("http://{}", own.host.address());
        let why = if wants_own { String::new() } else { format!("no host at {DEFAULT_URL}: ") };
        output::note(&format!(
            "{why}using a host of its own, which goes with its data when this command ends"
        ));
        Ok(Self { client: Client::new(&url, None)?, own: Some(own) })
    }

    /// A client of it.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Whether it ends with this command.
    pub(crate) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Stops an own host.
    pub(crate) async fn close(self) -> Done {
        match self.own {
            Some(own) => own.host.stop().await.map_err(serve::failure),
            None => Ok(()),
        }
    }
}

impl Own {
    async fn start(config: Option<&Path>) -> Result<Self, Failure> {
        let data = tempfile::Builder::new().prefix("reipaz-").tempdir().map_err(|error| {
            Failure::new(Code::DataDir, format!("there is no room for a temporary folder: {error}"))
        })?;
        let mut settings = Config::load(config)
            .map_err(|error| Failure::new(Code::Config, error))?
            .for_one_command(data.path());
        settings.tokens.clear();
        share_compiled(&settings);
        let host = Host::start(settings).await.map_err(serve::failure)?;
        Ok(Self { host, _data: data })
    }
}

impl Config {
    /// This configuration for a host that lives as long as one command: its own port and folder, no ClickHouse.
    fn for_one_command(mut self, data_dir: &Path) -> Self {
        self.listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        data_dir.clone_into(&mut self.data_dir);
        self.clickhouse.mode = crate::config::ClickHouseMode::Off;
        self
    }
}

/// Lets hosts of single commands share what they compile, or each would compile the standard plugins anew. Where the
/// home folder cannot be written it stays at that.
fn share_compiled(config: &Config) {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let Some(shared) = base.filter(|base| base.is_absolute()).map(|base| base.join("reipaz/compiled")) else {
        return;
    };
    if std::fs::create_dir_all(&shared).is_ok() {
        let _slower_without = std::os::unix::fs::symlink(&shared, config.paths().compiled);
    }
}
