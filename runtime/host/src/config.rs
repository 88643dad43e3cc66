//! What an operator can set: one struct, each field with a default that works. A TOML file (`--config`), then
//! `REIPAZ_*` environment variables, then flags; later ones win. An unknown key is an error.

mod plugins;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use reipaz_engine::BreakerRules;
use serde::Deserialize;

pub(crate) use self::plugins::limits;
pub use self::plugins::{ConcurrencyConfig, PluginConfig, RateConfig, WhenFull};
pub use crate::alerts::config::{AlertsConfig, WebhookConfig};

/// The host's configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the API listens. Without [`Config::tokens`] it must be a loopback address. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where everything durable lives; one host at a time.
    pub data_dir: PathBuf,
    /// Bearer tokens that the API accepts; none: no authentication, loopback only.
    pub tokens: Vec<String>,
    /// Origins that browsers may call from (`*` for any); none: no CORS headers.
    pub cors_origins: Vec<String>,
    /// Into how many partitions runs are spread. Fixed when the data directory is made.
    pub partitions: u32,
    /// How long a stopping host waits for running attempts.
    #[serde(with = "duration")]
    pub drain_timeout: Duration,
    /// How long a terminal run's idempotency key stays taken.
    #[serde(with = "duration")]
    pub idempotency_retention: Duration,
    /// How long a failed or cancelled run can be retried.
    #[serde(with = "duration")]
    pub failed_retention: Duration,
    /// Bounds.
    pub limits: Limits,
    /// Where rows go.
    pub clickhouse: ClickHouse,
    /// Shares the partitions with other hosts; without it everything durable is in `data_dir`.
    pub kafka: Option<Kafka>,
    /// Where other hosts reach this one's API: `http://10.0.0.5:7878`. Needed where `listen` names no address of its own.
    pub advertise: Option<String>,
    /// Where plugin components lie that all hosts share: `file:///mnt/plugins`, or `s3://bucket/prefix` with the usual AWS_*
    /// variables. Without it, only the standard plugins are there on every host.
    pub plugin_store: Option<String>,
    /// What operators are told of, and where.
    pub alerts: AlertsConfig,
    /// When nothing more is sent to a plugin, or to an authority that plugins call.
    pub breakers: BreakersConfig,
    /// By plugin name.
    pub plugins: BTreeMap<String, PluginConfig>,
    /// By the name that documents use.
    pub secrets: BTreeMap<String, SecretConfig>,
    /// Log lines as JSON instead of text.
    pub log_json: bool,
}

/// Bounds on what the host holds at one time.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Runs that are not terminal, in all partitions together; more are answered with 429.
    pub live_runs: usize,
    /// Commands that wait for an owner, per partition; more are answered with 429.
    pub queued_commands: usize,
    /// Attempts executed at one time; others wait their turn.
    pub attempts: usize,
    /// Threads that execute guests; 0: one a core.
    pub guest_threads: usize,
    /// A guest's linear memory, bytes.
    pub guest_memory_bytes: usize,
    /// Largest input or output of a run or step, bytes.
    pub payload_bytes: usize,
    /// Completed runs that stay in memory (older ones are read from ClickHouse).
    pub terminal_runs: usize,
    /// Failed and cancelled runs that stay in memory; older ones cannot be retried any more.
    pub failed_runs: usize,
    /// What a recovery may read in vain before the next checkpoint is taken, bytes; at least what the state takes.
    pub checkpoint_bytes: u64,
}

/// Where rows go.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClickHouse {
    /// `embedded` (the engine in a child process), `external` (needs `url`) or `off`.
    pub mode: ClickHouseMode,
    /// Of an external server: `http://127.0.0.1:8123`.
    pub url: Option<String>,
    /// Database of an external server.
    pub database: String,
    /// User of an external server.
    pub user: Option<String>,
    /// Its password; better set as `REIPAZ_CLICKHOUSE_PASSWORD`.
    pub password: Option<String>,
    /// Path of `libchdb.so`; else `REIPAZ_CHDB`, then the places that set-up uses.
    pub library: Option<PathBuf>,
}

/// Which ClickHouse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClickHouseMode {
    /// The engine in a child process of the host.
    Embedded,
    /// A server.
    External,
    /// None: runs are served from memory only.
    Off,
}

/// How Kafka is reached.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// Some of the brokers: `10.0.0.1:9092,10.0.0.2:9092`.
    pub brokers: String,
    /// What topic names begin with; `reipaz.` when absent.
    #[serde(default)]
    pub prefix: Option<String>,
    /// The name that the hosts of one deployment share; `reipaz` when absent.
    #[serde(default)]
    pub deployment: Option<String>,
    /// On how many brokers a topic that is made here stands; the brokers' default when absent.
    #[serde(default)]
    pub replication: Option<u16>,
    /// After so long without a sign a host has lost its partitions.
    #[serde(default, with = "optional_duration")]
    pub session_timeout: Option<Duration>,
    /// Encryption; absent: none.
    #[serde(default)]
    pub tls: Option<KafkaTls>,
    /// Authentication by name and password; absent: none.
    #[serde(default)]
    pub sasl: Option<KafkaSasl>,
    /// librdkafka's own settings, by name.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

/// An encrypted connection to Kafka; all files are PEM.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaTls {
    /// The brokers' certificate authority; the system's when absent.
    pub ca_file: Option<PathBuf>,
    /// This host's certificate.
    pub certificate_file: Option<PathBuf>,
    /// Its private key.
    pub key_file: Option<PathBuf>,
}

/// Who this host is to Kafka.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaSasl {
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub mechanism: String,
    /// The name.
    pub username: String,
    /// The password; better set as `REIPAZ_KAFKA_PASSWORD`.
    #[serde(default)]
    pub password: String,
}

impl std::fmt::Debug for KafkaSasl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { mechanism, username, .. } = self;
        f.debug_struct("KafkaSasl")
            .field("mechanism", mechanism)
            .field("username", username)
            .finish_non_exhaustive()
    }
}

impl Kafka {
    /// As the journal takes it.
    pub(crate) fn journal(&self, partitions: u32) -> Result<reipaz_journal::KafkaConfig, ConfigError> {
        use reipaz_journal::kafka::{Sasl, Security, Tls};
        let tls = self.tls.as_ref().map(|tls| Tls {
            ca_file: tls.ca_file.clone(),
            certificate_file: tls.certificate_file.clone(),
            key_file: tls.key_file.clone(),
        });
        let security = match (&self.sasl, tls) {
            (None, None) => Security::Plaintext,
            (None, Some(tls)) => Security::Tls(tls),
            (Some(sasl), tls) => Security::Sasl {
                mechanism: match sasl.mechanism.as_str() {
                    "PLAIN" => Sasl::Plain,
                    "SCRAM-SHA-256" => Sasl::ScramSha256,
                    "SCRAM-SHA-512" => Sasl::ScramSha512,
                    other => {
                        return Err(ConfigError::Invalid(format!(
                            "kafka.sasl.mechanism = {other:?}: take PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
                        )));
                    }
                },
                username: sasl.username.clone(),
                password: from_env("REIPAZ_KAFKA_PASSWORD").unwrap_or_else(|| sasl.password.clone()),
                tls,
            },
        };
        let mut config = reipaz_journal::KafkaConfig::new(&self.brokers, partitions);
        config.prefix = self.prefix.clone().unwrap_or(config.prefix);
        config.deployment = self.deployment.clone().unwrap_or(config.deployment);
        config.session_timeout = self.session_timeout.unwrap_or(config.session_timeout);
        config.replication = self.replication;
        config.security = security;
        config.extra = self.properties.clone();
        Ok(config)
    }
}

/// Circuit breakers, of which this host has one for each plugin and for each authority that plugins call.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakersConfig {
    /// Whether there are any.
    pub enabled: bool,
    /// The time over which outcomes are counted.
    #[serde(with = "duration")]
    pub window: Duration,
    /// So many failures in it, at least, open a breaker...
    pub failures: u32,
    /// ...if they are this share of all outcomes (0.5: half).
    pub share: f64,
    /// How long one stays open before probes are let through; twice as long after each that fails.
    #[serde(with = "duration")]
    pub open_for: Duration,
    /// And never longer than this.
    #[serde(with = "duration")]
    pub open_for_max: Duration,
    /// So many probes must pass to close it.
    pub probes: u32,
}

impl Default for BreakersConfig {
    fn default() -> Self {
        let BreakerRules { enabled, window, failures, share, open_for, open_for_max, probes } =
            BreakerRules::default();
        Self { enabled, window, failures, share, open_for, open_for_max, probes }
    }
}

impl BreakersConfig {
    /// As the engine takes it.
    pub(crate) fn rules(&self) -> BreakerRules {
        let &Self { enabled, window, failures, share, open_for, open_for_max, probes } = self;
        BreakerRules { enabled, window, failures, share, open_for, open_for_max, probes }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let at_least = Duration::from_millis(100);
        let wrong = if self.failures == 0 || self.probes == 0 {
            "breakers.failures and breakers.probes: at least 1"
        } else if !(self.share > 0.0 && self.share <= 1.0) {
            "breakers.share: above 0, at most 1"
        } else if self.window < at_least || self.open_for < at_least {
            "breakers.window and breakers.open_for: at least 100ms"
        } else if self.open_for_max < self.open_for {
            "breakers.open_for_max: at least breakers.open_for"
        } else {
            return Ok(());
        };
        Err(ConfigError::Invalid(wrong.to_owned()))
    }
}

/// Where a secret comes from, and where it may go.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretConfig {
    /// An environment variable of the host.
    #[serde(default)]
    pub env: Option<String>,
    /// A file; its trailing newline is cut.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// Hosts that it may be sent to, as in grants (`*.example.com`).
    pub hosts: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7878)),
            data_dir: PathBuf::from("./reipaz-data"),
            tokens: Vec::new(),
            cors_origins: Vec::new(),
            partitions: 4,
            drain_timeout: Duration::from_secs(10),
            idempotency_retention: Duration::from_secs(24 * 3600),
            failed_retention: Duration::from_secs(7 * 24 * 3600),
            limits: Limits::default(),
            clickhouse: ClickHouse::default(),
            kafka: None,
            advertise: None,
            plugin_store: None,
            alerts: AlertsConfig::default(),
            breakers: BreakersConfig::default(),
            plugins: BTreeMap::new(),
            secrets: BTreeMap::new(),
            log_json: false,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            live_runs: 200_000,
            queued_commands: 4_096,
            attempts: 512,
            guest_threads: 0,
            guest_memory_bytes: 256 << 20,
            payload_bytes: 1 << 20,
            terminal_runs: 20_000,
            failed_runs: 20_000,
            checkpoint_bytes: 64 << 20,
        }
    }
}

impl Default for ClickHouse {
    fn default() -> Self {
        Self {
            mode: ClickHouseMode::Embedded,
            url: None,
            database: "reipaz".to_owned(),
            user: None,
            password: None,
            library: None,
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what we expect.
    #[error("{}: {source}", path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A value does not fit another, or its range.
    #[error("{0}")]
    Invalid(String),
}

impl Config {
    /// From a TOML file, or the defaults without one, with the environment's `REIPAZ_CLICKHOUSE_URL`,
    /// `REIPAZ_CLICKHOUSE_PASSWORD` and `REIPAZ_TOKENS` (comma-separated) on top.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let mut config = match path {
            None => Self::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
                toml::from_str(&text).map_err(|source| ConfigError::Parse {
                    path: path.to_owned(),
                    source: Box::new(source),
                })?
            }
        };
        if let Some(url) = from_env("REIPAZ_CLICKHOUSE_URL") {
            config.clickhouse.mode = ClickHouseMode::External;
            config.clickhouse.url = Some(url);
        }
        if let Some(password) = from_env("REIPAZ_CLICKHOUSE_PASSWORD") {
            config.clickhouse.password = Some(password);
        }
        if let Some(tokens) = from_env("REIPAZ_TOKENS") {
            config.tokens = tokens.split(',').map(|token| token.trim().to_owned()).collect();
        }
        Ok(config)
    }

    /// What no single field can tell. Call it once flags are applied.
    pub fn check(&self) -> Result<(), ConfigError> {
        let refuse = |message: String| Err(ConfigError::Invalid(message));
        if self.tokens.is_empty() && !self.listen.ip().is_loopback() {
            return refuse(format!(
                "listen = \"{}\" is reachable from other machines and no tokens are configured: set `tokens` (or \
                 REIPAZ_TOKENS), or listen on 127.0.0.1",
                self.listen
            ));
        }
        if let Some(short) = self.tokens.iter().find(|token| token.len() < 16) {
            return refuse(format!("a token has {} characters: make it at least 16", short.len()));
        }
        if !(1..=1024).contains(&self.partitions) {
            return refuse(format!("partitions = {}: take 1 to 1024", self.partitions));
        }
        if !(1..=10_000).contains(&self.limits.attempts) {
            return refuse(format!("limits.attempts = {}: take 1 to 10000", self.limits.attempts));
        }
        if self.limits.guest_memory_bytes < (1 << 20) || self.limits.guest_memory_bytes > (256 << 20) {
            return refuse(format!(
                "limits.guest_memory_bytes = {}: take 1 MiB to 256 MiB",
                self.limits.guest_memory_bytes
            ));
        }
        if self.limits.payload_bytes < 1024 || self.limits.payload_bytes > (16 << 20) {
            return refuse(format!(
                "limits.payload_bytes = {}: take 1 KiB to 16 MiB",
                self.limits.payload_bytes
            ));
        }
        if self.kafka.is_some() && self.clickhouse.mode == ClickHouseMode::Embedded {
            return refuse(
                "hosts that share Kafka need a ClickHouse that they share: set clickhouse.url (--clickhouse URL), or \
                 clickhouse.mode = \"off\""
                    .to_owned(),
            );
        }
        if let Some(url) = &self.advertise
            && !url.starts_with("http://")
        {
            return refuse(format!("advertise = {url:?}: write http://HOST:PORT"));
        }
        if self.kafka.is_some() && self.advertise.is_none() && self.listen.ip().is_unspecified() {
            return refuse(format!(
                "listen = \"{}\" does not say where other hosts reach this one: set `advertise`",
                self.listen
            ));
        }
        if self.clickhouse.mode == ClickHouseMode::External && self.clickhouse.url.is_none() {
            return refuse("clickhouse.mode = \"external\" needs clickhouse.url".to_owned());
        }
        for (name, secret) in &self.secrets {
            if secret.env.is_some() == secret.file.is_some() {
                return refuse(format!("secrets.{name} needs exactly one of `env` and `file`"));
            }
            if secret.hosts.is_empty() {
                return refuse(format!(
                    "secrets.{name}.hosts is empty: name the hosts that it may be sent to"
                ));
            }
        }
        plugins::check(&self.plugins)?;
        self.breakers.check()?;
        self.alerts.check(self)
    }

    /// The directory's layout, in one place.
    pub fn paths(&self) -> Paths {
        let root = &self.data_dir;
        Paths {
            journal: root.join("journal"),
            plugins: root.join("plugins"),
            compiled: root.join("compiled"),
            clickhouse: root.join("clickhouse"),
            sink: root.join("sink.json"),
        }
    }
}

/// Where things lie under the data directory.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The journal and the catalog.
    pub journal: PathBuf,
    /// Plugin components by digest.
    pub plugins: PathBuf,
    /// Compiled plugins; may be deleted at any time.
    pub compiled: PathBuf,
    /// The embedded ClickHouse.
    pub clickhouse: PathBuf,
    /// How far rows are stored.
    pub sink: PathBuf,
}

fn from_env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

mod optional_duration {
    use std::time::Duration;

    use serde::Deserializer;

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
        super::duration::deserialize(d).map(Some)
    }
}

pub(crate) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        reipaz_core::time::parse_duration(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_pass_their_own_check() {
        Config::default().check().expect("defaults work");
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = toml::from_str::<Config>("lissten = '127.0.0.1:1'").expect_err("unknown key");
        assert!(error.to_string().contains("lissten"), "{error}");
    }

    #[test]
    fn a_public_address_needs_tokens() {
        let mut config = Config { listen: SocketAddr::from(([0, 0, 0, 0], 7878)), ..Config::default() };
        assert!(config.check().is_err());
        config.tokens = vec!["a-token-of-enough-length".to_owned()];
        config.check().expect("a token makes it fine");
    }

    #[test]
    fn a_whole_file_is_read() {
        let config: Config = toml::from_str(
            r#"
            listen = "127.0.0.1:9000"
            drain_timeout = "3s"
            [plugins.http_request.grants]
            http = ["GET api.example.com"]
            [secrets.shop_token]
            env = "SHOP_TOKEN"
            hosts = ["shop.example"]
            [clickhouse]
            mode = "off"
            "#,
        )
        .expect("valid");
        assert_eq!(config.drain_timeout, Duration::from_secs(3));
        assert_eq!(config.plugins["http_request"].grants["http"], ["GET api.example.com"]);
        assert_eq!(config.clickhouse.mode, ClickHouseMode::Off);
        config.check().expect("valid");
    }
}
