//! What the HTTP API asks of a host, and what it gets: one trait and the plain types around it.
//!
//! The API knows nothing else of the host: no owner loop, no engine, no ClickHouse. `App` implements [`Facade`]; tests
//! implement it in memory. The views serialise to exactly the JSON that the API documents, and the CLI reads the same
//! types back.

mod alerts;
mod attempts;
mod breakers;
mod error;
mod limits;
mod requests;
mod views;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reipaz_core::ids::RunId;
use reipaz_engine::BreakerId;
use tokio_util::sync::CancellationToken;

pub(crate) use self::error::RETRY_AFTER;
pub use self::{alerts::*, attempts::*, breakers::*, error::FacadeError, limits::*, requests::*, views::*};

/// All that the API needs of a host. Every method answers in bounded time; the ones that wait say for how long.
///
/// Promise 7 binds all of them: nothing that is not yet durable is shown.
#[async_trait]
pub trait Facade: Send + Sync + 'static {
    /// Checks a document and, if it is sound, stores it as a version. Identical content gives the version it had.
    async fn publish(&self, text: &str) -> Result<PublishedWorkflow, FacadeError>;
    /// Checks a document against the installed plugins and stores nothing.
    async fn validate(&self, text: &str, explain: bool) -> Result<ValidatedWorkflow, FacadeError>;
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
    /// What this host alerts of. Never waits.
    fn alerts(&self) -> AlertsView;
    /// Sends a test alert to each webhook and says what came of it.
    async fn test_alerts(&self) -> AlertsTest;
    /// This host's circuit breakers. Never waits.
    fn breakers(&self) -> BreakersView;
    /// Opens or closes one by hand; they as they stand then.
    fn change_breaker(&self, id: &BreakerId, hand: BreakerHand) -> BreakersView;
    /// The limits whose places this host gives.
    async fn limits(&self) -> Result<LimitsView, FacadeError>;
    /// Whether this host takes work, and what each part of it says. Never waits.
    fn readiness(&self) -> Readiness;
    /// Cancelled once the host drains: waits and streams then end with what they have.
    fn draining(&self) -> CancellationToken;
}
