//! What is shown of workflows, runs and plugins: serialises to exactly the JSON that the API documents.

use std::{collections::BTreeMap, sync::Arc};

use reipaz_core::{
    document::Diagnostic,
    event::{LogLevel, Progress, RunError},
    failure::Failure,
    ids::{Digest, RunId, StepPath},
    json::Json,
    partition::{RunStatus, StepStatus},
    plan::PluginPin,
    retry::{GiveUp, Reason},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::requests::LogPosition;

/// The answer to a publication.
#[derive(Clone, Debug, Serialize)]
pub struct PublishedWorkflow {
    /// The workflow.
    pub name: String,
    /// Counts from 1.
    pub version: u32,
    /// Of the pinned workflow.
    pub digest: Digest,
    /// False: this content was published before, as this version.
    pub created: bool,
    /// What is allowed and yet looks wrong.
    pub warnings: Vec<Diagnostic>,
}

/// The answer to a validation.
#[derive(Clone, Debug, Serialize)]
pub struct ValidatedWorkflow {
    /// The workflow.
    pub name: String,
    /// What publishing it would give.
    pub digest: Digest,
    /// Paths of its steps, in dependency order.
    pub steps: Vec<StepPath>,
    /// What each `uses` means now.
    pub plugins: BTreeMap<String, PluginPin>,
    /// What is allowed and yet looks wrong.
    pub warnings: Vec<Diagnostic>,
    /// When each step would be tried again, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedules: Option<Vec<StepSchedule>>,
}

/// How long a step may take and when it is tried again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StepSchedule {
    /// Which.
    pub step: StepPath,
    /// One attempt, milliseconds.
    pub timeout_ms: u64,
    /// All attempts together, milliseconds.
    pub total_timeout_ms: Option<u64>,
    /// By what failed, in groups that are treated alike.
    pub failures: Vec<FailureSchedule>,
}

/// What follows when every attempt fails in one of these ways the moment it starts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FailureSchedule {
    /// Classes and codes.
    pub failures: Vec<String>,
    /// In order.
    pub retries: Vec<RetryView>,
    /// Why there is none after them.
    pub gives_up: GiveUp,
}

/// One retry of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryView {
    /// The attempt that it makes; counts from 1.
    pub attempt: u32,
    /// Where its delay comes from.
    pub reason: Reason,
    /// The shortest delay, milliseconds.
    pub least_ms: u64,
    /// The longest, milliseconds.
    pub most_ms: u64,
    /// How long after the first attempt it starts at the latest, milliseconds.
    pub latest_ms: u64,
}

/// A workflow: its newest version, and which there are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkflowView {
    /// Its name.
    pub name: String,
    /// The newest version.
    pub version: u32,
    /// All versions, ascending.
    pub versions: Vec<u32>,
    /// Digest of the newest.
    pub digest: Digest,
    /// JSON Schema of a run's input, if it declares one.
    pub input_schema: Option<Value>,
    /// When the newest was published.
    pub created_at: Timestamp,
}

/// One version of a workflow.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VersionView {
    /// The workflow.
    pub name: String,
    /// Counts from 1.
    pub version: u32,
    /// Of the pinned workflow.
    pub digest: Digest,
    /// The document as JSON, with the `ui` it was last published with.
    pub document: Value,
    /// What each `uses` was resolved to.
    pub plugins: BTreeMap<String, PluginPin>,
    /// When.
    pub created_at: Timestamp,
}

/// A run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunView {
    /// Its id.
    pub id: RunId,
    /// Its workflow.
    pub workflow: Arc<str>,
    /// The version it started with and keeps.
    pub version: u32,
    /// Where it stands.
    pub status: RunStatus,
    /// Its last event.
    pub seq: u32,
    /// What it was given.
    #[serde(with = "reipaz_core::json::raw")]
    pub input: Json,
    /// What came out; null unless completed.
    #[serde(with = "reipaz_core::json::optional_raw")]
    pub output: Option<Json>,
    /// Why it failed; null unless failed.
    pub error: Option<RunError>,
    /// By path (`/fetch`).
    pub steps: BTreeMap<StepPath, StepView>,
    /// The key it was submitted with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<Arc<str>>,
    /// Carried along.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<Arc<str>, Arc<str>>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When its first attempt was decided.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// A step of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StepView {
    /// Where it stands.
    pub status: StepStatus,
    /// How many attempts were started.
    pub attempts: u32,
    /// What came out; null unless completed.
    #[serde(with = "reipaz_core::json::optional_raw")]
    pub output: Option<Json>,
    /// Of its last attempt, if that failed.
    pub error: Option<Failure>,
    /// What it waits for; null when it does not wait.
    pub waiting_for: Option<WaitingFor>,
    /// What its running attempt last said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// When its first attempt was decided.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// What a step waits for. In JSON: `{"type": "steps", "steps": ["/fetch"]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum WaitingFor {
    /// The end of these.
    Steps {
        /// Those that have not ended.
        steps: Vec<StepPath>,
    },
    /// The time of its next attempt.
    Retry {
        /// When that is.
        due: Timestamp,
    },
    /// A circuit breaker to let it through.
    Breaker {
        /// Which: `authority https://shop.example:443`, `plugin acme/score@1.2.0`.
        breaker: Arc<str>,
        /// When it looks again.
        due: Timestamp,
    },
    /// A place under a limit, for the run or for the step's next attempt.
    Limit {
        /// Which: `workflow orders, key "c1"`, `plugin acme/score`.
        limit: Arc<str>,
        /// Since when.
        since: Timestamp,
    },
    /// Somebody to resume the run.
    Resume,
}

/// A run in a list: without input, output and steps.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunSummary {
    /// Its id.
    pub id: RunId,
    /// Its workflow.
    pub workflow: Arc<str>,
    /// The version it started with.
    pub version: u32,
    /// Where it stands.
    pub status: RunStatus,
    /// Its last event.
    pub seq: u32,
    /// Why it failed; null unless failed.
    pub error: Option<RunError>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When its first attempt was decided.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// An event: the JSON of a core `RunEvent`, `{"run", "seq", "at", "type", ...}`, kept as text.
#[derive(Clone, Debug, PartialEq)]
pub struct EventView {
    /// Counts from 1 within the run.
    pub seq: u32,
    /// One JSON object, in one line.
    pub json: Json,
}

impl Serialize for EventView {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        reipaz_core::json::raw::serialize(&self.json, s)
    }
}

/// A line that a step logged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogView {
    /// Where it stands in the run: `seq` and `index`.
    #[serde(flatten)]
    pub position: LogPosition,
    /// The attempt's own clock.
    pub at: Timestamp,
    /// The step.
    pub step: StepPath,
    /// Counts from 1.
    pub attempt: u32,
    /// How grave.
    pub level: LogLevel,
    /// The text.
    pub message: Arc<str>,
    /// Structured fields.
    pub fields: BTreeMap<Arc<str>, Arc<str>>,
}

/// The answer to an installation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InstalledPlugin {
    /// The plugin.
    #[serde(flatten)]
    pub plugin: PluginView,
    /// False: this very component was there already (its grants may have changed).
    pub created: bool,
}

/// One version of a plugin.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PluginView {
    /// Its name, `http_request` or `acme/score`.
    pub name: String,
    /// Its full version, `1.2.0`.
    pub version: String,
    /// All installed versions of that name, newest first.
    pub versions: Vec<String>,
    /// Of the component.
    pub digest: Digest,
    /// One sentence.
    pub summary: String,
    /// JSON Schema of `with`.
    pub input_schema: Option<Value>,
    /// JSON Schema of its output.
    pub output_schema: Option<Value>,
    /// What its manifest asks for.
    pub wants: Vec<WantedGrant>,
    /// What the operator gave it, by kind.
    pub grants: BTreeMap<String, Vec<String>>,
    /// Whether it can neither change nor reveal anything outside its attempt, with these grants.
    pub silent: bool,
    /// It came with the host.
    pub standard: bool,
    /// Size of the component.
    pub size_bytes: u64,
    /// When.
    pub installed_at: Timestamp,
}

/// A grant that a manifest asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedGrant {
    /// `http`.
    pub kind: String,
    /// `GET api.example.com`.
    pub value: String,
    /// For the operator.
    pub why: String,
}

/// Whether a host takes work.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Readiness {
    /// It owns its partitions and takes submissions. Does not depend on ClickHouse.
    pub ready: bool,
    /// By part (`journal`, `engine`, `clickhouse`): `ready`, or what is missing in a sentence.
    pub parts: BTreeMap<String, String>,
}
