//! A host that is killed again and again at random moments, under a load of workflows with every kind of failure in them:
//! nothing is lost, nothing happens twice, nothing is stuck.
//!
//! A hundred kills, unless `REIPAZ_TEST_KILLS` says otherwise.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use http::Method;
use reipaz_core::{
    event::{Fact, InterruptCause},
    time::Timestamp,
};
use reipaz_tests::{
    client::Client,
    host::{Host, Settings},
    journal::{self, Recorded},
    upstream::{Call, Upstream},
    wait,
    workflows::COUNT,
};
use serde_json::{Value, json};

const KILLS: u64 = 100;
const SUBMITTERS: usize = 4;
/// How long a submission may take before it is repeated.
const ASKED_WITHIN: Duration = Duration::from_secs(5);
/// The workflows below, and the silent one.
const NAMES: [&str; 6] = ["stubborn", "lenient", "careful", "mended", "limited", "count"];
/// Runs of `limited` come in so many groups, ...
const GROUPS: usize = 3;
/// ... and so many of each may go on at one time.
const AT_ONCE: usize = 2;

const STUBBORN: &str = "
reipaz: 1
name: stubborn
defaults: {timeout: 2s, retry: {attempts: 50, base: 20ms, max_delay: 100ms, by_error: {404: {attempts: 40}, 409: {immediate: 2}}}}
steps:
  first:
    uses: http_request@1
    with: {method: POST, url: '${ $input.url }'}
  second:
    uses: http_request@1
    needs: [first]
    with: {method: POST, url: '${ $input.url }'}
";
const LENIENT: &str = "
reipaz: 1
name: lenient
steps:
  call:
    uses: http_request@1
    with: {method: POST, url: '${ $input.url }'}
    timeout: 2s
    total_timeout: 10s
    retry: {attempts: 2, base: 20ms}
    on_failure: {continue_with: {body: none}}
output: '${ $steps.call.output }'
";
const CAREFUL: &str = "
reipaz: 1
name: careful
steps:
  call:
    uses: http_request@1
    with: {method: POST, url: '${ $input.url }'}
    timeout: 2s
    retry: {attempts: 2, base: 20ms}
    on_failure: pause
";

const MENDED: &str = "
reipaz: 1
name: mended
timeout: 20s
steps:
  call:
    uses: http_request@1
    with: {method: POST, url: '${ $input.url }'}
    timeout: 2s
    retry: {attempts: 1}
    on_failure:
      steps:
        mend: {uses: http_request@1, with: {method: POST, url: '${ $input.url }'}, retry: {attempts: 2, base: 20ms}}
      output: '${ $steps.mend.output }'
on_failure:
  timeout: 5s
  steps:
    tell: {uses: http_request@1, with: {method: POST, url: '${ $input.url }', body: '${ $error }'}, retry: {attempts: 1}}
output: '${ $steps.call.output.status }'
";
const LIMITED: &str = "
reipaz: 1
name: limited
concurrency: {key: '${ $input.group }', limit: 2}
steps:
  call:
    uses: http_request@1
    with: {method: POST, url: '${ $input.url }'}
    timeout: 2s
    retry: {attempts: 2, base: 20ms}
";
/// Attempts at one time, so that some wait.
const PLUGIN_LIMIT: &str = "[plugins.http_request.concurrency]\nlimit = 32";
/// So that the server's breaker opens now and then.
const BREAKERS: &str =
    "[breakers]\nfailures = 2\nshare = 0.05\nwindow = \"1s\"\nopen_for = \"100ms\"\nopen_for_max = \"200ms\"";

/// A number below `bound`, from the system's randomness.
fn below(bound: u64) -> u64 {
    RandomState::new().hash_one(0) % bound
}

/// Fails at random until it is well.
async fn server(well: Arc<AtomicBool>) -> Upstream {
    Upstream::start(move |_: Call| {
        let well = well.load(Ordering::Relaxed);
        async move {
            tokio::time::sleep(Duration::from_millis(5 + below(150))).await;
            let failures = [500, 503, 404, 409, 429];
            let failure = failures[below(failures.len() as u64) as usize];
            let status = if well || below(100) < 60 { 200 } else { failure };
            StatusCode::from_u16(status).unwrap_or(StatusCode::OK)
        }
    })
    .await
}

/// Submits one run after another, each until it is accepted; gives their ids by key.
async fn submit(
    client: Client,
    url: String,
    next: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    accepted: Arc<Mutex<BTreeMap<String, String>>>,
) {
    while !stop.load(Ordering::Relaxed) {
        let n = next.fetch_add(1, Ordering::Relaxed);
        let (key, path) = (format!("kill-{n}"), format!("/v1/workflows/{}/runs", NAMES[n % NAMES.len()]));
        let body = json!({"input": {"url": url, "n": n, "group": n % GROUPS}}).to_string();
        let headers = [("content-type", "application/json"), ("idempotency-key", key.as_str())];
        loop {
            let asked = client.try_send(Method::POST, &path, &headers, body.clone());
            if let Ok(Ok(answer)) = tokio::time::timeout(ASKED_WITHIN, asked).await
                && answer.status.is_success()
            {
                let id = answer.json()["id"].as_str().expect("an id").to_owned();
                let known = accepted.lock().expect("no submitter panicked").insert(key.clone(), id);
                assert_eq!(known, None, "a key is used once");
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_killed_again_and_again_loses_nothing() {
    let kills = std::env::var("REIPAZ_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let well = Arc::new(AtomicBool::new(false));
    let upstream = server(Arc::clone(&well)).await;
    let mut host = Host::start(Settings::new().with_config(BREAKERS).with_config(PLUGIN_LIMIT)).await;
    for document in [STUBBORN, LENIENT, CAREFUL, MENDED, LIMITED, COUNT] {
        host.client().must_publish(document).await;
    }

    // When it is killed under load, each time a moment after it was ready.
    let (next, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let accepted = Arc::new(Mutex::new(BTreeMap::new()));
    let submitters: Vec<_> = (0..SUBMITTERS)
        .map(|_| {
            let (client, url) = (host.client().clone(), upstream.url("/"));
            tokio::spawn(submit(client, url, Arc::clone(&next), Arc::clone(&stop), Arc::clone(&accepted)))
        })
        .collect();
    let mut restarts = Duration::ZERO;
    for _ in 0..kills {
        tokio::time::sleep(Duration::from_millis(below(700))).await;
        host.kill();
        let begin = Instant::now();
        host.start_again().await;
        restarts += begin.elapsed();
    }
    stop.store(true, Ordering::Relaxed);
    for submitter in submitters {
        submitter.await.expect("every run is accepted in the end");
    }

    // Then every run ends, once a person has looked after those that paused.
    well.store(true, Ordering::Relaxed);
    let client = host.client();
    let begin = Instant::now();
    wait::until("the end of every run", Duration::from_secs(120), || async {
        let paused = client.get("/v1/runs?status=paused&limit=100").await.expect(200).json();
        for run in paused["runs"].as_array().into_iter().flatten() {
            let id = run["id"].as_str().expect("an id");
            client.post(&format!("/v1/runs/{id}/retry"), &json!({})).await.expect(200);
        }
        (client.metric("reipaz_runs_live").await == 0.0).then_some(())
    })
    .await;
    let settled = begin.elapsed();
    wait::until("free places", Duration::from_secs(10), || async {
        let limits = client.get("/v1/limits").await.expect(200).json();
        let places = |limit: &Value| limit["held"].as_u64() == Some(0) && limit["queued"].as_u64() == Some(0);
        limits["limits"].as_array().is_some_and(|all| all.iter().all(places)).then_some(())
    })
    .await;
    host.stop().await;

    // And the journal says of each that it ended once, and nothing else twice.
    let accepted: BTreeSet<String> =
        accepted.lock().expect("no submitter panicked").values().cloned().collect();
    let mut told = Told::default();
    journal::events_in(&host.data_dir()).await.iter().for_each(|recorded| told.add(recorded));
    let ended: BTreeSet<String> = told.ends.keys().cloned().collect();
    assert_eq!(ended, accepted, "what was accepted ended, and nothing else began");
    assert!(told.ends.values().all(|ends| *ends == 1), "{:?}", told.ends);

    // There were never more of a group than may be.
    let most = told.most_at_once();
    assert_eq!(most, AT_ONCE, "runs of a group at one time");

    // The outside world was asked once for each attempt, and again for each whose host was killed.
    let calls = upstream.calls_by_key();
    for (key, calls) in &calls {
        let most = told.attempts.get(key).copied().unwrap_or_default()
            + told.lost.get(key).copied().unwrap_or_default();
        assert!(*calls <= most, "{key} was called {calls} times in {most} executions");
    }
    let sum = |counts: &BTreeMap<String, usize>| counts.values().sum::<usize>();
    println!(
        "{kills} kills, {} runs: all ended, {settled:?} after the last; {} attempts, {} of them lost with their host, {} parked \
         behind a breaker; {} failures handled by other steps; {} waits for a place; {} calls; {:?} from each start to readiness",
        accepted.len(),
        sum(&told.attempts),
        sum(&told.lost),
        told.parked,
        told.handled,
        told.asked,
        sum(&calls),
        restarts / u32::try_from(kills).unwrap_or(1).max(1),
    );
    assert!(sum(&told.lost) > 0, "the kills hit something");
    assert!(told.handled > 0 && told.parked > 0, "{} handled, {} parked", told.handled, told.parked);
}

/// What the journal says, by run or by step's idempotency key.
#[derive(Default)]
struct Told {
    seqs: BTreeMap<String, u32>,
    ends: BTreeMap<String, usize>,
    attempts: BTreeMap<String, usize>,
    lost: BTreeMap<String, usize>,
    outcomes: BTreeSet<(String, u32)>,
    parked: usize,
    handled: usize,
    asked: usize,
    /// The group of each run, when it was let in, and when it ended.
    groups: BTreeMap<String, String>,
    places: BTreeMap<String, (Timestamp, Timestamp)>,
}

impl Told {
    fn add(&mut self, Recorded { event, .. }: &Recorded) {
        let run = event.run.to_string();
        let seq = self.seqs.entry(run.clone()).or_default();
        assert_eq!(event.seq, *seq + 1, "run {run} has a gap, or an event twice");
        *seq = event.seq;
        assert!(!self.ends.contains_key(&run), "{event:?} after the end");
        match &event.fact {
            Fact::AttemptStarted(started) => {
                let attempts = self.attempts.entry(format!("{run}{}", started.path)).or_default();
                *attempts += 1;
                assert_eq!(started.attempt as usize, *attempts, "attempts are numbered in order");
            }
            Fact::AttemptInterrupted(interrupted) if interrupted.cause == InterruptCause::HostLost => {
                *self.lost.entry(format!("{run}{}", interrupted.path)).or_default() += 1;
            }
            Fact::AttemptFinished(finished) => {
                let new = self.outcomes.insert((format!("{run}{}", finished.path), finished.attempt));
                assert!(new, "an outcome counts once: {event:?}");
            }
            Fact::AttemptParked(parked) => {
                let new = self.outcomes.insert((format!("{run}{}", parked.path), parked.attempt));
                assert!(new, "an outcome counts once: {event:?}");
                self.parked += 1;
            }
            Fact::HandlingStarted(_) => self.handled += 1,
            Fact::RunAccepted(accepted) => {
                let input: Value = serde_json::from_str(&accepted.input).expect("JSON");
                self.groups.insert(run, input["group"].to_string());
            }
            Fact::LimitAsked(_) => self.asked += 1,
            Fact::RunAdmitted(_) => {
                let new = self.places.insert(run, (event.at, Timestamp(u64::MAX)));
                assert_eq!(new, None, "a run is let in once: {event:?}");
            }
            Fact::RunFinished(_) => {
                self.places.entry(run.clone()).and_modify(|place| place.1 = event.at);
                *self.ends.entry(run).or_default() += 1;
            }
            _ => {}
        }
    }

    /// The most runs of one group between their being let in and their end.
    fn most_at_once(&self) -> usize {
        let at = |moment: Timestamp, group: &String| {
            let there = |(run, place): &(&String, &(Timestamp, Timestamp))| {
                self.groups.get(*run) == Some(group) && place.0 <= moment && moment < place.1
            };
            self.places.iter().filter(there).count()
        };
        self.places.iter().map(|(run, place)| at(place.0, &self.groups[run])).max().unwrap_or_default()
    }
}
