//! The command line as a script uses it: exit codes, JSON on standard output, words on standard error.

use std::fs;

use reipaz_tests::{
    cli::Cli,
    host::Host,
    workflows::{CALL, COUNT},
};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn every_help_has_an_example() {
    let cli = Cli::new(&std::env::temp_dir());
    let top = cli.run(&["--help"]).await.success().stdout;
    assert!(top.contains("reipaz "), "{top}");
    let commands = [
        "serve", "dev", "run", "validate", "publish", "submit", "status", "list", "cancel", "logs", "sql",
        "plugin", "new", "doctor",
    ];
    let nested = [
        ["plugin", "build"],
        ["plugin", "install"],
        ["plugin", "list"],
        ["plugin", "inspect"],
        ["new", "step"],
    ];
    let each = commands.iter().map(std::slice::from_ref).chain(nested.iter().map(<[&str; 2]>::as_slice));
    for words in each {
        let help = cli.run(&[words, &["--help"]].concat()).await.success().stdout;
        let example = format!("reipaz {}", words[0]);
        let after =
            help.split_once("Example").unwrap_or_else(|| panic!("{words:?} has no example:\n{help}")).1;
        assert!(after.contains(&example), "{words:?}:\n{help}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_a_host_brings_its_own() {
    // Given a document and no host that could be reached.
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("count.yaml"), COUNT).expect("written");
    let cli = Cli::new(folder.path()).with_env("REIPAZ_URL", "");

    // When it is run.
    let output = cli.run(&["run", "count.yaml", "--input", r#"{"n": 1}"#]).await;

    // Then the run is printed as JSON, and which host did it stands beside.
    let run = output.success();
    assert_eq!(run.json()["output"], 4, "{}", run.stdout);
    assert!(!run.stderr.is_empty(), "it says that it started a host");
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_tell_what_happened() {
    let host = Host::plain().await;
    let write = |name: &str, text: &str| fs::write(host.folder().join(name), text).expect("written");
    write("count.yaml", COUNT);
    write("call.yaml", CALL);
    write("broken.yaml", "reipaz: 1\nname: [broken\n");
    write("wrong.yaml", "reipaz: 1\nname: wrong\nsteps:\n  a: {uses: nobody@1}\n");
    let cli = host.cli();

    let good = cli.run(&["run", "count.yaml", "--input", r#"{"n": 1}"#]).await.success();
    assert_eq!(good.json()["status"], "completed");

    let failed = cli.run(&["run", "call.yaml", "--input", r#"{"url": "http://127.0.0.1:1/"}"#]).await;
    let failed_code = failed.code();
    assert_eq!(failed.json()["status"], "failed", "{}", failed.stderr);

    let broken = cli.run(&["validate", "broken.yaml"]).await;
    assert!(broken.stderr.contains("broken.yaml:"), "it points into the file: {}", broken.stderr);
    let wrong = cli.run(&["validate", "wrong.yaml"]).await;
    assert!(wrong.stderr.contains("wrong.yaml:4"), "it points into the file: {}", wrong.stderr);
    let missing = cli.run(&["validate", "missing.yaml"]).await;
    assert!(missing.stderr.contains("missing.yaml"), "{}", missing.stderr);
    let usage = cli.run(&["publish"]).await;
    let nobody = cli.run(&["status", "00000000-0000-7000-8000-000000000000"]).await;
    let away = cli.run(&["list", "--url", "http://127.0.0.1:1"]).await;
    assert!(away.stderr.contains("127.0.0.1:1"), "{}", away.stderr);

    // Each kind of failure has a code of its own.
    let document = broken.code();
    assert_eq!(wrong.code(), document);
    let codes = [0, failed_code, document, usage.code(), nobody.code(), away.code()];
    for (i, code) in codes.iter().enumerate() {
        assert!(*code >= 0 && !codes[..i].contains(code), "{codes:?}");
    }
    for output in [&failed, &broken, &wrong, &missing, &usage, &nobody, &away] {
        assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_a_day() {
    let host = Host::plain().await;
    fs::write(host.folder().join("count.yaml"), COUNT).expect("written");
    let cli = host.cli();
    cli.run(&["validate", "count.yaml"]).await.success();
    cli.run(&["publish", "count.yaml"]).await.success();
    let submitted = cli.run(&["submit", "count", "--input", r#"{"n": 4}"#]).await.success().json();
    let id = submitted["id"].as_str().expect("an id");
    host.client().finished(id, std::time::Duration::from_secs(20)).await;
    let status = cli.run(&["status", id]).await.success().json();
    assert_eq!((&status["status"], &status["output"]), (&json!("completed"), &json!(7)));
    let list = cli.run(&["list"]).await.success().json();
    let listed = list["runs"].as_array().or_else(|| list.as_array()).expect("runs");
    assert!(listed.iter().any(|run: &Value| run["id"] == id), "{list}");
    cli.run(&["logs", id]).await.success();
    let plugins = cli.run(&["plugin", "list"]).await.success();
    assert!(plugins.stdout.contains("http_request"), "{}", plugins.stdout);
    let inspected = cli.run(&["plugin", "inspect", "transform"]).await.success();
    assert!(inspected.stdout.contains("filter"), "{}", inspected.stdout);
    assert_ne!(cli.run(&["cancel", id]).await.code(), 0, "it is over");
}
