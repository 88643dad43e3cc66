//! What the journal does when the disk fails it.
#![expect(clippy::unwrap_used, reason = "a test's failure is its panic")]

mod support;

use std::{os::unix::process::ExitStatusExt, process::Command, time::Duration};

use bytes::Bytes;
use reipaz_journal::{CommitError, Embedded, EmbeddedConfig, JournalError, Position, embedded::Faults};
use support::{Data, batch, content, entries, open, records};

const SIGABRT: i32 = 6;
/// Set in the process that the parent test starts: the data directory to work on.
const CHILD: &str = "REIPAZ_TEST_FAILED_SYNC_DIR";

#[tokio::test]
async fn a_failed_sync_ends_the_process() {
    if let Ok(dir) = std::env::var(CHILD) {
        let faults = Faults::default();
        let config =
            EmbeddedConfig { faults: faults.clone(), ..EmbeddedConfig::new(dir, support::PARTITIONS) };
        let embedded = Embedded::open(config).await.unwrap();
        let mut opened = open(&embedded, 0).await;
        opened.log.commit(batch(["durable"])).await.unwrap();
        faults.fail_sync();
        let outcome = opened.log.commit(batch(["unclear"])).await;
        panic!("the process outlived a failed sync: {outcome:?}");
    }
    let data = Data::new();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_failed_sync_ends_the_process"])
        .env(CHILD, data.dir())
        .output()
        .unwrap()
        .status;
    assert_eq!(status.signal(), Some(SIGABRT), "{status}");
    let config = EmbeddedConfig::new(data.dir(), support::PARTITIONS);
    let embedded = Embedded::open(config).await.unwrap();
    let (_, found) = content(&mut open(&embedded, 0).await).await;
    assert_eq!(found[0], "durable");
}

async fn faulty(data: &Data) -> (Embedded, Faults) {
    let faults = Faults::default();
    let config = EmbeddedConfig { faults: faults.clone(), ..data.config() };
    (Embedded::open(config).await.unwrap(), faults)
}

#[tokio::test]
async fn nothing_is_seen_before_it_is_durable() {
    let data = Data::new();
    let (embedded, faults) = faulty(&data).await;
    let (_intake, mut deliveries) = embedded.intake::<u64>(1);
    let mut opened = open(&embedded, 0).await;
    let mut reader = embedded.journal().reader(0);
    faults.hold_syncs(true);
    let mut sent = batch(["a"]);
    sent.messages.push(reipaz_journal::Outgoing { to: 1, bytes: Bytes::from_static(b"hello") });
    let commit = opened.log.commit(sent);
    tokio::pin!(commit);
    // Long enough for the write to have reached the file; the sync is held for as long as we like.
    let early = tokio::time::timeout(Duration::from_millis(200), &mut commit).await;
    assert!(early.is_err(), "answered before the sync");
    assert!(reader.read_after(Position::START, 100).await.unwrap().is_empty());
    assert!(deliveries[1].try_recv().is_none());
    faults.hold_syncs(false);
    assert_eq!(commit.await.unwrap().last, Position(1));
    assert_eq!(reader.wait_beyond(Position::START).await, Position(1));
    assert_eq!(reader.read_after(Position::START, 100).await.unwrap().len(), 1);
    assert!(deliveries[1].recv().await.is_some());
}

#[tokio::test]
async fn a_log_that_cannot_grow_refuses_and_goes_on_when_there_is_room() {
    let data = Data::new();
    let (embedded, faults) = faulty(&data).await;
    let mut opened = open(&embedded, 0).await;
    let mut expected = Vec::new();
    faults.set_full_for_segments(true);
    let refused = loop {
        let record = format!("{:0>5000}", expected.len());
        match opened.log.commit(batch([&record])).await {
            Ok(_) => expected.push(record),
            Err(error) => break error,
        }
        assert!(expected.len() < 1000, "the disk is full");
    };
    assert!(matches!(refused, CommitError::NoSpace(_)), "{refused}");
    // Refused again, without harm; what still fits is taken.
    assert!(matches!(opened.log.commit(batch([&"x".repeat(5000)])).await, Err(CommitError::NoSpace(_))));
    opened.log.commit(batch(["small"])).await.unwrap();
    expected.push("small".to_owned());
    faults.set_full_for_segments(false);
    let record = "y".repeat(5000);
    let last = opened.log.commit(batch([&record])).await.unwrap().last;
    expected.push(record);
    assert_eq!(last.0 as usize, expected.len());
    drop((opened, embedded));
    assert_eq!(records(&data).await, expected);
}

#[tokio::test]
async fn a_write_that_found_the_disk_full_wrote_nothing() {
    let data = Data::new();
    let (embedded, faults) = faulty(&data).await;
    let mut opened = open(&embedded, 0).await;
    opened.log.commit(batch(["a"])).await.unwrap();
    faults.set_full_for_writes(true);
    for _ in 0..2 {
        let refused = opened.log.commit(batch(["refused", "whole"])).await;
        assert!(matches!(refused, Err(CommitError::NoSpace(_))));
    }
    let checkpoint = opened.log.checkpoint(Position(1), vec![Bytes::from_static(b"state")]).await;
    assert!(matches!(checkpoint, Err(JournalError::NoSpace { .. })), "{checkpoint:?}");
    // A crash now: the refused batch must not come back.
    assert_eq!(records(&data.copy()).await, ["a"]);
    faults.set_full_for_writes(false);
    assert_eq!(opened.log.commit(batch(["b"])).await.unwrap().last, Position(2));
    drop((opened, embedded));
    assert_eq!(records(&data).await, ["a", "b"]);
}

#[tokio::test]
async fn a_full_disk_at_the_first_write_leaves_an_empty_log() {
    let data = Data::new();
    let (embedded, faults) = faulty(&data).await;
    faults.set_full_for_writes(true);
    assert!(matches!(embedded.journal().open(0).await, Err(JournalError::NoSpace { .. })));
    faults.set_full_for_writes(false);
    let mut opened = open(&embedded, 0).await;
    opened.log.commit(batch(["a"])).await.unwrap();
    drop((opened, embedded));
    assert_eq!(records(&data).await, ["a"]);
}

#[tokio::test]
async fn a_catalogue_without_room_keeps_what_it_had() {
    let data = Data::new();
    let (embedded, faults) = faulty(&data).await;
    let catalog = embedded.catalog();
    catalog.put("k", Bytes::from_static(b"old")).await.unwrap();
    faults.set_full_for_writes(true);
    let refused = catalog.put("k", Bytes::from_static(b"new")).await;
    assert!(matches!(refused, Err(JournalError::NoSpace { .. })), "{refused:?}");
    assert_eq!(entries(&*catalog), [("k".to_owned(), "old".to_owned())]);
    faults.set_full_for_writes(false);
    catalog.put("l", Bytes::from_static(b"after")).await.unwrap();
    drop((catalog, embedded));
    let embedded = data.start().await;
    let expected = [("k", "old"), ("l", "after")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(entries(&*embedded.catalog()), expected);
}
