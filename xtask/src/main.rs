//! `cargo xtask`: everything that a person, or CI, does to this repository, as one command each.
//!
//! Owns the order of the steps and what is said about them. Knows nothing of the runtime's insides: it calls cargo,
//! npm or pip, and the `reipaz` binary, like anybody. Its dependencies are few, because it is what a fresh clone waits
//! for first.

mod bench;
mod cargo;
mod chdb;
mod dataset;
mod demo;
mod demo_kafka;
mod fetch;
mod files;
mod host;
mod kafka;
mod secured;
mod setup;
mod shell;
mod simulate;
mod test;

use std::process::ExitCode;

const HELP: &str = "\
Usage: cargo xtask <COMMAND>

Commands:
  setup   Obtain what the build needs: the wasm32-wasip2 target and the embedded ClickHouse (libchdb)
  demo    Build the release host, run a workflow on real data, show its outputs by SQL (under 10 s once built)
            --kafka        the same on a real Kafka, with two hosts
  test    Formatting, lints, documentation, every test of the workspace, end to end with the real binary
  kafka   Run one Apache Kafka broker in the foreground, for tests and for trying things out
            --secured      with a second listener that takes TLS and SASL only
  simulate [SEEDS]
          Drive the partition's core, then its real owner, through faults at random, each over so many seeds (default
          1,000,000); a failing one is told with the line that replays it
            --from SEED    begin there
  bench   Measure the release host over HTTP and print the README's table
            --seconds N    measured time of each row (default 15)
            --data-dir DIR where the journal lies, to choose the disk (default: target/bench)
            --kafka        on a real Kafka instead: latency, throughput with 1, 2 and 4 hosts, recovery

Examples:
  cargo xtask demo
  cargo xtask test
  cargo xtask bench --seconds 30
  cargo xtask bench --kafka --seconds 10
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", &[][..]),
    };
    let done = match command {
        "setup" => nothing_else(rest).and_then(|()| setup::run()),
        "demo" if rest == ["--kafka"] => demo_kafka::run(),
        "demo" => nothing_else(rest).and_then(|()| demo::run()),
        "test" => nothing_else(rest).and_then(|()| test::run()),
        "bench" => bench::run(rest),
        "kafka" => kafka::run(rest),
        "simulate" => simulate::run(rest),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        other => {
            eprintln!("There is no `cargo xtask {other}`.\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nxtask {command}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn nothing_else(rest: &[String]) -> anyhow::Result<()> {
    anyhow::ensure!(rest.is_empty(), "takes no arguments, but was given {}", rest.join(" "));
    Ok(())
}
