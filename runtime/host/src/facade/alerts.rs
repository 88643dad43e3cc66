//! What is shown of alerts, over the API and to webhooks: one type for both, so that they cannot differ.

use std::collections::BTreeMap;

use reipaz_core::{ids::RunId, time::Timestamp};
use serde::{Deserialize, Serialize};

/// What an alert is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// Attempts fail in one way, more often than is tolerated.
    ErrorPattern,
    /// A circuit breaker is open.
    Breaker,
    /// Runs, or steps, do not end within the time that they were given.
    RunOverdue,
    /// Rows are not stored, or ClickHouse cannot be reached.
    SinkLag,
    /// Somebody tries the way to the webhooks.
    Test,
}

impl AlertKind {
    /// Those that a host can be in; all but the test.
    pub const CONDITIONS: [Self; 4] = [Self::ErrorPattern, Self::Breaker, Self::RunOverdue, Self::SinkLag];

    /// As it stands in JSON and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ErrorPattern => "error_pattern",
            Self::Breaker => "breaker",
            Self::RunOverdue => "run_overdue",
            Self::SinkLag => "sink_lag",
            Self::Test => "test",
        }
    }

    /// The `alertname` that receivers know it by.
    pub fn alert_name(self) -> &'static str {
        match self {
            Self::ErrorPattern => "ReipazErrorPattern",
            Self::Breaker => "ReipazBreakerOpen",
            Self::RunOverdue => "ReipazRunOverdue",
            Self::SinkLag => "ReipazSinkLag",
            Self::Test => "ReipazTest",
        }
    }
}

/// How much it matters. Ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Somebody should look today.
    Warning,
    /// Somebody should look now.
    Critical,
}

impl Severity {
    /// As it stands in JSON and in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Whether it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertStatus {
    /// It goes on.
    Firing,
    /// It is over.
    Resolved,
}

/// One alert.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlertView {
    /// 16 hexadecimal digits of its labels: the same alert has the same, after a restart too.
    pub fingerprint: String,
    /// What it is about.
    pub kind: AlertKind,
    /// How much it matters.
    pub severity: Severity,
    /// Whether it goes on.
    pub status: AlertStatus,
    /// When it began.
    pub started_at: Timestamp,
    /// When it was over.
    pub resolved_at: Option<Timestamp>,
    /// What tells it from others: `class`, `code`, `plugin`, `authority`, `workflow`, `host`... Never changes.
    pub labels: BTreeMap<String, String>,
    /// How often what it is about was seen since it began.
    pub count: u64,
    /// One sentence.
    pub summary: String,
    /// What to do about it.
    pub what_to_do: String,
    /// What else is known, of the newest case: `workflow`, `partition`, `message`.
    pub annotations: BTreeMap<String, String>,
    /// A run that shows it.
    pub sample_run: Option<RunId>,
}

/// The answer to `GET /v1/alerts`: what this host sees.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AlertsView {
    /// Alerts that go on, the oldest first.
    pub firing: Vec<AlertView>,
    /// Alerts that are over, the newest first; as many as are kept.
    pub recent: Vec<AlertView>,
    /// How many webhooks are told.
    pub webhooks: usize,
}

/// What came of a test alert.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WebhookTest {
    /// Counts from 1, in the order of the configuration.
    pub webhook: usize,
    /// Scheme, host and port; the rest of a webhook's URL is often a secret.
    pub origin: String,
    /// It answered with 2xx.
    pub taken: bool,
    /// What it answered.
    pub status: Option<u16>,
    /// Why it was not taken.
    pub error: Option<String>,
    /// How long that took, milliseconds.
    pub elapsed_ms: u64,
}

/// The answer to `POST /v1/alerts/test`, one for each webhook.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AlertsTest {
    /// In the order of the configuration.
    pub webhooks: Vec<WebhookTest>,
}
