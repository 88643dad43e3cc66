//! Waiting for what gives no signal: a condition is looked at again and again until a deadline, never just slept for.

use std::{
    future::Future,
    time::{Duration, Instant},
};

/// How often a condition is looked at.
const EVERY: Duration = Duration::from_millis(20);

/// Looks until `condition` gives something, and panics with `what` after `within`.
pub async fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    within: Duration,
    mut condition: impl FnMut() -> F,
) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(begin.elapsed() < within, "waited {within:?} in vain for: {what}");
        tokio::time::sleep(EVERY).await;
    }
}
