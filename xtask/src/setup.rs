//! What a build needs beyond cargo: the compilation target of the steps, and the embedded ClickHouse.
//!
//! Each thing is looked for before it is fetched, so that a second set-up costs nothing and needs no network.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{chdb, shell};

/// What steps are compiled to.
const TARGET: &str = "wasm32-wasip2";

/// `cargo xtask setup`.
pub(crate) fn run() -> Result<()> {
    target()?;
    let library = clickhouse()?;
    println!("Set up: {TARGET}, and the embedded ClickHouse in {}.", library.display());
    Ok(())
}

/// Makes sure that rustc can compile to [`TARGET`].
pub(crate) fn target() -> Result<()> {
    let libraries =
        shell::output(shell::command("rustc").args(["--target", TARGET, "--print", "target-libdir"]))
            .context(
                "is the Rust toolchain installed, in the version that Cargo.toml names as rust-version?",
            )?;
    let installed = Path::new(libraries.trim()).read_dir().is_ok_and(|mut files| {
        files.any(|file| file.is_ok_and(|f| f.file_name().to_string_lossy().starts_with("libstd")))
    });
    if installed {
        return Ok(());
    }
    if !shell::exists("rustup") {
        bail!(
            "the Rust standard library for {TARGET} is missing, and rustup, which would fetch it, is not installed.\n\
             Steps are WebAssembly components and need it. Either install rustup and run this again, or install the \
             {TARGET} standard library of your Rust from the same source (on Debian: libstd-rust-dev-wasm32)."
        );
    }
    shell::run(shell::command("rustup").args(["target", "add", TARGET])).with_context(|| {
        format!("rustup could not add {TARGET}; steps are WebAssembly components and need it")
    })
}

/// Makes sure that libchdb is there; gives its path.
pub(crate) fn clickhouse() -> Result<PathBuf> {
    chdb::ensure().context("the embedded ClickHouse could not be obtained")
}
