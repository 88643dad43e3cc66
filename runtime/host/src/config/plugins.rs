//! What the operator says about one plugin.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use reipaz_core::limit::{LimitRule, MAX_QUEUED, MAX_STARTS, Rate};
use serde::Deserialize;

use super::{ConfigError, duration};

/// The longest span of a rate.
const LONGEST: Duration = Duration::from_secs(31 * 86_400);

/// What the operator says about one plugin.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PluginConfig {
    /// By kind: `grants = { http = ["GET api.example.com"] }`.
    pub grants: BTreeMap<String, Vec<String>>,
    /// How many attempts of it there may be, on all hosts together.
    pub concurrency: Option<ConcurrencyConfig>,
}

/// How many attempts of a plugin there may be.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConcurrencyConfig {
    /// At one time.
    pub limit: Option<u32>,
    /// In any span of time.
    pub rate: Option<RateConfig>,
    /// What becomes of an attempt that is over it.
    pub when_full: WhenFull,
    /// So many may wait.
    pub max_queued: Option<u32>,
}

/// So many starts in any span of time of this length.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateConfig {
    /// How many.
    pub starts: u32,
    /// The span.
    #[serde(with = "duration")]
    pub per: Duration,
}

/// What becomes of an attempt that is over a limit.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// It waits.
    #[default]
    Queue,
    /// It fails as `limit_full`.
    Reject,
}

impl ConcurrencyConfig {
    /// As the partitions take it.
    fn rule(self) -> LimitRule {
        let rate = self.rate.map(|rate| Rate {
            starts: rate.starts,
            per_ms: u64::try_from(rate.per.as_millis()).unwrap_or(u64::MAX),
        });
        let max_queued = match self.when_full {
            WhenFull::Queue => self.max_queued.unwrap_or(MAX_QUEUED),
            WhenFull::Reject => 0,
        };
        LimitRule { at_once: self.limit, rate, max_queued, version: 0 }
    }

    fn check(self) -> Result<(), String> {
        let counts = [("limit", self.limit, MAX_QUEUED), ("max_queued", self.max_queued, MAX_QUEUED)];
        let starts = ("rate.starts", self.rate.map(|rate| rate.starts), MAX_STARTS);
        for (name, count, most) in counts.into_iter().chain([starts]) {
            if let Some(count) = count.filter(|count| !(1..=most).contains(count)) {
                return Err(format!("{name} = {count}: take 1 to {most}"));
            }
        }
        if self.limit.is_none() && self.rate.is_none() {
            return Err("says neither `limit` nor `rate`".to_owned());
        }
        if self.rate.is_some_and(|rate| rate.per < Duration::from_millis(1) || rate.per > LONGEST) {
            return Err("rate.per: take 1ms to 744h".to_owned());
        }
        if self.max_queued.is_some() && self.when_full == WhenFull::Reject {
            return Err("max_queued goes with when_full = \"queue\"".to_owned());
        }
        Ok(())
    }
}

/// What does not fit.
pub(super) fn check(plugins: &BTreeMap<String, PluginConfig>) -> Result<(), ConfigError> {
    for (name, plugin) in plugins {
        if let Some(Err(why)) = plugin.concurrency.map(ConcurrencyConfig::check) {
            return Err(ConfigError::Invalid(format!("plugins.{name}.concurrency: {why}")));
        }
    }
    Ok(())
}

/// The plugins that have a limit, by name.
pub(crate) fn limits(plugins: &BTreeMap<String, PluginConfig>) -> BTreeMap<Arc<str>, LimitRule> {
    let limit = |(name, plugin): (&String, &PluginConfig)| {
        Some((Arc::from(name.as_str()), plugin.concurrency?.rule()))
    };
    plugins.iter().filter_map(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn read(concurrency: &str) -> Result<BTreeMap<Arc<str>, LimitRule>, String> {
        let text = format!("[plugins.\"acme/score\"]\nconcurrency = {concurrency}");
        let config: Config = toml::from_str(&text).map_err(|error| error.message().to_owned())?;
        config.check().map_err(|error| error.to_string())?;
        Ok(limits(&config.plugins))
    }

    #[test]
    fn a_plugins_limit_is_read() {
        let rule = |text: &str| read(text).expect("it is right")["acme/score"];
        let both = rule("{ limit = 5, rate = { starts = 100, per = \"1s\" }, max_queued = 9 }");
        let rate = Some(Rate { starts: 100, per_ms: 1_000 });
        assert_eq!(both, LimitRule { at_once: Some(5), rate, max_queued: 9, version: 0 });
        assert_eq!(rule("{ limit = 5, when_full = \"reject\" }").max_queued, 0);
        assert_eq!(rule("{ limit = 5 }").max_queued, MAX_QUEUED);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (concurrency, words) in [
            ("{}", "neither `limit` nor `rate`"),
            ("{ limit = 0 }", "take 1 to"),
            ("{ rate = { starts = 0, per = \"1s\" } }", "rate.starts"),
            ("{ rate = { starts = 1, per = \"0s\" } }", "rate.per"),
            ("{ limit = 1, when_full = \"reject\", max_queued = 4 }", "when_full"),
            ("{ limit = 1, when_full = \"drop\" }", "unknown variant"),
            ("{ limits = 1 }", "unknown field"),
        ] {
            let error = read(concurrency).expect_err(concurrency);
            assert!(error.contains(words), "{error}");
        }
    }
}
