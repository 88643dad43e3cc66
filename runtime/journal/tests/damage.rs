//! The damage table: what a crash can leave is mended up to the last whole batch; everything else refuses to start, names
//! file and offset, says what to do and changes nothing.
#![expect(clippy::unwrap_used, reason = "a test's failure is its panic")]

mod support;

use std::fs;

use bytes::Bytes;
use reipaz_journal::{Batch, Embedded, JournalError, Position};
use support::{Data, batch, content, damage_of, open, records};

const PAGE: usize = 4096;

/// Two durable batches, then a last one that was written but whose sync did not come back: the mark is from before it.
struct Torn {
    data: Data,
    /// Where the first batch begins, and the last one begins and ends, in the first segment.
    first: usize,
    last: std::ops::Range<usize>,
}

/// `last` is the last batch's record.
async fn torn(last: Bytes) -> Torn {
    let data = Data::new();
    let embedded = data.start().await;
    let mut opened = open(&embedded, 0).await;
    let first = embedded.stats().log_bytes as usize;
    opened.log.commit(batch(["a1", "a2"])).await.unwrap();
    opened.log.commit(batch(["b1"])).await.unwrap();
    drop((opened, embedded));

    let embedded = data.start().await;
    let mut opened = open(&embedded, 0).await;
    let start = embedded.stats().log_bytes as usize;
    let mark = fs::read(data.file("mark")).unwrap();
    opened.log.commit(Batch { records: vec![last], ..Batch::default() }).await.unwrap();
    let end = embedded.stats().log_bytes as usize;
    drop((opened, embedded));
    fs::write(data.file("mark"), mark).unwrap();
    Torn { data, first, last: start..end }
}

const WHOLE: [&str; 3] = ["a1", "a2", "b1"];

/// The data starts with the whole batches only, takes new ones, and these survive the next crash.
async fn assert_mended(data: &Data) {
    assert_eq!(records(data).await, WHOLE);
    let embedded = data.start().await;
    let mut opened = open(&embedded, 0).await;
    opened.log.commit(batch(["new"])).await.unwrap();
    drop((opened, embedded));
    assert_eq!(records(data).await, ["a1", "a2", "b1", "new"]);
}

#[tokio::test]
async fn a_tail_cut_at_any_byte_of_the_last_batch_is_mended() {
    let torn = torn(Bytes::from(vec![b'c'; 12])).await;
    for cut in torn.last.clone() {
        let data = torn.data.copy();
        data.edit(&data.segment(1), |bytes| bytes.truncate(cut));
        assert_mended(&data).await;
    }
}

#[tokio::test]
async fn a_tail_written_up_to_any_byte_of_the_last_batch_is_mended() {
    let torn = torn(Bytes::from(vec![b'c'; 12])).await;
    let last_used = fs::read(torn.data.segment(1)).unwrap().iter().rposition(|byte| *byte != 0).unwrap();
    for cut in torn.last.start..last_used {
        let data = torn.data.copy();
        data.edit(&data.segment(1), |bytes| bytes[cut..].fill(0));
        assert_mended(&data).await;
    }
}

#[tokio::test]
async fn any_flipped_byte_in_the_last_batch_is_mended() {
    let torn = torn(Bytes::from(vec![b'c'; 12])).await;
    for offset in torn.last.clone() {
        let data = torn.data.copy();
        data.flip(&data.segment(1), offset);
        assert_mended(&data).await;
    }
}

#[tokio::test]
async fn a_zeroed_last_page_is_mended() {
    let torn = torn(Bytes::from(vec![b'c'; 3 * PAGE])).await;
    let last_page = (torn.last.end - 1) / PAGE * PAGE;
    torn.data.edit(&torn.data.segment(1), |bytes| bytes[last_page..last_page + PAGE].fill(0));
    assert_mended(&torn.data).await;
}

#[tokio::test]
async fn a_last_page_in_the_wrong_place_or_twice_is_mended() {
    let varied: Vec<u8> = (0..4 * PAGE).map(|index| (index / 7) as u8).collect();
    let torn = torn(Bytes::from(varied)).await;
    let page = torn.last.start.next_multiple_of(PAGE);
    let swapped = torn.data.copy();
    swapped.edit(&swapped.segment(1), |bytes| {
        let (left, right) = bytes[page..page + 2 * PAGE].split_at_mut(PAGE);
        left.swap_with_slice(right);
    });
    assert_mended(&swapped).await;
    let doubled = torn.data.copy();
    doubled.edit(&doubled.segment(1), |bytes| bytes.copy_within(page..page + PAGE, page + PAGE));
    assert_mended(&doubled).await;
}

#[tokio::test]
async fn a_whole_last_batch_that_nobody_was_told_of_counts() {
    let torn = torn(Bytes::from_static(b"c")).await;
    assert_eq!(records(&torn.data).await, ["a1", "a2", "b1", "c"]);
}

#[tokio::test]
async fn a_first_batch_that_was_torn_is_mended() {
    let data = Data::new();
    drop(data.start().await);
    let mark = fs::read(data.file("mark")).unwrap();
    let embedded = data.start().await;
    open(&embedded, 0).await.log.commit(batch(["a"])).await.unwrap();
    drop(embedded);
    fs::write(data.file("mark"), mark).unwrap();
    data.flip(&data.segment(1), 100);
    // The first page itself is not whole, and the second group says that it was.
    let (file, ..) = data.refusal().await;
    assert_eq!(file, "00000001.seg");
    // Without the second group it is a first write that never completed.
    data.edit(&data.segment(1), |bytes| bytes[PAGE + 64..].fill(0));
    assert_eq!(records(&data).await, [""; 0]);
}

#[tokio::test]
async fn any_flipped_byte_of_an_older_batch_refuses() {
    let torn = torn(Bytes::from_static(b"c")).await;
    let batch_before_last = torn.last.start;
    for offset in torn.first..batch_before_last {
        let data = torn.data.copy();
        data.flip(&data.segment(1), offset);
        let (file, at, message) = data.refusal().await;
        assert_eq!(file, "00000001.seg");
        assert!(
            at as usize <= offset && offset - (at as usize) < 200,
            "{at} is the batch that holds {offset}"
        );
        assert!(message.contains("backup"), "{message}");
    }
}

#[tokio::test]
async fn a_flipped_byte_of_the_last_batch_refuses_once_it_was_marked() {
    let data = Data::new();
    let embedded = data.start().await;
    let mut opened = open(&embedded, 0).await;
    opened.log.commit(batch(["a"])).await.unwrap();
    let end = embedded.stats().log_bytes as usize;
    drop((opened, embedded));
    data.flip(&data.segment(1), end - 8);
    let (file, ..) = data.refusal().await;
    assert_eq!(file, "00000001.seg");
}

#[tokio::test]
async fn an_end_that_was_durable_and_is_lost_refuses() {
    let torn = torn(Bytes::from_static(b"c")).await;
    let data = torn.data;
    // A start marks the last batch as durable.
    assert_eq!(records(&data).await.len(), 4);
    data.edit(&data.segment(1), |bytes| bytes[torn.last.start..].fill(0));
    let (file, at, message) = data.refusal().await;
    assert_eq!((file.as_str(), at as usize), ("00000001.seg", torn.last.start));
    assert!(message.contains("mark"), "{message}");
    // The operator accepts the loss, as the message says.
    fs::remove_file(data.file("mark")).unwrap();
    assert_mended(&data).await;
}

#[tokio::test]
async fn a_flipped_byte_in_a_segments_header_refuses() {
    let data = several_segments().await;
    for sequence in [1, 2] {
        let copy = data.copy();
        copy.flip(&copy.segment(sequence), 20);
        let (file, ..) = copy.refusal().await;
        assert!(file.starts_with("0000000"), "{file}");
    }
}

/// Partition 0 has 200 records of a kilobyte, over several segments.
async fn several_segments() -> Data {
    let data = Data::new();
    let embedded = data.start().await;
    let mut opened = open(&embedded, 0).await;
    for number in 0..200 {
        let record = format!("{number:0>1000}");
        opened.log.commit(batch([&record])).await.unwrap();
    }
    assert!(embedded.stats().segments > 2);
    data
}

#[tokio::test]
async fn a_missing_segment_refuses_wherever_it_is() {
    let data = several_segments().await;
    let embedded = data.start().await;
    let segments = embedded.stats().segments;
    drop(embedded);
    for sequence in 1..=segments {
        let copy = data.copy();
        fs::remove_file(copy.segment(sequence)).unwrap();
        let (_, _, message) = copy.refusal().await;
        assert!(message.contains("missing") || message.contains("mark"), "{message}");
    }
}

#[tokio::test]
async fn nothing_is_lost_with_the_file_that_was_prepared_for_later() {
    let data = several_segments().await;
    let embedded = data.start().await;
    let next = data.segment(embedded.stats().segments + 1);
    drop(embedded);
    for content in [None, Some(vec![0; 100]), Some(vec![0; 1 << 20])] {
        match content {
            Some(content) => fs::write(&next, content).unwrap(),
            None => fs::remove_file(&next).unwrap_or_default(),
        }
        assert_eq!(records(&data).await.len(), 200);
    }
}

#[tokio::test]
async fn a_segment_of_another_log_refuses() {
    let data = several_segments().await;
    let other = several_segments().await;
    fs::copy(other.segment(2), data.segment(2)).unwrap();
    let (file, ..) = data.refusal().await;
    assert!(file == "00000001.seg" || file == "00000002.seg", "{file}");
}

#[tokio::test]
async fn a_garbage_mark_refuses_and_a_removed_one_is_made_anew() {
    let torn = torn(Bytes::from_static(b"c")).await;
    let data = torn.data;
    data.edit(&data.file("mark"), |bytes| bytes.fill(0xa5));
    let (file, _, message) = data.refusal().await;
    assert_eq!(file, "mark");
    assert!(message.contains("remove"), "{message}");
    fs::remove_file(data.file("mark")).unwrap();
    assert_eq!(records(&data).await.len(), 4);
    assert!(data.file("mark").exists());
}

#[tokio::test]
async fn one_torn_slot_of_the_mark_does_no_harm() {
    let torn = torn(Bytes::from_static(b"c")).await;
    for slot in [0, PAGE] {
        let data = torn.data.copy();
        data.flip(&data.file("mark"), slot + 20);
        assert_eq!(records(&data).await.len(), 4);
    }
}

/// Records 1 to 300 of partition 0 with checkpoints at 100 and 200; the log is cut below the one at `kept`, if any.
async fn with_checkpoints(kept: Option<u64>) -> Data {
    let data = Data::new();
    let embedded = data.start().await;
    let mut opened = open(&embedded, 0).await;
    for number in 1..=300 {
        opened.log.commit(batch([&format!("{number:0>1000}")])).await.unwrap();
        if number % 100 == 0 && number < 300 {
            let chunks = vec![Bytes::from(vec![b's'; 5000]), Bytes::from_static(b"end")];
            opened.log.checkpoint(Position(number), chunks).await.unwrap();
        }
    }
    if let Some(kept) = kept {
        opened.log.delete_before(Position(kept)).await.unwrap();
    }
    data
}

fn checkpoint(data: &Data, at: u64) -> std::path::PathBuf {
    data.file(&format!("checkpoints/00000-{at:020}.checkpoint"))
}

async fn recovered(data: &Data) -> (Option<u64>, usize) {
    let embedded = data.start().await;
    let (at, texts) = content(&mut open(&embedded, 0).await).await;
    (at, texts.len())
}

async fn open_refusal(data: &Data) -> (String, u64, String) {
    let embedded = data.start().await;
    match embedded.journal().open(0).await {
        Ok(_) => panic!("opened on a damaged checkpoint"),
        Err(error) => damage_of(error),
    }
}

#[tokio::test]
async fn a_flipped_byte_in_a_checkpoint_falls_back_to_the_older_one() {
    let data = with_checkpoints(Some(100)).await;
    assert_eq!(recovered(&data).await, (Some(200), 100));
    for offset in [0, 5, 20, 44, 50, 3000, 5049, 5055] {
        let copy = data.copy();
        copy.flip(&checkpoint(&copy, 200), offset);
        assert_eq!(recovered(&copy).await, (Some(100), 200), "flipped at {offset}");
    }
    let cut = data.copy();
    cut.edit(&checkpoint(&cut, 200), |bytes| bytes.truncate(5000));
    assert_eq!(recovered(&cut).await, (Some(100), 200));
}

#[tokio::test]
async fn damaged_checkpoints_are_done_without_when_the_log_is_whole() {
    let data = with_checkpoints(None).await;
    data.flip(&checkpoint(&data, 100), 60);
    data.flip(&checkpoint(&data, 200), 60);
    assert_eq!(recovered(&data).await, (None, 300));
}

#[tokio::test]
async fn a_flipped_byte_in_the_only_checkpoint_refuses_when_the_log_was_cut() {
    let data = with_checkpoints(Some(200)).await;
    assert_eq!(recovered(&data).await, (Some(200), 100));
    data.flip(&checkpoint(&data, 200), 60);
    let (file, offset, _) = open_refusal(&data).await;
    assert_eq!((file.as_str(), offset), ("00000-00000000000000000200.checkpoint", 40));
}

#[tokio::test]
async fn a_missing_checkpoint_refuses_when_the_log_was_cut() {
    let data = with_checkpoints(Some(200)).await;
    fs::remove_file(checkpoint(&data, 200)).unwrap();
    let (_, _, message) = open_refusal(&data).await;
    assert!(message.contains("no checkpoint"), "{message}");
}

#[tokio::test]
async fn a_checkpoint_beyond_the_log_refuses() {
    let data = with_checkpoints(None).await;
    let other = Data::new();
    drop(other.start().await);
    // The checkpoints of one directory beside the log of another.
    let dir = other.file("checkpoints");
    fs::copy(checkpoint(&data, 200), dir.join("00000-00000000000000000200.checkpoint")).unwrap();
    let (_, _, message) = open_refusal(&other).await;
    assert!(message.contains("the log ends at 0"), "{message}");
}

#[tokio::test]
async fn a_checkpoint_that_was_never_completed_is_removed() {
    let data = with_checkpoints(None).await;
    let left = data.file("checkpoints/00000-00000000000000000250.checkpoint.tmp");
    fs::write(&left, b"half").unwrap();
    assert_eq!(recovered(&data).await, (Some(200), 100));
    assert!(!left.exists());
}

#[tokio::test]
async fn damage_that_appears_while_running_is_an_error_of_the_read() {
    let data = Data::new();
    let embedded = data.start().await;
    let mut opened = open(&embedded, 0).await;
    let start = embedded.stats().log_bytes as usize;
    opened.log.commit(batch(["a"])).await.unwrap();
    use std::os::unix::fs::FileExt;
    let file = fs::File::options().write(true).open(data.segment(1)).unwrap();
    file.write_all_at(b"?", start as u64 + 70).unwrap();
    let error = embedded.journal().reader(0).read_after(Position::START, 100).await.unwrap_err();
    let (file, offset, _) = damage_of(error);
    assert_eq!((file.as_str(), offset as usize), ("00000001.seg", start));
}

#[tokio::test]
async fn a_meta_file_that_is_damaged_or_missing_refuses() {
    let data = several_segments().await;
    let flipped = data.copy();
    flipped.flip(&flipped.file("meta"), 10);
    assert_eq!(flipped.refusal().await.0, "meta");
    fs::remove_file(data.file("meta")).unwrap();
    let (file, _, message) = data.refusal().await;
    assert_eq!(file, "meta");
    assert!(message.contains("missing"), "{message}");
}

#[tokio::test]
async fn an_emptied_log_refuses() {
    let data = several_segments().await;
    fs::remove_dir_all(data.file("log")).unwrap();
    let error = match Embedded::open(data.config()).await {
        Ok(_) => panic!("started without its log"),
        Err(error) => error,
    };
    assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
}
