//! Building a step: `cargo build` for WebAssembly, with a word where something is missing.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokio::process::Command;

use super::exit::{Code, Failure};

/// What steps are compiled for.
const TARGET: &str = "wasm32-wasip2";

/// A line of `cargo build --message-format=json`.
#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    filenames: Vec<PathBuf>,
    #[serde(default)]
    manifest_path: PathBuf,
}

/// Builds the crate in `dir` and says where its component lies. What the compiler says goes to standard error.
pub(crate) async fn component(dir: &Path) -> Result<PathBuf, Failure> {
    let manifest = dir.join("Cargo.toml");
    if !manifest.is_file() {
        return Err(Failure::usage(format!("{} is no step: it has no Cargo.toml", dir.display()))
            .hint("make one with `reipaz new step NAME`"));
    }
    let manifest = manifest
        .canonicalize()
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", manifest.display())))?;
    check_target(dir).await?;
    let built = Command::new(cargo())
        .args(["build", "--release", "--target", TARGET, "--message-format=json-render-diagnostics"])
        .arg("--manifest-path")
        .arg(&manifest)
        .current_dir(dir)
        .stderr(std::process::Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| no_cargo(&error))?;
    if !built.status.success() {
        return Err(Failure::new(
            Code::Document,
            format!("{} does not build; cargo says why above", dir.display()),
        ));
    }
    let own = |message: &Message| message.manifest_path.canonicalize().is_ok_and(|path| path == manifest);
    String::from_utf8_lossy(&built.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.reason == "compiler-artifact" && own(message))
        .flat_map(|message| message.filenames)
        .rfind(|file| file.extension().is_some_and(|extension| extension == "wasm"))
        .ok_or_else(|| {
            Failure::new(Code::Document, format!("{} gives no component", dir.display()))
                .hint("its Cargo.toml needs `[lib] crate-type = [\"cdylib\"]`")
        })
}

/// Says so before a long build if the compiler cannot make components.
async fn check_target(dir: &Path) -> Result<(), Failure> {
    let asked = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(dir)
        .output()
        .await
        .map_err(|error| no_cargo(&error))?;
    let libdir = PathBuf::from(String::from_utf8_lossy(&asked.stdout).trim());
    if asked.status.success() && libdir.is_dir() {
        return Ok(());
    }
    Err(Failure::new(Code::Tool, format!("the Rust compiler here has no target {TARGET}"))
        .hint(format!("install it with `rustup target add {TARGET}`")))
}

fn no_cargo(error: &std::io::Error) -> Failure {
    Failure::new(Code::Tool, format!("cannot run cargo: {error}"))
        .hint("steps in Rust need its tools: https://rustup.rs installs them")
}

fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
