//! Load that goes on while something breaks, and the judgement afterwards: what was accepted has ended, once, and every
//! witness says the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use reipaz_core::event::Fact;
use reipaz_journal::Kafka;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    client::Client,
    host::Host,
    journal::{self, Recorded},
    kafka::Deployment,
    upstream::Upstream,
};

/// Between two submissions.
const EVERY: Duration = Duration::from_millis(40);
/// A host that does not answer a submission by then is given up for another.
const PATIENCE: Duration = Duration::from_secs(5);

/// Somebody who submits without end: every other run over HTTP, at one host after another, the rest as tasks.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Arc<Mutex<Vec<Client>>>,
    working: JoinHandle<Accepted>,
}

/// What was accepted, and how the submitter fared.
#[derive(Debug, Default)]
pub struct Accepted {
    /// The idempotency keys.
    pub keys: BTreeSet<String>,
    /// The longest time that a submission over HTTP took, further hosts included.
    pub longest: Duration,
}

impl Load {
    /// Starts. Keys begin with `name`; each run calls `url`.
    pub fn start(deployment: &Arc<Deployment>, hosts: &[&Host], url: &str, name: &str) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let clients = Arc::new(Mutex::new(hosts.iter().map(|host| host.client().clone()).collect()));
        let submitter = Submitter {
            clients: Arc::clone(&clients),
            deployment: Arc::clone(deployment),
            input: json!({ "url": url }),
        };
        let (stopped, name) = (Arc::clone(&stop), name.to_owned());
        let working = tokio::spawn(async move { submitter.work(&stopped, &name).await });
        Self { stop, clients, working }
    }

    /// From now on these are asked.
    pub fn ask(&self, hosts: &[&Host]) {
        *self.clients.lock().expect("nobody panicked") =
            hosts.iter().map(|host| host.client().clone()).collect();
    }

    /// Ends it.
    pub async fn stop(self) -> Accepted {
        self.stop.store(true, Ordering::Release);
        self.working.await.expect("the submitter goes on")
    }
}

struct Submitter {
    clients: Arc<Mutex<Vec<Client>>>,
    deployment: Arc<Deployment>,
    input: Value,
}

impl Submitter {
    async fn work(self, stop: &AtomicBool, name: &str) -> Accepted {
        let producer = self.deployment.producer();
        let mut accepted = Accepted::default();
        let mut number = 0;
        while !stop.load(Ordering::Acquire) {
            let key = format!("{name}-{number}");
            if number % 2 == 0 {
                let began = Instant::now();
                self.post(number, &key).await;
                accepted.longest = accepted.longest.max(began.elapsed());
            } else {
                let task =
                    json!({"reipaz": 1, "workflow": "call", "input": self.input, "idempotency_key": key});
                self.deployment.write(&producer, None, &[], Some(task.to_string().as_bytes()));
            }
            accepted.keys.insert(key);
            number += 1;
            tokio::time::sleep(EVERY).await;
        }
        self.deployment.flush(&producer);
        accepted
    }

    /// Asks one host after another until one accepts.
    async fn post(&self, number: usize, key: &str) {
        let body = json!({ "input": self.input }).to_string();
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        for attempt in 0.. {
            let client = {
                let clients = self.clients.lock().expect("nobody panicked");
                clients[(number / 2 + attempt) % clients.len()].clone()
            };
            let asked =
                client.try_send(http::Method::POST, "/v1/workflows/call/runs", &headers, body.clone());
            match tokio::time::timeout(PATIENCE, asked).await {
                Ok(Ok(answer)) if answer.status.is_success() => return,
                Ok(Ok(answer)) if !matches!(answer.status.as_u16(), 421 | 429 | 503) => {
                    panic!("{key}: {}", answer.text())
                }
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

/// What the witnesses said.
#[derive(Debug)]
pub struct Judgement {
    /// From the call to the last result.
    pub took: Duration,
    /// Calls of the outside world beyond one for each run.
    pub repeated: usize,
}

/// Waits for every result, and compares: the results topic, the journal, ClickHouse, any host, and the outside world.
pub async fn judge(
    deployment: &Deployment,
    keys: &BTreeSet<String>,
    hosts: &[&Host],
    upstream: &Upstream,
    within: Duration,
) -> Judgement {
    // Every accepted run is told of, once, as completed.
    let began = Instant::now();
    let mut results = deployment.read("results").await;
    while results.len() < keys.len() {
        if began.elapsed() > within {
            let told: BTreeSet<String> = results.iter().map(|result| key_of(&result.json())).collect();
            let missing: Vec<&String> = keys.difference(&told).collect();
            for host in hosts {
                println!("{}", standing(host).await);
            }
            panic!("after {within:?} there is no result of {}: {missing:?}", missing.len());
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        results = deployment.read("results").await;
    }
    let took = began.elapsed();
    let mut runs = BTreeMap::new();
    for result in &results {
        let event = result.json();
        assert_eq!(event["type"], "reipaz.run.completed", "{event}");
        let earlier = runs.insert(key_of(&event), result.key.clone());
        assert_eq!(earlier, None, "told twice: {event}");
    }
    assert_eq!(runs.keys().cloned().collect::<BTreeSet<_>>(), *keys, "accepted, and told of");

    // The journal has one start and one end of each, and no attempt ended twice.
    let kafka = Kafka::open(deployment.journal()).await.expect("the journal opens");
    let recorded = journal::run_events(&*kafka.journal()).await;
    let mut starts = BTreeSet::new();
    let mut ends = BTreeSet::new();
    let mut outcomes = BTreeSet::new();
    let mut seqs = BTreeMap::new();
    for Recorded { event, .. } in &recorded {
        let run = event.run.to_string();
        let seq: &mut u32 = seqs.entry(run.clone()).or_default();
        *seq += 1;
        assert_eq!(event.seq, *seq, "run {run} has no gap");
        match &event.fact {
            Fact::RunAccepted(_) => assert!(starts.insert(run), "accepted twice: {event:?}"),
            Fact::RunFinished(_) => assert!(ends.insert(run), "ended twice: {event:?}"),
            Fact::AttemptFinished(done) => {
                let attempt = (run, done.path.to_string(), done.attempt);
                assert!(outcomes.insert(attempt), "an outcome applied twice: {event:?}");
            }
            _ => {}
        }
    }
    let told: BTreeSet<String> = runs.values().cloned().collect();
    assert_eq!((&starts, &ends), (&told, &told));

    // ClickHouse has exactly the journal's events.
    let expected: BTreeSet<(u64, u64, String, u64)> = recorded
        .iter()
        .map(|Recorded { partition, position, event }| {
            (u64::from(*partition), *position, event.run.to_string(), u64::from(event.seq))
        })
        .collect();
    let query = "SELECT partition, version, run, seq FROM events FINAL";
    let rows = hosts[0].sql_until(query, Duration::from_secs(60), |rows| rows.len() >= expected.len()).await;
    let stored: BTreeSet<(u64, u64, String, u64)> = rows.iter().map(row).collect();
    assert_eq!(stored, expected, "ClickHouse and the journal");
    let completed = hosts[0].sql("SELECT count() AS runs FROM runs FINAL WHERE status = 'completed'").await;
    assert_eq!(number(&completed[0]["runs"]), told.len() as u64);

    // Any host says the same.
    for (run, host) in told.iter().rev().take(30).zip(hosts.iter().cycle()) {
        let view = host.client().get(&format!("/v1/runs/{run}")).await.expect(200).json();
        assert_eq!(view["status"], "completed", "{view}");
    }
    let calls = upstream.calls_by_key();
    assert_eq!(calls.len(), told.len(), "each run called");
    Judgement { took, repeated: calls.values().map(|times| times - 1).sum() }
}

fn key_of(event: &Value) -> String {
    event["data"]["idempotency_key"].as_str().expect("a key").to_owned()
}

/// What a host says of its partitions and of runs that are not over.
async fn standing(host: &Host) -> String {
    let metrics = host.client().get("/metrics").await.text();
    let told = ["reipaz_partition_owned", "reipaz_tasks_lag", "reipaz_tasks_paused", "reipaz_runs_live"];
    let mut lines: Vec<String> = metrics
        .lines()
        .filter(|line| told.iter().any(|name| line.starts_with(name)))
        .map(Into::into)
        .collect();
    let runs = host.client().get("/v1/runs?limit=100&status=running").await.text();
    lines.push(runs.chars().take(2_000).collect());
    lines.join("\n")
}

fn row(row: &Value) -> (u64, u64, String, u64) {
    let run = row["run"].as_str().expect("a run").to_owned();
    (number(&row["partition"]), number(&row["version"]), run, number(&row["seq"]))
}

/// A number of ClickHouse, which may write 64 bits as text.
pub fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_else(|| panic!("no number: {value}"))
}
