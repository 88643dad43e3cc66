//! One row of the table: so many clients, for so long.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use hyper::{Method, StatusCode};
use serde_json::Value;
use tokio::task::LocalSet;

use crate::{client::Client, host::Host, options::Options, workloads::Workload};

/// From 1 us to 60 s, three digits: the range of a wait, and finer than the machine's noise.
const LATENCY_US: (u64, u64, u8) = (1, 60_000_000, 3);
/// Of so many of the measured runs the attempts' usage is read.
const SAMPLED_RUNS: usize = 100;

/// A measured row.
pub(crate) struct Row {
    pub(crate) workload: Workload,
    pub(crate) clients: usize,
    pub(crate) runs: u64,
    pub(crate) measured: Duration,
    pub(crate) latency_us: Histogram<u64>,
    /// How often a journal was made durable; none when the hosts do not tell.
    pub(crate) writes: Option<f64>,
    pub(crate) usage: Usage,
    /// Of the first host.
    pub(crate) resident_bytes: u64,
}

impl Row {
    pub(crate) fn runs_per_second(&self) -> f64 {
        self.runs as f64 / self.measured.as_secs_f64()
    }

    /// A quantile of the latencies, ms.
    pub(crate) fn latency_ms(&self, quantile: f64) -> f64 {
        self.latency_us.value_at_quantile(quantile) as f64 / 1000.0
    }

    pub(crate) fn writes_per_run(&self) -> Option<f64> {
        self.writes.map(|writes| writes / self.runs.max(1) as f64)
    }
}

/// What one attempt of the sampled runs cost on average.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Processor time in the guest.
    pub(crate) cpu_us: f64,
    /// From instantiation to outcome.
    pub(crate) wall_us: f64,
}

struct Shared {
    measuring: Cell<bool>,
    stop: Cell<bool>,
    next: Cell<u64>,
    runs: Cell<u64>,
    latency_us: RefCell<Histogram<u64>>,
    sample: RefCell<Vec<String>>,
}

/// Warms up, measures, and reads what the hosts tell of it. The clients are spread evenly over the hosts; `writes` is the
/// metric that counts how often a journal was made durable.
pub(crate) async fn measure(
    hosts: &[Host],
    writes: &str,
    workload: Workload,
    clients: usize,
    options: &Options,
    upstream: SocketAddr,
) -> Result<Row> {
    let (low, high, digits) = LATENCY_US;
    let shared = Rc::new(Shared {
        measuring: Cell::new(false),
        stop: Cell::new(false),
        next: Cell::new(0),
        runs: Cell::new(0),
        latency_us: RefCell::new(Histogram::new_with_bounds(low, high, digits)?),
        sample: RefCell::new(Vec::new()),
    });
    let first = hosts.first().context("there is no host to measure")?;
    let local = LocalSet::new();
    let (writes, measured) = local
        .run_until(async {
            let loops: Vec<_> = (0..clients)
                .zip(hosts.iter().cycle())
                .map(|(_, host)| {
                    tokio::task::spawn_local(submit(Rc::clone(&shared), host.address(), workload, upstream))
                })
                .collect();
            tokio::time::sleep(options.warm_up).await;
            let before = sum(hosts, writes).await?;
            shared.measuring.set(true);
            let begin = Instant::now();
            tokio::time::sleep(options.measured).await;
            shared.measuring.set(false);
            let measured = begin.elapsed();
            let after = sum(hosts, writes).await?;
            shared.stop.set(true);
            for client in loops {
                client.await??;
            }
            anyhow::Ok((before.zip(after).map(|(before, after)| after - before), measured))
        })
        .await?;
    let sample = shared.sample.take();
    ensure!(!sample.is_empty(), "no run ended within {:?}", options.measured);
    let latency_us = shared.latency_us.borrow().clone();
    Ok(Row {
        workload,
        clients,
        runs: shared.runs.get(),
        measured,
        latency_us,
        writes,
        usage: usage(&mut Client::connect(first.address()).await?, &sample).await?,
        resident_bytes: first.resident_bytes()?,
    })
}

/// A metric over all hosts and labels; none when nobody tells.
pub(crate) async fn sum(hosts: &[Host], metric: &str) -> Result<Option<f64>> {
    let mut sum = None;
    for host in hosts {
        let values = host.metric(&mut Client::connect(host.address()).await?, metric).await?;
        if !values.is_empty() {
            sum = Some(sum.unwrap_or(0.0) + values.iter().sum::<f64>());
        }
    }
    Ok(sum)
}

/// One client: submits, reads the terminal run, checks its output, and again.
async fn submit(
    shared: Rc<Shared>,
    host: SocketAddr,
    workload: Workload,
    upstream: SocketAddr,
) -> Result<()> {
    let mut client = Client::connect(host).await?;
    let path = format!("/v1/workflows/{}/runs", workload.name());
    let headers = [("content-type", "application/json"), ("prefer", "wait=30")];
    while !shared.stop.get() {
        let n = shared.next.get();
        shared.next.set(n + 1);
        let body = Bytes::from(workload.submission(n, upstream));
        let begin = Instant::now();
        let (status, answer) = client.send(Method::POST, &path, &headers, body).await?;
        let took = begin.elapsed();
        let text = std::str::from_utf8(&answer)?;
        ensure!(status == StatusCode::OK, "a run was answered {status}: {text}");
        ensure!(text.contains(&workload.output(n)), "a run ended otherwise: {text}");
        if shared.measuring.get() {
            shared.runs.set(shared.runs.get() + 1);
            shared
                .latency_us
                .borrow_mut()
                .saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
            let mut sample = shared.sample.borrow_mut();
            if sample.len() < SAMPLED_RUNS {
                let run: Value = serde_json::from_str(text)?;
                sample.push(run["id"].as_str().context("a run without id")?.to_owned());
            }
        }
    }
    Ok(())
}

/// Averages over all attempts of the sampled runs, from their events.
async fn usage(client: &mut Client, sample: &[String]) -> Result<Usage> {
    let (mut cpu_us, mut wall_us, mut attempts) = (0.0, 0.0, 0.0);
    for id in sample {
        let page = client.json(&format!("/v1/runs/{id}/events")).await?;
        let events = page["events"].as_array().context("no events")?;
        for usage in
            events.iter().filter(|event| event["type"] == "attempt_finished").map(|event| &event["usage"])
        {
            cpu_us += usage["cpu_us"].as_f64().unwrap_or(0.0);
            wall_us += usage["wall_us"].as_f64().unwrap_or(0.0);
            attempts += 1.0;
        }
    }
    ensure!(attempts > 0.0, "the sampled runs have no attempts");
    Ok(Usage { cpu_us: cpu_us / attempts, wall_us: wall_us / attempts })
}
