//! How long a killed host's partitions take to be taken over again: with more history, and with more live runs. The host is
//! killed and started several times; of the take-overs the median counts.

use std::{cell::Cell, net::SocketAddr, rc::Rc, time::Duration};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hyper::{Method, StatusCode};
use tokio::{task::LocalSet, time::Instant};

use super::{COMMITS, OWNED, PARTITIONS, deployment::Ground};
use crate::{
    client::Client,
    host::{Host, Settings},
    options::Options,
    rounds,
    upstream::Upstream,
    workloads::Workload,
};

/// With it each partition takes several checkpoints within the history that is measured first.
pub(crate) const CHECKPOINT_BYTES: u64 = 1 << 20;
/// Terminal runs that stay in memory, in all partitions: far fewer than the history.
pub(crate) const TERMINAL_RUNS: u64 = 2_000;
/// How often a host is killed for a figure.
pub(crate) const KILLS: usize = 3;
/// How much more history the second measurement has.
pub(crate) const TIMES_THE_HISTORY: u64 = 10;

/// Clients that submit at the same time.
const CLIENTS: usize = 64;
/// Between two looks at what is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// When nothing was committed for so long, everything is durable and idle.
const IDLE_FOR: Duration = Duration::from_secs(2);
/// When runs are not asleep after so long, something is wrong.
const ASLEEP_WITHIN: Duration = Duration::from_secs(300);

/// What the host says of a take-over.
const RECOVERY: &str = "reipaz_recovery_seconds";
const EVENTS: &str = "reipaz_recovery_events";
const CHECKPOINTS: &str = "reipaz_checkpoints_total";

/// A row of the table.
pub(crate) struct Recovery {
    pub(crate) ground: &'static str,
    /// Runs that had ended before.
    pub(crate) history: u64,
    /// Runs that had not.
    pub(crate) live: u64,
    /// Checkpoints taken before, all partitions together.
    pub(crate) checkpoints: f64,
    /// From the start of the take-over until the last partition is owned: the median of [`KILLS`].
    pub(crate) take_over_s: f64,
    /// Events that it read, of the checkpoint and after it, all partitions together.
    pub(crate) events: f64,
    /// From the start of the process until the last partition is owned. On Kafka the killed host's session has to end first.
    pub(crate) until_owned: Duration,
    /// The host's memory then.
    pub(crate) resident_bytes: u64,
}

/// A host that gets more and more runs, and is killed now and then.
struct Subject<'a> {
    ground: Ground,
    host: Host,
    upstream: &'a Upstream,
    checkpoints: f64,
    history: u64,
    live: u64,
}

/// Terminal runs only.
pub(crate) async fn with_history(
    ground: Ground,
    options: &Options,
    upstream: &Upstream,
) -> Result<Vec<Recovery>> {
    let limits = format!("checkpoint_bytes = {CHECKPOINT_BYTES}\nterminal_runs = {TERMINAL_RUNS}\n");
    let mut subject = Subject::start(ground, &limits, Workload::Silent, options, upstream).await?;
    let mut rows = Vec::new();
    for history in [options.history, options.history * TIMES_THE_HISTORY] {
        eprintln!("{}: recovery behind {history} terminal runs", subject.ground.title());
        subject.run_to_the_end(history).await?;
        rows.push(subject.recover().await?);
    }
    subject.end().await?;
    Ok(rows)
}

/// Sleeping runs only; checkpoints as a host takes them by default.
pub(crate) async fn with_live_runs(
    ground: Ground,
    options: &Options,
    upstream: &Upstream,
) -> Result<Vec<Recovery>> {
    let mut subject = Subject::start(ground, "", Workload::Sleeping, options, upstream).await?;
    let mut rows = Vec::new();
    for &live in &options.live {
        eprintln!("{}: recovery with {live} live runs", subject.ground.title());
        subject.put_to_sleep(live as u64).await?;
        rows.push(subject.recover().await?);
    }
    subject.end().await?;
    Ok(rows)
}

impl<'a> Subject<'a> {
    async fn start(
        ground: Ground,
        limits: &str,
        workload: Workload,
        options: &Options,
        upstream: &'a Upstream,
    ) -> Result<Self> {
        let mut host = Host::start(Settings {
            binary: options.host.clone(),
            folder: options.data_dir.join("host-1"),
            compiled: options.data_dir.join("compiled"),
            config: ground.config(limits, upstream.address),
        })
        .await?;
        wait_until_owned(&ground, &mut host).await?;
        host.publish(workload).await?;
        Ok(Self { ground, host, upstream, checkpoints: 0.0, history: 0, live: 0 })
    }

    /// Has runs end, until `history` have.
    async fn run_to_the_end(&mut self, history: u64) -> Result<()> {
        let (from, upstream) = (self.history, self.upstream.address);
        match &self.ground {
            Ground::Kafka(deployment) => {
                deployment.run_tasks(Workload::Silent, from, history - from, upstream).await?;
            }
            Ground::Directory => {
                let wanted = StatusCode::OK;
                submit_all(self.host.address(), Workload::Silent, from..history, upstream, wanted).await?;
            }
        }
        self.history = history;
        Ok(())
    }

    /// Has runs fall asleep, until `live` sleep.
    async fn put_to_sleep(&mut self, live: u64) -> Result<()> {
        ensure!(live > self.live, "--live needs growing numbers");
        let asleep = self.upstream.put_off() + live - self.live;
        let (workload, wanted) = (Workload::Sleeping, StatusCode::ACCEPTED);
        submit_all(self.host.address(), workload, self.live..live, self.upstream.address, wanted).await?;
        let begin = Instant::now();
        while self.upstream.put_off() < asleep {
            ensure!(
                begin.elapsed() < ASLEEP_WITHIN,
                "{} of {asleep} runs slept after {ASLEEP_WITHIN:?}",
                self.upstream.put_off()
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.live = live;
        Ok(())
    }

    /// Kills the host and starts it anew, several times.
    async fn recover(&mut self) -> Result<Recovery> {
        self.idle().await?;
        self.checkpoints += self.sum(CHECKPOINTS).await?;
        let mut times = Vec::new();
        for _ in 0..KILLS {
            self.host.kill()?;
            let begin = Instant::now();
            self.host.start_again()?;
            wait_until_owned(&self.ground, &mut self.host).await?;
            let until_owned = begin.elapsed();
            times.push((self.longest().await?, until_owned));
        }
        let live = self.sum("reipaz_runs_live").await?;
        ensure!(live == self.live as f64, "{live} runs are live after the recovery, not {}", self.live);
        times.sort_unstable_by(|one, other| one.0.total_cmp(&other.0));
        let (take_over_s, until_owned) = times[KILLS / 2];
        eprintln!("  taken over in {take_over_s:.3} s");
        Ok(Recovery {
            ground: self.ground.title(),
            history: self.history,
            live: self.live,
            checkpoints: self.checkpoints,
            take_over_s,
            events: self.sum(EVENTS).await?,
            until_owned,
            resident_bytes: self.host.resident_bytes()?,
        })
    }

    /// Waits until nothing is committed any more.
    async fn idle(&self) -> Result<()> {
        let mut last = (self.sum(COMMITS).await?, Instant::now());
        while last.1.elapsed() < IDLE_FOR {
            tokio::time::sleep(LOOK_EVERY).await;
            let commits = self.sum(COMMITS).await?;
            if commits != last.0 {
                last = (commits, Instant::now());
            }
        }
        Ok(())
    }

    /// All partitions are taken over at the same time; the slowest is the last.
    async fn longest(&self) -> Result<f64> {
        let mut client = Client::connect(self.host.address()).await?;
        let times = self.host.metric(&mut client, RECOVERY).await?;
        times.into_iter().reduce(f64::max).with_context(|| format!("the host does not tell {RECOVERY}"))
    }

    async fn sum(&self, metric: &str) -> Result<f64> {
        let sum = rounds::sum(std::slice::from_ref(&self.host), metric).await?;
        sum.with_context(|| format!("the host does not tell {metric}"))
    }

    async fn end(self) -> Result<()> {
        drop(self.host);
        self.ground.remove().await
    }
}

async fn wait_until_owned(ground: &Ground, host: &mut Host) -> Result<()> {
    match ground {
        Ground::Kafka(_) => host.wait_for_metric(OWNED, f64::from(PARTITIONS)).await,
        // It answers once it owns everything.
        Ground::Directory => host.wait_until_ready().await,
    }
}

/// Submits these runs by some clients; waits for the ends if the wanted answer is one.
async fn submit_all(
    host: SocketAddr,
    workload: Workload,
    runs: std::ops::Range<u64>,
    upstream: SocketAddr,
    wanted: StatusCode,
) -> Result<()> {
    let next = Rc::new(Cell::new(runs.start));
    let submit = |next: Rc<Cell<u64>>| async move {
        let mut client = Client::connect(host).await?;
        let path = format!("/v1/workflows/{}/runs", workload.name());
        let wait = if wanted == StatusCode::OK { "wait=30" } else { "wait=0" };
        let headers = [("content-type", "application/json"), ("prefer", wait)];
        loop {
            let n = next.get();
            if n >= runs.end {
                return anyhow::Ok(());
            }
            next.set(n + 1);
            let body = Bytes::from(workload.submission(n, upstream));
            let (status, answer) = client.send(Method::POST, &path, &headers, body).await?;
            let text = String::from_utf8_lossy(&answer);
            ensure!(status == wanted, "a run was answered {status}: {text}");
        }
    };
    let local = LocalSet::new();
    local
        .run_until(async {
            let clients: Vec<_> =
                (0..CLIENTS).map(|_| tokio::task::spawn_local(submit(Rc::clone(&next)))).collect();
            for client in clients {
                client.await??;
            }
            Ok(())
        })
        .await
}
