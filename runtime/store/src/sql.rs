//! Users' own SQL: one statement that reads, with bounds, in the format that they ask for.
//!
//! ClickHouse itself refuses to write (`readonly = 1`) and bounds time, rows and bytes; `guard.rs` refuses what a
//! readonly session of the embedded engine would still do to files. `final = 1` is what makes
//! `SELECT step, output FROM attempts` right while replaced rows are not merged yet.

use bytes::Bytes;

use crate::{
    error::{StoreError, with_sources},
    guard,
    store::Store,
};

impl Store {
    /// Runs one reading statement in the database; `format` is one of ClickHouse's (`JSONEachRow`), for statements
    /// without a FORMAT of their own.
    pub async fn sql(&self, query: &str, format: &str) -> Result<Bytes, StoreError> {
        guard::check(query).map_err(|error| StoreError::Refused(error.to_string()))?;
        if format.is_empty() || !format.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(StoreError::Refused(format!("{format:?} is no name of a format")));
        }
        let config = &self.inner.config;
        let busy = StoreError::Busy { limit: config.sql_parallel_max };
        let _turn = self.inner.sql_turns.try_acquire().map_err(|_| busy)?;
        let seconds = config.sql_timeout.as_secs().max(1);
        let query = self
            .client()?
            .query_raw(query)
            .with_setting("final", "1")
            .with_setting("max_execution_time", seconds.to_string())
            .with_setting("max_result_rows", config.sql_rows_max.to_string())
            .with_setting("max_result_bytes", config.sql_bytes_max.to_string())
            .with_setting("result_overflow_mode", "throw")
            .with_setting("readonly", "1");
        let result = async { query.fetch_bytes(format)?.collect().await };
        // The server stops by itself; twice its time is for one that does not.
        match tokio::time::timeout(config.sql_timeout * 2, result).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(clickhouse::error::Error::BadResponse(message))) => Err(StoreError::Refused(message)),
            Ok(Err(error @ clickhouse::error::Error::Network(_))) => {
                self.inner.link.doubt.notify_one();
                Err(StoreError::Unavailable(with_sources(&error)))
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(StoreError::Timeout { seconds: seconds * 2 }),
        }
    }
}
