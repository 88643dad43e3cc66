//! What so many hosts on this machine do: over HTTP, and through the tasks topic alone.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{
    COMMITS, OWNED, PARTITIONS,
    deployment::{Deployment, Ground},
};
use crate::{
    host::{Host, Settings},
    options::Options,
    rounds::{self, Row},
    upstream::Upstream,
    workloads::Workload,
};

/// Partitions have settled between hosts within this.
const SPREAD_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A row of the table: clients of so many hosts.
pub(crate) struct OverHttp {
    pub(crate) hosts: usize,
    pub(crate) row: Row,
}

/// A row of the table: tasks written at once.
pub(crate) struct Tasks {
    pub(crate) hosts: usize,
    pub(crate) tasks: u64,
    pub(crate) took: Duration,
    pub(crate) commits: Option<f64>,
}

/// Starts the hosts and measures; one client alone is measured on one host only.
pub(crate) async fn measure(
    deployment: &Deployment,
    count: usize,
    options: &Options,
    upstream: &Upstream,
) -> Result<(Vec<OverHttp>, Tasks)> {
    let hosts = start(deployment, count, options, upstream).await?;
    let mut rows = Vec::new();
    for &clients in options.clients.iter().filter(|clients| count == 1 || **clients > 1) {
        eprintln!("Kafka, {count} host(s), {clients} client(s), {:?}", options.measured);
        let measured =
            rounds::measure(&hosts, COMMITS, Workload::Silent, clients, options, upstream.address).await?;
        eprintln!("  {:.0} runs/s", measured.runs_per_second());
        rows.push(OverHttp { hosts: count, row: measured });
    }
    eprintln!("Kafka, {count} host(s), {} tasks", options.tasks);
    let before = rounds::sum(&hosts, COMMITS).await?;
    let took = deployment.run_tasks(Workload::Silent, 0, options.tasks, upstream.address).await?;
    eprintln!("  {:.0} runs/s", options.tasks as f64 / took.as_secs_f64());
    let after = rounds::sum(&hosts, COMMITS).await?;
    let commits = before.zip(after).map(|(before, after)| after - before);
    for host in hosts {
        host.stop().await?;
    }
    Ok((rows, Tasks { hosts: count, tasks: options.tasks, took, commits }))
}

async fn start(
    deployment: &Deployment,
    count: usize,
    options: &Options,
    upstream: &Upstream,
) -> Result<Vec<Host>> {
    let ground = Ground::Kafka(deployment.clone());
    let mut hosts = Vec::new();
    for number in 1..=count {
        let host = Host::start(Settings {
            binary: options.host.clone(),
            folder: options.data_dir.join(format!("host-{number}")),
            compiled: options.data_dir.join("compiled"),
            config: ground.config("", upstream.address),
        })
        .await?;
        hosts.push(host);
    }
    let begin = Instant::now();
    while !are_spread(&hosts).await? {
        ensure!(begin.elapsed() < SPREAD_WITHIN, "the partitions were not spread within {SPREAD_WITHIN:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    if let Some(first) = hosts.first() {
        first.publish(Workload::Silent).await?;
    }
    for host in &hosts {
        host.knows(Workload::Silent).await?;
    }
    if let Some(last) = hosts.last() {
        last.settled().await;
    }
    Ok(hosts)
}

/// Whether all partitions are owned, and evenly.
async fn are_spread(hosts: &[Host]) -> Result<bool> {
    let (mut all, mut least, mut most) = (0.0, f64::MAX, 0.0_f64);
    for host in hosts {
        let owned = rounds::sum(std::slice::from_ref(host), OWNED).await?.unwrap_or_default();
        (all, least, most) = (all + owned, least.min(owned), most.max(owned));
    }
    Ok(all >= f64::from(PARTITIONS) && most - least <= 1.0)
}
