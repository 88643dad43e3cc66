//! Trying again, for what librdkafka does not try again by itself: making clients, asking for metadata at the start,
//! starting transactions. The waiting grows exponentially with jitter (the `backoff` crate) and ends at a bound.

use std::time::Duration;

use backoff::{ExponentialBackoff, ExponentialBackoffBuilder};

use crate::error::JournalError;

/// The first wait.
const FIRST_WAIT: Duration = Duration::from_millis(20);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Whether another try can help.
pub(crate) enum Failed {
    /// It may work later.
    Later(JournalError),
    /// It will not.
    Forever(JournalError),
}

/// Tries `work` until it succeeds, fails for good, or `within` is over. Blocks.
pub(crate) fn until<T>(
    within: Duration,
    what: &str,
    mut work: impl FnMut() -> Result<T, Failed>,
) -> Result<T, JournalError> {
    let tried = backoff::retry_notify(
        policy(within),
        || {
            work().map_err(|failed| match failed {
                Failed::Later(error) => backoff::Error::transient(error),
                Failed::Forever(error) => backoff::Error::permanent(error),
            })
        },
        |error: JournalError, wait: Duration| {
            tracing::info!(what, %error, wait_ms = wait.as_millis() as u64, "trying Kafka again");
        },
    );
    tried.map_err(|error| match error {
        backoff::Error::Permanent(error) | backoff::Error::Transient { err: error, .. } => error,
    })
}

fn policy(within: Duration) -> ExponentialBackoff {
    ExponentialBackoffBuilder::new()
        .with_initial_interval(FIRST_WAIT)
        .with_max_interval(LONGEST_WAIT)
        .with_max_elapsed_time(Some(within))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error() -> JournalError {
        JournalError::Kafka { what: "test".into(), why: "not yet".into() }
    }

    #[test]
    fn it_is_tried_until_it_works() {
        let mut tries = 0;
        let done = until(Duration::from_secs(10), "a test", || {
            tries += 1;
            if tries < 3 { Err(Failed::Later(error())) } else { Ok(tries) }
        });
        assert!(matches!(done, Ok(3)));
    }

    #[test]
    fn it_ends_at_its_bound_or_when_it_cannot_work() {
        let late = until(Duration::from_millis(50), "a test", || Err::<(), _>(Failed::Later(error())));
        assert!(late.is_err());
        let mut tries = 0;
        let never = until(Duration::from_secs(60), "a test", || {
            tries += 1;
            Err::<(), _>(Failed::Forever(error()))
        });
        assert!(never.is_err());
        assert_eq!(tries, 1);
    }
}
