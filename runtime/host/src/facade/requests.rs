//! What the API hands over, and the answers that are no views.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use reipaz_core::{
    event::LogLevel,
    ids::{RunId, StepPath},
    json::Json,
    partition::{Again, RunStatus},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use super::views::{RunSummary, RunView};

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
    /// Go on with a failed or cancelled run, or with one that was paused after a failure.
    Retry(Again),
}

impl Change {
    /// `cancel`, `pause`, `resume` or `retry`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Cancel { .. } => "cancel",
            Self::Pause { .. } => "pause",
            Self::Resume { .. } => "resume",
            Self::Retry(_) => "retry",
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
    /// Only those in memory here: another host asks, and merges the answers.
    pub only_here: bool,
    /// The query as it was sent, for other hosts.
    pub text: String,
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
