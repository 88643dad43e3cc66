//! The task that decides, by the pure parts beside it, when to tell whom: takes what owners tell, looks at the sink and at
//! breakers once a second, asks owners for runs that should be over, and puts alerts on their ways.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use reipaz_core::{ids::StepPath, plan::Plan, time::Timestamp};
use reipaz_journal::Intake;
use reipaz_store::Store;
use serde::Deserialize;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    Alerts, BreakerState,
    board::{Condition, Raised},
    conditions::{self, Case, FailureKey, Labels, Lagging, Late, OverdueKey},
    deliver::Lane,
    pattern::{PATTERNS_MAX, Patterns, Rate},
    sink_lag::SinkLag,
    tap::{What, Wrong},
};
use crate::{
    clock::{PartitionClock, SystemClock, wall},
    facade::AlertKind,
    owner::{Command, OwnerStatus},
    view::Overdue,
};

/// How often conditions are looked at that nobody tells of.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often owners are asked for runs that should be over: they look at each of their runs for it.
const ASK_EVERY: Duration = Duration::from_secs(60);

/// An owner that has not answered by then stands still.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Plugins that have a label of their own in `reipaz_attempts_failed_total`; the others share one.
const PLUGIN_LABELS_MAX: usize = 200;

/// The label that they share.
const OTHER_PLUGINS: &str = "other";

/// What is looked at.
pub(crate) struct Watched {
    pub(crate) owners: Vec<Arc<OwnerStatus>>,
    pub(crate) intake: Arc<dyn Intake<Command>>,
    pub(crate) store: Option<Store>,
    /// From then on owners need not answer.
    pub(crate) draining: CancellationToken,
}

/// See the module.
pub(crate) struct Watch {
    alerts: Arc<Alerts>,
    pub(super) wrongs: mpsc::Receiver<Wrong>,
    lanes: Vec<Lane>,
    clock: PartitionClock,
    failures: Patterns<FailureKey>,
    late: Patterns<OverdueKey>,
    lags: Vec<SinkLag>,
    /// Since when ClickHouse cannot be used.
    unreachable_since: Option<Timestamp>,
    lagging: bool,
    /// What fires because owners were asked.
    not_ended: BTreeSet<OverdueKey>,
    silent: BTreeSet<u32>,
    plugin_labels: BTreeSet<String>,
}

/// What one owner said.
pub(super) struct Answer {
    pub(super) partition: u32,
    /// None: nothing.
    pub(super) overdue: Option<Vec<Overdue>>,
}

impl Watch {
    pub(super) fn new(alerts: Arc<Alerts>, wrongs: mpsc::Receiver<Wrong>, lanes: Vec<Lane>) -> Self {
        let config = &alerts.config;
        let failures = Patterns::new(config.pattern_failures, config.pattern_window, PATTERNS_MAX);
        let late = Patterns::new(1, config.pattern_window, PATTERNS_MAX);
        Self {
            wrongs,
            lanes,
            clock: PartitionClock::new(Arc::new(SystemClock), wall()),
            failures,
            late,
            lags: Vec::new(),
            unreachable_since: None,
            lagging: false,
            not_ended: BTreeSet::new(),
            silent: BTreeSet::new(),
            plugin_labels: BTreeSet::new(),
            alerts,
        }
    }

    /// Watches, and delivers, until it is dropped. `url` is where the host is reached.
    pub(crate) async fn run(mut self, watched: Watched, url: String) {
        let url: Arc<str> = url.into();
        let mut delivering: JoinSet<()> =
            std::mem::take(&mut self.lanes).into_iter().map(|lane| lane.run(Arc::clone(&url))).collect();
        self.lags = vec![SinkLag::default(); watched.owners.len()];
        let (answers, mut answered) = mpsc::channel(1);
        let asking = ask(
            watched.owners.clone(),
            Arc::clone(&watched.intake),
            self.alerts.config.overdue_grace,
            answers,
        );
        let asking = watched.draining.clone().run_until_cancelled_owned(asking);
        delivering.spawn(async move {
            let _stopped = asking.await;
        });
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(wrong) = self.wrongs.recv() => self.wrong(&wrong),
                Some(answers) = answered.recv() => self.answered(answers),
                _ = looks.tick() => self.look(&watched),
            }
        }
    }

    /// Something went wrong.
    pub(super) fn wrong(&mut self, wrong: &Wrong) {
        let now = self.clock.now();
        let Wrong { run, partition, plan, what } = wrong;
        let case = |message: &Arc<str>| Case {
            run: *run,
            workflow: Arc::clone(&plan.name),
            partition: *partition,
            message: Arc::clone(message),
        };
        match what {
            What::Attempt { path, failure } => {
                let (name, version) = plugin(plan, path);
                self.count_failure(failure.class.as_str(), &name);
                let key = FailureKey {
                    class: failure.class,
                    code: Arc::clone(&failure.code),
                    plugin: format!("{name}@{version}"),
                    authority: failure.details.as_deref().and_then(authority),
                };
                let config = &self.alerts.config;
                match self.failures.observe(&key, now) {
                    Rate::Below => {}
                    Rate::Over(count) => {
                        let (threshold, window) = (config.pattern_failures, config.pattern_window);
                        let case = case(&failure.message);
                        self.raise(now, conditions::failing(&key, count, threshold, window, &case));
                    }
                    Rate::Untracked => self.alerts.untracked(),
                }
            }
            What::Late { step, message } => {
                let late = if step.is_some() { Late::Step } else { Late::Run };
                if let Some(path) = step {
                    self.count_failure("timeout", &plugin(plan, path).0);
                }
                let key = OverdueKey { workflow: Arc::clone(&plan.name), late };
                match self.late.observe(&key, now) {
                    Rate::Over(count) => self.raise(now, conditions::overdue(&key, count, &case(message))),
                    Rate::Below => {}
                    Rate::Untracked => self.alerts.untracked(),
                }
            }
        }
    }

    fn count_failure(&mut self, class: &'static str, plugin: &str) {
        let known = self.plugin_labels.contains(plugin);
        let label =
            if known || self.plugin_labels.len() < PLUGIN_LABELS_MAX { plugin } else { OTHER_PLUGINS };
        if !known && label == plugin {
            self.plugin_labels.insert(plugin.to_owned());
        }
        metrics::counter!("reipaz_attempts_failed_total", "class" => class, "plugin" => label.to_owned())
            .increment(1);
    }

    /// Looks at what nobody tells of, and at the time.
    pub(super) fn look(&mut self, watched: &Watched) {
        let now = self.clock.now();
        for key in self.failures.ended(now) {
            self.clear(now, AlertKind::ErrorPattern, &key.labels());
        }
        for key in self.late.ended(now) {
            self.clear(now, AlertKind::RunOverdue, &key.labels());
        }
        for ((kind, name), (state, why)) in self.alerts.take_breakers() {
            match state {
                BreakerState::Closed => {
                    self.clear(now, AlertKind::Breaker, &conditions::breaker_labels(&kind, &name))
                }
                state => {
                    let state = state.as_str().replace('_', " ");
                    self.raise(now, conditions::breaker(&kind, &name, &state, &why))
                }
            }
        }
        self.look_at_the_sink(now, watched);
        let due = self.alerts.board().due(now);
        due.iter().for_each(|alert| self.alerts.outbox.offer(alert));
    }

    fn look_at_the_sink(&mut self, now: Timestamp, watched: &Watched) {
        let Some(store) = &watched.store else { return };
        let (mut records, mut most, mut worst) = (0, 0, (Duration::ZERO, 0));
        for (partition, (owner, lag)) in (0..).zip(watched.owners.iter().zip(&mut self.lags)) {
            let read = |position: &std::sync::atomic::AtomicU64| position.load(Ordering::Relaxed);
            let missing = if owner.owned.load(Ordering::Acquire) {
                lag.look(now, read(&owner.durable), read(&owner.stored))
            } else {
                *lag = SinkLag::default();
                Default::default()
            };
            owner.sink_lag_ms.store(missing.since.as_millis() as u64, Ordering::Relaxed);
            records += missing.records;
            most = most.max(missing.records);
            worst = worst.max((missing.since, partition));
        }
        let status = store.status();
        self.unreachable_since = if status.is_ready() { None } else { self.unreachable_since.or(Some(now)) };
        let config = &self.alerts.config;
        let unreachable = self
            .unreachable_since
            .map(|since| (status.to_string(), now.since(since)))
            .filter(|(_, so_long)| *so_long >= config.sink_lag_after);
        let behind = worst.0 >= config.sink_lag_after || most >= config.sink_lag_records;
        if behind || unreachable.is_some() {
            let (since, partition) = worst;
            self.lagging = true;
            self.raise(now, conditions::sink_lag(&Lagging { partition, records, since, unreachable }));
        } else if std::mem::take(&mut self.lagging) {
            self.clear(now, AlertKind::SinkLag, &Labels::new());
        }
    }

    /// Owners have said which runs should be over. What fired because of an earlier answer and holds no more is over.
    pub(super) fn answered(&mut self, answers: Vec<Answer>) {
        let now = self.clock.now();
        let (mut not_ended, mut silent) = (BTreeSet::new(), BTreeSet::new());
        for Answer { partition, overdue } in answers {
            let Some(overdue) = overdue else {
                silent.insert(partition);
                self.raise(now, conditions::silent_owner(partition, ANSWER_WITHIN));
                continue;
            };
            for Overdue { workflow, runs, sample, deadline } in overdue {
                let key = OverdueKey { workflow: Arc::clone(&workflow), late: Late::NotEnded };
                let message = format!("the deadline of this one was {deadline}").into();
                let case = Case { run: sample, workflow, partition, message };
                self.raise(now, conditions::overdue(&key, runs, &case));
                not_ended.insert(key);
            }
        }
        for key in std::mem::replace(&mut self.not_ended, not_ended) {
            if !self.not_ended.contains(&key) {
                self.clear(now, AlertKind::RunOverdue, &key.labels());
            }
        }
        for partition in std::mem::replace(&mut self.silent, silent) {
            if !self.silent.contains(&partition) {
                self.clear(now, AlertKind::RunOverdue, &conditions::silent_owner_labels(partition));
            }
        }
    }

    fn raise(&self, now: Timestamp, condition: Condition) {
        let raised = self.alerts.board().raise(now, condition);
        match raised {
            Raised::Known => {}
            Raised::Full => self.alerts.untracked(),
            Raised::Tell(alert) => {
                tracing::warn!(
                    kind = alert.kind.as_str(),
                    fingerprint = alert.fingerprint,
                    run = alert.sample_run.map(tracing::field::display),
                    summary = alert.summary,
                    "an alert fires"
                );
                self.alerts.outbox.offer(&alert);
            }
        }
    }

    fn clear(&self, now: Timestamp, kind: AlertKind, labels: &[(&'static str, String)]) {
        let cleared = self.alerts.board().clear(now, kind, labels);
        if let Some(alert) = cleared {
            tracing::info!(kind = kind.as_str(), fingerprint = alert.fingerprint, "an alert is resolved");
            self.alerts.outbox.offer(&alert);
        }
    }
}

/// Asks the owners here, all at once, again and again, which runs should be over.
async fn ask(
    owners: Vec<Arc<OwnerStatus>>,
    intake: Arc<dyn Intake<Command>>,
    grace: Duration,
    answers: mpsc::Sender<Vec<Answer>>,
) {
    loop {
        tokio::time::sleep(ASK_EVERY).await;
        let before = Timestamp(wall().0.saturating_sub(u64::try_from(grace.as_micros()).unwrap_or(u64::MAX)));
        let owned = (0..).zip(&owners).filter(|(_, owner)| owner.owned.load(Ordering::Acquire));
        let asked = owned.filter_map(|(partition, _)| {
            let (answer, overdue) = tokio::sync::oneshot::channel();
            // A full queue is told to those who submit; a closed one has no owner.
            intake.try_send(partition, Command::Overdue { before, answer }).ok()?;
            Some(async move {
                match tokio::time::timeout(ANSWER_WITHIN, overdue).await {
                    Ok(Ok(overdue)) => Some(Answer { partition, overdue: Some(overdue) }),
                    // It has stopped, or gone to another host.
                    Ok(Err(_)) => None,
                    Err(_) => Some(Answer { partition, overdue: None }),
                }
            })
        });
        let answered = futures_util::future::join_all(asked).await.into_iter().flatten().collect();
        if answers.send(answered).await.is_err() {
            return;
        }
    }
}

/// Name and version of what executes a step.
fn plugin(plan: &Plan, path: &StepPath) -> (String, String) {
    let step = plan.steps.iter().find(|step| step.path == *path);
    step.map(|step| (step.plugin.name.clone(), step.plugin.version.clone())).unwrap_or_default()
}

/// Whom a failure is about, where its details say so: `authority`, or a `url`.
fn authority(details: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Known {
        authority: Option<String>,
        url: Option<String>,
    }
    let known: Known = serde_json::from_str(details).ok()?;
    known.authority.or_else(|| {
        let url = url::Url::parse(&known.url?).ok()?;
        Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_is_what_the_details_say_or_nothing() {
        let url = r#"{"url": "https://user@api.example.com/a?b=c"}"#;
        assert_eq!(authority(url).as_deref(), Some("api.example.com:443"));
        let said = r#"{"status": 503, "authority": "a.example:8443", "url": "http://b.example"}"#;
        assert_eq!(authority(said).as_deref(), Some("a.example:8443"));
        for nothing in [r#"{"status": 503, "body": "url"}"#, r#""text""#, "[1]", r#"{"url": "unix:/a"}"#, "{"]
        {
            assert_eq!(authority(nothing), None, "{nothing}");
        }
    }
}
