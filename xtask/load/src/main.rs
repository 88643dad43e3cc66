//! The load generator behind `cargo xtask bench`: starts a release host on a real disk, loads it over HTTP, and prints
//! what the README shows.
//!
//! Closed loops: each client submits a run with `Prefer: wait`, reads the terminal answer, and submits the next. All
//! clients share one thread, so that on a small machine the host keeps the rest. A row is measured for a fixed time after
//! a warm-up that is thrown away; latencies go into an HDR histogram.

mod client;
mod disk;
mod host;
mod options;
mod report;
mod rounds;
mod upstream;
mod workloads;

use std::process::ExitCode;

use anyhow::Result;

use crate::{host::Host, options::Options, report::Report, workloads::Workload};

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
    match runtime.block_on(bench(&options)) {
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
    let upstream = upstream::start().await?;
    let mut host = Host::start(options, upstream).await?;
    host.settled().await?;
    let mut report = Report::new(options, disk, host.resident_bytes()?);
    for workload in [Workload::Silent, Workload::Effect] {
        host.publish(workload).await?;
        for &clients in &options.clients {
            eprintln!("{}: {clients} client(s), {:?}", workload.title(), options.measured);
            report.add(rounds::measure(&host, workload, clients, options, upstream).await?);
        }
    }
    report.finish(host.peak_bytes()?);
    host.stop().await?;
    Ok(report)
}
