//! Calls that block (a disk's, librdkafka's), on threads that may.

use crate::error::JournalError;

/// Runs what blocks where it may.
pub(crate) async fn unblock<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, JournalError> + Send + 'static,
) -> Result<T, JournalError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(JournalError::Closed),
    }
}
