//! Steps that tests need and no standard plugin is: their sources lie in `tests/steps`, and they are built like anybody's,
//! with the SDK.

use std::path::PathBuf;

use crate::{cli::Cli, host::repository};

/// The component of the step in `tests/steps/<name>`, built if need be.
pub async fn component(name: &str) -> PathBuf {
    guest(&format!("reipaz-tests-{name}")).await
}

/// The component of a package that is one, built if need be.
pub async fn guest(package: &str) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| repository().join("target"), |folder| repository().join(folder))
        // Where the standard plugins are built, so the SDK is there already.
        .join("guests");
    let target_dir = target.to_str().expect("the target directory is UTF-8");
    let arguments = [
        "build",
        "--quiet",
        "--target",
        "wasm32-wasip2",
        "--profile",
        "guest",
        "-p",
        package,
        "--target-dir",
        target_dir,
    ];
    Cli::new(repository()).run_program(cargo, &arguments, "").await.success();
    target.join("wasm32-wasip2/guest").join(format!("{}.wasm", package.replace('-', "_")))
}
