//! `cargo xtask test`: what must hold before a change lands. CI runs this and nothing else.
//!
//! Everything is built once: one profile, one target directory, one set of features ([`SELECTION`] for whatever
//! compiles), so that no phase builds again what another has built. The test programs that cargo made are then run
//! one after another, those that measure times alone; a failure does not keep the others from running.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    cargo::{self, Built, cargo},
    kafka::{self, ForTests},
    setup,
    shell::{self, Phases},
};

/// What is compiled, everywhere the same: another selection would unify features differently and build the
/// dependencies again. `fault_points` lets tests make the host fail where it hurts; releases do not have it.
const SELECTION: [&str; 3] = ["--workspace", "--features", "reipaz/fault_points"];

/// The crate whose tests drive the real binary.
const END_TO_END: &str = "reipaz-tests";

/// Tests of these programs measure time or fill the machine: their own tests run one at a time.
const ALONE: [&str; 6] = ["latency", "crash", "engine", "isolation", "scale_out", "scale_out_load"];

/// A test program that takes longer than this hangs: the longest takes a few minutes.
const HANGS_AFTER: Duration = Duration::from_mins(15);

/// How many tests run at a time elsewhere in the end-to-end crate: each has a host and a ClickHouse, mostly waiting.
const END_TO_END_THREADS: &str = "3";

/// `cargo xtask test`.
pub(crate) fn run() -> Result<()> {
    let mut phases = Phases::default();
    let mut tally = Tally::default();
    let done = all(&mut phases, &mut tally);
    println!("\n== summary\n{}", phases.summary());
    for failure in &tally.failures {
        println!("  FAILED: {failure}");
    }
    println!("\n{} passed, {} failed", tally.passed, tally.failed);
    done?;
    ensure!(tally.failures.is_empty(), "{} part(s) failed, see above", tally.failures.len());
    Ok(())
}

fn all(phases: &mut Phases, tally: &mut Tally) -> Result<()> {
    let library = phases.phase("set-up", || {
        setup::target()?;
        setup::clickhouse()
    })?;
    tally.note(phases.phase("formatting", || shell::run(&mut cargo(&["fmt", "--all", "--check"]))));
    tally.note(phases.phase("lints", || {
        let mut clippy = cargo(&["clippy", "--quiet", "--all-targets"]);
        shell::run(clippy.args(SELECTION).args(["--", "-D", "warnings"]))
    }));
    tally.note(phases.phase("documentation", || {
        let mut doc = cargo(&["doc", "--quiet", "--no-deps"]);
        shell::run(doc.args(SELECTION).env("RUSTDOCFLAGS", "-D warnings"))
    }));
    let built = phases.phase("build", || {
        let arguments = [&["build", "--lib", "--bins", "--tests"][..], &SELECTION].concat();
        cargo::build(&arguments)
    })?;
    let binary = |name: &str| {
        let found = built.iter().find(|b| b.target == name && b.kind == "bin" && !b.is_test);
        found.map(|b| b.executable.clone()).with_context(|| format!("cargo did not build {name}"))
    };
    // That build may have replaced the program that runs here.
    let (host, xtask) = (binary("reipaz")?, binary("xtask")?);
    let tests: Vec<&Built> = built.iter().filter(|b| b.is_test).collect();
    // Without a broker its tests fail and say why; the others run all the same.
    let broker = phases.phase("Kafka", ForTests::obtain);
    let kafka = broker.as_ref().ok().map(|broker| broker.address().to_owned());
    let needs = Needs { host, xtask, library, kafka };

    let mut inner: Vec<&str> =
        tests.iter().map(|b| b.package.as_str()).filter(|p| *p != END_TO_END).collect();
    inner.sort_unstable();
    inner.dedup();
    for package in inner {
        let programs: Vec<_> = tests.iter().copied().filter(|b| b.package == package).collect();
        phases.phase(&format!("tests of {package}"), || tally.run_programs(&programs, &needs)).ok();
    }
    phases
        .phase("examples in the documentation", || {
            let mut doctests = cargo(&["test", "--quiet", "--doc"]);
            tally.run_program("documentation", doctests.args(SELECTION))
        })
        .ok();
    for program in tests.iter().filter(|b| b.package == END_TO_END) {
        phases
            .phase(&format!("end to end: {}", program.target), || tally.run_programs(&[program], &needs))
            .ok();
    }
    tally.note(broker.map(drop));
    Ok(())
}

/// What test programs are told of.
struct Needs {
    /// The real binary.
    host: PathBuf,
    /// This very command, for tests that want a broker of their own.
    xtask: PathBuf,
    /// The embedded ClickHouse.
    library: PathBuf,
    /// A broker's address, if there is one.
    kafka: Option<String>,
}

/// What the tests gave so far.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    failures: Vec<String>,
}

impl Tally {
    /// Remembers a failure and goes on.
    fn note(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.failures.push(format!("{error:#}"));
        }
    }

    fn run_programs(&mut self, programs: &[&Built], needs: &Needs) -> Result<()> {
        let mut all_passed = true;
        let libraries = shell::output(shell::command("rustc").args(["--print", "target-libdir"]))?;
        let libraries = libraries.trim();
        for program in programs {
            let mut command = shell::command(&program.executable);
            command.current_dir(&program.folder);
            command
                .env("REIPAZ_BIN", &needs.host)
                .env("REIPAZ_CHDB", &needs.library)
                .env("REIPAZ_XTASK", &needs.xtask)
                .envs(needs.kafka.iter().map(|address| (kafka::BROKER_VARIABLE, address)))
                .env("CARGO_MANIFEST_DIR", &program.folder)
                // The tests of a procedural macro are linked to the compiler's own libraries.
                .env("LD_LIBRARY_PATH", libraries);
            if ALONE.contains(&program.target.as_str()) {
                command.arg("--test-threads=1");
            } else if program.package == END_TO_END {
                command.arg(format!("--test-threads={END_TO_END_THREADS}"));
            }
            let name = format!("{}/{} ({})", program.package, program.target, program.kind);
            all_passed &= self.run_program(&name, &mut command).is_ok();
        }
        ensure!(all_passed, "tests failed");
        Ok(())
    }

    /// Runs one test program, passing its output through and adding up its result lines.
    fn run_program(&mut self, name: &str, command: &mut std::process::Command) -> Result<()> {
        println!("  {name}");
        let mut child =
            command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {name}"))?;
        let output = child.stdout.take().context("the test program's output")?;
        let waiting = thread::spawn(move || end_within(child, HANGS_AFTER));
        let mut failed_here = 0;
        for line in BufReader::new(output).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            if let Some((passed, failed)) = counts(&line) {
                self.passed += passed;
                failed_here += failed;
            }
            writeln!(std::io::stdout(), "    {line}")?;
        }
        let Ok(status) = waiting.join() else { bail!("cannot wait for {name}") };
        let status = status?;
        if !status.success() {
            // A program that died without a result line failed at least once.
            failed_here = failed_here.max(1);
        }
        self.failed += failed_here;
        if failed_here > 0 {
            self.failures.push(format!("{name}: {failed_here} failed, ended with {status}"));
            bail!("{name} ended with {status}");
        }
        Ok(())
    }
}

/// Waits for a program; ends it once it has run for too long.
fn end_within(mut child: Child, time: Duration) -> Result<ExitStatus> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if began.elapsed() > time {
            eprintln!("ended after {} minutes: it hangs", time.as_secs() / 60);
            child.kill()?;
            return Ok(child.wait()?);
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Passed and failed in a result line of libtest.
fn counts(line: &str) -> Option<(u64, u64)> {
    let rest = line.strip_prefix("test result: ")?;
    let number = |word: &str| {
        rest.split([';', '.']).find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
    };
    Some((number("passed")?, number("failed")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_line_is_read() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 1 filtered out; finished in 0.00s";
        assert_eq!(counts(line), Some((12, 3)));
        assert_eq!(counts("test core::works ... ok"), None);
    }
}
