//! Who may use a data directory, and for what it was made.
#![expect(clippy::unwrap_used, reason = "a test's failure is its panic")]

mod support;

use std::fs;

use reipaz_journal::{Embedded, EmbeddedConfig, JournalError};
use support::{Data, batch, open, records};

async fn refused(config: EmbeddedConfig) -> JournalError {
    match Embedded::open(config).await {
        Ok(_) => panic!("opened"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_second_user_is_refused_and_told_who_has_it() {
    let data = Data::new();
    let first = data.start().await;
    let error = refused(data.config()).await;
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    assert!(matches!(error, JournalError::Locked { pid: Some(_), .. }));
    drop(first);
    data.start().await;
}

#[tokio::test]
async fn the_lock_is_held_until_the_last_user_is_gone() {
    let data = Data::new();
    let embedded = data.start().await;
    let opened = open(&embedded, 0).await;
    let catalog = embedded.catalog();
    drop(embedded);
    assert!(matches!(refused(data.config()).await, JournalError::Locked { .. }));
    drop(catalog);
    drop(opened);
    data.start().await;
}

#[tokio::test]
async fn another_partition_count_is_refused() {
    let data = Data::new();
    drop(data.start().await);
    let error = refused(EmbeddedConfig { partitions: 7, ..data.config() }).await;
    assert!(matches!(error, JournalError::Partitions { found: 2, asked: 7, .. }));
    assert!(error.to_string().contains("configure 2"), "{error}");
}

#[tokio::test]
async fn another_format_version_is_refused() {
    let data = Data::new();
    drop(data.start().await);
    data.edit(&data.file("meta"), |bytes| {
        bytes[8] = 9;
        let crc = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    });
    assert!(matches!(refused(data.config()).await, JournalError::Version { found: 9, known: 1, .. }));
}

#[tokio::test]
async fn a_configuration_that_makes_no_sense_is_refused() {
    let data = Data::new();
    for partitions in [0, 1000] {
        let config = EmbeddedConfig { partitions, ..data.config() };
        assert!(matches!(refused(config).await, JournalError::Config(_)));
    }
    let config = EmbeddedConfig { segment_bytes: 10, ..data.config() };
    assert!(matches!(refused(config).await, JournalError::Config(_)));
}

#[tokio::test]
async fn a_first_start_that_was_cut_short_is_begun_anew() {
    let data = Data::new();
    drop(data.start().await);
    // The meta file comes last: without it, and with a log of zeros, nothing had begun.
    fs::remove_file(data.file("meta")).unwrap();
    let embedded = data.start().await;
    open(&embedded, 0).await.log.commit(batch(["a"])).await.unwrap();
    drop(embedded);
    assert_eq!(records(&data).await, ["a"]);
}

#[tokio::test]
async fn the_size_of_segments_may_change_and_a_batch_may_exceed_it() {
    let data = Data::new();
    let embedded = data.start().await;
    let large = "x".repeat(300_000);
    let mut opened = open(&embedded, 0).await;
    opened.log.commit(batch([&large, "a"])).await.unwrap();
    opened.log.commit(batch(["b"])).await.unwrap();
    drop((opened, embedded));
    let config = EmbeddedConfig { segment_bytes: 1 << 20, ..data.config() };
    let embedded = Embedded::open(config).await.unwrap();
    open(&embedded, 0).await.log.commit(batch([&large])).await.unwrap();
    drop(embedded);
    assert_eq!(records(&data).await, [&large, "a", "b", &large]);
}
