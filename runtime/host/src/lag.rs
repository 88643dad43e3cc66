//! How many tasks wait in the topic: what its end is ahead of what the owners here have taken up. An operator sees by it that
//! intake is paused, or that there are too few hosts.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use reipaz_journal::Tasks;

use crate::owner::OwnerStatus;

/// One question to the broker for each owned partition.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// So many on one partition are worth a line in the log; and another when there are fewer again.
const WORTH_SAYING: u64 = 1_000;

/// Measures for ever.
pub(crate) async fn watch(tasks: Arc<dyn Tasks>, owners: Vec<Arc<OwnerStatus>>) {
    let mut behind = vec![false; owners.len()];
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        for (partition, (owner, behind)) in (0..).zip(owners.iter().zip(&mut behind)) {
            if !owner.owned.load(Ordering::Acquire) {
                (*behind, _) = (false, owner.lag.swap(0, Ordering::Relaxed));
                continue;
            }
            let end = match tasks.end(partition).await {
                Ok(end) => end,
                Err(error) => {
                    tracing::debug!(partition, %error, "the end of the tasks is not known");
                    continue;
                }
            };
            let lag = end.saturating_sub(owner.taken_up.load(Ordering::Relaxed));
            owner.lag.store(lag, Ordering::Relaxed);
            if *behind != (lag >= WORTH_SAYING) {
                *behind = !*behind;
                let what = if *behind { "many tasks wait in the topic" } else { "few tasks wait any more" };
                tracing::info!(partition, lag, "{what}");
            }
        }
    }
}
