//! What a bench can be told.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};

/// See the fields.
pub(crate) struct Options {
    /// The `reipaz` binary.
    pub(crate) host: PathBuf,
    /// Where the journal lies; emptied at the start.
    pub(crate) data_dir: PathBuf,
    /// Measured time of a row.
    pub(crate) measured: Duration,
    /// Thrown away before it.
    pub(crate) warm_up: Duration,
    /// How many clients, row by row.
    pub(crate) clients: Vec<usize>,
    /// A broker's address: measures on Kafka instead.
    pub(crate) kafka: Option<String>,
    /// On Kafka: how many hosts, row by row.
    pub(crate) hosts: Vec<usize>,
    /// On Kafka: how many tasks are written to the topic at once.
    pub(crate) tasks: u64,
    /// On Kafka: how many terminal runs recovery is measured behind, first; then ten times as many.
    pub(crate) history: u64,
    /// On Kafka: how many live runs recovery is measured with, row by row, each more than the one before.
    pub(crate) live: Vec<usize>,
    /// Whether the host projects its rows into the embedded ClickHouse meanwhile, as it does by default.
    pub(crate) clickhouse: bool,
}

impl Options {
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            host: PathBuf::new(),
            data_dir: PathBuf::from("target/bench"),
            measured: Duration::from_secs(15),
            warm_up: Duration::from_secs(5),
            clients: vec![1, 64, 256],
            kafka: None,
            hosts: vec![1, 2, 4],
            tasks: 20_000,
            history: 20_000,
            live: vec![1_000, 10_000, 100_000],
            clickhouse: true,
        };
        while let Some(flag) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{flag} needs a value"));
            match flag.as_str() {
                "--host" => options.host = value()?.into(),
                "--data-dir" => options.data_dir = value()?.into(),
                "--seconds" => options.measured = seconds(&value()?)?,
                "--warm-up" => options.warm_up = seconds(&value()?)?,
                "--clients" => options.clients = list(&value()?)?,
                "--kafka" => options.kafka = Some(value()?),
                "--hosts" => options.hosts = list(&value()?)?,
                "--tasks" => options.tasks = number(&value()?)?,
                "--history" => options.history = number(&value()?)?,
                "--live" => options.live = list(&value()?)?,
                "--without-clickhouse" => options.clickhouse = false,
                other => bail!(
                    "unknown option {other}; there are --seconds N, --warm-up N, --clients 1,64,256, --data-dir DIR, \
                     --without-clickhouse; with --kafka also --hosts 1,2,4, --tasks N, --history N, --live 1000,10000"
                ),
            }
        }
        if options.host.as_os_str().is_empty() {
            bail!("--host must name the reipaz binary; `cargo xtask bench` does");
        }
        Ok(options)
    }
}

fn seconds(text: &str) -> Result<Duration> {
    let seconds: u64 = text.parse().with_context(|| format!("{text:?} is no number of seconds"))?;
    Ok(Duration::from_secs(seconds.max(1)))
}

fn number(text: &str) -> Result<u64> {
    match text.parse() {
        Ok(0) | Err(_) => bail!("{text:?} is no number of runs: take a whole number from 1"),
        Ok(number) => Ok(number),
    }
}

fn list(text: &str) -> Result<Vec<usize>> {
    text.split(',')
        .map(|number| match number.trim().parse() {
            Ok(0) | Err(_) => bail!("{number:?} is no whole number from 1"),
            Ok(number) => Ok(number),
        })
        .collect()
}
