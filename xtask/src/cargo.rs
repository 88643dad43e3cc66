//! Calling cargo, and learning from it which programs it built.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::shell;

/// A cargo command in the repository's root, with the same cargo that runs us.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = shell::command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What `cargo run` tells us about xtask itself must not reach builds of other packages: it would make their
    // build scripts run again.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command.args(arguments);
    command
}

/// A program that cargo built.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    /// Name of the package.
    pub(crate) package: String,
    /// The package's folder, where its tests expect to be started.
    pub(crate) folder: PathBuf,
    /// Name of the target within the package.
    pub(crate) target: String,
    /// `lib`, `bin`, `test`.
    pub(crate) kind: String,
    /// Whether it is a test harness.
    pub(crate) is_test: bool,
    /// The file.
    pub(crate) executable: PathBuf,
}

/// Runs a build and gives the programs that it made, in cargo's order.
pub(crate) fn build(arguments: &[&str]) -> Result<Vec<Built>> {
    println!("  $ cargo {}", arguments.join(" "));
    let mut child = cargo(arguments)
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let lines = BufReader::new(child.stdout.take().context("cargo's output")?).lines();
    let mut built = Vec::new();
    for line in lines {
        if let Ok(message) = serde_json::from_str::<Value>(&line?) {
            built.extend(program(&message));
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`cargo {}` ended with {status}", arguments.join(" "));
    }
    Ok(built)
}

/// The program that a message of cargo's announces, if it announces one.
fn program(message: &Value) -> Option<Built> {
    let target = &message["target"];
    let manifest = PathBuf::from(message["manifest_path"].as_str()?);
    Some(Built {
        package: package_name(message["package_id"].as_str()?),
        folder: manifest.parent()?.to_path_buf(),
        target: target["name"].as_str()?.to_owned(),
        kind: target["kind"][0].as_str()?.to_owned(),
        is_test: message["profile"]["test"].as_bool()?,
        executable: message["executable"].as_str()?.into(),
    })
}

/// The package's name in an id such as `path+file:///repo/runtime/host#reipaz@0.1.0` or `path+file:///repo/xtask#0.1.0`.
fn package_name(id: &str) -> String {
    let (path, fragment) = id.rsplit_once('#').unwrap_or((id, ""));
    match fragment.split_once('@') {
        Some((name, _)) => name,
        None => path.rsplit('/').next().unwrap_or(path),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_named_by_its_id() {
        assert_eq!(package_name("path+file:///repo/runtime/host#reipaz@0.1.0"), "reipaz");
        assert_eq!(package_name("path+file:///repo/xtask#0.1.0"), "xtask");
    }

    #[test]
    fn a_test_harness_is_recognised() {
        let message = serde_json::json!({
            "reason": "compiler-artifact",
            "package_id": "path+file:///repo/tests#reipaz-tests@0.1.0",
            "manifest_path": "/repo/tests/Cargo.toml",
            "target": {"name": "crash", "kind": ["test"]},
            "profile": {"test": true},
            "executable": "/repo/target/debug/deps/crash-1",
        });
        let built = program(&message).expect("announces a program");
        assert!(built.is_test);
        assert_eq!((built.package.as_str(), built.target.as_str()), ("reipaz-tests", "crash"));
        assert!(program(&serde_json::json!({"reason": "build-finished", "success": true})).is_none());
    }
}
