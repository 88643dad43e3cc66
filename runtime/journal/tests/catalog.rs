//! The embedded catalogue: what it keeps, and its part of the damage table.
#![expect(clippy::unwrap_used, reason = "a test's failure is its panic")]

mod support;

use std::fs;

use bytes::Bytes;
use reipaz_journal::{JournalError, embedded::CATALOG_KEY_BYTES_LIMIT};
use support::{Data, entries};

async fn put(data: &Data, pairs: &[(&str, &str)]) {
    let embedded = data.start().await;
    for (key, value) in pairs {
        embedded.catalog().put(key, Bytes::from(value.to_string())).await.unwrap();
    }
}

async fn kept(data: &Data) -> Vec<(String, String)> {
    entries(&*data.start().await.catalog())
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

#[tokio::test]
async fn records_survive_a_crash_and_the_last_value_counts() {
    let data = Data::new();
    put(&data, &[("b", "1"), ("a", "1"), ("b", "2"), ("empty", "")]).await;
    assert_eq!(kept(&data).await, pairs(&[("a", "1"), ("b", "2"), ("empty", "")]));
    let embedded = data.start().await;
    assert_eq!(embedded.catalog().get("b").unwrap(), "2");
    assert!(embedded.catalog().get("c").is_none());
}

#[tokio::test]
async fn a_change_wakes_who_waits_for_one() {
    let data = Data::new();
    let catalog = data.start().await.catalog();
    let mut changes = catalog.changes();
    let watcher = tokio::spawn(async move {
        changes.changed().await.unwrap();
        *changes.borrow()
    });
    catalog.put("a", Bytes::from_static(b"1")).await.unwrap();
    assert_eq!(watcher.await.unwrap(), 1);
}

#[tokio::test]
async fn what_stands_is_not_inserted_again() {
    let data = Data::new();
    let embedded = data.start().await;
    let catalog = embedded.catalog();
    let one = Bytes::from_static(b"1");
    assert_eq!(catalog.insert("a", one.clone()).await.unwrap(), None);
    assert_eq!(catalog.insert("a", Bytes::from_static(b"2")).await.unwrap(), Some(one.clone()));
    assert_eq!(catalog.get("a"), Some(one.clone()));
    drop((catalog, embedded));
    assert_eq!(data.start().await.catalog().get("a"), Some(one));
}

#[tokio::test]
async fn keys_and_values_are_bounded() {
    let data = Data::new();
    let catalog = data.start().await.catalog();
    let refused = catalog.put(&"k".repeat(CATALOG_KEY_BYTES_LIMIT + 1), Bytes::new()).await;
    assert!(matches!(refused, Err(JournalError::TooLarge { .. })));
    assert!(catalog.entries().is_empty());
}

#[tokio::test]
async fn garbage_is_rewritten_away() {
    let data = Data::new();
    let embedded = data.start().await;
    let catalog = embedded.catalog();
    catalog.put("kept", Bytes::from_static(b"small")).await.unwrap();
    for number in 0..20_u8 {
        catalog.put("replaced", Bytes::from(vec![b'0' + number; 200_000])).await.unwrap();
    }
    let length = fs::metadata(data.file("catalog")).unwrap().len();
    assert!(length < 2_000_000, "20 values of 200 kB were written, {length} bytes stay");
    drop((catalog, embedded));
    let expected = [("kept".to_owned(), "small".to_owned()), ("replaced".to_owned(), "C".repeat(200_000))];
    assert_eq!(kept(&data).await, expected);
    // The rewritten file takes more.
    put(&data, &[("z", "1")]).await;
    assert_eq!(kept(&data).await.len(), 3);
}

#[tokio::test]
async fn a_crash_between_a_rewrite_and_its_mark_does_no_harm() {
    let data = Data::new();
    let embedded = data.start().await;
    let catalog = embedded.catalog();
    let large = Bytes::from(vec![b'x'; 600_000]);
    catalog.put("a", large.clone()).await.unwrap();
    let mark = fs::read(data.file("catalog.mark")).unwrap();
    let mut length = 0;
    // Until the file has become shorter: it was rewritten.
    while fs::metadata(data.file("catalog")).unwrap().len() > length {
        length = fs::metadata(data.file("catalog")).unwrap().len();
        catalog.put("a", large.clone()).await.unwrap();
    }
    drop((catalog, embedded));
    fs::write(data.file("catalog.mark"), mark).unwrap();
    assert_eq!(kept(&data).await.len(), 1);
}

/// Two durable records, then a last one whose sync did not come back; where that one begins and ends.
async fn torn() -> (Data, std::ops::Range<usize>) {
    let data = Data::new();
    put(&data, &[("a", "1"), ("b", "1")]).await;
    let start = fs::metadata(data.file("catalog")).unwrap().len() as usize;
    let mark = fs::read(data.file("catalog.mark")).unwrap();
    put(&data, &[("a", "changed")]).await;
    let end = fs::metadata(data.file("catalog")).unwrap().len() as usize;
    fs::write(data.file("catalog.mark"), mark).unwrap();
    (data, start..end)
}

#[tokio::test]
async fn a_tail_cut_or_changed_at_any_byte_of_the_last_record_is_mended() {
    let (torn, last) = torn().await;
    for offset in last {
        let cut = torn.copy();
        cut.edit(&cut.file("catalog"), |bytes| bytes.truncate(offset));
        assert_eq!(kept(&cut).await, pairs(&[("a", "1"), ("b", "1")]), "cut at {offset}");
        let flipped = torn.copy();
        flipped.flip(&flipped.file("catalog"), offset);
        let found = kept(&flipped).await;
        assert_eq!(found, pairs(&[("a", "1"), ("b", "1")]), "flipped at {offset}");
        put(&flipped, &[("c", "new")]).await;
        assert_eq!(kept(&flipped).await, pairs(&[("a", "1"), ("b", "1"), ("c", "new")]));
    }
}

#[tokio::test]
async fn a_flipped_byte_of_an_older_record_refuses() {
    let (torn, last) = torn().await;
    for offset in 0..last.start {
        let data = torn.copy();
        data.flip(&data.file("catalog"), offset);
        let (file, at, message) = data.refusal().await;
        assert_eq!(file, "catalog");
        assert!(at as usize <= offset);
        assert!(message.contains("backup"), "{message}");
    }
}

#[tokio::test]
async fn a_durable_record_that_is_lost_refuses() {
    let data = Data::new();
    put(&data, &[("a", "1"), ("b", "1")]).await;
    data.edit(&data.file("catalog"), |bytes| bytes.truncate(bytes.len() - 8));
    let (file, _, message) = data.refusal().await;
    assert_eq!(file, "catalog");
    assert!(message.contains("mark"), "{message}");
}

#[tokio::test]
async fn a_missing_catalogue_or_a_garbage_mark_refuses() {
    let (data, _) = torn().await;
    let garbage = data.copy();
    garbage.edit(&garbage.file("catalog.mark"), |bytes| bytes.fill(0xa5));
    assert_eq!(garbage.refusal().await.0, "catalog.mark");
    fs::remove_file(data.file("catalog")).unwrap();
    let (file, _, message) = data.refusal().await;
    assert_eq!(file, "catalog");
    assert!(message.contains("missing"), "{message}");
}
