//! Hostile guests harm their own attempts: while all of them go on, well-behaved runs go through as they do on a quiet host.

use std::time::{Duration, Instant};

use reipaz_tests::{
    client::Client,
    host::{Host, Settings},
    scaffold,
    upstream::Upstream,
    workflows::{CALL, COUNT},
};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::MissedTickBehavior};

/// Each quiet, then under attack.
const ROUNDS: usize = 5;
/// Well-behaved runs of each half of a round: 2,000 under attack in all.
const RUNS: usize = 400;
/// Between two of them.
const EVERY: Duration = Duration::from_millis(10);
/// Between the begins of two attacks of one kind, of those that end soon.
const ATTACK_EVERY: Duration = Duration::from_secs(1);
/// How many times the p99 may grow.
const TIMES: f64 = 3.0;
/// So many series of rounds are tried.
const SERIES: usize = 3;
/// Attempts at one time, and the memory of each.
const ATTEMPTS: usize = 32;
const GUEST_MEMORY: u64 = 16 << 20;
/// What a host takes beside its guests: the program, the components' code, connections.
const HOST_MEMORY: u64 = 256 << 20;

const ATTACK: &str = "
reipaz: 1
name: attack
steps:
  attack:
    uses: hostile@1
    timeout: 1s
    retry: {attempts: 1}
    with: '${ $input }'
";

/// Expressions run in the sandbox too.
const RUNAWAY: &str = "
reipaz: 1
name: runaway
steps:
  turn:
    uses: transform@1
    timeout: 1s
    retry: {attempts: 1}
    with: {data: '${ $input.data }', filter: 'range(1000000000) | select(. < 0)'}
";

/// Everything that a hostile step does, with what its attempt ends as: a class, or a part of the message.
fn attacks() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"do": "spin"}), "timeout"),
        (json!({"do": "spin"}), "timeout"),
        (json!({"do": "spin"}), "timeout"),
        (json!({"do": "spin"}), "timeout"),
        (json!({"do": "recurse", "n": 100_000_000}), "resource"),
        (json!({"do": "memory_bomb"}), "resource"),
        (json!({"do": "memory_bomb"}), "resource"),
        (json!({"do": "panic"}), "trap"),
        (json!({"do": "divide"}), "trap"),
        (json!({"do": "exit", "status": 3}), "trap"),
        (json!({"do": "big_output", "bytes": 4 << 20}), "resource"),
        (json!({"do": "log_flood", "lines": 1_000_000}), ""),
        (json!({"do": "print_flood", "lines": 1_000_000}), ""),
        (json!({"do": "call_flood"}), "timeout"),
        (json!({"do": "handle_flood"}), "resource"),
        (json!({"do": "huge_call", "bytes": 8 << 20}), ""),
        (json!({"do": "random_flood", "bytes": 512 << 20}), ""),
        (json!({"do": "http", "url": "http://127.0.0.1:9/"}), ""),
        (json!({"do": "read_file", "path": "/etc/passwd"}), ""),
        (json!({"do": "tcp", "address": "127.0.0.1:9"}), ""),
    ]
}

/// Attacks until it is dropped: as many attempts at one time as there are attacks, each begun again when it has ended.
struct Siege(JoinSet<()>);

impl Siege {
    fn begin(client: &Client) -> Self {
        let mut siege = JoinSet::new();
        let runaway = ("runaway", json!({"data": 1}), "timeout");
        let attacks = attacks().into_iter().map(|(input, class)| ("attack", input, class)).chain([runaway]);
        for (n, (workflow, input, class)) in attacks.enumerate() {
            let client = client.clone();
            siege.spawn(async move {
                let begin = tokio::time::Instant::now() + n as u32 * ATTACK_EVERY / 20;
                let mut pace = tokio::time::interval_at(begin, ATTACK_EVERY);
                pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    pace.tick().await;
                    let run = client.run(workflow, &input).await;
                    assert_eq!(run["status"], "failed", "{input}: {run}");
                    let ended = run["error"]["class"].as_str().unwrap_or_default();
                    assert!(class.is_empty() || ended == class, "{input}: {run}");
                }
            });
        }
        Self(siege)
    }

    /// None of the attackers was surprised.
    fn end(mut self) {
        if let Some(Err(error)) = self.0.try_join_next() {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

/// Submits well-behaved runs at an even pace, and gives how long each took until its client had its end.
async fn well_behaved(client: &Client, upstream: &Upstream) -> Vec<Duration> {
    let mut runs = JoinSet::new();
    let mut pace = tokio::time::interval(EVERY);
    let url = upstream.url("/");
    for n in 0..RUNS {
        pace.tick().await;
        let (client, url) = (client.clone(), url.clone());
        runs.spawn(async move {
            let (workflow, input) =
                if n % 2 == 0 { ("count", json!({ "n": n })) } else { ("call", json!({ "url": url })) };
            let began = Instant::now();
            let run = client.run(workflow, &input).await;
            assert_eq!(run["status"], "completed", "{run}");
            began.elapsed()
        });
    }
    runs.join_all().await
}

fn p99(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn well_behaved_runs_go_through_among_hostile_ones() {
    let upstream = Upstream::start(|_| async { "done" }).await;
    // Without circuit breakers, which would end the attack soon.
    let limits = format!("[limits]\nattempts = {ATTEMPTS}\nguest_memory_bytes = {GUEST_MEMORY}");
    // In memory, since what the disk does is nobody's here.
    let settings =
        Settings::new().in_memory().with_config("[breakers]\nenabled = false").with_config(&limits);
    let host = Host::start(settings).await;
    let hostile = scaffold::guest("reipaz-guest-hostile").await;
    let hostile = hostile.to_str().expect("UTF-8");
    let install = ["plugin", "install", hostile, "--grant", "http=GET granted.example"];
    host.cli().run(&install).await.success();
    for document in [COUNT, CALL, ATTACK, RUNAWAY] {
        host.client().must_publish(document).await;
    }

    // What else goes on on the machine may spoil a series, but not all of them.
    let mut times = Vec::new();
    while times.len() < SERIES && times.last().is_none_or(|&times| times > TIMES) {
        times.push(series(host.client(), &upstream).await);
    }
    let (memory, bound) = (host.resident_peak_bytes(), HOST_MEMORY + ATTEMPTS as u64 * GUEST_MEMORY);
    println!("memory {} of {} MiB", memory >> 20, bound >> 20);
    assert!(times.iter().any(|&times| times <= TIMES), "the p99 grows {times:?} times");
    assert!(memory <= bound, "{memory} bytes, of {bound}");
}

/// How many times the p99 grows under attack, by the medians of some rounds.
async fn series(client: &Client, upstream: &Upstream) -> f64 {
    let (mut quiet, mut attacked) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        quiet.push(p99(well_behaved(client, upstream).await));
        let siege = Siege::begin(client);
        tokio::time::sleep(ATTACK_EVERY).await;
        attacked.push(p99(well_behaved(client, upstream).await));
        siege.end();
        // What is left of it ends within its second.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
    }
    println!("p99 quiet {quiet:?}, under attack {attacked:?}");
    quiet.sort_unstable();
    attacked.sort_unstable();
    let times = attacked[ROUNDS / 2].as_secs_f64() / quiet[ROUNDS / 2].as_secs_f64();
    println!("by the medians {times:.2} times");
    times
}
