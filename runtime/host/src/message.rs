//! What partitions send each other, as bytes.

use bytes::Bytes;
use minicbor::{Decode, Encode};
use reipaz_core::limit::LimitMessage;
use reipaz_journal::{Source, Task};

/// What one partition sends another.
#[derive(Debug, PartialEq)]
pub(crate) enum PeerMessage {
    /// A task that was written to a partition that is not its run's home. Hosts of earlier versions send them so; now they go
    /// to the home's tasks.
    Task(Task),
    /// About a limit.
    Limit(LimitMessage),
}

#[derive(Debug, Encode, Decode)]
enum Encoded {
    #[n(0)]
    Task(#[n(0)] Sent),
    #[n(1)]
    Limit(#[n(0)] LimitMessage),
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

/// As bytes.
pub(crate) fn write(message: LimitMessage) -> Bytes {
    encode(&Encoded::Limit(message))
}

fn encode(message: &Encoded) -> Bytes {
    // Writing into memory does not fail.
    Bytes::from(minicbor::to_vec(message).unwrap_or_else(|never| unreachable!("{never}")))
}

/// A message of another partition; none: one that this version does not know.
pub(crate) fn read(bytes: &[u8]) -> Option<PeerMessage> {
    let sent = match minicbor::decode(bytes).ok()? {
        Encoded::Limit(message) => return Some(PeerMessage::Limit(message)),
        Encoded::Task(sent) => sent,
    };
    Some(PeerMessage::Task(Task {
        source: Source { topic: sent.topic.into(), partition: sent.partition, offset: sent.offset },
        key: sent.key.map(Bytes::from),
        headers: sent.headers.into_iter().map(|header| (header.name, Bytes::from(header.value))).collect(),
        body: sent.body.map(Bytes::from),
        at_ms: sent.at_ms,
    }))
}

/// A task as hosts of earlier versions send it.
#[cfg(test)]
pub(crate) fn task(task: &Task) -> Bytes {
    let header = |(name, value): &(String, Bytes)| SentHeader { name: name.clone(), value: value.to_vec() };
    encode(&Encoded::Task(Sent {
        topic: task.source.topic.to_string(),
        partition: task.source.partition,
        offset: task.source.offset,
        key: task.key.as_ref().map(|key| key.to_vec()),
        headers: task.headers.iter().map(header).collect(),
        body: task.body.as_ref().map(|body| body.to_vec()),
        at_ms: task.at_ms,
    }))
}

#[cfg(test)]
mod tests {
    use reipaz_core::{
        ids::RunId,
        limit::{Holder, LimitId, LimitRule},
        time::Timestamp,
    };

    use super::*;

    #[test]
    fn what_is_sent_arrives_as_it_was() {
        let task_sent = Task {
            source: Source { topic: "reipaz.tasks".into(), partition: 2, offset: 41 },
            key: Some(Bytes::from_static(b"k")),
            headers: vec![("trace".to_owned(), Bytes::from_static(b"t-1"))],
            body: Some(Bytes::from_static(b"{}")),
            at_ms: 1_700_000_000_000,
        };
        let bare = Task { key: None, headers: Vec::new(), body: None, ..task_sent.clone() };
        for sent in [task_sent, bare] {
            assert_eq!(read(&task(&sent)), Some(PeerMessage::Task(sent)));
        }
        let run = RunId(uuid::Uuid::from_u128(7));
        let holder = Holder { partition: 1, run, asked: 2, at: Timestamp(5) };
        let limit = LimitId::workflow(&"orders".into(), Some("\"c1\"".into()));
        let rule = LimitRule { at_once: Some(1), rate: None, max_queued: 10, version: 3 };
        for sent in [
            LimitMessage::Asked { limit: limit.clone(), holder, rule },
            LimitMessage::LetGo { limit, holder },
            LimitMessage::Answered { holder, granted: true },
        ] {
            assert_eq!(read(&write(sent.clone())), Some(PeerMessage::Limit(sent)));
        }
        assert_eq!(read(b"something else"), None);
    }
}
