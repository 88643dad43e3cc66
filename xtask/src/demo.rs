//! `cargo xtask demo`: Reipaz on real data, from a step's source to its output in ClickHouse.
//!
//! Does nothing that a user could not type: apart from the file server that plays the outside world, every line is a
//! `reipaz` command, and it is shown before it runs.

use std::{
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    cargo, dataset, files,
    host::Host,
    setup,
    shell::{self, seconds},
};

/// The workflow that runs.
pub(crate) const WORKFLOW: &str = "examples/workflows/weather.yaml";
/// The custom step that it uses, written with the SDK.
pub(crate) const STEP: &str = "examples/steps/monthly_climate";
/// How long rows may take to arrive in ClickHouse, its first start included.
const ROWS_WITHIN: Duration = Duration::from_secs(30);

/// What is asked of ClickHouse at the end.
const QUERIES: [&str; 2] = [
    "SELECT step, attempt, status, cpu_us, wall_us, formatReadableSize(memory_peak_bytes) AS memory, \
     formatReadableSize(length(output)) AS size FROM attempts ORDER BY started_at",
    "SELECT workflow, status, output FROM runs",
];

/// `cargo xtask demo`.
pub(crate) fn run() -> Result<()> {
    setup::target()?;
    let library = setup::clickhouse()?;
    let data = dataset::ensure()?;
    let host_binary = build_host()?;

    let begin = Instant::now();
    let address = files::serve(&data)?;
    let data_dir = shell::root().join(".reipaz/demo");
    // The operator's part: what the standard HTTP step may reach.
    let config = format!("[plugins.http_request.grants]\nhttp = [\"GET {address}\"]\n");
    let host = Host::start(&host_binary, &data_dir, &library, &config)?;
    println!("\nA host runs at {}, and Seattle's weather is served at http://{address}.", host.url);

    title("Build and install a step of our own");
    shown(&mut host.cli(&["plugin", "install", STEP]))?;

    title("Publish the workflow and run it");
    let input = format!(r#"{{"url":"http://{address}/{}"}}"#, dataset::FILE);
    shown(&mut host.cli(&["run", WORKFLOW, "--input", &input]))?;

    title("What ClickHouse has of it (rows arrive within a second; its first start takes longer)");
    wait_for_rows(&host)?;
    for query in QUERIES {
        shown(&mut host.cli(&["sql", query, "--format", "PrettyCompactMonoBlock"]))?;
    }
    host.stop()?;
    println!("\nThat took {}, with starting and stopping.", seconds(begin.elapsed()));
    where_next(&host_binary, &data_dir);
    Ok(())
}

/// The release host.
pub(crate) fn build_host() -> Result<PathBuf> {
    println!("Building the host (the first time takes minutes, because a compiler is among its parts)");
    // The load generator too, as for `cargo xtask bench`: another selection would unify features differently and build
    // the compiler twice.
    let built = cargo::build(&["build", "--release", "--package", "reipaz", "--package", "reipaz-load"])?;
    let host = built.iter().find(|b| b.kind == "bin" && b.target == "reipaz");
    Ok(host.context("cargo did not build the reipaz binary")?.executable.clone())
}

pub(crate) fn title(text: &str) {
    println!("\n== {text}");
}

/// Runs a command after showing it.
fn shown(command: &mut Command) -> Result<()> {
    shell::run(command)
}

/// Waits until the run's row has come to ClickHouse.
fn wait_for_rows(host: &Host) -> Result<()> {
    let begin = Instant::now();
    loop {
        let rows = shell::output(&mut host.cli(&[
            "sql",
            "SELECT count() FROM runs WHERE status = 'completed'",
            "--format",
            "TSV",
        ]));
        match rows {
            Ok(count) if count.trim() == "1" => return Ok(()),
            last if begin.elapsed() > ROWS_WITHIN => {
                bail!("the run's row did not come within {}: {last:?}", seconds(ROWS_WITHIN))
            }
            _ => thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn where_next(host_binary: &Path, data_dir: &Path) {
    let relative = |path: &Path| path.strip_prefix(shell::root()).unwrap_or(path).display().to_string();
    println!(
        "\n== Where to look next\n\
         \x20 {WORKFLOW}    the workflow; change it and publish it again\n\
         \x20 {STEP}    the custom step; its test runs with `cargo test`\n\
         \x20 {} serve --data-dir {}    this very host again, with its runs\n\
         \x20 README.md    a step of your own in five commands\n\
         \x20 ARCHITECTURE.md    how it works, and where to change what",
        relative(host_binary),
        relative(data_dir),
    );
}
