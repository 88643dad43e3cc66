//! Why a host does not do what it is asked for.

use std::{sync::Arc, time::Duration};

use reipaz_core::{
    document::Diagnostic,
    ids::{RunId, StepPath},
    partition::RunStatus,
    plan::InputMistake,
};

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
    /// A retry of a run that was refused when it was taken up.
    #[error("run {0} never started: its task was refused; submit it again, under another key")]
    NeverStarted(RunId),
    /// A retry of a run that has left the memory of its owner.
    #[error("run {0} was let go: it ended too long ago, or too many runs have failed since")]
    Forgotten(RunId),
    /// A retry that would start a step afresh which is being executed.
    #[error("the step {0} is still being executed")]
    StepRunning(StepPath),
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
    /// Another host owns the partition by now.
    #[error("this host does not own partition {0}")]
    Moved(u32),
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

/// What a client is told to wait when a bound is reached, or the host stops.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

impl FacadeError {
    /// The host is stopping; the next one answers.
    pub(crate) fn stopping() -> Self {
        Self::NotReady { why: "it is stopping".to_owned(), retry_after: RETRY_AFTER }
    }
}
