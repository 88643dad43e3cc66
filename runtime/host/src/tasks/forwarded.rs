//! A task on its way from the partition where it was written to its run's home: written to the home's tasks, with a header
//! that says where it stood first. There it waits with the others, and is paused with them.

use bytes::Bytes;
use reipaz_journal::{NewTask, Source, Task};

/// `TOPIC/PARTITION/OFFSET/UNIX_MILLIS`.
const FORWARDED: &str = "reipaz-forwarded";

/// The task as it is written to its home.
pub(crate) fn forward(task: Task) -> NewTask {
    let Source { topic, partition, offset } = &task.source;
    let from = format!("{topic}/{partition}/{offset}/{}", task.at_ms);
    let mut headers = task.headers;
    headers.push((FORWARDED.to_owned(), Bytes::from(from)));
    NewTask { key: task.key, headers, body: task.body.unwrap_or_default() }
}

/// A task as it was where it stood first. The header tells where a run came from, and no more: who would forge it could as
/// well have written the task.
pub(crate) fn forwarded(mut task: Task) -> Task {
    let Some(place) = task.headers.iter().position(|(name, _)| name == FORWARDED) else { return task };
    let (_, from) = task.headers.remove(place);
    if let Some((source, at_ms)) = std::str::from_utf8(&from).ok().and_then(parse) {
        (task.source, task.at_ms) = (source, at_ms);
    }
    task
}

fn parse(from: &str) -> Option<(Source, i64)> {
    let mut parts = from.rsplitn(4, '/');
    let at_ms = parts.next()?.parse().ok()?;
    let (offset, partition) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some((Source { topic: parts.next()?.into(), partition, offset }, at_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_is_sent_home_arrives_as_it_was() {
        let sent = Task {
            source: Source { topic: "a/b.tasks".into(), partition: 2, offset: 41 },
            key: Some(Bytes::from_static(b"k")),
            headers: vec![("trace".to_owned(), Bytes::from_static(b"t-1"))],
            body: Some(Bytes::from_static(b"{}")),
            at_ms: 1_700_000_000_000,
        };
        let NewTask { key, headers, body } = forward(sent.clone());
        let source = Source { topic: "a/b.tasks".into(), partition: 0, offset: 7 };
        let arrived = Task { source, key, headers, body: Some(body), at_ms: 1_700_000_000_009 };
        assert_eq!(forwarded(arrived.clone()), sent);

        // What is no such header stands for nothing.
        let odd = vec![(FORWARDED.to_owned(), Bytes::from_static(b"somewhere"))];
        let kept = forwarded(Task { headers: odd, ..arrived.clone() });
        assert_eq!((kept.source, kept.headers), (arrived.source, Vec::new()));
    }
}
