//! The load generator behind `cargo xtask bench`: starts a release host on a real disk, loads it over HTTP, and prints
//! what the README shows.
//!
//! Closed loops: each client submits a run with `Prefer: wait`, reads the terminal answer, and submits the next. All
//! clients share one thread, so that on a small machine the host keeps the rest. A row is measured for a fixed time after
//! a warm-up that is thrown away; latencies go into an HDR histogram.

mod client;
mod disk;
mod host;
mod kafka;
mod options;
mod report;
mod rounds;
mod upstream;
mod workloads;

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    host::{Host, Settings},
    options::Options,
    report::Report,
    upstream::Upstream,
    workloads::Workload,
};

/// What the host calls the number of its fsyncs.
const FSYNCS: &str = "reipaz_journal_fsyncs_total";

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("reipaz-load: {error:#}");
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("reipaz-load: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let report = runtime.block_on(async {
        match &options.kafka {
            Some(brokers) => kafka::bench(&options, brokers).await.map(|report| report.to_string()),
            None => bench(&options).await.map(|report| report.to_string()),
        }
    });
    match report {
        Ok(report) => {
            println!("\n{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("reipaz-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn bench(options: &Options) -> Result<Report> {
    let disk = disk::probe(&options.data_dir)?;
    let upstream = Upstream::start().await?.address;
    let clickhouse = if options.clickhouse { "embedded" } else { "off" };
    let mut host = Host::start(Settings {
        binary: options.host.clone(),
        folder: options.data_dir.clone(),
        compiled: options.data_dir.join("compiled"),
        config: format!("[clickhouse]\nmode = \"{clickhouse}\"\n{}", grants(upstream)),
    })
    .await?;
    if options.clickhouse {
        host.joined_by_clickhouse().await?;
    }
    host.settled().await;
    let mut report = Report::new(options, disk, host.resident_bytes()?);
    let hosts = [host];
    for workload in [Workload::Silent, Workload::Effect] {
        hosts[0].publish(workload).await?;
        for &clients in &options.clients {
            eprintln!("{}: {clients} client(s), {:?}", workload.title(), options.measured);
            report.add(rounds::measure(&hosts, FSYNCS, workload, clients, options, upstream).await?);
        }
    }
    let [host] = hosts;
    report.finish(host.peak_bytes()?);
    host.stop().await?;
    Ok(report)
}

/// Lets the standard HTTP step call the server that stands for the outside world.
fn grants(upstream: std::net::SocketAddr) -> String {
    format!("[plugins.http_request.grants]\nhttp = [\"POST {upstream}\"]\n")
}
