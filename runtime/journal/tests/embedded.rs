//! The embedded journal passes the suite.
#![expect(clippy::unwrap_used, reason = "a test's failure is its panic")]

mod suite;

use bytes::Bytes;
use reipaz_journal::{
    Arrived, Batch, Change, Embedded, EmbeddedConfig, PartitionLog, embedded::SEGMENT_BYTES_MIN,
};
use suite::{Backend, Host, INTAKE_BOUND, PARTITIONS, scenarios};

struct Directory(tempfile::TempDir);

impl Backend for Directory {
    async fn start(&mut self) -> Host {
        // Small segments, so that scenarios with some data pass from one to the next.
        let config = EmbeddedConfig {
            segment_bytes: SEGMENT_BYTES_MIN,
            ..EmbeddedConfig::new(self.0.path(), PARTITIONS)
        };
        let embedded = Embedded::open(config).await.unwrap();
        let (intake, deliveries) = embedded.intake(INTAKE_BOUND);
        Host { journal: embedded.journal(), intake, deliveries }
    }
}

scenarios!(Directory(tempfile::tempdir().unwrap()));

/// Commits `count` records of `size` bytes.
async fn fill(log: &mut Box<dyn PartitionLog>, count: usize, size: usize) {
    let records = vec![Bytes::from(vec![7; size]); count];
    log.commit(Batch { records, ..Batch::default() }).await.unwrap();
}

#[tokio::test]
async fn a_partition_that_seldom_writes_is_told_that_it_holds_the_others_log_back() {
    let mut directory = Directory(tempfile::tempdir().unwrap());
    let host = directory.start().await;
    let mut busy = host.journal.open(0).await.unwrap();
    let mut quiet = host.journal.open(1).await.unwrap();
    fill(&mut quiet.log, 1, 10).await;
    let before = quiet.log.bytes_since_checkpoint();
    fill(&mut busy.log, 200, 10_000).await;
    assert!(quiet.log.bytes_since_checkpoint() > before);
}

#[tokio::test]
async fn every_partition_is_assigned_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let embedded = Embedded::open(EmbeddedConfig::new(directory.path(), PARTITIONS)).await.unwrap();
    let (intake, mut assignments) = embedded.assignments::<u64>(INTAKE_BOUND);
    for expected in 0..PARTITIONS {
        match assignments.next().await {
            Some(Change::Assigned { partition, mut deliveries }) => {
                assert_eq!(partition, expected);
                intake.try_send(partition, u64::from(partition)).unwrap();
                assert_eq!(deliveries.recv().await.unwrap().command, Arrived::Command(u64::from(partition)));
            }
            _ => panic!("partition {expected} is assigned"),
        }
    }
    assert!(assignments.next().await.is_none(), "nothing more to come");
}
