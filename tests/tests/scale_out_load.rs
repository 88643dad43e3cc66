//! What breaks while three hosts work on runs that take 0.2 to 2 s. After each break, all witnesses are asked.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use reipaz_tests::{
    host::Host,
    kafka::{Broker, Deployment, Engine, SESSION},
    load::{Load, judge, number},
    upstream::Upstream,
    wait,
    workflows::{CALL, COUNT},
};
use serde_json::json;

const PARTITIONS: u32 = 6;
/// Load before something breaks, and after.
const AROUND: Duration = Duration::from_secs(3);
/// From the end of the load to the last result: what waits for its retry, and a session that must end first.
const WITHIN: Duration = Duration::from_secs(40);

/// A broker, a ClickHouse and an outside world, for as many hosts as a test wants.
struct World {
    upstream: Upstream,
    engine: Engine,
    deployment: Arc<Deployment>,
    broker: Broker,
}

impl World {
    async fn new() -> Self {
        let broker = Broker::start();
        let deployment = Arc::new(Deployment::on(broker.address.clone(), PARTITIONS));
        Self { upstream: Upstream::slow().await, engine: Engine::start(), deployment, broker }
    }

    async fn host(&self) -> Host {
        let settings =
            self.deployment.settings().with_external_clickhouse(&self.engine.url, &self.engine.password);
        Host::start(settings).await
    }

    async fn three_hosts(&self) -> Vec<Host> {
        let mut hosts = vec![self.host().await];
        hosts[0].client().must_publish(CALL).await;
        hosts[0].client().must_publish(COUNT).await;
        hosts.extend([self.host().await, self.host().await]);
        shared(&hosts.iter().collect::<Vec<_>>()).await;
        hosts
    }

    fn load(&self, hosts: &[&Host], name: &str) -> Load {
        Load::start(&self.deployment, hosts, &self.upstream.url("/work"), name)
    }
}

/// Waits until each of the hosts has its share.
async fn shared(hosts: &[&Host]) {
    let share = f64::from(PARTITIONS) / hosts.len() as f64;
    wait::until("all own their share", Duration::from_secs(60), || async {
        for host in hosts {
            let owned = host.client().metric("reipaz_partition_owned").await;
            if owned < share.floor() || owned > share.ceil() {
                return None;
            }
        }
        Some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_come_and_go_under_load() {
    let world = World::new().await;
    let mut hosts = world.three_hosts().await;
    let mut keys = BTreeSet::new();

    // A host is added.
    let load = world.load(&hosts.iter().collect::<Vec<_>>(), "added");
    tokio::time::sleep(AROUND).await;
    hosts.push(world.host().await);
    let all: Vec<&Host> = hosts.iter().collect();
    load.ask(&all);
    shared(&all).await;
    tokio::time::sleep(AROUND).await;
    let accepted = load.stop().await;
    keys.extend(accepted.keys);
    let judged = judge(&world.deployment, &keys, &all, &world.upstream, WITHIN).await;
    println!("added: {judged:?}, the longest submission took {:?}", accepted.longest);
    let repeated = judged.repeated;

    // A host is removed in order.
    let mut removed = hosts.pop().expect("four hosts");
    let left: Vec<&Host> = hosts.iter().collect();
    let load = world.load(&left, "removed");
    tokio::time::sleep(AROUND).await;
    removed.stop().await;
    tokio::time::sleep(AROUND).await;
    let accepted = load.stop().await;
    keys.extend(accepted.keys);
    let judged = judge(&world.deployment, &keys, &left, &world.upstream, WITHIN).await;
    println!("removed: {judged:?}, the longest submission took {:?}", accepted.longest);
    // Two seconds are meant; the tests' builds are slow and their machines are busy.
    assert!(accepted.longest < Duration::from_secs(5), "{:?}", accepted.longest);
    let repeated = judged.repeated - repeated;

    // A host stands still until its session is over, with calls and commits under way, and wakes.
    let load = world.load(&left, "frozen");
    tokio::time::sleep(AROUND).await;
    let in_flight = world.upstream.under_way();
    hosts[1].freeze();
    tokio::time::sleep(SESSION + AROUND).await;
    hosts[1].thaw();
    tokio::time::sleep(AROUND).await;
    keys.extend(load.stop().await.keys);
    let before = judged.repeated;
    let judged = judge(&world.deployment, &keys, &left, &world.upstream, WITHIN).await;
    let extra = judged.repeated - before;
    println!("frozen: {judged:?}, {extra} calls repeated of {in_flight} under way");
    assert!(extra <= in_flight + 10, "{extra} of {in_flight}");

    // A host is killed.
    let load = world.load(&left, "killed");
    tokio::time::sleep(AROUND).await;
    let in_flight = world.upstream.under_way();
    hosts[2].kill();
    let left: Vec<&Host> = hosts.iter().take(2).collect();
    load.ask(&left);
    tokio::time::sleep(AROUND).await;
    keys.extend(load.stop().await.keys);
    let before = judged.repeated;
    let judged = judge(&world.deployment, &keys, &left, &world.upstream, WITHIN).await;
    let extra = judged.repeated - before;
    println!(
        "killed: {judged:?}, {extra} calls repeated of {in_flight} under way ({repeated} at hand-overs)"
    );
    assert!(judged.took < SESSION + Duration::from_secs(15), "{judged:?}");
    assert!(extra <= in_flight + 10, "{extra} of {in_flight}");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_crash_under_load() {
    let mut world = World::new().await;
    let hosts = world.three_hosts().await;
    let all: Vec<&Host> = hosts.iter().collect();
    let mut keys = BTreeSet::new();

    // ClickHouse is away for a while.
    let load = world.load(&all, "without_rows");
    tokio::time::sleep(AROUND).await;
    world.engine.kill();
    let away = std::env::var("REIPAZ_TEST_OUTAGE_SECONDS").ok().and_then(|text| text.parse().ok());
    tokio::time::sleep(Duration::from_secs(away.unwrap_or(10))).await;
    world.engine.start_again();
    tokio::time::sleep(AROUND).await;
    let accepted = load.stop().await;
    keys.extend(accepted.keys);
    let judged = judge(&world.deployment, &keys, &all, &world.upstream, WITHIN).await;
    println!("ClickHouse away: {judged:?}, the longest submission took {:?}", accepted.longest);
    assert_eq!(judged.repeated, 0, "nothing was executed again");
    assert!(accepted.longest < Duration::from_secs(5), "{:?}", accepted.longest);

    // The broker crashes and comes back.
    let load = world.load(&all, "crashed");
    tokio::time::sleep(AROUND).await;
    let in_flight = world.upstream.under_way();
    world.broker.crash_and_restart();
    tokio::time::sleep(AROUND).await;
    let accepted = load.stop().await;
    keys.extend(accepted.keys);
    let judged = judge(&world.deployment, &keys, &all, &world.upstream, WITHIN).await;
    println!("broker crashed with {in_flight} under way: {judged:?}, longest {:?}", accepted.longest);
    for host in &hosts {
        assert_eq!(host.client().get("/readyz").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_is_worked_off() {
    // Given many tasks that were written while no host ran.
    let tasks = std::env::var("REIPAZ_TEST_BACKLOG").ok().and_then(|text| text.parse().ok());
    let tasks: usize = tasks.unwrap_or(10_000);
    let world = World::new().await;
    let mut hosts = world.three_hosts().await;
    for host in &mut hosts {
        host.stop().await;
    }
    let producer = world.deployment.producer();
    for n in 0..tasks {
        let task =
            json!({"reipaz": 1, "workflow": "count", "input": {"n": n}, "idempotency_key": n.to_string()});
        world.deployment.write(&producer, None, &[], Some(task.to_string().as_bytes()));
    }
    world.deployment.flush(&producer);

    // When three hosts come,
    let began = Instant::now();
    for host in &mut hosts {
        host.spawn();
    }

    // Then each is run once, and ClickHouse has them all.
    let results = wait::until("all results", Duration::from_secs(30 + tasks as u64 / 50), || async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let results = world.deployment.read("results").await;
        (results.len() >= tasks).then_some(results)
    })
    .await;
    println!("{tasks} tasks in {:?}", began.elapsed());
    let told: BTreeSet<&str> = results.iter().map(|result| result.key.as_str()).collect();
    assert_eq!((results.len(), told.len()), (tasks, tasks));
    let query = "SELECT count() AS runs FROM runs FINAL WHERE status = 'completed'";
    let stored = |rows: &[serde_json::Value]| rows.iter().any(|row| number(&row["runs"]) == tasks as u64);
    hosts[0].sql_until(query, Duration::from_secs(120), stored).await;
    println!("with their rows {:?}", began.elapsed());
}
