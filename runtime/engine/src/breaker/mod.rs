//! Circuit breakers, one for each plugin and for each remote authority that guests call: while the other side fails, nothing
//! is sent to it, and attempts that need it are parked instead of failing one after the other.
//!
//! They are this host's own: another host that sees the same failures opens its own. The state machine is in `state.rs`;
//! here are all of them by name, bounded in number, and who is told when one changes.
//!
//! What counts: of an authority, no answer (refused, reset, a name that does not resolve, a wait of a second or more) and the
//! statuses 500, 502, 503 and 504. Of a plugin, a trap or a limit that it ran into, and whatever else passes by itself if the
//! attempt called nobody: else the authority is to blame. It counts for each workflow by itself: what one workflow feeds a
//! plugin must not stop it for the others. Only a hand stops a plugin for all of them.

mod state;

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::{sync::broadcast, time::Instant};
use tokio_util::sync::CancellationToken;

use self::state::Breaker;
pub(crate) use self::state::Told;
pub use self::state::{BreakerRules, BreakerState};

/// No more breakers than this. Those that are closed and have counted nothing for a while make room; if there are none,
/// what is new goes without.
const BREAKERS_MAX: usize = 4_096;

/// How often it is looked for room: that takes a look at every breaker.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Changes that nobody has taken yet; a slow listener misses the oldest.
const CHANGES: usize = 256;

/// A call that nobody waits for any longer, without an answer, counts as a failure if it was waited for so long: that is how
/// a server that stalls looks from here.
pub(crate) const STALLED_AFTER: Duration = Duration::from_secs(1);

/// What a breaker is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerKind {
    /// A plugin's version in one workflow: `acme/score@1.2.0 in orders`; or in all, if a hand holds it: `acme/score@1.2.0`.
    Plugin,
    /// A scheme, host and port that guests call: `https://shop.example:443`.
    Authority,
}

impl BreakerKind {
    /// The word in JSON, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plugin => "plugin",
            Self::Authority => "authority",
        }
    }
}

/// Which breaker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BreakerId {
    /// What it is for.
    pub kind: BreakerKind,
    /// Its name.
    pub name: Arc<str>,
}

impl fmt::Display for BreakerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}

/// A breaker as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerView {
    /// Which.
    pub id: BreakerId,
    /// Where it stands.
    pub state: BreakerState,
    /// Held open by hand.
    pub held: bool,
    /// Whether it ever stood elsewhere.
    pub changed: bool,
    /// Since when.
    pub since: SystemTime,
    /// Open: how long until it lets probes through; none when a hand holds it.
    pub opens_in: Option<Duration>,
    /// Failures in the window.
    pub failures: u32,
    /// All outcomes in the window.
    pub calls: u32,
}

/// A breaker has changed.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerChange {
    /// Which.
    pub id: BreakerId,
    /// What it was.
    pub from: BreakerState,
    /// What it is.
    pub to: BreakerState,
    /// By hand.
    pub by_hand: bool,
    /// When.
    pub at: SystemTime,
}

/// An attempt that a breaker did not let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// Which.
    pub breaker: BreakerId,
    /// When to look again: spread, so that not all come at once.
    pub recheck: Duration,
}

/// All breakers of this host.
pub struct Breakers {
    rules: BreakerRules,
    known: RwLock<HashMap<BreakerId, Arc<One>>>,
    changes: broadcast::Sender<BreakerChange>,
    /// When room was last made.
    looked_at: Mutex<Option<Instant>>,
    /// What spreads the rechecks.
    drawn: AtomicU64,
    spread: RandomState,
}

struct One {
    id: BreakerId,
    inner: Mutex<(Breaker, SystemTime)>,
}

/// A call that was let through. It must be told how the call went; dropped, it is told that nobody waited any longer.
pub(crate) struct Ticket<'b> {
    of: Option<(&'b Breakers, Arc<One>, u64)>,
    began: Instant,
    cancel: Option<CancellationToken>,
}

impl Breakers {
    /// All closed.
    pub(crate) fn new(rules: BreakerRules) -> Self {
        Self {
            rules,
            known: RwLock::default(),
            changes: broadcast::channel(CHANGES).0,
            looked_at: Mutex::default(),
            drawn: AtomicU64::new(0),
            spread: RandomState::new(),
        }
    }

    /// Told at every change from here on.
    pub fn changes(&self) -> broadcast::Receiver<BreakerChange> {
        self.changes.subscribe()
    }

    /// Asks to call; see [`Ticket`].
    pub(crate) fn ask(&self, id: BreakerId) -> Result<Ticket<'_>, Parked> {
        let began = Instant::now();
        let Some(one) = self.get(&id) else { return Ok(Ticket { of: None, began, cancel: None }) };
        let asked = self.change(&one, false, |breaker| match breaker.ask(began) {
            Ok(()) => Ok(breaker.phase_number),
            Err(wait) => Err((wait, breaker.spread())),
        });
        match asked {
            Ok(phase) => Ok(Ticket { of: Some((self, one, phase)), began, cancel: None }),
            Err((wait, spread)) => Err(Parked { breaker: id, recheck: wait + self.some_of(spread) }),
        }
    }

    /// Asks for an attempt of a plugin.
    pub(crate) fn ask_for_plugin(&self, plugin: &Arc<str>, workflow: &str) -> Result<Ticket<'_>, Parked> {
        let of = |name: Arc<str>| BreakerId { kind: BreakerKind::Plugin, name };
        let all = of(Arc::clone(plugin));
        let held = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&all).cloned();
        if held.is_some_and(|one| one.lock().0.is_held()) {
            self.ask(all)?;
        }
        self.ask(of(format!("{plugin} in {workflow}").into()))
    }

    /// Opens a breaker until it is closed by hand. It need not be known yet.
    pub fn hold_open(&self, id: &BreakerId) {
        if let Some(one) = self.get(id) {
            self.change(&one, true, Breaker::hold_open);
        }
    }

    /// Closes a breaker, which goes on by itself from there. False: there is none of that name.
    pub fn close(&self, id: &BreakerId) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        let Some(one) = known else { return false };
        self.change(&one, true, |breaker| breaker.close(Instant::now()));
        true
    }

    /// All that have been asked, by kind and name.
    pub fn list(&self) -> Vec<BreakerView> {
        let now = Instant::now();
        let known: Vec<_> = {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            known.values().cloned().collect()
        };
        let mut list: Vec<_> = known
            .into_iter()
            .map(|one| {
                let mut inner = one.lock();
                let (breaker, since) = &mut *inner;
                let counts = breaker.counts(now);
                BreakerView {
                    id: one.id.clone(),
                    state: breaker.state(),
                    held: breaker.is_held(),
                    changed: breaker.phase_number > 0,
                    since: *since,
                    opens_in: breaker.opens_at().map(|at| at.saturating_duration_since(now)),
                    failures: counts.failed,
                    calls: counts.failed.saturating_add(counts.passed),
                }
            })
            .collect();
        list.sort_by(|a, b| a.id.cmp(&b.id));
        list
    }

    fn get(&self, id: &BreakerId) -> Option<Arc<One>> {
        if !self.rules.enabled {
            return None;
        }
        if let Some(one) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(id) {
            return Some(Arc::clone(one));
        }
        let now = Instant::now();
        let mut looked_at = self.looked_at.lock().unwrap_or_else(PoisonError::into_inner);
        let full = self.known.read().unwrap_or_else(PoisonError::into_inner).len() >= BREAKERS_MAX;
        if full && looked_at.is_some_and(|at| now.duration_since(at) < LOOK_EVERY) {
            return None;
        }
        *looked_at = Some(now);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= BREAKERS_MAX && !known.contains_key(id) {
            known.retain(|_, one| {
                let breaker = &mut one.lock().0;
                breaker.state() != BreakerState::Closed || breaker.counts(now) != state::Counts::default()
            });
            if known.len() >= BREAKERS_MAX {
                return None;
            }
        }
        let one = known.entry(id.clone()).or_insert_with(|| {
            let inner = Mutex::new((Breaker::new(self.rules, now), SystemTime::now()));
            Arc::new(One { id: id.clone(), inner })
        });
        Some(Arc::clone(one))
    }

    /// Does something to a breaker, and tells if that changed where it stands.
    fn change<T>(&self, one: &One, by_hand: bool, what: impl FnOnce(&mut Breaker) -> T) -> T {
        let mut inner = one.lock();
        let from = inner.0.state();
        let done = what(&mut inner.0);
        let to = inner.0.state();
        if from != to {
            let at = SystemTime::now();
            inner.1 = at;
            tracing::warn!(
                breaker = one.id.kind.as_str(),
                name = &*one.id.name,
                from = from.as_str(),
                to = to.as_str(),
                by_hand,
                "circuit breaker changed"
            );
            // Nobody may be listening.
            drop(self.changes.send(BreakerChange { id: one.id.clone(), from, to, by_hand, at }));
        }
        done
    }

    /// Evenly up to that.
    fn some_of(&self, at_most: Duration) -> Duration {
        let drawn = self.spread.hash_one(self.drawn.fetch_add(1, Ordering::Relaxed));
        at_most.mul_f64(drawn as f64 / u64::MAX as f64)
    }
}

impl One {
    fn lock(&self) -> MutexGuard<'_, (Breaker, SystemTime)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket<'_> {
    /// Whoever waits for the answer may be cancelled, which says nothing.
    pub(crate) fn unless_cancelled(mut self, cancel: CancellationToken) -> Self {
        self.cancel = Some(cancel);
        self
    }

    /// For how long the call has gone on.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// How the call went.
    pub(crate) fn tell(mut self, told: Told) {
        self.told(told);
    }

    fn told(&mut self, told: Told) {
        if let Some((breakers, one, phase)) = self.of.take() {
            breakers.change(&one, false, |breaker| breaker.tell(phase, told, Instant::now()));
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let cancelled = self.cancel.as_ref().is_some_and(CancellationToken::is_cancelled);
        let stalled = !cancelled && self.began.elapsed() >= STALLED_AFTER;
        self.told(if stalled { Told::Failed } else { Told::Nothing });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shop() -> BreakerId {
        BreakerId { kind: BreakerKind::Authority, name: "https://shop.example:443".into() }
    }

    fn breakers() -> Breakers {
        Breakers::new(BreakerRules { failures: 2, probes: 1, ..BreakerRules::default() })
    }

    fn fail(breakers: &Breakers) {
        breakers.ask(shop()).expect("it is closed").tell(Told::Failed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_told_and_rechecks_are_spread() {
        let breakers = breakers();
        let mut changes = breakers.changes();
        fail(&breakers);
        assert!(changes.try_recv().is_err());
        fail(&breakers);
        let change = changes.try_recv().expect("it opened");
        assert_eq!((change.id, change.from, change.to), (shop(), BreakerState::Closed, BreakerState::Open));

        let rechecks: Vec<_> =
            (0..100).map(|_| breakers.ask(shop()).err().expect("it is open").recheck).collect();
        assert!(rechecks.iter().all(|recheck| (5..=10).contains(&recheck.as_secs())), "{rechecks:?}");
        let early = rechecks.iter().filter(|recheck| recheck.as_millis() < 7_500).count();
        assert!((25..75).contains(&early), "{early} of 100 in the first half");

        tokio::time::advance(Duration::from_secs(5)).await;
        breakers.ask(shop()).expect("a probe").tell(Told::Passed);
        assert_eq!(breakers.list()[0].state, BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_dropped_after_a_long_wait_has_failed() {
        let breakers = breakers();
        for _ in 0..10 {
            drop(breakers.ask(shop()));
        }
        assert_eq!(breakers.list()[0].calls, 0, "cancelled at once says nothing");
        let cancel = CancellationToken::new();
        for _ in 0..2 {
            let ticket = breakers.ask(shop()).expect("closed").unless_cancelled(cancel.clone());
            tokio::time::advance(STALLED_AFTER).await;
            cancel.cancel();
            drop(ticket);
        }
        assert_eq!(breakers.list()[0].calls, 0, "nor does a cancelled wait, however long");
        for _ in 0..2 {
            let ticket = breakers.ask(shop());
            tokio::time::advance(STALLED_AFTER).await;
            drop(ticket);
        }
        assert_eq!(breakers.list()[0].state, BreakerState::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_only_so_many() {
        let breakers = breakers();
        let id = |number: usize| BreakerId { kind: BreakerKind::Plugin, name: number.to_string().into() };
        for number in 0..BREAKERS_MAX {
            breakers.ask(id(number)).expect("closed").tell(Told::Passed);
        }
        breakers.ask(shop()).expect("it goes without one").tell(Told::Failed);
        assert_eq!(breakers.list().len(), BREAKERS_MAX);
        tokio::time::advance(Duration::from_secs(60)).await;
        fail(&breakers);
        assert_eq!(breakers.list().len(), 1, "those that counted nothing any more made room");
    }

    #[test]
    fn what_one_workflow_does_to_a_plugin_is_no_other_ones_affair_unless_a_hand_holds_it() {
        let breakers = breakers();
        let plugin: Arc<str> = "acme/score@1.2.0".into();
        for _ in 0..2 {
            breakers.ask_for_plugin(&plugin, "orders").expect("closed").tell(Told::Failed);
        }
        assert!(breakers.ask_for_plugin(&plugin, "orders").is_err());
        assert!(breakers.ask_for_plugin(&plugin, "refunds").is_ok());
        breakers.hold_open(&BreakerId { kind: BreakerKind::Plugin, name: Arc::clone(&plugin) });
        assert!(breakers.ask_for_plugin(&plugin, "refunds").is_err());
    }

    #[test]
    fn a_hand_opens_what_is_not_known_yet_and_closes_what_is() {
        let breakers = breakers();
        assert!(!breakers.close(&shop()));
        breakers.hold_open(&shop());
        assert!(breakers.list()[0].held && breakers.ask(shop()).is_err());
        assert!(breakers.close(&shop()) && breakers.ask(shop()).is_ok());
        let off = Breakers::new(BreakerRules { enabled: false, ..BreakerRules::default() });
        off.hold_open(&shop());
        assert!(off.list().is_empty() && off.ask(shop()).is_ok());
    }
}
