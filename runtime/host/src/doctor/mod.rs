//! Looks whether a host can work as it is configured, and says what to mend. Each part of what a host stands on is asked
//! by itself, all at once, within a bound of its own; none hides another. Nothing is changed but a probe in the plugin
//! store, which is deleted again.
//!
//! What Kafka and ClickHouse are asked is their crates' affair (`reipaz_journal::Kafka::examine`,
//! `reipaz_store::examine`); here it is put into words.

mod clickhouse;
mod data_dir;
mod plugins;
mod port;

use serde::Serialize;

use crate::{
    alerts::Alerts,
    config::{Config, ConfigError},
    secrets::SecretStore,
};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What.
    pub(crate) what: String,
    /// How it is.
    pub(crate) status: Status,
    /// In a sentence.
    pub(crate) detail: String,
    /// What mends it: sentences and commands.
    pub(crate) mend: Vec<String>,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// As it must be.
    Ok,
    /// A host works with it, and it should be otherwise.
    Warn,
    /// A host does not work with it.
    Fail,
}

impl Finding {
    fn new(what: impl Into<String>, status: Status, detail: impl Into<String>) -> Self {
        Self { what: what.into(), status, detail: detail.into(), mend: Vec::new() }
    }

    fn ok(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(what, Status::Ok, detail)
    }

    fn warn(what: impl Into<String>, detail: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { mend: vec![mend.into()], ..Self::new(what, Status::Warn, detail) }
    }

    fn fail(what: impl Into<String>, detail: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { mend: vec![mend.into()], ..Self::new(what, Status::Fail, detail) }
    }
}

impl From<reipaz_journal::kafka::Finding> for Finding {
    fn from(finding: reipaz_journal::kafka::Finding) -> Self {
        use reipaz_journal::kafka::Grade;
        let status = match finding.grade {
            Grade::Fine => Status::Ok,
            Grade::Warning => Status::Warn,
            Grade::Failure => Status::Fail,
        };
        Self { what: finding.what, status, detail: finding.detail, mend: finding.mend }
    }
}

/// Looks at everything. `source` says where the configuration comes from.
pub(crate) async fn examine(config: Result<Config, ConfigError>, source: &str) -> Vec<Finding> {
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            let mend = "correct the file; nothing else can be checked before it is read";
            return vec![Finding::fail("configuration", error.to_string(), mend)];
        }
    };
    let (data_dir, kafka, clickhouse, plugins, port) = tokio::join!(
        data_dir::examine(&config),
        kafka(&config),
        clickhouse::examine(&config),
        plugins::examine(&config),
        port::examine(&config),
    );
    let mut findings = vec![configuration(&config, source)];
    findings.extend(secrets(&config));
    findings.extend(webhooks(&config));
    findings.extend(data_dir);
    findings.extend(kafka);
    findings.extend(clickhouse);
    findings.extend(plugins);
    findings.push(port);
    findings
}

fn configuration(config: &Config, source: &str) -> Finding {
    match config.check() {
        Ok(()) => Finding::ok("configuration", source),
        Err(error) => Finding::fail(
            "configuration",
            format!("{source}: {error}"),
            "a host refuses to start with it; change what the line above names",
        ),
    }
}

fn secrets(config: &Config) -> Option<Finding> {
    let finding = match SecretStore::load(&config.secrets) {
        _ if config.secrets.is_empty() => return None,
        Ok(_) => Finding::ok("secrets", format!("{} can be read", config.secrets.len())),
        Err(error) => {
            let mend = "set the variable, or make the file readable, for the user that runs the host";
            Finding::fail("secrets", error.to_string(), mend)
        }
    };
    Some(finding)
}

/// Nothing is sent: who is woken by an alert should be asked first.
fn webhooks(config: &Config) -> Option<Finding> {
    let count = config.alerts.webhooks.len();
    let made = SecretStore::load(&config.secrets).and_then(|secrets| Alerts::new(&config.alerts, &secrets));
    let finding = match made {
        _ if count == 0 => return None,
        Ok(_) => Finding::ok("alerts", format!("{count} webhooks; `reipaz alerts test` has a host try them")),
        Err(error) => {
            Finding::fail("alerts", error.to_string(), "correct the [alerts] part of the configuration")
        }
    };
    Some(finding)
}

async fn kafka(config: &Config) -> Vec<Finding> {
    let Some(kafka) = &config.kafka else {
        return vec![Finding::ok(
            "Kafka",
            "not configured: one host, everything durable in its data directory",
        )];
    };
    match kafka.journal(config.partitions) {
        Ok(kafka) => reipaz_journal::Kafka::examine(kafka).await.into_iter().map(Finding::from).collect(),
        Err(error) => {
            vec![Finding::fail(
                "Kafka configuration",
                error.to_string(),
                "correct the [kafka] part of the configuration",
            )]
        }
    }
}

/// Sizes for people.
fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}
