//! What can go wrong between Reipaz and ClickHouse, by what the caller can do about it.

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No ClickHouse at the moment (or at all): try again when [`crate::Store::status`] says so.
    #[error("ClickHouse is not available: {0}")]
    Unavailable(String),
    /// ClickHouse, or the guard before it, refused a user's statement; its words are for the user.
    #[error("{0}")]
    Refused(String),
    /// The bound on users' queries at once is reached: try again shortly.
    #[error("{limit} queries are already running; try again shortly")]
    Busy {
        /// The bound.
        limit: usize,
    },
    /// It took too long.
    #[error("ClickHouse did not answer within {seconds} s")]
    Timeout {
        /// The bound.
        seconds: u64,
    },
    /// A row that is not as this program writes it: another release's, or somebody else's.
    #[error("a row in ClickHouse cannot be read: {0}")]
    Row(String),
}

impl StoreError {
    /// Whether the same call may succeed later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Busy { .. } | Self::Timeout { .. })
    }
}

/// Of a query or insert of Reipaz's own: what the server refuses now, it may take later (memory, disk).
impl From<clickhouse::error::Error> for StoreError {
    fn from(error: clickhouse::error::Error) -> Self {
        use clickhouse::error::Error;
        match error {
            Error::Network(source) => Self::Unavailable(with_sources(&*source)),
            Error::TimedOut => Self::Unavailable("it does not answer".to_owned()),
            Error::BadResponse(message) => Self::Unavailable(message),
            other => Self::Row(other.to_string()),
        }
    }
}

/// An error and what caused it, in one line.
pub(crate) fn with_sources(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}
