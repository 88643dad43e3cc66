//! Guests for tests and benches, built by a cargo of their own as the bundle builds the plugins, into the same folder.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The outer cargo's target directory.
pub(crate) fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_reipaz-engine-compile")).ancestors().nth(2).unwrap().to_owned()
}

/// Builds one guest package and returns its component.
pub(crate) fn build(package: &str) -> Vec<u8> {
    let guests = target_dir().join("guests");
    let status = Command::new(env!("CARGO"))
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .args(["build", "--quiet", "--target", "wasm32-wasip2", "--profile", "guest", "--package", package])
        .arg("--target-dir")
        .arg(&guests)
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status()
        .unwrap();
    assert!(status.success(), "{package} does not build");
    let file = format!("wasm32-wasip2/guest/{}.wasm", package.replace('-', "_"));
    std::fs::read(guests.join(file)).unwrap()
}
