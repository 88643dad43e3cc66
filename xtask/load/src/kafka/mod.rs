//! The bench on Kafka: what more hosts on one machine bring, what the tasks topic alone brings, and how long a take-over
//! takes with much history and with many live runs. The latter is measured on a directory too.

mod deployment;
mod recovery;
mod report;
mod throughput;

use anyhow::Result;

use self::{
    deployment::{Deployment, Ground},
    report::Report,
};
use crate::{options::Options, upstream::Upstream};

/// Into how many partitions runs are spread: twice the most hosts that are measured by default.
const PARTITIONS: u32 = 8;

/// What the host calls the number of batches that it has made durable: on Kafka each is a transaction.
const COMMITS: &str = "reipaz_commits_total";

/// What the host calls the partitions that it owns.
const OWNED: &str = "reipaz_partition_owned";

/// Measures everything, on topics that are removed at the end.
pub(crate) async fn bench(options: &Options, brokers: &str) -> Result<Report> {
    let upstream = Upstream::start().await?;
    let mut report = Report::new(options);
    for &count in &options.hosts {
        let deployment = Deployment::new(brokers);
        let (rows, tasks) = throughput::measure(&deployment, count, options, &upstream).await?;
        deployment.remove().await?;
        report.throughput.extend(rows);
        report.tasks.push(tasks);
    }
    for kafka in [true, false] {
        let ground = || if kafka { Ground::Kafka(Deployment::new(brokers)) } else { Ground::Directory };
        report.recovery.extend(recovery::with_history(ground(), options, &upstream).await?);
        report.recovery.extend(recovery::with_live_runs(ground(), options, &upstream).await?);
    }
    Ok(report)
}
