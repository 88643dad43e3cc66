//! The host's view of its circuit breakers, which are the engine's: shown, opened and closed by hand, counted, and told to
//! whoever is alerted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use reipaz_core::time::Timestamp;
use reipaz_engine::{BreakerChange, BreakerId, BreakerState, Breakers, Engine};
use tokio::sync::broadcast::error::RecvError;

use crate::{
    alerts::Alerts,
    facade::{BreakerHand, BreakerView, BreakersView},
};

/// Changes of breakers since this host started, by the state that they came to.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    opened: AtomicU64,
    half_opened: AtomicU64,
    closed: AtomicU64,
}

impl Changes {
    /// By state.
    pub(crate) fn counts(&self) -> [(BreakerState, u64); 3] {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            (BreakerState::Open, read(&self.opened)),
            (BreakerState::HalfOpen, read(&self.half_opened)),
            (BreakerState::Closed, read(&self.closed)),
        ]
    }

    fn count(&self, to: BreakerState) {
        let counter = match to {
            BreakerState::Open => &self.opened,
            BreakerState::HalfOpen => &self.half_opened,
            BreakerState::Closed => &self.closed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts changes and has them told, for as long as it is polled.
pub(crate) async fn follow(engine: Engine, alerts: Arc<Alerts>, counted: Arc<Changes>) {
    let mut changes = engine.breakers().changes();
    loop {
        match changes.recv().await {
            Ok(change) => {
                counted.count(change.to);
                tell(&alerts, &change);
            }
            // What was missed is seen as it stands now.
            Err(RecvError::Lagged(_)) => engine.breakers().list().iter().for_each(|breaker| {
                let name = &breaker.id.name;
                alerts.breaker_changed(breaker.id.kind.as_str(), name, breaker.state, "");
            }),
            Err(RecvError::Closed) => return,
        }
    }
}

fn tell(alerts: &Alerts, change: &BreakerChange) {
    let why = match (change.by_hand, change.to) {
        (true, _) => "by hand",
        (false, BreakerState::Open) if change.from == BreakerState::HalfOpen => "a probe failed",
        (false, BreakerState::Open) => "too many calls failed",
        (false, BreakerState::HalfOpen) => "a few calls are let through",
        (false, BreakerState::Closed) => "the probes passed",
    };
    alerts.breaker_changed(change.id.kind.as_str(), &change.id.name, change.to, why);
}

/// All of them.
pub(crate) fn view(breakers: &Breakers) -> BreakersView {
    let view = |breaker: reipaz_engine::BreakerView| BreakerView {
        kind: breaker.id.kind,
        name: breaker.id.name,
        state: breaker.state,
        held: breaker.held,
        since: timestamp(breaker.since),
        opens_in_ms: breaker.opens_in.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        failures: breaker.failures,
        calls: breaker.calls,
    };
    BreakersView { breakers: breakers.list().into_iter().map(view).collect() }
}

/// Opens or closes one by hand. To close what nobody knows is to leave it closed.
pub(crate) fn by_hand(breakers: &Breakers, id: &BreakerId, hand: BreakerHand) {
    match hand {
        BreakerHand::Open => breakers.hold_open(id),
        BreakerHand::Close => drop(breakers.close(id)),
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    let micros = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros();
    Timestamp(u64::try_from(micros).unwrap_or(u64::MAX))
}
