//! What an operator can set about alerts: `[alerts]` in the configuration. The defaults find what most operators want to
//! hear of, and tell nobody: alerts are then seen at `/v1/alerts` and in the metrics.

use std::{collections::BTreeMap, time::Duration};

use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use url::Url;

use crate::{
    config::{Config, ConfigError, duration},
    facade::Severity,
    secrets,
};

/// Webhooks at most. Each has a queue and a connection of its own.
const WEBHOOKS_MAX: usize = 16;

/// Headers of one webhook at most.
const HEADERS_MAX: usize = 16;

/// The largest [`AlertsConfig::pattern_failures`]: so many times are kept for each pattern.
const PATTERN_FAILURES_MAX: u32 = 1_000;

/// No shorter window, or repetition, makes sense: conditions are looked at once a second.
const SHORTEST: Duration = Duration::from_secs(1);

/// No longer window makes sense for what is kept in memory.
const WINDOW_MAX: Duration = Duration::from_secs(24 * 3600);

/// When operators are told, and where.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlertsConfig {
    /// Who is told; nobody by default.
    pub webhooks: Vec<WebhookConfig>,
    /// Within how long [`AlertsConfig::pattern_failures`] make a pattern. An alert ends after so long below that.
    #[serde(with = "duration")]
    pub pattern_window: Duration,
    /// How many failed attempts of one class, code and plugin (and authority, where known) are an alert.
    pub pattern_failures: u32,
    /// How far a run that is not over may be past its deadline. The host ends such runs, so this finds the host's own
    /// faults, and partitions that stand still.
    #[serde(with = "duration")]
    pub overdue_grace: Duration,
    /// For how long rows may be missing in ClickHouse, or ClickHouse be out of reach.
    #[serde(with = "duration")]
    pub sink_lag_after: Duration,
    /// How many journal records of one partition may be missing in ClickHouse.
    pub sink_lag_records: u64,
    /// An alert that goes on is told again after this.
    #[serde(with = "duration")]
    pub repeat_every: Duration,
    /// For how long a webhook that does not take an alert is tried again.
    #[serde(with = "duration")]
    pub give_up_after: Duration,
}

/// One receiver of alerts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Where alerts are sent to, by POST.
    pub url: String,
    /// Added to each request. A value may name secrets: `Bearer ${ $secrets.pager_token }`; the secret's `hosts` must list
    /// the webhook's host.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Alerts below it are not told here: `info`, `warning` or `critical`.
    #[serde(default = "lowest")]
    pub min_severity: Severity,
    /// How long one request may take.
    #[serde(default = "request_timeout", with = "duration")]
    pub timeout: Duration,
}

fn lowest() -> Severity {
    Severity::Info
}

fn request_timeout() -> Duration {
    Duration::from_secs(10)
}

impl Default for AlertsConfig {
    fn default() -> Self {
        Self {
            webhooks: Vec::new(),
            pattern_window: Duration::from_secs(60),
            pattern_failures: 20,
            overdue_grace: Duration::from_secs(60),
            sink_lag_after: Duration::from_secs(60),
            sink_lag_records: 1_000_000,
            repeat_every: Duration::from_secs(4 * 3600),
            give_up_after: Duration::from_secs(15 * 60),
        }
    }
}

impl AlertsConfig {
    /// What no single field can tell; secrets are looked at in `config`.
    pub(crate) fn check(&self, config: &Config) -> Result<(), ConfigError> {
        let refuse = |message: String| Err(ConfigError::Invalid(message));
        if !(1..=PATTERN_FAILURES_MAX).contains(&self.pattern_failures) {
            let is = self.pattern_failures;
            return refuse(format!("alerts.pattern_failures = {is}: take 1 to {PATTERN_FAILURES_MAX}"));
        }
        for (name, value) in [
            ("pattern_window", self.pattern_window),
            ("sink_lag_after", self.sink_lag_after),
            ("repeat_every", self.repeat_every),
            ("give_up_after", self.give_up_after),
        ] {
            if value < SHORTEST {
                return refuse(format!("alerts.{name} is shorter than 1s"));
            }
        }
        if self.pattern_window > WINDOW_MAX {
            return refuse("alerts.pattern_window is longer than 1d".to_owned());
        }
        if self.webhooks.len() > WEBHOOKS_MAX {
            let count = self.webhooks.len();
            return refuse(format!("alerts.webhooks: {count} of them: take at most {WEBHOOKS_MAX}"));
        }
        for (number, webhook) in (1..).zip(&self.webhooks) {
            webhook.check(config).map_err(|why| {
                ConfigError::Invalid(format!("alerts.webhooks, the entry number {number}: {why}"))
            })?;
        }
        Ok(())
    }
}

impl WebhookConfig {
    /// Where it is. The text of the URL stays out of messages: its path is often a secret.
    pub(super) fn target(&self) -> Result<Url, String> {
        let url = Url::parse(&self.url).map_err(|error| format!("its url is none: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("its url begins with {}: take http or https", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("its url holds a password: put it into a header".to_owned());
        }
        if url.host_str().is_none() {
            return Err("its url names no host".to_owned());
        }
        Ok(url)
    }

    fn check(&self, config: &Config) -> Result<(), String> {
        let url = self.target()?;
        let host = url.host_str().unwrap_or_default();
        if self.timeout < Duration::from_millis(100) || self.timeout > Duration::from_secs(60) {
            return Err("timeout: take 100ms to 60s".to_owned());
        }
        if self.headers.len() > HEADERS_MAX {
            return Err(format!("it has {} headers: take at most {HEADERS_MAX}", self.headers.len()));
        }
        for (name, value) in &self.headers {
            HeaderName::try_from(name).map_err(|_| format!("{name:?} is no name of a header"))?;
            HeaderValue::try_from(value)
                .map_err(|_| format!("the header {name} has characters that no header may have"))?;
            for secret in secrets::names_in(value).map_err(|why| format!("the header {name}: {why}"))? {
                let Some(known) = config.secrets.get(secret) else {
                    return Err(format!(
                        "the header {name} names the secret {secret}, which is not configured"
                    ));
                };
                if !known.hosts.iter().any(|pattern| secrets::host_matches(pattern, host)) {
                    return Err(format!("secrets.{secret}.hosts does not list {host}"));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<AlertsConfig, String> {
        let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config.alerts)
    }

    #[test]
    fn a_whole_table_is_read() {
        let alerts = checked(
            r#"
            [secrets.pager]
            env = "PAGER"
            hosts = ["*.example"]
            [alerts]
            pattern_failures = 3
            pattern_window = "5s"
            sink_lag_after = "2m"
            [[alerts.webhooks]]
            url = "https://pager.example/hook/abc"
            headers = { authorization = "Bearer ${ $secrets.pager }" }
            min_severity = "warning"
            [[alerts.webhooks]]
            url = "http://127.0.0.1:9093/"
            "#,
        )
        .expect("sound");
        assert_eq!((alerts.pattern_failures, alerts.pattern_window), (3, Duration::from_secs(5)));
        assert_eq!(alerts.webhooks[0].min_severity, Severity::Warning);
        assert_eq!(alerts.webhooks[1].min_severity, Severity::Info);
        assert_eq!(alerts.webhooks[1].timeout, Duration::from_secs(10));
    }

    #[test]
    fn each_mistake_is_named() {
        let hook = |rest: &str| format!("[[alerts.webhooks]]\n{rest}");
        for (text, named) in [
            ("[alerts]\npatern_window = '1m'".to_owned(), "patern_window"),
            ("[alerts]\npattern_failures = 0".to_owned(), "pattern_failures"),
            ("[alerts]\nrepeat_every = '1ms'".to_owned(), "repeat_every"),
            ("[alerts]\npattern_window = '2d'".to_owned(), "pattern_window"),
            (hook("url = 'ftp://a.example'"), "ftp"),
            (hook("url = 'nowhere'"), "number 1"),
            (hook("url = 'http://u:p@a.example'"), "password"),
            (hook("url = 'http://a.example'\nmin_severity = 'loud'"), "loud"),
            (hook("url = 'http://a.example'\ntimeout = '2m'"), "timeout"),
            (hook("url = 'http://a.example'\nheaders = {'a b' = 'c'}"), "a b"),
            (hook("url = 'http://a.example'\nheaders = {a = '${ $secrets.b }'}"), "secret b"),
            (hook("url = 'http://a.example'\nheaders = {a = '${ $input.b }'}"), "$secrets"),
            (
                hook(
                    "url = 'http://a.example'\nheaders = {a = '${ $secrets.b }'}\n[secrets.b]\nenv = 'B'\nhosts = ['c.example']",
                ),
                "secrets.b.hosts",
            ),
        ] {
            let why = checked(&text).expect_err(&text);
            assert!(why.contains(named), "{text}: {why}");
        }
        let why = checked(&hook("url = 'http://u:s3cret@a.example'")).expect_err("a password");
        assert!(!why.contains("s3cret"), "{why}");
    }
}
