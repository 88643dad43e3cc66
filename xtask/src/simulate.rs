//! `cargo xtask simulate`: the simulations of the partition and of its owner, over many more seeds than a test run looks at.

use anyhow::{Context, Result, bail};

use crate::{cargo::cargo, shell};

const SEEDS: u64 = 1_000_000;

/// `cargo xtask simulate [SEEDS] [--from SEED]`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let (mut seeds, mut from) = (SEEDS, 0);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--from" => from = number(rest.next().context("--from needs the first seed")?)?,
            other if other.starts_with('-') => bail!("unknown option {other}; there is --from SEED"),
            count => seeds = number(count)?,
        }
    }
    // Each needs what it tests and no more; the owner's is the one that knows the protocol's faults.
    simulate(&["--package", "reipaz-core", "--test", "partition", "simulation"], seeds, from)?;
    let owner = "owner::simulation::whatever";
    simulate(&["--package", "reipaz", "--features", "fault_points", "--lib", owner], seeds, from)
}

fn simulate(what: &[&str], seeds: u64, from: u64) -> Result<()> {
    let mut command = cargo(&["test", "--release"]);
    command.args(what).args(["--", "--nocapture"]);
    command.env("REIPAZ_SIMULATION_SEEDS", seeds.to_string()).env("REIPAZ_SIMULATION_FROM", from.to_string());
    shell::run(&mut command)
}

fn number(text: &str) -> Result<u64> {
    let digits = text.replace('_', "");
    digits.parse().with_context(|| format!("{text:?} is no number"))
}
