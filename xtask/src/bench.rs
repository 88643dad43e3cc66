//! `cargo xtask bench`: builds what is measured and what measures, and starts the latter (the crate in `xtask/load`). With
//! `--kafka` it sees to a broker first, and measures on that.

use std::path::PathBuf;

use anyhow::Result;

use crate::{cargo, kafka::ForTests, setup, shell};

/// The argument that asks for Kafka.
const ON_KAFKA: &str = "--kafka";

/// `cargo xtask bench`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    setup::target()?;
    let on_kafka = arguments.iter().any(|argument| argument == ON_KAFKA);
    let library = if on_kafka { None } else { Some(setup::clickhouse()?) };
    let (load, host) = build()?;
    let mut command = shell::command(load);
    command.arg("--host").arg(host).envs(library.map(|library| ("REIPAZ_CHDB", library)));
    // It lives as long as this.
    let broker = if on_kafka { Some(ForTests::obtain()?) } else { None };
    command.args(broker.iter().flat_map(|broker| [ON_KAFKA, broker.address()]));
    shell::run(command.args(arguments.iter().filter(|argument| *argument != ON_KAFKA)))
}

/// The load generator and the host.
fn build() -> Result<(PathBuf, PathBuf)> {
    let built = cargo::build(&["build", "--release", "--package", "reipaz", "--package", "reipaz-load"])?;
    let program = |name: &str| {
        let found = built.iter().find(|b| b.target == name && b.kind == "bin");
        found.map(|b| b.executable.clone()).ok_or_else(|| anyhow::anyhow!("cargo did not build {name}"))
    };
    Ok((program("reipaz-load")?, program("reipaz")?))
}
