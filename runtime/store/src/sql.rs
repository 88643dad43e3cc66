//! Users' own SQL: one statement that reads, with bounds, in the format that they ask for.
//!
//! ClickHouse itself refuses to write (`readonly = 1`) and bounds time, rows and bytes; `guard.rs` refuses what a
//! readonly session of the embedded engine would still do to files. `final = 1` is what makes
//! `SELECT step, output FROM attempts` right while replaced rows are not merged yet.

use bytes::{Bytes, BytesMut};
use clickhouse::{error::Error, query::Query};

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
            .with_setting("max_memory_usage", config.sql_memory_bytes_max.to_string())
            // Paths of steps are full of slashes.
            .with_setting("output_format_json_escape_forward_slashes", "0")
            .with_setting("readonly", "1");
        let result = collect(query, format, config.sql_bytes_max);
        // The server stops by itself; twice its time is for one that does not.
        match tokio::time::timeout(config.sql_timeout * 2, result).await {
            Ok(Ok(Some(bytes))) => Ok(bytes),
            Ok(Ok(None)) => {
                let bound = config.sql_bytes_max;
                Err(StoreError::Refused(format!(
                    "the answer has more than {bound} bytes; select less, or add LIMIT"
                )))
            }
            Ok(Err(Error::BadResponse(message))) => Err(StoreError::Refused(message)),
            Ok(Err(error @ Error::Network(_))) => {
                self.inner.link.doubt.notify_one();
                Err(StoreError::Unavailable(with_sources(&error)))
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(StoreError::Timeout { seconds: seconds * 2 }),
        }
    }
}

/// The whole answer, or nothing if it has more than `bytes_max`. (ClickHouse's own bound counts a repeated constant
/// once.)
async fn collect(query: Query, format: &str, bytes_max: u64) -> Result<Option<Bytes>, Error> {
    let mut cursor = query.fetch_bytes(format)?;
    let mut answer = BytesMut::new();
    while let Some(chunk) = cursor.next().await? {
        if (answer.len() + chunk.len()) as u64 > bytes_max {
            return Ok(None);
        }
        answer.extend_from_slice(&chunk);
    }
    Ok(Some(answer.freeze()))
}
