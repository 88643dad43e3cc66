//! What every implementation of the ports must do, written once. An implementation brings a [`Backend`] and gets one test
//! for each scenario by `scenarios!(backend)`.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use reipaz_journal::{
    Arrived, Batch, CommitError, Cursor, Deliveries, Full, Intake, Journal, JournalError, Opened, Outgoing,
    Position, Record, Tail,
};

/// How many partitions a backend has.
pub(crate) const PARTITIONS: u32 = 3;
/// How many commands a backend takes per partition.
pub(crate) const INTAKE_BOUND: usize = 4;
/// Longer than any event takes: an await that ends by this has failed.
const LONG: Duration = Duration::from_secs(30);

/// A running host's view of a backend.
pub(crate) struct Host {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) intake: Arc<dyn Intake<u64>>,
    pub(crate) deliveries: Vec<Box<dyn Deliveries<u64>>>,
}

/// One store of data under test.
pub(crate) trait Backend: Send {
    /// Starts a host on the data; what an earlier host left is there. Dropping the host is a crash.
    fn start(&mut self) -> impl Future<Output = Host> + Send;
}

/// Generates one test for each scenario.
macro_rules! scenarios {
    ($backend:expr; $($name:ident),* $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            suite::$name($backend).await;
        })*
    };
    ($backend:expr) => {
        scenarios!($backend;
            a_new_partition_is_empty_and_clean,
            committed_records_survive_a_crash_in_order,
            an_empty_batch_commits_without_a_record,
            a_stop_is_clean_only_when_the_log_was_closed,
            a_second_owner_fences_the_first,
            an_abandoned_commit_leaves_no_gap,
            a_batch_that_names_an_unknown_partition_is_refused,
            a_reader_wakes_when_a_record_is_durable,
            a_reader_at_the_end_is_told_so_when_the_owner_has_gone,
            a_reader_reads_in_bounded_pieces,
            a_reader_of_an_unknown_partition_finds_nothing,
            recovery_is_the_newest_checkpoint_and_the_records_after_it,
            a_checkpoint_beyond_the_end_is_refused,
            deletion_keeps_the_checkpoint_that_a_sink_restarts_from,
            log_size_since_a_checkpoint_falls_when_one_is_taken,
            messages_arrive_in_order_once_they_are_durable,
            unconsumed_messages_arrive_again_after_a_crash,
            consumed_messages_stay_consumed_when_the_log_was_cut,
            a_take_over_redelivers_what_was_not_consumed,
            a_flood_of_messages_arrives_whole,
            commands_are_bounded_and_given_back,
            a_pause_stops_neither_commands_nor_messages,
            intake_ends_when_its_senders_are_gone,
        );
    };
}
pub(crate) use scenarios;

fn bytes(text: impl Into<String>) -> Bytes {
    Bytes::from(text.into())
}

fn records<const N: usize>(texts: [&str; N]) -> Batch {
    Batch { records: texts.map(bytes).into(), ..Batch::default() }
}

fn message(to: u32, text: &str) -> Batch {
    Batch { messages: vec![Outgoing { to, bytes: bytes(text) }], ..Batch::default() }
}

async fn soon<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, event).await.expect("the event comes")
}

async fn texts(tail: &mut Tail) -> Vec<(u64, String)> {
    let mut all = Vec::new();
    while let Some(chunk) = tail.next().await.unwrap() {
        all.extend(chunk.into_iter().map(text_of));
    }
    all
}

fn text_of(record: Record) -> (u64, String) {
    (record.position.0, String::from_utf8(record.bytes.to_vec()).unwrap())
}

fn numbered(from: u64, texts: &[&str]) -> Vec<(u64, String)> {
    (from..).zip(texts.iter().map(|text| text.to_string())).collect()
}

async fn open(host: &Host, partition: u32) -> Opened {
    soon(host.journal.open(partition)).await.unwrap()
}

/// Takes a partition over with its deliveries, as an owner does.
async fn own(host: &mut Host, partition: u32) -> Opened {
    let opened = open(host, partition).await;
    host.deliveries[partition as usize].seek(opened.consumed);
    opened
}

async fn next_message(deliveries: &mut Box<dyn Deliveries<u64>>) -> (String, Cursor) {
    let delivery = soon(deliveries.recv()).await.unwrap();
    match delivery.command {
        Arrived::Message(bytes) => (String::from_utf8(bytes.to_vec()).unwrap(), delivery.cursor.unwrap()),
        other => panic!("expected a message, not {other:?}"),
    }
}

pub(crate) async fn a_new_partition_is_empty_and_clean(mut backend: impl Backend) {
    let host = backend.start().await;
    assert_eq!(host.journal.partitions(), PARTITIONS);
    let mut opened = open(&host, 0).await;
    assert!(opened.checkpoint.is_none());
    assert!(opened.consumed.is_none());
    assert!(opened.clean_stop, "nobody was there to stop uncleanly");
    assert_eq!(opened.tail.end(), Position::START);
    assert!(texts(&mut opened.tail).await.is_empty());
    assert!(matches!(host.journal.open(PARTITIONS).await, Err(JournalError::NoSuchPartition { .. })));
}

pub(crate) async fn committed_records_survive_a_crash_in_order(mut backend: impl Backend) {
    let host = backend.start().await;
    let mut first = open(&host, 0).await;
    let mut second = open(&host, 1).await;
    assert_eq!(first.log.commit(records(["a", "b"])).await.unwrap().last, Position(2));
    assert_eq!(second.log.commit(records(["x"])).await.unwrap().last, Position(1));
    assert_eq!(first.log.commit(records(["c"])).await.unwrap().last, Position(3));
    drop((host, first, second));

    let host = backend.start().await;
    let mut first = open(&host, 0).await;
    assert_eq!(texts(&mut first.tail).await, numbered(1, &["a", "b", "c"]));
    assert_eq!(texts(&mut open(&host, 1).await.tail).await, numbered(1, &["x"]));
    assert_eq!(first.log.commit(records(["d"])).await.unwrap().last, Position(4));
}

pub(crate) async fn an_empty_batch_commits_without_a_record(mut backend: impl Backend) {
    let host = backend.start().await;
    let mut opened = open(&host, 0).await;
    opened.log.commit(records(["a"])).await.unwrap();
    assert_eq!(opened.log.commit(Batch::default()).await.unwrap().last, Position(1));
}

pub(crate) async fn a_stop_is_clean_only_when_the_log_was_closed(mut backend: impl Backend) {
    let host = backend.start().await;
    let mut opened = open(&host, 0).await;
    opened.log.commit(records(["a"])).await.unwrap();
    opened.log.close().await.unwrap();
    drop(host);

    let host = backend.start().await;
    let opened = open(&host, 0).await;
    assert!(opened.clean_stop, "the log was closed");
    drop((host, opened));

    let host = backend.start().await;
    assert!(!open(&host, 0).await.clean_stop, "opened and not closed, though nothing was committed");
}

pub(crate) async fn a_second_owner_fences_the_first(mut backend: impl Backend) {
    let host = backend.start().await;
    let mut first = open(&host, 0).await;
    first.log.commit(records(["a"])).await.unwrap();
    let mut second = open(&host, 0).await;
    assert!(!second.clean_stop);
    assert!(matches!(first.log.commit(records(["b"])).await, Err(CommitError::Fenced)));
    assert!(first.log.checkpoint(Position(1), Vec::new()).await.is_err());
    assert_eq!(texts(&mut second.tail).await, numbered(1, &["a"]));
    assert_eq!(second.log.commit(records(["c"])).await.unwrap().last, Position(2));
    assert!(first.log.close().await.is_err(), "a fenced owner cannot mark a clean stop");
}

pub(crate) async fn an_abandoned_commit_leaves_no_gap(mut backend: impl Backend) {
    let host = backend.start().await;
    let mut opened = open(&host, 0).await;
    {
        // Polled once, then dropped: the batch is under way and its fate unclear.
        let commit = opened.log.commit(records(["a"]));
        let polled_once = std::future::ready(());
        tokio::select! { biased; _ = commit => {}, () = polled_once => {} }
    }
    let last = opened.log.commit(records(["b"])).await.unwrap().last;
    let mut again = open(&host, 0).await;
    let all = texts(&mut again.tail).await;
    assert_eq!(all.last().unwrap(), &(last.0, "b".to_owned()));
    assert_eq!(all.len() as u64, last.0);
}

pub(crate) async fn a_batch_that_names_an_unknown_partition_is_refused(mut backend: impl Backend) {
    let host = backend.start().await;
    let mut opened = open(&host, 0).await;
    assert!(matches!(opened.log.commit(message(PARTITIONS, "lost")).await, Err(CommitError::Refused(_))));
    assert_eq!(opened.log.commit(records(["a"])).await.unwrap().last, Position(1));
}

pub(crate) async fn a_reader_wakes_when_a_record_is_durable(mut backend: impl Backend) {
    let host = backend.start().await;
    let mut opened = open(&host, 1).await;
    let mut reader = host.journal.reader(1);
    assert!(reader.read_after(Position::START, 1000).await.unwrap().is_empty());
    let waiter = tokio::spawn(async move {
        let end = reader.wait_beyond(Position::START).await;
        (end, reader.read_after(Position::START, 1000).await.unwrap())
    });
    open(&host, 0).await.log.commit(records(["another partition's"])).await.unwrap();
    opened.log.commit(records(["a", "b"])).await.unwrap();
    let (end, found) = soon(waiter).await.unwrap();
    assert_eq!(end, Position(2));
    assert_eq!(found.into_iter().map(text_of).collect::<Vec<_>>(), numbered(1, &["a", "b"]));
}

pub(crate) async fn a_reader_at_the_end_is_told_so_when_the_owner_has_gone(mut backend: impl Backend) {
    let host = backend.start().await;
    let mut opened = open(&host, 0).await;
    let mut reader = host.journal.reader(0);
    opened.log.commit(records(["a"])).await.unwrap();
    assert_eq!(soon(reader.read_after(Position::START, 1000)).await.unwrap().len(), 1);
    // It waits long enough to have come to the end.
    let waited = tokio::time::timeout(Duration::from_secs(1), reader.wait_beyond(Position(1))).await;
    assert!(waited.is_err(), "there is nothing beyond");
    opened.log.close().await.unwrap();
    let asked = Instant::now();
    for _ in 0..3 {
        assert!(soon(reader.read_after(Position(1), 1000)).await.unwrap().is_empty());
    }
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    let mut next = open(&host, 0).await;
    next.log.commit(records(["b"])).await.unwrap();
    let found = soon(reader.read_after(Position(1), 1000)).await.unwrap();
    assert_eq!(found.into_iter().map(text_of).collect::<Vec<_>>(), numbered(2, &["b"]));
}

pub(crate) async fn a_reader_reads_in_bounded_pieces(mut backend: impl Backend) {
    let host = backend.start().await;
    let mut opened = open(&host, 0).await;
    let all: Vec<String> = (0..100).map(|number| format!("{number:0>100}")).collect();
    for group in all.chunks(7) {
        let records = group.iter().map(|text| bytes_of(text)).collect();
        opened.log.commit(Batch { records, ..Batch::default() }).await.unwrap();
    }
    let mut reader = host.journal.reader(0);
    let mut read = Vec::new();
    loop {
        let after = Position(read.len() as u64);
        let piece = reader.read_after(after, 1000).await.unwrap();
        if piece.is_empty() {
            break;
        }
        assert!(piece.len() <= 10, "100 bytes each, 1000 allowed");
        read.extend(piece.into_iter().map(text_of));
    }
    assert_eq!(read, numbered(1, &all.iter().map(String::as_str).collect::<Vec<_>>()));
    let one = reader.read_after(Position(50), 1).await.unwrap();
    assert_eq!(one.len(), 1, "at least one, however small the bound");
    assert_eq!(one[0].position, Position(51));
}

fn bytes_of(text: &str) -> Bytes {
    bytes(text.to_owned())
}

pub(crate) async fn a_reader_of_an_unknown_partition_finds_nothing(mut backend: impl Backend) {
    let host = backend.start().await;
    let mut reader = host.journal.reader(PARTITIONS);
    assert!(reader.read_after(Position::START, 1000).await.unwrap().is_empty());
    assert!(reader.checkpoint_at_or_below(Position(9)).await.unwrap().is_none());
}

pub(crate) async fn recovery_is_the_newest_checkpoint_and_the_records_after_it(mut backend: impl Backend) {
    let host = backend.start().await;
    let mut opened = open(&host, 0).await;
    opened.log.commit(records(["a", "b", "c"])).await.unwrap();
    opened.log.checkpoint(Position(1), vec![bytes("state at 1")]).await.unwrap();
    opened.log.checkpoint(Position(2), vec![bytes("state"), bytes(""), bytes("at 2")]).await.unwrap();
    opened.log.commit(records(["d"])).await.unwrap();
    drop((host, opened));

    let host = backend.start().await;
    let mut opened = open(&host, 0).await;
    let checkpoint = opened.checkpoint.take().unwrap();
    assert_eq!(checkpoint.at, Position(2));
    assert_eq!(checkpoint.chunks, vec![bytes("state"), bytes(""), bytes("at 2")]);
    assert_eq!(texts(&mut opened.tail).await, numbered(3, &["c", "d"]));
    let mut reader = host.journal.reader(0);
    assert_eq!(reader.checkpoint_at_or_below(Position(1)).await.unwrap().unwrap().at, Position(1));
    assert!(reader.checkpoint_at_or_below(Position::START).await.unwrap().is_none());
}

pub(crate) async fn a_checkpoint_beyond_the_end_is_refused(mut backend: impl Backend) {
    let host = backend.start().await;
    let mut opened = open(&host, 0).await;
    opened.log.commit(records(["a"])).await.unwrap();
    let refusal = opened.log.checkpoint(Position(2), vec![bytes("a guess")]).await;
    assert!(matches!(refusal, Err(JournalError::Beyond { at: Position(2), end: Position(1) })));
}

/// Commits `count` records of `size` bytes to a partition, ten a batch.
async fn fill(opened: &mut Opened, count: usize, size: usize) {
    for _ in 0..count / 10 {
        let records = vec![Bytes::from(vec![7; size]); 10];
        opened.log.commit(Batch { records, ..Batch::default() }).await.unwrap();
    }
}

pub(crate) async fn deletion_keeps_the_checkpoint_that_a_sink_restarts_from(mut backend: impl Backend) {
    let host = backend.start().await;
    let mut opened = open(&host, 0).await;
    for at in [100, 200, 300] {
        fill(&mut opened, 100, 1000).await;
        opened.log.checkpoint(Position(at), vec![bytes(format!("state at {at}"))]).await.unwrap();
    }
    // The sink has stored its rows up to 250: it restarts from the checkpoint at 200.
    opened.log.delete_before(Position(250)).await.unwrap();
    let mut reader = host.journal.reader(0);
    let kept = reader.checkpoint_at_or_below(Position(250)).await.unwrap().unwrap();
    assert_eq!(kept.at, Position(200));
    assert_eq!(reader.read_after(Position(200), 1).await.unwrap()[0].position, Position(201));
    assert!(matches!(reader.read_after(Position::START, 1).await, Err(JournalError::Cut { .. })));
    drop((host, opened));

    let host = backend.start().await;
    let mut opened = open(&host, 0).await;
    assert_eq!(opened.checkpoint.take().unwrap().at, Position(300));
    assert!(texts(&mut opened.tail).await.is_empty());
    let mut reader = host.journal.reader(0);
    assert_eq!(reader.checkpoint_at_or_below(Position(250)).await.unwrap().unwrap().at, Position(200));
    assert_eq!(reader.read_after(Position(200), 1).await.unwrap()[0].position, Position(201));
}

pub(crate) async fn log_size_since_a_checkpoint_falls_when_one_is_taken(mut backend: impl Backend) {
    let host = backend.start().await;
    let mut opened = open(&host, 0).await;
    assert_eq!(opened.log.bytes_since_checkpoint(), 0);
    fill(&mut opened, 200, 1000).await;
    assert!(opened.log.bytes_since_checkpoint() >= 200_000);
    opened.log.checkpoint(Position(200), vec![bytes("state")]).await.unwrap();
    assert_eq!(opened.log.bytes_since_checkpoint(), 0);
}

pub(crate) async fn messages_arrive_in_order_once_they_are_durable(mut backend: impl Backend) {
    let mut host = backend.start().await;
    let mut sender = own(&mut host, 0).await;
    let _receiver = own(&mut host, 1).await;
    let _elsewhere = own(&mut host, 2).await;
    let batch = Batch {
        records: vec![bytes("sent two")],
        messages: vec![
            Outgoing { to: 1, bytes: bytes("first") },
            Outgoing { to: 2, bytes: bytes("elsewhere") },
            Outgoing { to: 1, bytes: bytes("second") },
        ],
        ..Batch::default()
    };
    sender.log.commit(batch).await.unwrap();
    sender.log.commit(message(1, "third")).await.unwrap();
    sender.log.commit(message(0, "to itself")).await.unwrap();
    let mut last = Cursor::default();
    for expected in ["first", "second", "third"] {
        let (text, cursor) = next_message(&mut host.deliveries[1]).await;
        assert_eq!(text, expected);
        assert!(cursor.messages > last.messages, "cursors grow");
        last = cursor;
    }
    assert_eq!(next_message(&mut host.deliveries[2]).await.0, "elsewhere");
    assert_eq!(next_message(&mut host.deliveries[0]).await.0, "to itself");
    assert!(host.deliveries[1].try_recv().is_none());
}

pub(crate) async fn unconsumed_messages_arrive_again_after_a_crash(mut backend: impl Backend) {
    let mut host = backend.start().await;
    let mut sender = open(&host, 0).await;
    let mut receiver = own(&mut host, 1).await;
    for text in ["first", "second", "third"] {
        sender.log.commit(message(1, text)).await.unwrap();
    }
    let (_, cursor) = next_message(&mut host.deliveries[1]).await;
    let effects = Batch { consumed: Some(cursor), ..records(["effect of first"]) };
    receiver.log.commit(effects).await.unwrap();
    assert_eq!(next_message(&mut host.deliveries[1]).await.0, "second");
    drop((host, sender, receiver));

    let mut host = backend.start().await;
    let receiver = own(&mut host, 1).await;
    assert_eq!(receiver.consumed, Some(cursor));
    assert_eq!(next_message(&mut host.deliveries[1]).await.0, "second");
    assert_eq!(next_message(&mut host.deliveries[1]).await.0, "third");
    open(&host, 0).await.log.commit(message(1, "fourth")).await.unwrap();
    assert_eq!(next_message(&mut host.deliveries[1]).await.0, "fourth");
}

pub(crate) async fn consumed_messages_stay_consumed_when_the_log_was_cut(mut backend: impl Backend) {
    let mut host = backend.start().await;
    let mut sender = open(&host, 0).await;
    let mut receiver = own(&mut host, 1).await;
    sender.log.commit(message(1, "first")).await.unwrap();
    let (_, cursor) = next_message(&mut host.deliveries[1]).await;
    receiver.log.commit(Batch { consumed: Some(cursor), ..records(["effect"]) }).await.unwrap();
    // Enough for the implementation to have deleted where the cursor stood.
    fill(&mut sender, 300, 1000).await;
    sender.log.checkpoint(Position(300), vec![bytes("state")]).await.unwrap();
    receiver.log.checkpoint(Position(1), vec![bytes("state")]).await.unwrap();
    sender.log.delete_before(Position(300)).await.unwrap();
    receiver.log.delete_before(Position(1)).await.unwrap();
    drop((host, sender, receiver));

    let mut host = backend.start().await;
    let receiver = own(&mut host, 1).await;
    assert_eq!(receiver.consumed, Some(cursor));
    open(&host, 0).await.log.commit(message(1, "next")).await.unwrap();
    assert_eq!(next_message(&mut host.deliveries[1]).await.0, "next");
}

pub(crate) async fn a_take_over_redelivers_what_was_not_consumed(mut backend: impl Backend) {
    let mut host = backend.start().await;
    let mut sender = open(&host, 0).await;
    let _first_owner = own(&mut host, 1).await;
    for text in ["first", "second"] {
        sender.log.commit(message(1, text)).await.unwrap();
    }
    assert_eq!(next_message(&mut host.deliveries[1]).await.0, "first");
    let _second_owner = own(&mut host, 1).await;
    assert_eq!(next_message(&mut host.deliveries[1]).await.0, "first");
    assert_eq!(next_message(&mut host.deliveries[1]).await.0, "second");
}

pub(crate) async fn a_flood_of_messages_arrives_whole(mut backend: impl Backend) {
    let mut host = backend.start().await;
    let mut sender = open(&host, 0).await;
    let _receiver = own(&mut host, 1).await;
    let total = 12_000_u64;
    let send = async {
        for start in (0..total).step_by(500) {
            let message = |number| Outgoing { to: 1, bytes: bytes(format!("{number}")) };
            let messages = (start..start + 500).map(message).collect();
            sender.log.commit(Batch { messages, ..Batch::default() }).await.unwrap();
        }
    };
    // First nobody reads, so that what waits exceeds any queue; then both go on together.
    send.await;
    let receive = async {
        for number in 0..2 * total {
            assert_eq!(next_message(&mut host.deliveries[1]).await.0, format!("{}", number % total));
        }
    };
    let send_again = async {
        for start in (0..total).step_by(500) {
            let message = |number| Outgoing { to: 1, bytes: bytes(format!("{number}")) };
            let messages = (start..start + 500).map(message).collect();
            sender.log.commit(Batch { messages, ..Batch::default() }).await.unwrap();
        }
    };
    tokio::join!(receive, send_again);
}

pub(crate) async fn commands_are_bounded_and_given_back(mut backend: impl Backend) {
    let mut host = backend.start().await;
    for command in 0..INTAKE_BOUND as u64 {
        host.intake.try_send(0, command).unwrap();
    }
    assert_eq!(host.intake.depth(0), INTAKE_BOUND);
    let refused = host.intake.try_send(0, 99).unwrap_err();
    assert!(matches!(refused, Full::Busy(99)));
    host.intake.try_send(1, 7).unwrap();
    let delivery = soon(host.deliveries[0].recv()).await.unwrap();
    assert_eq!(delivery.command, Arrived::Command(0));
    assert_eq!(host.deliveries[0].try_recv().unwrap().command, Arrived::Command(1));
    assert_eq!(host.intake.depth(0), INTAKE_BOUND - 2);
    assert!(matches!(host.intake.try_send(PARTITIONS, 1), Err(Full::Closed(1))));
}

pub(crate) async fn a_pause_stops_neither_commands_nor_messages(mut backend: impl Backend) {
    let mut host = backend.start().await;
    let mut sender = own(&mut host, 0).await;
    host.deliveries[0].pause();
    sender.log.commit(message(0, "not paused")).await.unwrap();
    assert_eq!(next_message(&mut host.deliveries[0]).await.0, "not paused");
    host.intake.try_send(0, 1).unwrap();
    assert_eq!(soon(host.deliveries[0].recv()).await.unwrap().command, Arrived::Command(1));
    host.deliveries[0].resume();
}

pub(crate) async fn intake_ends_when_its_senders_are_gone(mut backend: impl Backend) {
    let Host { journal: _journal, intake, mut deliveries } = backend.start().await;
    intake.try_send(0, 1).unwrap();
    drop(intake);
    assert_eq!(soon(deliveries[0].recv()).await.unwrap().command, Arrived::Command(1));
    assert!(soon(deliveries[0].recv()).await.is_none());
}
