//! Running other programs: said aloud, and with an error that tells which one failed.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    static ROOT: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    ROOT.get_or_init(|| {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        here.parent().expect("xtask lies inside the repository").to_path_buf()
    })
}

/// A command that runs in the repository's root.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// Runs `command` to its end with its output passed through; an exit code other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    println!("  $ {shown}");
    let status = command.status().with_context(|| format!("cannot start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` ended with {status}");
    }
    Ok(())
}

/// As [`run`], without saying so and without its output, which stands in the error when it fails.
pub(crate) fn run_quietly(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Runs `command` and gives its standard output; what it wrote stands in the error when it fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command.output().with_context(|| format!("cannot start `{shown}`"))?;
    if !output.status.success() {
        bail!(
            "`{shown}` ended with {}:\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{shown}` did not print UTF-8"))
}

/// Whether `program` can be run at all.
pub(crate) fn exists(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A command as a person would type it, paths inside the repository relative to it.
fn show(command: &Command) -> String {
    let prefix = format!("{}/", root().display());
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| {
            let word = word.to_string_lossy().replace(&prefix, "");
            if word.contains([' ', '\n', '$', '"', '*']) { format!("'{word}'") } else { word }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// Named parts of a longer job, each with how long it took.
#[derive(Default)]
pub(crate) struct Phases {
    done: Vec<(String, Duration)>,
}

impl Phases {
    /// Does `work` under a heading and notes its duration.
    pub(crate) fn phase<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("\n== {name}");
        let begin = Instant::now();
        let result = work();
        let took = begin.elapsed();
        println!("-- {name}: {} in {}", if result.is_ok() { "done" } else { "FAILED" }, seconds(took));
        self.done.push((name.to_owned(), took));
        result.with_context(|| format!("phase `{name}`"))
    }

    /// A table of the phases so far.
    pub(crate) fn summary(&self) -> String {
        let total = self.done.iter().map(|(_, took)| *took).sum();
        let rows = self.done.iter().map(|(name, took)| (name.as_str(), *took));
        rows.chain([("in all", total)])
            .map(|(name, took)| format!("  {:>8}  {name}\n", seconds(took)))
            .collect()
    }
}

/// `12.3 s`, or `4 min 05 s` past two minutes.
pub(crate) fn seconds(took: Duration) -> String {
    let whole = took.as_secs();
    if whole < 120 {
        format!("{:.1} s", took.as_secs_f64())
    } else {
        format!("{} min {:02} s", whole / 60, whole % 60)
    }
}
