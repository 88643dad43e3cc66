//! `cargo xtask bench`: builds what is measured and what measures, and starts the latter (the crate in `xtask/load`).

use anyhow::Result;

use crate::{cargo, setup, shell};

/// `cargo xtask bench`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    setup::target()?;
    let library = setup::clickhouse()?;
    let built = cargo::build(&["build", "--release", "--package", "reipaz", "--package", "reipaz-load"])?;
    let program = |name: &str| {
        let found = built.iter().find(|b| b.target == name && b.kind == "bin");
        found.map(|b| b.executable.clone()).ok_or_else(|| anyhow::anyhow!("cargo did not build {name}"))
    };
    shell::run(
        shell::command(program("reipaz-load")?)
            .arg("--host")
            .arg(program("reipaz")?)
            .args(arguments)
            .env("REIPAZ_CHDB", library),
    )
}
