//! What fires now, and what was told of it. Pure. It holds the rule against repetition: of one fingerprint `firing` is told
//! once, again only after `repeat_every`, and then `resolved` once.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use reipaz_core::{ids::RunId, time::Timestamp};
use sha2::{Digest, Sha256};

use crate::facade::{AlertKind, AlertStatus, AlertView, Severity};

/// Alerts that fire at one time. Patterns are bounded below it, so that breakers and the sink always have room.
const FIRING_MAX: usize = 4_096;

/// Alerts that are over and still shown.
const RECENT_MAX: usize = 200;

/// Characters of a label, a sentence. A code, a message or a breaker's name may be anything.
const LABEL_CHARS: usize = 128;
pub(super) const TEXT_CHARS: usize = 512;

/// A condition that holds.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    pub(super) kind: AlertKind,
    pub(super) severity: Severity,
    /// What tells it from others of its kind.
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) count: u64,
    pub(super) summary: String,
    pub(super) what_to_do: String,
    pub(super) annotations: Vec<(&'static str, String)>,
    pub(super) sample_run: Option<RunId>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Board {
    /// Of the `host` label.
    host: String,
    repeat_every: Duration,
    firing: BTreeMap<String, Firing>,
    recent: VecDeque<Arc<AlertView>>,
}

#[derive(Debug)]
struct Firing {
    alert: Arc<AlertView>,
    told_at: Timestamp,
}

/// What is to be done about a condition that holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Raised {
    /// It is new: to be told.
    Tell(Arc<AlertView>),
    /// It was told.
    Known,
    /// Too many fire already.
    Full,
}

impl Board {
    pub(super) fn new(host: String, repeat_every: Duration) -> Self {
        Self { host, repeat_every, firing: BTreeMap::new(), recent: VecDeque::new() }
    }

    /// What it is called from now on; before anything fires.
    pub(super) fn set_host(&mut self, host: String) {
        self.host = host;
    }

    /// The condition holds.
    pub(super) fn raise(&mut self, now: Timestamp, condition: Condition) -> Raised {
        let mut alert = self.alert(now, condition);
        if let Some(firing) = self.firing.get_mut(&alert.fingerprint) {
            alert.started_at = firing.alert.started_at;
            firing.alert = Arc::new(alert);
            return Raised::Known;
        }
        if self.firing.len() >= FIRING_MAX {
            return Raised::Full;
        }
        let alert = Arc::new(alert);
        let firing = Firing { alert: Arc::clone(&alert), told_at: now };
        self.firing.insert(alert.fingerprint.clone(), firing);
        Raised::Tell(alert)
    }

    /// The condition with these labels holds no more. None: it did not.
    pub(super) fn clear(
        &mut self,
        now: Timestamp,
        kind: AlertKind,
        labels: &[(&'static str, String)],
    ) -> Option<Arc<AlertView>> {
        let firing = self.firing.remove(&fingerprint(&self.labels(kind, labels)))?;
        let mut alert = Arc::unwrap_or_clone(firing.alert);
        alert.status = AlertStatus::Resolved;
        alert.resolved_at = Some(now);
        let alert = Arc::new(alert);
        self.recent.truncate(RECENT_MAX - 1);
        self.recent.push_front(Arc::clone(&alert));
        Some(alert)
    }

    /// Those that go on and are to be told again.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<Arc<AlertView>> {
        let due = self.firing.values_mut().filter(|firing| now.since(firing.told_at) >= self.repeat_every);
        due.map(|firing| {
            firing.told_at = now;
            Arc::clone(&firing.alert)
        })
        .collect()
    }

    /// How many of a kind fire.
    pub(super) fn count(&self, kind: AlertKind) -> usize {
        self.firing.values().filter(|firing| firing.alert.kind == kind).count()
    }

    /// What fires, the oldest first, and what is over, the newest first.
    pub(super) fn shown(&self) -> (Vec<AlertView>, Vec<AlertView>) {
        let mut firing: Vec<AlertView> =
            self.firing.values().map(|firing| AlertView::clone(&firing.alert)).collect();
        firing.sort_by_key(|alert| alert.started_at);
        (firing, self.recent.iter().map(|alert| AlertView::clone(alert)).collect())
    }

    /// A condition as an alert.
    pub(super) fn alert(&self, now: Timestamp, condition: Condition) -> AlertView {
        let labels = self.labels(condition.kind, &condition.labels);
        AlertView {
            fingerprint: fingerprint(&labels),
            kind: condition.kind,
            severity: condition.severity,
            status: AlertStatus::Firing,
            started_at: now,
            resolved_at: None,
            labels,
            count: condition.count,
            summary: clipped(&condition.summary, TEXT_CHARS),
            what_to_do: condition.what_to_do,
            annotations: condition
                .annotations
                .into_iter()
                .map(|(name, text)| (name.to_owned(), clipped(&text, TEXT_CHARS)))
                .collect(),
            sample_run: condition.sample_run,
        }
    }

    fn labels(&self, kind: AlertKind, labels: &[(&'static str, String)]) -> BTreeMap<String, String> {
        let own = [("alertname", kind.alert_name()), ("host", &self.host)];
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let given = labels.iter().map(|(name, value)| ((*name).to_owned(), clipped(value, LABEL_CHARS)));
        own.into_iter().chain(given).collect()
    }
}

/// The first 8 bytes of SHA-256 over the labels, as hexadecimal digits; the length of Alertmanager's.
fn fingerprint(labels: &BTreeMap<String, String>) -> String {
    let mut hash = Sha256::new();
    for text in labels.iter().flat_map(|(name, value)| [name, value]) {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn clipped(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn board() -> Board {
        Board::new("a:1".to_owned(), Duration::from_secs(100))
    }

    fn failing(code: &str, count: u64) -> Condition {
        Condition {
            kind: AlertKind::ErrorPattern,
            severity: Severity::Warning,
            labels: vec![("code", code.to_owned())],
            count,
            summary: "it fails".to_owned(),
            what_to_do: "look".to_owned(),
            annotations: Vec::new(),
            sample_run: None,
        }
    }

    fn tells(raised: &Raised) -> bool {
        matches!(raised, Raised::Tell(_))
    }

    #[test]
    fn firing_is_told_once_again_after_a_while_and_resolved_once() {
        let mut board = board();
        assert!(tells(&board.raise(at(0), failing("x", 20))));
        assert_eq!(board.raise(at(1), failing("x", 21)), Raised::Known);
        assert!(tells(&board.raise(at(1), failing("y", 20))), "another code is another alert");
        assert!(board.due(at(99)).is_empty());

        let again = board.due(at(100));
        assert_eq!(again.len(), 1);
        assert_eq!((again[0].started_at, again[0].count), (at(0), 21), "as it is by now");
        assert!(board.due(at(100)).is_empty());

        let labels = failing("x", 0).labels;
        let over = board.clear(at(150), AlertKind::ErrorPattern, &labels).expect("it fired");
        assert_eq!((over.status, over.resolved_at), (AlertStatus::Resolved, Some(at(150))));
        assert!(board.clear(at(151), AlertKind::ErrorPattern, &labels).is_none());
        assert!(tells(&board.raise(at(160), failing("x", 20))), "a new one of the same fingerprint");
    }

    #[test]
    fn a_fingerprint_is_the_labels_and_nothing_else() {
        let told = |board: &mut Board, condition| match board.raise(at(0), condition) {
            Raised::Tell(alert) => alert,
            other => panic!("{other:?}"),
        };
        let first = told(&mut board(), failing("x", 1));
        let mut other = failing("x", 99);
        other.summary = "in other words".to_owned();
        assert_eq!(told(&mut board(), other).fingerprint, first.fingerprint);
        assert_ne!(told(&mut board(), failing("y", 1)).fingerprint, first.fingerprint);
        let mut elsewhere = Board::new("b:1".to_owned(), Duration::from_secs(1));
        assert_ne!(told(&mut elsewhere, failing("x", 1)).fingerprint, first.fingerprint);
        assert_eq!(first.fingerprint.len(), 16);
    }

    #[test]
    fn what_guests_say_and_how_much_fires_is_bounded() {
        let mut board = board();
        let long = "ü".repeat(10_000);
        let Raised::Tell(alert) = board.raise(at(0), failing(&long, 1)) else { panic!("new") };
        assert_eq!(alert.labels["code"].chars().count(), LABEL_CHARS + 3);
        for n in 1..FIRING_MAX {
            assert!(tells(&board.raise(at(0), failing(&n.to_string(), 1))));
        }
        assert_eq!(board.raise(at(0), failing("one more", 1)), Raised::Full);
        assert_eq!(board.count(AlertKind::ErrorPattern), FIRING_MAX);
        for n in 1..FIRING_MAX {
            board
                .clear(at(1), AlertKind::ErrorPattern, &failing(&n.to_string(), 1).labels)
                .expect("it fired");
        }
        assert_eq!(board.shown().1.len(), RECENT_MAX);
    }
}
