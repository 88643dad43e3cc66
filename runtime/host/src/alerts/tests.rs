//! The parts joined, without a host: what owners tell becomes alerts.

use std::{sync::Arc, time::Duration};

use reipaz_core::{
    document::{self, KnownPlugin, Plugins, UnknownPlugin},
    event::{AttemptResult, Usage},
    failure::{ErrorClass, Failure},
    ids::{Digest, RunId},
    partition::{
        AttemptDone, AttemptOutcome, Decision, Effect, Input, Partition, PartitionConfig, StartAttempt,
        Submit,
    },
    plan::{Plan, PluginPin},
    time::Timestamp,
};
use reipaz_journal::{Full, Intake};
use tokio_util::sync::CancellationToken;

use super::{config::WebhookConfig, watch::Answer, *};
use crate::{
    facade::{AlertStatus, AlertView, Severity},
    owner::{Command, OwnerStatus},
    view::{self, Overdue},
};

const BEGIN: Timestamp = Timestamp(1_800_000_000_000_000);

struct Installed;

impl Plugins for Installed {
    fn resolve(&self, uses: &str) -> Result<KnownPlugin, UnknownPlugin> {
        let digest = Digest::of(uses.as_bytes());
        let pin = PluginPin { name: uses.to_owned(), version: "1.2.0".to_owned(), digest, retry: None };
        Ok(KnownPlugin { pin, input_schema: None })
    }
}

fn plan(steps: usize) -> Arc<Plan> {
    let steps: String = (0..steps).map(|n| format!("  s{n}: {{uses: call}}\n")).collect();
    let text = format!(
        "reipaz: 1\nname: orders\ntimeout: 1m\ndefaults: {{retry: {{attempts: 1}}}}\nsteps:\n{steps}"
    );
    let checked = document::check(&text, &Installed).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    Arc::new(checked.plan)
}

/// A partition with one run, and the attempts that it asks for.
fn partition(steps: usize) -> (Partition, RunId, Vec<StartAttempt>) {
    let mut partition = Partition::new(PartitionConfig::default());
    let run = RunId(uuid::Uuid::from_u128(7));
    let submit = Submit {
        run,
        plan: plan(steps),
        pinned: "{}".into(),
        version: 1,
        input: "{}".into(),
        idempotency_key: None,
        metadata: Vec::new(),
        trigger: None,
        seed: [7; 32],
        refused: None,
    };
    let decision = partition.handle(Input::Submit(Box::new(submit)), BEGIN);
    let starts = decision.effects.into_iter().filter_map(|effect| match effect {
        Effect::StartAttempt(start) => Some(*start),
        _ => None,
    });
    (partition, run, starts.collect())
}

fn fail(partition: &mut Partition, start: StartAttempt, failure: Failure) -> Decision {
    let done = AttemptDone {
        id: start.id,
        outcome: AttemptOutcome::Result(AttemptResult::Error(failure)),
        input_digest: None,
        usage: Usage::default(),
        logs: Vec::new(),
        logs_dropped_bytes: 0,
    };
    partition.handle(Input::AttemptDone(Box::new(done)), BEGIN.plus(Duration::from_secs(1)))
}

struct NoOwners;

impl Intake<Command> for NoOwners {
    fn try_send(&self, _partition: u32, command: Command) -> Result<(), Full<Command>> {
        Err(Full::Closed(command))
    }

    fn depth(&self, _partition: u32) -> usize {
        0
    }
}

fn watched() -> Watched {
    Watched {
        owners: vec![Arc::<OwnerStatus>::default()],
        intake: Arc::new(NoOwners),
        store: None,
        draining: CancellationToken::new(),
    }
}

fn alerts(config: AlertsConfig) -> (Arc<Alerts>, Watch) {
    let secrets = SecretStore::load(&BTreeMap::new()).expect("none");
    let (alerts, watch) = Alerts::new(&config, &secrets).expect("sound");
    alerts.set_host("here:1".to_owned());
    (alerts, watch)
}

fn firing(alerts: &Alerts) -> Vec<AlertView> {
    alerts.view().firing
}

#[test]
fn failures_are_told_when_their_events_are_durable_and_make_one_alert() {
    let (alerts, mut watch) = alerts(AlertsConfig { pattern_failures: 3, ..AlertsConfig::default() });
    let (mut partition, run, starts) = partition(5);
    let mut waiting = Vec::new();
    for start in starts {
        let mut failure = Failure::new(ErrorClass::Transient, "http_503", "the other side is unwell");
        failure.details = Some(r#"{"status": 503, "url": "https://shop.example/a"}"#.into());
        let decision = fail(&mut partition, start, failure);
        waiting.extend(decision.events.iter().filter_map(|event| alerts.tap().look(4, event, &partition)));
    }
    assert_eq!(waiting.len(), 5, "one for each failure, none for other events");
    assert!(watch.wrongs.try_recv().is_err(), "nothing is told before the events are durable");
    waiting.into_iter().for_each(|tell| tell());
    while let Ok(wrong) = watch.wrongs.try_recv() {
        watch.wrong(&wrong);
    }

    let firing = firing(&alerts);
    assert_eq!(firing.len(), 1, "{firing:?}");
    let alert = &firing[0];
    assert_eq!((alert.kind, alert.count, alert.sample_run), (AlertKind::ErrorPattern, 5, Some(run)));
    let labels: Vec<(&str, &str)> =
        alert.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expected = [
        ("alertname", "ReipazErrorPattern"),
        ("authority", "shop.example:443"),
        ("class", "transient"),
        ("code", "http_503"),
        ("host", "here:1"),
        ("plugin", "call@1.2.0"),
    ];
    assert_eq!(labels, expected);
    assert_eq!(alert.annotations["partition"], "4");
    assert_eq!(alert.annotations["workflow"], "orders");
}

#[test]
fn what_was_cancelled_is_nobodys_failure() {
    let (alerts, _watch) = alerts(AlertsConfig::default());
    let (mut partition, _, mut starts) = partition(1);
    let failure = Failure::new(ErrorClass::Cancelled, "cancelled", "somebody wished so");
    let decision = fail(&mut partition, starts.remove(0), failure);
    assert!(!decision.events.iter().any(|event| alerts.tap().look(0, event, &partition).is_some()));
}

#[test]
fn a_run_that_its_host_ended_for_its_time_is_one_alert() {
    let (alerts, mut watch) = alerts(AlertsConfig::default());
    let (mut partition, run, _) = partition(1);
    let decision = partition.handle(Input::Tick, BEGIN.plus(Duration::from_secs(61)));
    decision
        .events
        .iter()
        .filter_map(|event| alerts.tap().look(0, event, &partition))
        .for_each(|tell| tell());
    while let Ok(wrong) = watch.wrongs.try_recv() {
        watch.wrong(&wrong);
    }
    let firing = firing(&alerts);
    assert_eq!(firing.len(), 1, "{firing:?}");
    assert_eq!((firing[0].kind, firing[0].sample_run), (AlertKind::RunOverdue, Some(run)));
    assert_eq!(firing[0].labels["code"], "run_timeout");
    assert_eq!(firing[0].labels["workflow"], "orders");
}

#[test]
fn a_run_past_its_deadline_that_nobody_ended_is_found() {
    // Given a run with a minute, and an owner that does not come to it.
    let (partition, run, _) = partition(1);
    let deadline = BEGIN.plus(Duration::from_secs(60));
    assert!(view::overdue(&partition, deadline).is_empty(), "in time");
    let overdue = view::overdue(&partition, deadline.plus(Duration::from_secs(30)));
    let expected = Overdue { workflow: "orders".into(), runs: 1, sample: run, deadline };
    assert_eq!(overdue, [expected]);

    // When it is told, then it fires, until the next answer says otherwise.
    let (alerts, mut watch) = alerts(AlertsConfig::default());
    watch.answered(vec![
        Answer { partition: 0, overdue: Some(overdue) },
        Answer { partition: 1, overdue: None },
    ]);
    let both = firing(&alerts);
    let codes: Vec<&str> = both.iter().map(|alert| alert.labels["code"].as_str()).collect();
    assert_eq!((codes.contains(&"not_ended"), codes.contains(&"owner_silent")), (true, true), "{codes:?}");
    assert!(both.iter().all(|alert| alert.severity == Severity::Critical));
    watch.answered(vec![Answer { partition: 0, overdue: Some(Vec::new()) }]);
    assert!(firing(&alerts).is_empty());
    assert_eq!(alerts.view().recent.len(), 2);
}

#[test]
fn a_breaker_that_opens_fires_until_it_closes() {
    let (alerts, mut watch) = alerts(AlertsConfig::default());
    let watched = watched();
    let mut change = |state, why| {
        alerts.breaker_changed("authority", "shop.example:443", state, why);
        watch.look(&watched);
    };
    change(BreakerState::Closed, "as at the start");
    assert!(alerts.view().firing.is_empty() && alerts.view().recent.is_empty(), "nothing has changed");
    change(BreakerState::Open, "5 failures in 10 s");
    let opened = firing(&alerts);
    assert_eq!(opened.len(), 1);
    assert_eq!(opened[0].labels["breaker"], "shop.example:443");
    assert_eq!(opened[0].annotations["message"], "5 failures in 10 s");
    change(BreakerState::HalfOpen, "it tries one");
    let half = firing(&alerts);
    assert_eq!((half.len(), half[0].annotations["state"].as_str()), (1, "half open"));
    assert_eq!((&half[0].fingerprint, half[0].started_at), (&opened[0].fingerprint, opened[0].started_at));
    change(BreakerState::Closed, "the try succeeded");
    let view = alerts.view();
    assert!(view.firing.is_empty());
    assert_eq!(view.recent[0].status, AlertStatus::Resolved);
}

#[test]
fn of_a_breaker_that_changes_faster_than_anybody_looks_the_newest_counts() {
    let (alerts, mut watch) = alerts(AlertsConfig::default());
    for n in 0..2_000 {
        alerts.breaker_changed("plugin", &format!("p{n}"), BreakerState::Open, "");
    }
    alerts.breaker_changed("plugin", "p0", BreakerState::Closed, "");
    watch.look(&watched());
    assert_eq!(firing(&alerts).len(), BREAKERS_MAX - 1);
    let [_, _, (what, dropped)] = alerts.counts().dropped;
    assert_eq!((what, dropped as usize), ("pattern", 2_000 - BREAKERS_MAX));
}

#[test]
fn a_full_queue_costs_an_alert_and_no_time() {
    // Given a webhook whose lane nobody runs: it stands still.
    let webhook = WebhookConfig {
        url: "http://127.0.0.1:9/".to_owned(),
        headers: BTreeMap::new(),
        min_severity: Severity::Warning,
        timeout: Duration::from_secs(1),
    };
    let (alerts, mut watch) = alerts(AlertsConfig { webhooks: vec![webhook], ..AlertsConfig::default() });
    for n in 0..300 {
        alerts.breaker_changed("plugin", &format!("p{n}"), BreakerState::Open, "");
    }
    watch.look(&watched());
    assert_eq!(firing(&alerts).len(), 300, "they fire all the same");
    let [(what, dropped), ..] = alerts.counts().dropped;
    assert_eq!((what, dropped), ("alert", 300 - 256));
}
