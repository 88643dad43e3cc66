//! Hosts that share a real Kafka: any program's tasks run, what is wrong is told, and losing a host loses nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use reipaz_tests::{
    client::is_terminal,
    host::{Host, Settings},
    kafka::{Broker, Deployment, Engine, SESSION, Secured, Written},
    upstream::Upstream,
    wait,
    workflows::{CALL, COUNT},
};
use serde_json::{Value, json};

/// Results by run: how often each was told.
fn told(results: &[Written]) -> BTreeMap<String, usize> {
    let mut told = BTreeMap::new();
    for result in results {
        *told.entry(result.key.clone()).or_default() += 1;
    }
    told
}

/// Waits until so many runs have been told of, and gives all results.
async fn results(deployment: &Deployment, runs: usize, within: Duration) -> Vec<Written> {
    wait::until(&format!("{runs} results"), within, || async {
        let results = deployment.read("results").await;
        if told(&results).len() >= runs {
            return Some(results);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        None
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_of_any_producer_runs_and_its_result_comes_back() {
    let deployment = Deployment::new(2);
    let host = Host::start(deployment.settings()).await;
    host.client().must_publish(COUNT).await;
    let producer = deployment.producer();
    let task = json!({"reipaz": 1, "workflow": "count", "input": {"n": 4}, "metadata": {"from": "a test"}});
    deployment.write(&producer, Some(1), &[("trace", "t-17")], Some(task.to_string().as_bytes()));
    deployment.flush(&producer);

    // Its end is told, with its producer's headers,
    let results = results(&deployment, 1, Duration::from_secs(30)).await;
    let result = &results[0];
    let event = result.json();
    assert_eq!(event["specversion"], "1.0", "{event}");
    assert_eq!(event["type"], "reipaz.run.completed");
    assert_eq!(event["data"]["output"], 7);
    assert_eq!(event["data"]["metadata"]["from"], "a test");
    assert_eq!(result.headers.get("trace").map(String::as_str), Some("t-17"));

    // and over HTTP it is a run like any other.
    let run = host.client().get(&format!("/v1/runs/{}", result.key)).await.expect(200).json();
    assert_eq!((&run["status"], &run["output"]), (&json!("completed"), &json!(7)));
    let run = host.client().run("count", &json!({"n": 1})).await;
    assert_eq!(run["output"], 4, "{run}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promised_run_that_cannot_start_is_a_failed_run() {
    // Given tasks as the API of another host writes them, which has told somebody that the run is accepted.
    let deployment = Deployment::new(2);
    let host = Host::start(deployment.settings()).await;
    host.client().must_publish(COUNT).await;
    let producer = deployment.producer();
    let cases = [("count", json!({"n": "four"}), "invalid_input"), ("lost", json!(1), "unknown_workflow")];
    for (n, (workflow, input, _)) in cases.iter().enumerate() {
        let run = format!("0198c5a4-0000-7000-8000-00000000000{n}");
        let task = json!({"reipaz": 1, "workflow": workflow, "version": 1, "input": input, "run": run});
        let headers = [("reipaz-origin", "api")];
        deployment.write(&producer, Some(0), &headers, Some(task.to_string().as_bytes()));
    }
    deployment.flush(&producer);

    // Then each is a run that has failed and says why, and cannot be retried.
    results(&deployment, cases.len(), Duration::from_secs(60)).await;
    for (n, (_, _, code)) in cases.iter().enumerate() {
        let path = format!("/v1/runs/0198c5a4-0000-7000-8000-00000000000{n}");
        let run = host.client().get(&path).await.expect(200).json();
        assert_eq!((&run["status"], &run["error"]["code"]), (&json!("failed"), &json!(code)), "{run}");
        let retried = host.client().post(&format!("{path}/retry"), &json!({})).await;
        assert_eq!(retried.problem(409), "never-started");
    }
    assert!(deployment.read("tasks.rejected").await.is_empty());
}

/// The ends of transactions have places in the topic, but no task stands there.
#[tokio::test(flavor = "multi_thread")]
async fn a_producer_may_write_tasks_in_transactions() {
    // Given a transaction with a task, and one that was aborted.
    let deployment = Deployment::new(1);
    let host = Host::start(deployment.settings()).await;
    host.client().must_publish(COUNT).await;
    let id = |n| format!("0198c5a4-0000-7000-8000-00000000000{n}");
    let task = |n| json!({"reipaz": 1, "workflow": "count", "input": {"n": n}, "run": id(n)}).to_string();
    deployment.transact(0, &[task(1)], true);
    deployment.transact(0, &[task(2)], false);

    // Then the first runs, and the other was never asked for.
    results(&deployment, 1, Duration::from_secs(30)).await;
    let begin = Instant::now();
    let path = |n| format!("/v1/runs/{}", id(n));
    let run = host.client().get(&path(1)).await.expect(200).json();
    assert_eq!((&run["status"], &run["output"]), (&json!("completed"), &json!(4)));
    assert_eq!(host.client().get(&path(2)).await.problem(404), "run-not-found");
    let asked = begin.elapsed();
    assert!(asked < Duration::from_secs(2), "the owner waited for tasks that are none: {asked:?}");
    assert_eq!(deployment.read("results").await.len(), 1);

    // And nothing is behind.
    wait::until("no lag", Duration::from_secs(20), || async {
        (host.client().metric("reipaz_tasks_lag").await == 0.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_rejected_and_the_rest_completes() {
    // Given a producer of which a third is malformed, in many ways.
    const TASKS: usize = 10_000;
    let deployment = Deployment::new(4);
    let host = Host::start(deployment.settings()).await;
    host.client().must_publish(COUNT).await;
    let producer = deployment.producer();
    let huge = format!("{{\"reipaz\":1,\"workflow\":\"count\",\"input\":\"{}\"}}", "x".repeat(1 << 20));
    let wrong: Vec<(Option<Vec<u8>>, &str)> = vec![
        (None, "no_body"),
        (Some(Vec::new()), "no_body"),
        (Some(b"hello".to_vec()), "malformed"),
        (Some(vec![0xff, 0xfe, 0]), "malformed"),
        (Some(b"[]".to_vec()), "malformed"),
        (Some(br#"{"workflow":"count"}"#.to_vec()), "no_version"),
        (Some(br#"{"reipaz":99,"workflow":"count"}"#.to_vec()), "unknown_version"),
        (Some(br#"{"reipaz":1,"workflow":["count"]}"#.to_vec()), "malformed"),
        (Some(br#"{"reipaz":1,"workflow":"count","input":{"n":"four"}}"#.to_vec()), "invalid_input"),
        (Some(br#"{"reipaz":1,"workflow":"nothing_of_that_name"}"#.to_vec()), "unknown_workflow"),
        (
            Some(br#"{"reipaz":1,"command":"cancel","run":"0198c5a4-0000-7000-8000-000000000001"}"#.to_vec()),
            "unknown_run",
        ),
        (Some(huge.into_bytes()), "too_large"),
    ];
    let mut expected: BTreeMap<&str, usize> = BTreeMap::new();
    let mut keys = BTreeSet::new();
    for n in 0..TASKS {
        let partition = Some((n % 4) as i32);
        if n % 3 == 0 {
            let (body, reason) = &wrong[n / 3 % wrong.len()];
            deployment.write(&producer, partition, &[("n", &n.to_string())], body.as_deref());
            *expected.entry(reason).or_default() += 1;
        } else {
            // A key's home is another partition more often than not.
            let key = format!("k-{n}");
            let task = json!({"reipaz": 1, "workflow": "count", "input": {"n": n}, "idempotency_key": key});
            deployment.write(&producer, partition, &[], Some(task.to_string().as_bytes()));
            keys.insert(key);
        }
    }
    deployment.flush(&producer);

    // Then all others complete, once each,
    let results = results(&deployment, keys.len(), Duration::from_secs(120)).await;
    assert!(told(&results).values().all(|times| *times == 1));
    let completed: BTreeSet<String> = results
        .iter()
        .map(|result| {
            let event = result.json();
            assert_eq!(event["type"], "reipaz.run.completed", "{event}");
            event["data"]["idempotency_key"].as_str().expect("a key").to_owned()
        })
        .collect();
    assert_eq!(completed, keys);

    // and each wrong one stands in the rejected topic as it was, with its reason.
    let wanted: usize = expected.values().sum();
    let rejected = wait::until("the rejected ones", Duration::from_secs(30), || async {
        let rejected = deployment.read("tasks.rejected").await;
        (rejected.len() >= wanted).then_some(rejected)
    })
    .await;
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for task in &rejected {
        let n: usize = task.headers["n"].parse().expect("the producer's own header");
        assert_eq!(task.body, wrong[n / 3 % wrong.len()].0.clone().unwrap_or_default());
        assert!(task.headers["reipaz-source"].starts_with(&deployment.topic("tasks")), "{:?}", task.headers);
        let reason =
            wrong.iter().map(|(_, reason)| *reason).find(|reason| *reason == task.headers["reipaz-reason"]);
        *reasons.entry(reason.expect("a known reason")).or_default() += 1;
    }
    assert_eq!(reasons, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_host_answers_for_every_run() {
    // Given two hosts with half of the partitions each.
    let deployment = Deployment::new(4);
    let first = Host::start(deployment.settings()).await;
    first.client().must_publish(COUNT).await;
    let second = Host::start(deployment.settings()).await;
    wait::until("both own something", Duration::from_secs(60), || async {
        let owned = async |host: &Host| host.client().metric("reipaz_partition_owned").await;
        ((owned(&first).await - 2.0).abs() < 0.1 && (owned(&second).await - 2.0).abs() < 0.1).then_some(())
    })
    .await;
    wait::until("the workflow is known on the second", Duration::from_secs(5), || async {
        (second.client().get("/v1/workflows/count").await.status == 200).then_some(())
    })
    .await;

    // Whichever is asked to run, to wait, to read, to list or to follow, it answers.
    let mut ids = BTreeSet::new();
    for n in 0..24 {
        let (asked, other) = if n % 2 == 0 { (&first, &second) } else { (&second, &first) };
        let body = json!({"input": {"n": n}});
        let answer =
            asked.client().post_with("/v1/workflows/count/runs", &[("prefer", "wait=10")], &body).await;
        let run = answer.expect(200).json();
        assert_eq!(run["output"], n + 3, "{run}");
        let id = run["id"].as_str().expect("an id").to_owned();
        let seen = other.client().get(&format!("/v1/runs/{id}")).await.expect(200).json();
        assert_eq!(seen["output"], n + 3);
        assert_eq!(seen["seq"], other.client().events(&id).await.len());
        ids.insert(id);
    }
    for host in [&first, &second] {
        let page = host.client().get("/v1/runs?limit=100").await.expect(200).json();
        let listed: BTreeSet<String> =
            page["runs"].as_array().expect("runs").iter().map(|run| text(&run["id"])).collect();
        assert_eq!(listed, ids, "{page}");
    }
    // A run that was accepted a moment ago is never unknown.
    for n in 0..20 {
        let id = first.client().submit("count", &json!({"n": n})).await;
        second.client().get(&format!("/v1/runs/{id}")).await.expect(200);
    }
    let unknown = second.client().get("/v1/runs/0198c5a4-0000-7000-8000-000000000001").await;
    assert_eq!(unknown.problem(404), "run-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_hand_over_is_short() {
    // Given two hosts and a run in every partition.
    let deployment = Deployment::new(4);
    let first = Host::start(deployment.settings()).await;
    first.client().must_publish(COUNT).await;
    let mut second = Host::start(deployment.settings()).await;
    wait::until("the second owns something", Duration::from_secs(60), || async {
        (second.client().metric("reipaz_partition_owned").await > 1.5).then_some(())
    })
    .await;
    let mut ids = Vec::new();
    for n in 0..16 {
        ids.push(text(&first.client().run("count", &json!({"n": n})).await["id"]));
    }

    // When the second stops while clients of the first go on asking.
    second.terminate();
    let mut longest = Duration::ZERO;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(8) {
        for id in &ids {
            let asked = Instant::now();
            first.client().get(&format!("/v1/runs/{id}")).await.expect(200);
            longest = longest.max(asked.elapsed());
        }
    }

    // Then it ends well, nobody is refused, and nobody waits for long.
    let status = second.ended(Duration::from_secs(20)).await;
    assert!(status.success(), "{status}");
    println!("the longest answer took {longest:?}");
    // Two seconds are meant; the tests' builds are slow and their machines are busy.
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    for log in [first.log(), second.log()] {
        assert!(log.contains("clean_stop=true"), "{log}");
        assert!(!log.contains("clean_stop=false"), "every journal was closed when it was handed over: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_host_loses_nothing() {
    // Given three hosts, and runs that call a server which waits.
    let upstream = Upstream::slow().await;
    let deployment = Deployment::new(6);
    let mut hosts = three_hosts(&deployment).await;
    let accepted = submit(&hosts, &upstream, "lost", 150).await;
    wait::until("calls under way", Duration::from_secs(30), || async {
        (upstream.under_way() >= 20).then_some(())
    })
    .await;

    // When one is killed,
    let killed = Instant::now();
    hosts[1].kill();

    // Then every run ends, and its end is told once.
    let results = results(&deployment, accepted.len(), SESSION + Duration::from_secs(60)).await;
    println!("all ended {:?} after the kill", killed.elapsed());
    let told = told(&results);
    assert_eq!(told.keys().cloned().collect::<BTreeSet<_>>(), accepted);
    assert!(told.values().all(|times| *times == 1), "{told:?}");
    for id in accepted.iter().take(20) {
        let run = hosts[0].client().finished(id, Duration::from_secs(20)).await;
        assert_eq!(run["status"], "completed", "{run}");
    }
    // When one is stopped in order, the other goes on.
    hosts[2].stop().await;
    let run = hosts[0].client().run("call", &json!({"url": upstream.url("/")})).await;
    assert_eq!(run["status"], "completed", "{run}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_wakes_too_late_changes_nothing() {
    // Given three hosts under load.
    let upstream = Upstream::slow().await;
    let deployment = Deployment::new(6);
    let hosts = three_hosts(&deployment).await;
    let accepted = submit(&hosts, &upstream, "zombie", 150).await;
    wait::until("calls under way", Duration::from_secs(30), || async {
        (upstream.under_way() >= 20).then_some(())
    })
    .await;

    // When one stands still until its session is over, and then wakes,
    hosts[1].freeze();
    tokio::time::sleep(SESSION + Duration::from_secs(3)).await;
    hosts[1].thaw();

    // Then each run ends once, whichever host is asked,
    let results = results(&deployment, accepted.len(), Duration::from_secs(60)).await;
    let told = told(&results);
    assert_eq!(told.keys().cloned().collect::<BTreeSet<_>>(), accepted);
    assert!(told.values().all(|times| *times == 1), "{told:?}");
    for id in &accepted {
        for host in &hosts {
            let run = host.client().get_waiting(&format!("/v1/runs/{id}"), 8).await.expect(200).json();
            assert!(is_terminal(&run), "{run}");
        }
    }
    // and each attempt was executed once, but for those that the sleeper had in flight.
    let calls = upstream.calls_by_key();
    assert_eq!(calls.len(), accepted.len());
    let extra: usize = calls.values().map(|count| count - 1).sum();
    println!("{extra} of {} calls were repeated", calls.len());
    assert!(extra < accepted.len(), "{extra} calls were repeated");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_all_hosts_stand_in_one_clickhouse() {
    // Given two hosts, a ClickHouse that both use, and runs on both.
    let upstream = Upstream::slow().await;
    let engine = Engine::start();
    let deployment = Deployment::new(4);
    let settings = || deployment.settings().with_external_clickhouse(&engine.url, &engine.password);
    let mut hosts = vec![Host::start(settings()).await];
    hosts[0].client().must_publish(CALL).await;
    hosts.push(Host::start(settings()).await);
    wait::until("both own something", Duration::from_secs(60), || async {
        for host in &hosts {
            if host.client().metric("reipaz_partition_owned").await < 2.0 {
                return None;
            }
        }
        (hosts[1].client().get("/v1/workflows/call").await.status == 200).then_some(())
    })
    .await;
    let accepted = submit(&hosts, &upstream, "rows", 60).await;

    // When one is killed while some of them are under way.
    wait::until("calls under way", Duration::from_secs(30), || async {
        (upstream.under_way() >= 10).then_some(())
    })
    .await;
    hosts[1].kill();

    // Then ClickHouse has each run and each end once, as the journal has.
    results(&deployment, accepted.len(), SESSION + Duration::from_secs(60)).await;
    let finished = "SELECT run, count() AS ends FROM events WHERE type = 'run_finished' GROUP BY run";
    let rows =
        hosts[0].sql_until(finished, Duration::from_secs(30), |rows| rows.len() >= accepted.len()).await;
    let ends: BTreeMap<String, String> =
        rows.iter().map(|row| (text(&row["run"]), row["ends"].to_string())).collect();
    assert_eq!(ends.keys().cloned().collect::<BTreeSet<_>>(), accepted);
    assert!(ends.values().all(|times| times.trim_matches('"') == "1"), "{ends:?}");
    let runs = hosts[0].sql("SELECT run FROM runs WHERE status = 'completed'").await;
    assert_eq!(runs.len(), accepted.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secured_broker_lets_in_whom_it_knows() {
    let broker = Broker::start_secured();
    let Secured { address, user, password, authority } = broker.secured.as_ref().expect("it is secured");
    let config = |mechanism: &str, authority: &str| {
        format!(
            "partitions = 2\n[kafka]\nbrokers = \"{address}\"\nprefix = \"{mechanism}.\"\n\
             [kafka.tls]\nca_file = \"{authority}\"\n\
             [kafka.sasl]\nmechanism = \"{mechanism}\"\nusername = \"{user}\"\n"
        )
    };
    let settings = |mechanism: &str, password: &str, authority: &str| {
        Settings::new().with_config(&config(mechanism, authority)).with_env("REIPAZ_KAFKA_PASSWORD", password)
    };

    // Whoever has the password runs workflows, by each mechanism.
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let host = Host::start(settings(mechanism, password, authority)).await;
        host.client().must_publish(COUNT).await;
        let run = host.client().run("count", &json!({"n": 1})).await;
        assert_eq!(run["output"], 4, "{mechanism}: {run}");
    }

    // Whoever has not, and whoever does not trust the broker, is told so, and soon.
    let stranger = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(stranger.path(), "no certificate").expect("a file");
    let strangers = stranger.path().display().to_string();
    for (password, authority, said) in
        [("wrong", authority, "authentication"), (password.as_str(), &strangers, "certificate")]
    {
        let mut host = Host::prepare(settings("SCRAM-SHA-512", password, authority));
        host.spawn();
        let status = host.ended(Duration::from_secs(60)).await;
        let log = host.log();
        assert!(!status.success(), "{log}");
        let last = log.lines().rev().find(|line| line.contains("error")).unwrap_or_default().to_lowercase();
        println!("{last}");
        assert!(last.contains(said), "{said}: {log}");
    }
}

async fn three_hosts(deployment: &Deployment) -> Vec<Host> {
    let mut hosts = vec![Host::start(deployment.settings()).await];
    hosts[0].client().must_publish(CALL).await;
    for _ in 0..2 {
        hosts.push(Host::start(deployment.settings()).await);
    }
    wait::until("all own something", Duration::from_secs(60), || async {
        for host in &hosts {
            if host.client().metric("reipaz_partition_owned").await < 2.0
                || host.client().get("/v1/workflows/call").await.status != 200
            {
                return None;
            }
        }
        Some(())
    })
    .await;
    hosts
}

async fn submit(hosts: &[Host], upstream: &Upstream, name: &str, runs: usize) -> BTreeSet<String> {
    let url = upstream.url("/work");
    let submit = |n: usize| {
        let client = hosts[n % hosts.len()].client().clone();
        let (url, key) = (url.clone(), format!("{name}-{n}"));
        async move {
            let body = json!({"input": {"url": url}});
            let answer =
                client.post_with("/v1/workflows/call/runs", &[("idempotency-key", &key)], &body).await;
            text(&answer.expect(202).json()["id"])
        }
    };
    stream::iter(0..runs).map(submit).buffer_unordered(16).collect().await
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}
