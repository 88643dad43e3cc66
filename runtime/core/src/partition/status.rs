//! What a run and its steps can be seen to be doing.

use std::fmt;

use serde::{Deserialize, Serialize};

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
