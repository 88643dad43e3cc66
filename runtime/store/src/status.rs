//! Where the connection to ClickHouse stands, as the host shows it.

use std::fmt;

/// Whether there is a ClickHouse to talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// The first try is under way.
    Starting,
    /// Connected, schema in place.
    Ready {
        /// ClickHouse's version.
        version: String,
    },
    /// Not now; it is tried again and again.
    Down {
        /// In a sentence.
        why: String,
    },
    /// The embedded engine's library is missing or unusable; looked for again and again.
    Absent {
        /// Which paths were looked at and how to get it.
        why: String,
    },
}

impl Status {
    /// Whether it can be used.
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Ready { .. })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("starting"),
            Self::Ready { .. } => f.write_str("ready"),
            Self::Down { why } | Self::Absent { why } => f.write_str(why),
        }
    }
}
