//! `reipaz doctor` as an operator runs it: before a host starts, beside one that runs, and where something is wrong.

use std::{fs, net::TcpListener, path::Path};

use reipaz_tests::{
    cli::{Cli, Output},
    host::Host,
    kafka::{Deployment, Engine},
};
use serde_json::Value;

/// The statuses of all checks with this name.
fn statuses<'a>(report: &'a Value, what: &str) -> Vec<&'a str> {
    let checks = report["checks"].as_array().expect("checks");
    checks.iter().filter(|check| check["what"] == what).filter_map(|check| check["status"].as_str()).collect()
}

#[track_caller]
fn report(output: &Output, code: i32) -> Value {
    assert_eq!(output.code(), code, "{}{}", output.stdout, output.stderr);
    output.json()
}

fn cli(folder: &Path) -> Cli {
    Cli::new(folder)
}

fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_host_is_well_before_and_while_it_runs() {
    // Given nothing but a folder,
    let folder = tempfile::tempdir().expect("a folder");
    let listen = free_port();
    let output = cli(folder.path()).run(&["doctor", "--data-dir", "data", "--listen", &listen]).await;
    // when the doctor looks, then each check is a line, and nothing was made.
    let text = output.success().stdout;
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("ok    configuration "), "{text}");
    assert!(text.contains("ok    ClickHouse, embedded"), "{text}");
    assert!(text.contains(&format!("{listen} is free")), "{text}");
    assert!(!folder.path().join("data").exists(), "nothing was made");

    // Beside a host it says who has the directory and the port.
    let host = Host::plain().await;
    let config = host.folder().join("reipaz.toml");
    let (address, data) = (host.address().to_string(), host.data_dir().display().to_string());
    let output = host
        .cli()
        .run(&[
            "doctor",
            "--config",
            &config.display().to_string(),
            "--data-dir",
            &data,
            "--listen",
            &address,
            "--json",
        ])
        .await;
    let told = report(&output, 0);
    assert!(output.stdout.contains(&format!("in use by process {}", host.pid())), "{}", output.stdout);
    assert!(output.stdout.contains("a Reipaz host answers"), "{}", output.stdout);
    assert_eq!(statuses(&told, "ClickHouse"), ["ok"], "off is said so: {}", output.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_failure_hides_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("data"), "no directory").expect("written");
    let config = "data_dir = \"data\"\nplugin_store = \"nowhere\"\n[kafka]\nbrokers = \"127.0.0.1:1\"\n\
                  [clickhouse]\nmode = \"external\"\nurl = \"http://127.0.0.1:1\"\n\
                  [secrets.token]\nenv = \"NOT_SET_ANYWHERE\"\nhosts = [\"a.example\"]\n";
    fs::write(folder.path().join("reipaz.toml"), config).expect("written");
    let output = cli(folder.path()).run(&["doctor", "--config", "reipaz.toml", "--json"]).await;
    let told = report(&output, 1);
    assert_eq!(told["ok"], false);
    for what in ["data directory", "Kafka at 127.0.0.1:1", "ClickHouse", "plugin store", "secrets"] {
        assert_eq!(statuses(&told, what), ["fail"], "{what}: {}", output.stdout);
    }
    for check in told["checks"].as_array().expect("checks") {
        let mended = check["mend"].as_array().is_some_and(|mend| !mend.is_empty());
        assert_eq!(mended, check["status"] != "ok", "each finding says what mends it: {check}");
    }

    // A file that cannot be read is told by itself.
    fs::write(folder.path().join("reipaz.toml"), "lissten = 1").expect("written");
    let output = cli(folder.path()).run(&["doctor", "--config", "reipaz.toml"]).await;
    assert_eq!(output.code(), 1);
    assert!(output.stdout.starts_with("fail  configuration  reipaz.toml: "), "{}", output.stdout);
    assert!(output.stdout.contains("lissten"), "{}", output.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_on_kafka_is_looked_at_whole() {
    // Given Kafka, a ClickHouse and a plugin store, and no host yet,
    let deployment = Deployment::new(2);
    let engine = Engine::start();
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("plugins");
    fs::create_dir(&store).expect("made");
    let listen = free_port();
    let top = format!(
        "data_dir = \"data\"\nlisten = \"{listen}\"\nplugin_store = \"file://{}\"\n",
        store.display()
    );
    let clickhouse = format!(
        "[clickhouse]\nmode = \"external\"\nurl = \"{}\"\nuser = \"reipaz\"\npassword = \"{}\"\n",
        engine.url, engine.password
    );
    fs::write(folder.path().join("reipaz.toml"), format!("{top}{}{clickhouse}", deployment.config()))
        .expect("written");
    let doctor = ["doctor", "--config", "reipaz.toml"];

    // then missing topics are warned of, with the commands that make them,
    let output = cli(folder.path()).run(&doctor).await.success();
    let topic = deployment.topic("journal");
    assert!(output.stdout.contains(&format!("--create --topic {topic} --partitions 2")), "{}", output.stdout);
    let told = cli(folder.path()).run(&[&doctor[..], &["--json"]].concat()).await;
    let told = report(&told, 0);
    for what in ["ClickHouse", "ClickHouse database", "clock", "plugin store", "port"] {
        assert_eq!(statuses(&told, what), ["ok"], "{what}: {told:#}");
    }
    assert_eq!(fs::read_dir(&store).expect("read").count(), 0, "the probe is gone");

    // and once a host has made them, all of them are right.
    let host =
        Host::start(deployment.settings().with_external_clickhouse(&engine.url, &engine.password)).await;
    let told = cli(folder.path()).run(&[&doctor[..], &["--json"]].concat()).await;
    let told = report(&told, 0);
    for name in ["tasks", "messages", "journal", "results", "tasks.rejected", "catalog"] {
        let what = format!("topic {}", deployment.topic(name));
        assert_eq!(statuses(&told, &what), ["ok"], "{what}: {told:#}");
    }
    assert!(told.to_string().contains("1 host in it now"), "{told:#}");
    drop(host);
}
