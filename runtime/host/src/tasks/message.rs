//! A task on its way from the partition where it was written to its run's home.

use bytes::Bytes;
use minicbor::{Decode, Encode};
use reipaz_journal::{Source, Task};

/// What one partition sends another.
#[derive(Debug, Encode, Decode)]
enum Message {
    /// A task that was written to a partition that is not its run's home.
    #[n(0)]
    Task(#[n(0)] Sent),
}

#[derive(Debug, Encode, Decode)]
struct Sent {
    #[n(0)]
    topic: String,
    #[n(1)]
    partition: u32,
    #[n(2)]
    offset: u64,
    #[cbor(n(3), with = "minicbor::bytes")]
    key: Option<Vec<u8>>,
    #[n(4)]
    headers: Vec<SentHeader>,
    #[cbor(n(5), with = "minicbor::bytes")]
    body: Option<Vec<u8>>,
    #[n(6)]
    at_ms: i64,
}

#[derive(Debug, Encode, Decode)]
struct SentHeader {
    #[n(0)]
    name: String,
    #[cbor(n(1), with = "minicbor::bytes")]
    value: Vec<u8>,
}

/// A task on its way to the partition that decides for it.
pub(crate) fn to_message(task: &Task) -> Bytes {
    let header = |(name, value): &(String, Bytes)| SentHeader { name: name.clone(), value: value.to_vec() };
    let sent = Sent {
        topic: task.source.topic.to_string(),
        partition: task.source.partition,
        offset: task.source.offset,
        key: task.key.as_ref().map(|key| key.to_vec()),
        headers: task.headers.iter().map(header).collect(),
        body: task.body.as_ref().map(|body| body.to_vec()),
        at_ms: task.at_ms,
    };
    // Writing into memory does not fail.
    Bytes::from(minicbor::to_vec(Message::Task(sent)).unwrap_or_else(|never| unreachable!("{never}")))
}

/// The task in a message of another partition; none: a message that this version does not know.
pub(crate) fn from_message(bytes: &[u8]) -> Option<Task> {
    let Message::Task(sent) = minicbor::decode(bytes).ok()?;
    Some(Task {
        source: Source { topic: sent.topic.into(), partition: sent.partition, offset: sent.offset },
        key: sent.key.map(Bytes::from),
        headers: sent.headers.into_iter().map(|header| (header.name, Bytes::from(header.value))).collect(),
        body: sent.body.map(Bytes::from),
        at_ms: sent.at_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_is_sent_home_arrives_as_it_was() {
        let task = Task {
            source: Source { topic: "reipaz.tasks".into(), partition: 2, offset: 41 },
            key: Some(Bytes::from_static(b"k")),
            headers: vec![("trace".to_owned(), Bytes::from_static(b"t-1"))],
            body: Some(Bytes::from_static(b"{}")),
            at_ms: 1_700_000_000_000,
        };
        let bare = Task { key: None, headers: Vec::new(), body: None, ..task.clone() };
        for task in [task, bare] {
            assert_eq!(from_message(&to_message(&task)), Some(task));
        }
        assert_eq!(from_message(b"something else"), None);
    }
}
