//! What a run and its steps can be seen to be doing.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use super::StepStatus;
use crate::{
    event::{Progress, SkipReason},
    failure::Failure,
    ids::StepPath,
    json::Json,
    time::Timestamp,
};

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Accepted; its first attempt has not started yet.
    Pending,
    /// At least one attempt, or the evaluation of its output, is being executed.
    Running,
    /// Nothing is being executed and something is awaited: the time of a retry, say.
    Waiting,
    /// Somebody paused it: no attempt starts until it is resumed.
    Paused,
    /// Over, with an output.
    Completed,
    /// Over, with an error.
    Failed,
    /// Over, because somebody asked.
    Cancelled,
}

impl RunStatus {
    /// The status as it stands in JSON and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the run is over.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a run or a step that is not over waits for. In JSON: `{"for": "retry", "due": "..."}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "for", rename_all = "snake_case")]
pub enum WaitingFor {
    /// These steps to end.
    Steps {
        /// Where they stand.
        steps: Vec<StepPath>,
    },
    /// An attempt to end.
    Attempt {
        /// Its number.
        attempt: u32,
        /// When it was decided.
        since: Timestamp,
    },
    /// The time of the next attempt.
    Retry {
        /// The number that it will have.
        attempt: u32,
        /// When.
        due: Timestamp,
    },
    /// A circuit breaker to let it through.
    Breaker {
        /// Which.
        breaker: Arc<str>,
        /// When it looks again.
        due: Timestamp,
    },
    /// A place under a limit.
    Limit {
        /// Which, in words.
        limit: Arc<str>,
        /// Since when.
        since: Timestamp,
    },
    /// Somebody to resume the run.
    Resume,
    /// The run's output to be evaluated.
    Output,
}

/// One step of a run as others may see it.
#[derive(Clone, Debug)]
pub struct StepView<'r> {
    /// Where it stands.
    pub path: &'r StepPath,
    /// Its name in the document.
    pub name: &'r Arc<str>,
    /// Where it has got to.
    pub status: StepStatus,
    /// False for a step of an `on_failure` that nothing has called for: it is as good as not there.
    pub called: bool,
    /// Attempts started so far. (A retried run counts on, so that no attempt's identity comes twice.)
    pub attempts: u32,
    /// Its output, once completed.
    pub output: Option<&'r Json>,
    /// The failure of its last attempt, once failed. Of a completed step: what its `on_failure` let it complete in spite of.
    pub error: Option<&'r Failure>,
    /// Why it was skipped.
    pub skipped: Option<&'r SkipReason>,
    /// What it waits for, unless it is over.
    pub waiting_for: Option<WaitingFor>,
    /// What its running attempt last told about its progress.
    pub progress: Option<&'r Progress>,
}
