//! Limits: there are never more at one time than may be, whichever hosts are lost, and everybody's turn comes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use reipaz_tests::{
    client::{Client, of_type},
    host::{Host, Settings},
    kafka::{Deployment, SESSION},
    upstream::{Call, Upstream},
    wait,
};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// Who are at the server, by the `who` of the body; and how many were at most.
#[derive(Default)]
struct Guests(Mutex<BTreeMap<String, (usize, usize)>>);

/// Somebody who is there until it is dropped: answered, or gone with its host.
struct Guest(Arc<Guests>, String);

impl Guests {
    fn enter(self: &Arc<Self>, who: &str) -> Guest {
        let mut all = self.0.lock().expect("no panic");
        let (now, most) = all.entry(who.to_owned()).or_default();
        *now += 1;
        *most = (*most).max(*now);
        Guest(Arc::clone(self), who.to_owned())
    }

    fn most(&self, who: &str) -> usize {
        self.0.lock().expect("no panic").get(who).map_or(0, |&(_, most)| most)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.0.lock().expect("no panic").entry(self.1.clone()).or_default().0 -= 1;
    }
}

/// A server at which everybody stays for so long.
async fn server(stay: Duration) -> (Upstream, Arc<Guests>) {
    let guests = Arc::new(Guests::default());
    let counted = Arc::clone(&guests);
    let upstream = Upstream::start(move |call: Call| {
        let guest = counted.enter(call.json()["who"].as_str().unwrap_or_default());
        async move {
            tokio::time::sleep(stay).await;
            drop(guest);
            "done"
        }
    })
    .await;
    (upstream, guests)
}

/// A workflow that calls the server once, and what its document says besides.
fn calling(more: &str) -> String {
    format!(
        "reipaz: 1\nname: call\n{more}\nsteps:\n  call:\n    uses: http_request@1\n    \
         with: {{method: POST, url: '${{ $input.url }}', body: '${{ $input }}'}}\n"
    )
}

async fn submit(client: &Client, upstream: &Upstream, who: &str, runs: usize) -> Vec<String> {
    let input = json!({"url": upstream.url("/"), "who": who});
    join_all((0..runs).map(|_| client.submit("call", &input))).await
}

async fn all_complete(client: &Client, runs: &[String]) {
    for run in runs {
        let run = client.finished(run, PATIENCE).await;
        assert_eq!(run["status"], "completed", "{run}");
    }
}

async fn limits(host: &Host) -> Vec<Value> {
    let answer = host.client().get("/v1/limits").await.expect(200).json();
    answer["limits"].as_array().expect("a list").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_one_key_wait_for_each_other_and_a_crash_lets_nobody_in() {
    // Given two customers with many runs each, of which two may be under way.
    let (upstream, guests) = server(Duration::from_millis(300)).await;
    let mut host = Host::start(Settings::new()).await;
    host.client().must_publish(&calling("concurrency: {key: '${ $input.who }', limit: 2}")).await;
    let mut runs = submit(host.client(), &upstream, "a", 16).await;
    runs.extend(submit(host.client(), &upstream, "b", 6).await);

    // Then those that wait can be seen, each with its reason.
    let all = limits(&host).await;
    let of_a = all.iter().find(|limit| limit["key"] == "a").unwrap_or_else(|| panic!("{all:?}"));
    assert_eq!((&of_a["kind"], &of_a["name"]), (&json!("workflow"), &json!("call")), "{of_a}");
    assert_eq!((&of_a["limit"], &of_a["held"]), (&json!(2), &json!(2)), "{of_a}");
    assert!(of_a["queued"].as_u64() > Some(0) && of_a["waiting_since"].is_string(), "{of_a}");
    let (status, waits) = wait::until("a run that waits", PATIENCE, || async {
        let run = host.client().get(&format!("/v1/runs/{}", runs[15])).await.expect(200).json();
        let step = run["steps"]["/call"].clone();
        (step["waiting_for"]["type"] == "limit").then_some((run["status"].clone(), step))
    })
    .await;
    assert_eq!(status, "pending");
    assert_eq!(waits["waiting_for"]["limit"], "workflow call, key \"a\"", "{waits}");
    let metrics = host.client().get("/metrics").await.expect(200).text();
    assert!(metrics.contains("reipaz_limits_queued"), "{metrics}");

    // When the host is killed, those who had a place have it still, and nobody else is let in.
    host.kill();
    host.start_again().await;
    all_complete(host.client(), &runs).await;
    assert_eq!((guests.most("a"), guests.most("b")), (2, 2));
    wait::until("free places", PATIENCE, || async { limits(&host).await.is_empty().then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_start_in_a_span_than_may() {
    let (upstream, _) = server(Duration::ZERO).await;
    let host = Host::start(Settings::new()).await;
    host.client().must_publish(&calling("concurrency: {rate: {starts: 10, per: 1s}}")).await;
    let runs = submit(host.client(), &upstream, "a", 25).await;
    all_complete(host.client(), &runs).await;
    let (mut asked, mut admitted) = (Vec::new(), Vec::new());
    for run in &runs {
        let events = host.client().events(run).await;
        asked.push(reipaz_tests::time(&of_type(&events, "limit_asked")[0]["at"]));
        admitted.push(reipaz_tests::time(&of_type(&events, "run_admitted")[0]["at"]));
    }
    let (first, last) = (asked.iter().min().expect("25"), admitted.iter().max().expect("25"));
    let took = last.saturating_sub(*first);
    assert!(took >= Duration::from_secs(2), "25 starts, 10 in any second: {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_may_not_wait_is_told_so() {
    let (upstream, guests) = server(Duration::from_secs(2)).await;
    let host = Host::start(Settings::new()).await;
    let told =
        "on_failure:\n  steps:\n    tell: {uses: transform@1, with: {data: '${ $error }', filter: .code}}";
    host.client()
        .must_publish(&calling(&format!("concurrency: {{limit: 1, when_full: reject}}\n{told}")))
        .await;
    let first = submit(host.client(), &upstream, "a", 1).await;
    let second = submit(host.client(), &upstream, "a", 1).await;
    let run = host.client().finished(&second[0], PATIENCE).await;
    assert_eq!(run["status"], "failed", "{run}");
    assert_eq!(
        (&run["error"]["class"], &run["error"]["code"]),
        (&json!("rate_limited"), &json!("limit_full"))
    );
    assert_eq!(run["steps"]["/on_failure/tell"]["output"], "limit_full", "{run}");
    all_complete(host.client(), &first).await;

    // Retried once there is a place, it goes through.
    host.client().post(&format!("/v1/runs/{}/retry", second[0]), &json!({})).await.expect(200);
    all_complete(host.client(), &second).await;
    assert_eq!((guests.most("a"), upstream.calls().len()), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_share_a_plugins_limit_and_one_that_is_lost_lets_nobody_in() {
    // Given two hosts, and three attempts that there may be on both together.
    let (upstream, guests) = server(Duration::from_millis(400)).await;
    let deployment = Deployment::new(4);
    let settings = || deployment.settings().with_config("[plugins.http_request.concurrency]\nlimit = 3");
    let mut hosts = vec![Host::start(settings()).await, Host::start(settings()).await];
    wait::until("both own something", PATIENCE, || async {
        for host in &hosts {
            if host.client().metric("reipaz_partition_owned").await < 2.0 {
                return None;
            }
        }
        Some(())
    })
    .await;
    hosts[0].client().must_publish(&calling("timeout: 5m")).await;
    let runs = submit(hosts[0].client(), &upstream, "a", 60).await;

    // When one of them is lost while most wait,
    wait::until("calls", PATIENCE, || async { (upstream.calls().len() >= 12).then_some(()) }).await;
    hosts[1].kill();
    drop(hosts.pop());

    // Then the other goes on with all of them, and there were never more.
    let patience = SESSION + PATIENCE;
    wait::until("all calls", patience, || async { (upstream.calls().len() >= 60).then_some(()) }).await;
    all_complete(hosts[0].client(), &runs).await;
    assert_eq!(guests.most("a"), 3);
    let repeated = upstream.calls_by_key().values().filter(|&&calls| calls > 1).count();
    assert!(repeated <= 3, "{repeated} calls came twice: only those under way when the host was lost may");
}
