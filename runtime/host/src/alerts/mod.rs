//! Alerts: what operators are told without asking. Recurring failures, open breakers, runs past their deadlines, a sink that
//! is behind; at `/v1/alerts`, in the metrics, and to webhooks.
//!
//! | file | holds |
//! |---|---|
//! | `tap.rs` | where owners tell of failures, once they are durable, without waiting |
//! | `pattern.rs`, `sink_lag.rs` | when a rate, a lag, is too much: pure |
//! | `conditions.rs` | what each kind of alert says: pure |
//! | `board.rs` | what fires, and the rule against repetition: pure |
//! | `watch.rs` | the task that joins these |
//! | `message.rs`, `deliver.rs` | the format of webhooks, and the way there |
//! | `config.rs` | `[alerts]` |
//!
//! Alerts are this host's own and live in its memory: after a restart a condition that still holds is told again, under the
//! fingerprint it had, and one that ended meanwhile is not told as resolved. Prometheus' rules (`docs/reipaz.rules.yml`) find
//! the same from outside, and a host that is gone.

mod board;
mod conditions;
pub(crate) mod config;
mod deliver;
mod message;
mod pattern;
mod sink_lag;
mod tap;
#[cfg(test)]
mod tests;
mod watch;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use reipaz_engine::BreakerState;

use self::{board::Board, config::AlertsConfig, deliver::Outbox};
pub(crate) use self::{
    tap::Tap,
    watch::{Watch, Watched},
};
use crate::{
    clock::wall,
    config::ConfigError,
    facade::{AlertKind, AlertsTest, AlertsView},
    secrets::SecretStore,
};

/// Breakers whose change was not looked at yet: for each the newest counts.
const BREAKERS_MAX: usize = 1_024;

/// By kind and name: its state and why.
type Breakers = BTreeMap<(String, String), (BreakerState, String)>;

/// See the module. Nothing here waits but [`Alerts::test`].
pub(crate) struct Alerts {
    config: AlertsConfig,
    board: Mutex<Board>,
    breakers: Mutex<Breakers>,
    outbox: Outbox,
    tap: Tap,
    /// Failures that came faster than they were looked at.
    unseen: Arc<AtomicU64>,
    /// Conditions beyond what is watched at one time.
    untracked: AtomicU64,
}

/// Counts, as the metrics show them.
pub(crate) struct Counts {
    /// By kind.
    pub(crate) firing: [(AlertKind, usize); 4],
    /// By outcome: requests to webhooks.
    pub(crate) deliveries: [(&'static str, u64); 4],
    /// By what was dropped.
    pub(crate) dropped: [(&'static str, u64); 3],
}

impl Alerts {
    /// And the task that makes them, which is to be run.
    pub(crate) fn new(
        config: &AlertsConfig,
        secrets: &SecretStore,
    ) -> Result<(Arc<Self>, Watch), ConfigError> {
        let (outbox, lanes) = Outbox::new(config, secrets)?;
        let unseen = Arc::<AtomicU64>::default();
        let (tap, wrongs) = Tap::new(Arc::clone(&unseen));
        let alerts = Arc::new(Self {
            config: config.clone(),
            board: Mutex::new(Board::new(String::new(), config.repeat_every)),
            breakers: Mutex::default(),
            outbox,
            tap,
            unseen,
            untracked: AtomicU64::new(0),
        });
        Ok((Arc::clone(&alerts), Watch::new(alerts, wrongs, lanes)))
    }

    /// What alerts call this host; before anything fires.
    pub(crate) fn set_host(&self, host: String) {
        self.board().set_host(host);
    }

    /// Where owners tell of what went wrong.
    pub(crate) fn tap(&self) -> Tap {
        self.tap.clone()
    }

    /// A breaker has changed. `kind` and `name` say which (`authority`, `api.example.com:443`). Never waits; it is told within
    /// a second, as it is by then.
    pub(crate) fn breaker_changed(&self, kind: &str, name: &str, state: BreakerState, why: &str) {
        let key = (kind.to_owned(), name.to_owned());
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        if breakers.len() < BREAKERS_MAX || breakers.contains_key(&key) {
            breakers.insert(key, (state, why.to_owned()));
        } else {
            self.untracked();
        }
    }

    /// What fires, and what is over.
    pub(crate) fn view(&self) -> AlertsView {
        let (firing, recent) = self.board().shown();
        AlertsView { firing, recent, webhooks: self.outbox.webhooks() }
    }

    /// Sends a test alert to each webhook. `url` is where the host is reached.
    pub(crate) async fn test(&self, url: &str) -> AlertsTest {
        let now = wall();
        let alert = Arc::new(self.board().alert(now, conditions::test(now)));
        AlertsTest { webhooks: self.outbox.test(&alert, url).await }
    }

    /// See [`Counts`].
    pub(crate) fn counts(&self) -> Counts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let outcomes = self.outbox.outcomes();
        let board = self.board();
        Counts {
            firing: AlertKind::CONDITIONS.map(|kind| (kind, board.count(kind))),
            deliveries: [
                ("delivered", read(&outcomes.delivered)),
                ("retried", read(&outcomes.retried)),
                ("refused", read(&outcomes.refused)),
                ("gave_up", read(&outcomes.gave_up)),
            ],
            dropped: [
                ("alert", read(&outcomes.dropped)),
                ("failure", read(&self.unseen)),
                ("pattern", read(&self.untracked)),
            ],
        }
    }

    fn take_breakers(&self) -> Breakers {
        std::mem::take(&mut *self.breakers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn untracked(&self) {
        self.untracked.fetch_add(1, Ordering::Relaxed);
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
