//! What an operator can get wrong, and what can go wrong under a host: each has its own exit code or status and one
//! clear message, never a panic, and nothing that was accepted is lost.

use std::{fs, net::TcpListener, path::PathBuf, time::Duration};

use reipaz_tests::{
    host::{Host, Settings},
    upstream::Upstream,
    wait,
    workflows::{CALL, COUNT},
};
use serde_json::json;

/// A host that cannot start says so within this.
const REFUSES_WITHIN: Duration = Duration::from_secs(30);

/// Starts a host that must not start; gives its exit code and what it said.
async fn refused(host: &mut Host) -> (i32, String) {
    host.spawn();
    let status = host.ended(REFUSES_WITHIN).await;
    let log = host.log();
    assert!(!status.success(), "it stopped as if nothing were wrong:\n{log}");
    assert!(!log.contains("panicked"), "{log}");
    (status.code().expect("an exit code, not a signal"), log)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_host_on_the_same_data_is_refused() {
    let first = Host::plain().await;
    let mut second = Host::prepare(Settings::new());
    std::os::unix::fs::symlink(first.data_dir(), second.data_dir()).expect("a link");
    let (code, log) = refused(&mut second).await;
    assert!(log.contains("in use"), "{log}");
    assert_ne!(code, 1, "it has its own exit code");
    first.client().get("/readyz").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named() {
    let mut host = Host::prepare(Settings::new());
    let taken = TcpListener::bind(host.address()).expect("a free port");
    let (code, log) = refused(&mut host).await;
    assert!(log.contains(&host.address().to_string()) && log.contains("in use"), "{log}");
    assert_ne!(code, 1, "it has its own exit code");
    drop(taken);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_mistake_is_named() {
    for (config, named) in [
        ("lissten = '127.0.0.1:1'", "lissten"),
        ("drain_timeout = 'soon'", "drain_timeout"),
        ("partitions = 0", "partitions"),
    ] {
        let mut host = Host::prepare(Settings::new().with_config(config));
        let (_, log) = refused(&mut host).await;
        assert!(log.contains(named), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_address_without_tokens_is_refused() {
    let host = Host::prepare(Settings::new());
    let output = host.cli().run(&["serve", "--listen", "0.0.0.0:0", "--data-dir", "elsewhere"]).await;
    assert!(!output.status.success());
    assert!(output.stderr.contains("tokens"), "{}", output.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_clickhouse_a_host_serves_runs_and_says_what_is_missing() {
    let folder = tempfile::tempdir().expect("a folder");
    let corrupt = folder.path().join("libchdb.so");
    fs::write(&corrupt, "this is no library").expect("written");
    let missing = folder.path().join("nothing.so");
    for library in [missing, corrupt] {
        // Given a host whose ClickHouse library is missing, or is none.
        let path = library.to_str().expect("UTF-8");
        let host = Host::start(Settings::new().with_clickhouse().with_env("REIPAZ_CHDB", path)).await;

        // When it is given work.
        host.client().must_publish(COUNT).await;
        let run = host.client().run("count", &json!({"n": 1})).await;

        // Then it does it, and says what it lacks, where, and to whoever asks by SQL.
        assert_eq!(run["output"], 4, "{run}");
        let why = wait::until("a reason", Duration::from_secs(20), || async {
            let parts = host.client().get("/readyz").await.expect(200).json();
            let why = parts["parts"]["clickhouse"].as_str().unwrap_or_default().to_owned();
            why.contains(path).then_some(why)
        })
        .await;
        assert_ne!(why, "ready");
        let sql = host.cli().run(&["sql", "SELECT 1"]).await;
        assert!(!sql.status.success());
        assert!(!sql.stderr.is_empty() && !sql.stderr.contains("panicked"), "{}", sql.stderr);
    }
}

/// The journal's log segment that holds the most, and its content.
fn fullest_segment(host: &Host) -> (PathBuf, Vec<u8>) {
    let folder = fs::read_dir(host.data_dir().join("journal/log")).expect("the log's folder");
    let segments = folder.map(|entry| entry.expect("an entry").path());
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).expect("readable");
        (path, bytes)
    };
    segments.map(read).max_by_key(|(_, bytes)| written(bytes)).expect("the log has segments")
}

/// How far a segment, which is filled with zeros beforehand, is written.
fn written(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_is_refused_with_what_to_do() {
    // Given a host that has finished some runs, and was killed.
    let mut host = Host::plain().await;
    host.client().must_publish(COUNT).await;
    for n in 0..20 {
        host.client().run("count", &json!({"n": n})).await;
    }
    host.kill();

    // When one byte in the middle of what is durable flips.
    let (file, sound) = fullest_segment(&host);
    let mut damaged = sound.clone();
    damaged[written(&sound) / 2] ^= 0x40;
    fs::write(&file, &damaged).expect("writable");
    let (code, log) = refused(&mut host).await;

    // Then the host refuses to start, names the file, and has changed nothing.
    assert!(
        log.contains("damaged") && log.contains(file.file_name().expect("named").to_str().expect("UTF-8")),
        "{log}"
    );
    assert_ne!(code, 1, "it has its own exit code");
    assert_eq!(fs::read(&file).expect("readable"), damaged);

    // And with the byte put back it starts, and knows every run.
    fs::write(&file, &sound).expect("writable");
    host.start_again().await;
    let runs = host.client().get("/v1/runs?limit=100").await.expect(200).json();
    assert_eq!(runs["runs"].as_array().expect("runs").len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_new_runs_and_loses_none() {
    // Given a host whose data directory is a small file system of its own (in a mount namespace, which needs no rights).
    let script = "mount -t tmpfs -o size=256m reipaz data && exec \"$@\"";
    let mut host = Host::prepare(Settings::new().through(&["unshare", "-rm", "sh", "-ec", script, "sh"]));
    host.start_again().await;
    host.client().must_publish(COUNT).await;
    let before = host.client().run("count", &json!({"n": 1})).await;
    assert_eq!(before["output"], 4, "{before}");

    // When it is full,
    let mounted = format!("/proc/{}/root{}", host.pid(), host.data_dir().display());
    let ballast = PathBuf::from(mounted).join("ballast");
    fill(&ballast);
    let input = json!({"input": {"n": 1, "ballast": "x".repeat(900_000)}});
    let mut accepted = Vec::new();
    let refusal = loop {
        let answer = host.client().post("/v1/workflows/count/runs", &input).await;
        if !answer.status.is_success() {
            break answer;
        }
        accepted.push(answer.json()["id"].as_str().expect("an id").to_owned());
        assert!(accepted.len() < 500, "the disk does not fill up");
    };

    // then a submission is refused with a problem of its own, and what was accepted is still there,
    assert_eq!(refusal.problem(507), "storage-full");
    let path = format!("/v1/runs/{}", before["id"].as_str().expect("an id"));
    assert_eq!(host.client().get(&path).await.expect(200).json()["output"], 4);

    // and with room again work goes on, the accepted runs' too.
    fs::remove_file(&ballast).expect("removed");
    let after = wait::until("a run after the shortage", Duration::from_secs(30), || async {
        let answer = host.client().post("/v1/workflows/count/runs", &json!({"input": {"n": 2}})).await;
        answer.status.is_success().then(|| answer.json())
    })
    .await;
    let after = host.client().finished(after["id"].as_str().expect("an id"), Duration::from_secs(30)).await;
    assert_eq!(after["output"], 5, "{after}");
    for id in accepted {
        let run = host.client().finished(&id, Duration::from_secs(60)).await;
        assert_eq!(run["status"], "completed", "{id}: {}", run["error"]);
    }
}

/// Writes until nothing more fits.
fn fill(file: &PathBuf) {
    use std::io::Write as _;
    let mut file = fs::File::create(file).expect("created");
    for size in [1 << 20, 1 << 12] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_attempts_finish() {
    // Given runs whose steps end while the host stops, some of them in its last moment.
    const RUNS: usize = 60;
    let upstream = Upstream::start(|call| async move {
        tokio::time::sleep(Duration::from_secs(2) + Duration::from_millis(call.number as u64 % 7)).await;
        "done"
    })
    .await;
    let mut host = Host::plain().await;
    host.client().must_publish(CALL).await;
    let mut ids = Vec::new();
    for _ in 0..RUNS {
        ids.push(host.client().submit("call", &json!({"url": upstream.url("/")})).await);
    }
    wait::until("the calls", Duration::from_secs(10), || async {
        (upstream.under_way() == RUNS).then_some(())
    })
    .await;

    // When the host is asked to stop, and started again.
    host.stop().await;
    host.start_again().await;

    // Then each attempt had its outcome, and none was repeated.
    for id in &ids {
        let run = host.client().finished(id, Duration::from_secs(20)).await;
        assert_eq!(run["status"], "completed", "{run}");
    }
    assert_eq!(upstream.calls().len(), RUNS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_ever() {
    // Given a step that hangs, and a host that waits one second for attempts when it stops.
    let upstream = Upstream::start(|call| async move {
        if call.number == 0 {
            std::future::pending::<()>().await;
        }
        "done"
    })
    .await;
    let mut host = Host::start(Settings::new().with_config("drain_timeout = \"1s\"")).await;
    host.client().must_publish(CALL).await;
    let id = host.client().submit("call", &json!({"url": upstream.url("/")})).await;
    wait::until("the call", Duration::from_secs(10), || async { (upstream.under_way() == 1).then_some(()) })
        .await;

    // When it stops and starts.
    let begin = std::time::Instant::now();
    host.stop().await;
    assert!(begin.elapsed() < Duration::from_secs(10), "it took {:?}", begin.elapsed());
    host.start_again().await;

    // Then the same attempt is executed again, and the interruption does not count as a lost host.
    let run = host.client().finished(&id, Duration::from_secs(20)).await;
    assert_eq!(run["status"], "completed", "{run}");
    let events = host.client().events(&id).await;
    let interrupted = reipaz_tests::client::of_type(&events, "attempt_interrupted");
    assert_eq!(interrupted.len(), 1, "{events:?}");
    assert_eq!(interrupted[0]["cause"], "shutdown");
}
