//! What the HTTP API asks of a host, and what it gets: one trait and the plain types around it.
//!
//! The API knows nothing else of the host: no owner loop, no engine, no ClickHouse. `App` implements [`Facade`]; tests
//! implement it in memory. The views serialise to exactly the JSON that the API documents, and the CLI reads the same
//! types back.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use reipaz_core::{
    document::Diagnostic,
    event::{LogLevel, Progress, RunError},
    failure::Failure,
    ids::{Digest, RunId, StepPath},
    json::Json,
    partition::{RunStatus, StepStatus},
    plan::{InputMistake, PluginPin},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// All that the API needs of a host. Every method answers in bounded time; the ones that wait say for how long.
///
/// Promise 7 binds all of them: nothing that is not yet durable is shown.
#[async_trait]
pub trait Facade: Send + Sync + 'static {
    /// Checks a document and, if it is sound, stores it as a version. Identical content gives the version it had.
    async fn publish(&self, text: &str) -> Result<PublishedWorkflow, FacadeError>;
    /// Checks a document against the installed plugins and stores nothing.
    async fn validate(&self, text: &str) -> Result<ValidatedWorkflow, FacadeError>;
    /// The newest version of every workflow, by name.
    async fn workflows(&self) -> Result<Vec<WorkflowView>, FacadeError>;
    /// One workflow's newest version.
    async fn workflow(&self, name: &str) -> Result<WorkflowView, FacadeError>;
    /// One version with its document.
    async fn workflow_version(&self, name: &str, version: u32) -> Result<VersionView, FacadeError>;

    /// Starts a run (or finds the one that the key stands for). Comes back once the run is durable, or, with a `wait`,
    /// when it is terminal, the wait is over, or the host drains, whichever is first.
    async fn submit(&self, request: SubmitRequest) -> Result<Submitted, FacadeError>;
    /// A run as it stands.
    async fn run(&self, id: RunId) -> Result<RunView, FacadeError>;
    /// Waits at most `wait` and says where the run stands then; at once if what is waited for is so already. The
    /// answer does not tell whether it came: the caller sees that from `seq` and `status`.
    async fn wait(&self, id: RunId, until: WaitUntil, wait: Duration) -> Result<Standing, FacadeError>;
    /// The run's events with `seq` above `after`, ascending, at most `limit`. Does not wait.
    async fn events(&self, id: RunId, after: u32, limit: usize) -> Result<Vec<EventView>, FacadeError>;
    /// The run's log lines, in the order of their events. Does not wait.
    async fn logs(&self, id: RunId, query: LogQuery) -> Result<Vec<LogView>, FacadeError>;
    /// Runs, newest first.
    async fn list_runs(&self, query: RunQuery) -> Result<RunPage, FacadeError>;
    /// Cancels, pauses, resumes or retries; the run as it stands afterwards. What is so already is no error.
    async fn change(&self, id: RunId, change: Change) -> Result<RunView, FacadeError>;

    /// Checks, compiles and stores a component.
    async fn install_plugin(&self, request: InstallPlugin) -> Result<InstalledPlugin, FacadeError>;
    /// Every installed plugin version, by name, newest version first.
    async fn plugins(&self) -> Result<Vec<PluginView>, FacadeError>;
    /// One plugin: this version, else the newest.
    async fn plugin(&self, name: &str, version: Option<&str>) -> Result<PluginView, FacadeError>;

    /// Runs one read-only statement in ClickHouse; `format` is one of ClickHouse's (`JSONEachRow`).
    async fn sql(&self, query: &str, format: &str) -> Result<Bytes, FacadeError>;
    /// Whether this host takes work, and what each part of it says. Never waits.
    fn readiness(&self) -> Readiness;
    /// Cancelled once the host drains: waits and streams then end with what they have.
    fn draining(&self) -> CancellationToken;
}

/// A task as the API hands it over.
#[derive(Clone, Debug)]
pub struct SubmitRequest {
    /// The workflow's name.
    pub workflow: String,
    /// Its version; the newest when absent.
    pub version: Option<u32>,
    /// One JSON value; null when the body gave none. Not yet checked against the workflow's schema.
    pub input: Json,
    /// One run per key and workflow.
    pub idempotency_key: Option<Arc<str>>,
    /// Carried along and shown to every step.
    pub metadata: Vec<(Arc<str>, Arc<str>)>,
    /// The submitter's own choice of id, instead of a key.
    pub run_id: Option<RunId>,
    /// How long to wait for the end; zero: do not.
    pub wait: Duration,
}

/// The answer to a [`SubmitRequest`].
#[derive(Clone, Debug)]
pub struct Submitted {
    /// The run as of the answer.
    pub run: RunView,
    /// It was there before (same key, same input).
    pub existing: bool,
}

/// What a wait is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitUntil {
    /// The run is terminal.
    Terminal,
    /// The run has an event with a higher `seq`, or is terminal.
    Beyond(u32),
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its last event.
    pub seq: u32,
    /// Its status.
    pub status: RunStatus,
}

/// A request to change a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// End it.
    Cancel {
        /// In the asker's words.
        reason: Option<Arc<str>>,
    },
    /// Start no further attempts.
    Pause {
        /// In the asker's words.
        reason: Option<Arc<str>>,
    },
    /// Start attempts again.
    Resume {
        /// In the asker's words.
        reason: Option<Arc<str>>,
    },
    /// Go on with a failed or cancelled run.
    Retry {
        /// From this step's path or name; from all failed steps when absent.
        step: Option<Arc<str>>,
    },
}

impl Change {
    /// `cancel`, `pause`, `resume` or `retry`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Cancel { .. } => "cancel",
            Self::Pause { .. } => "pause",
            Self::Resume { .. } => "resume",
            Self::Retry { .. } => "retry",
        }
    }
}

/// Which log lines.
#[derive(Clone, Debug)]
pub struct LogQuery {
    /// Only lines after this one.
    pub after: Option<LogPosition>,
    /// Only of this step.
    pub step: Option<StepPath>,
    /// Only this grave or graver.
    pub level: Option<LogLevel>,
    /// At most so many.
    pub limit: usize,
}

/// Where a log line stands in its run: the event that carries it, and its place in there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogPosition {
    /// The event.
    pub seq: u32,
    /// Counts from 0 within the event.
    pub index: u32,
}

/// Which runs, newest first.
#[derive(Clone, Debug, Default)]
pub struct RunQuery {
    /// Only of this workflow.
    pub workflow: Option<String>,
    /// Only of this version.
    pub version: Option<u32>,
    /// Only with one of these; empty: any.
    pub status: Vec<RunStatus>,
    /// Only created at or after.
    pub created_from: Option<Timestamp>,
    /// Only created before.
    pub created_before: Option<Timestamp>,
    /// Only after this one in the order (created_at, id), descending.
    pub after: Option<RunPosition>,
    /// At most so many.
    pub limit: usize,
}

/// Where a run stands in the list of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunPosition {
    /// First key.
    pub created_at: Timestamp,
    /// Second key.
    pub id: RunId,
}

/// One page of runs.
#[derive(Clone, Debug, Default)]
pub struct RunPage {
    /// Descending by (created_at, id).
    pub runs: Vec<RunSummary>,
    /// There are more; the next page starts after the last of these.
    pub more: bool,
    /// Terminal runs may be missing, because ClickHouse cannot be asked.
    pub partial: bool,
}

/// A component to install.
#[derive(Clone, Debug)]
pub struct InstallPlugin {
    /// The component.
    pub wasm: Bytes,
    /// What the operator gives it, by kind (`http`: `["GET api.example.com"]`). Absent: as before for a known name,
    /// nothing for a new one.
    pub grants: Option<BTreeMap<String, Vec<String>>>,
    /// It may take the place of the same name and version with other content (a developer's next try). What was
    /// published before keeps its digest.
    pub replace: bool,
}

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

/// Why the host did not do it. Each case has its own problem type in the API.
#[derive(Debug, thiserror::Error)]
pub enum FacadeError {
    /// The document has mistakes.
    #[error("the workflow document has {} mistake(s)", .0.len())]
    Document(Vec<Diagnostic>),
    /// The workflow's schema refuses the input.
    #[error("the input does not fit the workflow's schema")]
    Input(Vec<InputMistake>),
    /// No such workflow.
    #[error("no workflow is called {name:?}")]
    UnknownWorkflow {
        /// What was asked for.
        name: String,
        /// Names that come near.
        near: Vec<String>,
    },
    /// The workflow has no such version.
    #[error("workflow {name:?} has no version {version}")]
    UnknownVersion {
        /// The workflow.
        name: String,
        /// What was asked for.
        version: u32,
        /// Its newest.
        newest: u32,
    },
    /// No such run.
    #[error("there is no run {0}")]
    UnknownRun(RunId),
    /// No such plugin, or not in this version.
    #[error("no plugin is called {name:?}")]
    UnknownPlugin {
        /// What was asked for.
        name: String,
        /// Names or versions that come near.
        near: Vec<String>,
    },
    /// A retry from a step that the workflow does not have.
    #[error("the run's workflow has no step {0:?}")]
    UnknownStep(Arc<str>),
    /// Same key, other input.
    #[error("the idempotency key was already used with other input, for run {0}")]
    KeyReused(RunId),
    /// The chosen id is taken.
    #[error("run {0} exists already")]
    RunExists(RunId),
    /// What was asked does not fit the run's status.
    #[error("run {run} is {status}")]
    WrongStatus {
        /// Which run.
        run: RunId,
        /// Where it stands.
        status: RunStatus,
    },
    /// The component is not one of ours, or breaks a limit.
    #[error("the component was refused: {message}")]
    PluginRefused {
        /// Stable, snake_case: `core_module`, `missing_export`, `unknown_import`...
        code: String,
        /// One sentence.
        message: String,
        /// How to mend it.
        hint: Option<String>,
    },
    /// That name and version are installed with another content.
    #[error("plugin {name}@{version} is installed with other content")]
    PluginExists {
        /// The name.
        name: String,
        /// The version.
        version: String,
    },
    /// A grant that does not parse.
    #[error("the grant {grant:?} does not parse: {message}")]
    Grant {
        /// As it was given.
        grant: String,
        /// One sentence.
        message: String,
    },
    /// Over a bound that the route does not check by itself.
    #[error("{what} has {actual_bytes} bytes, over the limit of {limit_bytes}")]
    TooLarge {
        /// `the input`, `the document`.
        what: &'static str,
        /// Its size.
        actual_bytes: usize,
        /// The bound.
        limit_bytes: usize,
    },
    /// More work than the host takes now.
    #[error("the host has more work than it takes: {why}")]
    Overloaded {
        /// Which bound is reached.
        why: String,
        /// When to come back.
        retry_after: Duration,
    },
    /// Nothing was written, because the disk is full.
    #[error("the journal's disk is full")]
    StorageFull,
    /// Starting, draining, or not the owner any more.
    #[error("the host is not ready: {why}")]
    NotReady {
        /// What is missing.
        why: String,
        /// When to come back.
        retry_after: Duration,
    },
    /// ClickHouse cannot be asked.
    #[error("ClickHouse cannot be asked: {why}")]
    StoreUnavailable {
        /// What is missing.
        why: String,
    },
    /// ClickHouse refused the statement.
    #[error("ClickHouse refused the statement: {message}")]
    Sql {
        /// Its words.
        message: String,
    },
    /// A fault of the host. The text goes to the host's log; the caller learns nothing of it.
    #[error("internal: {0}")]
    Internal(String),
}
