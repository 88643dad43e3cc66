//! Builds the plugins as components with a cargo of its own and writes `bundle.rs`, which embeds them.
//!
//! A component is another target and another profile, so it takes a nested cargo. That cargo works in a target directory of
//! its own, because the outer one holds the lock of its directory while this script runs, and without what the outer one sets
//! for its own rustc (flags, wrappers), because clippy or coverage of the host say nothing about guests.
//!
//! `REIPAZ_PLUGINS_DIR` names a directory of ready components instead, for builds without the sources or the target.

use std::env;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// Package and name of each standard plugin.
const STANDARD: [(&str, &str); 3] = [
    ("reipaz-plugin-csv", "csv"),
    ("reipaz-plugin-http-request", "http_request"),
    ("reipaz-plugin-transform", "transform"),
];
/// The package of the host's own component for expressions.
const JQ: &str = "reipaz-jq";
const TARGET: &str = "wasm32-wasip2";
const PROFILE: &str = "guest";

fn main() {
    println!("cargo::rerun-if-env-changed=REIPAZ_PLUGINS_DIR");
    let out = PathBuf::from(variable("OUT_DIR"));
    let built = match env::var_os("REIPAZ_PLUGINS_DIR") {
        Some(ready) => PathBuf::from(ready),
        None => build(&out),
    };
    let mut bundle = String::from("/// The standard plugins.\npub static STANDARD: &[Bundled] = &[\n");
    for (package, name) in STANDARD {
        let bytes = component(&built, package);
        let _ = writeln!(bundle, "    Bundled {{ name: {name:?}, bytes: include_bytes!({bytes:?}) }},");
    }
    bundle.push_str("];\n");
    let jq = component(&built, JQ);
    let _ = writeln!(
        bundle,
        "/// The host's own component for expressions (wit/jq.wit).\npub static JQ: &[u8] = include_bytes!({jq:?});"
    );
    if let Err(error) = std::fs::write(out.join("bundle.rs"), bundle) {
        fail(&format!("cannot write bundle.rs: {error}"));
    }
}

/// Builds all components and gives the directory where they are.
fn build(out: &Path) -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for source in ["plugins", "sdk/rust", "wit", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    if !workspace.join("sdk/rust/Cargo.toml").exists() {
        fail(
            "the plugins' sources are not here; set REIPAZ_PLUGINS_DIR to a directory with the built components",
        );
    }
    require_target();

    // <target>/<profile>/build/<package>/out: the guests are the same for every profile of the host.
    let target_dir = out.ancestors().nth(4).unwrap_or(out).join("guests");
    let mut cargo = Command::new(variable("CARGO"));
    cargo.current_dir(&workspace).args(["build", "--target", TARGET, "--profile", PROFILE]);
    if workspace.join("Cargo.lock").exists() {
        cargo.arg("--locked");
    }
    for package in STANDARD.iter().map(|(package, _)| *package).chain([JQ]) {
        cargo.args(["--package", package]);
    }
    for set_for_the_host in [
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTFLAGS",
        "CARGO_BUILD_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CLIPPY_ARGS",
    ] {
        cargo.env_remove(set_for_the_host);
    }
    cargo.env("CARGO_TARGET_DIR", &target_dir);
    match cargo.status() {
        Ok(status) if status.success() => target_dir.join(TARGET).join(PROFILE),
        Ok(_) => fail("the plugins did not build; cargo's messages stand above"),
        Err(error) => fail(&format!("cannot start cargo: {error}")),
    }
}

/// Says what to do when rustc has no standard library for components.
fn require_target() {
    let rustc = variable("RUSTC");
    let libraries = Command::new(&rustc).args(["--print", "target-libdir", "--target", TARGET]).output();
    let found = libraries.is_ok_and(|output| {
        output.status.success() && Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir()
    });
    if !found {
        fail(&format!(
            "the plugins are WebAssembly components, and this Rust toolchain has no {TARGET} target: run `rustup target add {TARGET}`"
        ));
    }
}

/// The file of a package's component, which must exist.
fn component(built: &Path, package: &str) -> PathBuf {
    let file = built.join(format!("{}.wasm", package.replace('-', "_")));
    match file.canonicalize() {
        Ok(file) => file,
        Err(error) => fail(&format!("the component {} is missing: {error}", file.display())),
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| fail(&format!("cargo did not set {name}")))
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    exit(1);
}
