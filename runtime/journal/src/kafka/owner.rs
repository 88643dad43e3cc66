//! What an owner does on its own thread: commit, checkpoint, close. The thread owns the producer; the port's end
//! (`partition.rs`) sends it work and waits without blocking anybody.
//!
//! After an outcome that says "fenced" or that nobody can tell, nothing more is written: the state above no longer fits
//! what the topic holds.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use bytes::Bytes;

use super::{
    Client,
    frame::{Header, Kind, Pieces, Pointer, Stand},
    scout::{Last, Place, Scout, Spot},
    topics::Outlets,
    transaction::{Failure, Transactions, Write},
};
use crate::{
    error::{CommitError, JournalError},
    ports::{Batch, Checkpoint, Committed, Cursor, Outlet, Position},
};

/// A checkpoint is written in transactions of so many messages: each ends well within its timeout.
const PIECES_AT_ONCE: usize = 16;

/// What others may know about an owner without asking its thread.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    last: AtomicU64,
    bytes_since_checkpoint: AtomicU64,
    ended: AtomicBool,
}

impl Progress {
    pub(crate) fn last(&self) -> Position {
        Position(self.last.load(Ordering::Acquire))
    }

    pub(crate) fn bytes_since_checkpoint(&self) -> u64 {
        self.bytes_since_checkpoint.load(Ordering::Acquire)
    }

    /// Whether nothing more will be written.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

/// See the module.
pub(crate) struct Owner {
    client: Client,
    outlets: Outlets,
    partition: u32,
    /// Which of this process's owners of the partition this is.
    number: u64,
    transactions: Transactions,
    stand: Stand,
    /// The journal's next message stands at or beyond this offset.
    end: u64,
    progress: Arc<Progress>,
}

/// What a take-over found.
pub(crate) struct Found {
    pub(crate) owner: Owner,
    pub(crate) checkpoint: Option<Checkpoint>,
    /// Where the records after the checkpoint begin.
    pub(crate) tail: u64,
    pub(crate) consumed: Option<Cursor>,
    pub(crate) clean_stop: bool,
}

impl Owner {
    /// Fences the previous owner and finds out where it left the partition.
    pub(crate) fn take_over(
        client: &Client,
        outlets: Outlets,
        partition: u32,
    ) -> Result<Found, JournalError> {
        let mut transactions = Transactions::start(&client.config, partition)?;
        // From here on nobody else's commit succeeds. Our first word marks the end of what came before, so that it can be
        // read without guessing whether all of it has become visible.
        let opened = Header::mark(Kind::Opened, Stand::default());
        let messages: Vec<_> = Pieces::new(opened, &[]).collect();
        let journal = client.topics.journal.clone();
        let offsets = transactions
            .write(&writes(&journal, partition, &messages), 1)
            .map_err(|failure| journal_error(partition, failure))?;
        let mark = offsets.first().copied().unwrap_or_default();

        let scout = Scout::new(client, partition)?;
        let Last { frame, opened } = scout.last_before(mark)?;
        let clean_stop = frame.map_or(!opened, |(_, header)| header.kind == Kind::Closed && !opened);
        let stand = frame.and_then(|(_, header)| header.after()).unwrap_or_default();
        let (low, _) = scout.watermarks(&journal)?;
        if stand.checkpoint.map_or(0, |pointer| pointer.tail) < low {
            let why = "records before this were deleted, but no checkpoint holds what they said".to_owned();
            return Err(client.damaged(partition, low, why));
        }
        check_cursor(client, &scout, partition, stand.consumed)?;
        let checkpoint = stand.checkpoint.map(|pointer| scout.read(pointer)).transpose()?;
        let tail = stand.checkpoint.map_or(low, |pointer| pointer.tail);
        let (progress, number) = (Arc::default(), client.local(partition).begin(stand));
        let end = mark + 1;
        let owner =
            Self { client: client.clone(), outlets, partition, number, transactions, stand, end, progress };
        owner.note();
        Ok(Found { owner, checkpoint, tail, consumed: stand.consumed, clean_stop })
    }

    pub(crate) fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    pub(crate) fn last(&self) -> Position {
        Position(self.stand.last)
    }

    /// Writes a batch: its frame, its messages, and what it publishes, in one transaction.
    pub(crate) fn commit(&mut self, batch: &Batch) -> Result<Committed, CommitError> {
        let mut stand = self.stand;
        if let Some(consumed) = batch.consumed {
            stand.consumed.get_or_insert_default().advance(consumed);
        }
        let header = Header { records: batch.records.len() as u32, ..Header::mark(Kind::Batch, stand) };
        let pieces = Pieces::new(header, &batch.records);
        let after = pieces.after();
        let frame: Vec<_> = pieces.collect();
        let topics = self.client.topics.clone();
        let mut writes = writes(&topics.journal, self.partition, &frame);
        writes.extend(batch.messages.iter().map(|message| Write {
            topic: &topics.messages,
            partition: message.to,
            key: None,
            headers: &[],
            body: &message.bytes,
        }));
        writes.extend(batch.tasks.iter().map(|(to, task)| Write {
            topic: &topics.tasks,
            partition: *to,
            key: task.key.as_deref(),
            headers: &task.headers,
            body: &task.body,
        }));
        // All of a partition's go to one: each further partition makes the whole transaction slower.
        writes.extend(batch.published.iter().map(|published| {
            let (topic, partitions) = match published.to {
                Outlet::Results => (&topics.results, self.outlets.results),
                Outlet::Rejected => (&topics.rejected, self.outlets.rejected),
            };
            Write {
                topic,
                partition: self.partition % partitions,
                key: Some(&published.key),
                headers: &published.headers,
                body: &published.body,
            }
        }));
        let offsets = self.write(&writes, frame.len()).map_err(|failure| match failure {
            Failure::Fenced => CommitError::Fenced,
            Failure::Unclear(why) => CommitError::Unclear(why),
            Failure::Refused(why) => CommitError::Refused(why),
        })?;
        self.moved_to(after, &offsets);
        Ok(Committed { last: self.last() })
    }

    /// Writes a checkpoint as of `at`, then the word that it is whole. Until that is written nobody looks at it.
    pub(crate) fn checkpoint(&mut self, at: u64, chunks: &[Bytes]) -> Result<(), JournalError> {
        let end = self.last();
        if at > end.0 {
            return Err(JournalError::Beyond { at: Position(at), end });
        }
        if self.stand.checkpoint.is_some_and(|newest| newest.at > at) {
            // A newer one is there already; this one would serve nobody.
            return Ok(());
        }
        let tail = self.tail_of(at)?;
        let journal = self.client.topics.journal.clone();
        let mut pieces = Pieces::new(Header { at, ..Header::mark(Kind::State, self.stand) }, chunks);
        let mut first = None;
        loop {
            let some: Vec<_> = pieces.by_ref().take(PIECES_AT_ONCE).collect();
            if some.is_empty() {
                break;
            }
            let offsets = self.write_journal(&journal, &some)?;
            first = first.or(offsets.first().copied());
        }
        let offset = first.unwrap_or(self.end);
        let pointer = Pointer { at, offset, tail: tail.offset, tail_bytes: tail.bytes };
        let stand = Stand { checkpoint: Some(pointer), ..self.stand };
        let sealed: Vec<_> = Pieces::new(Header::mark(Kind::Sealed, stand), &[]).collect();
        let offsets = self.write_journal(&journal, &sealed)?;
        self.moved_to(stand, &offsets);
        Ok(())
    }

    /// Where a recovery begins to read the records after `at`.
    fn tail_of(&self, at: u64) -> Result<Spot, JournalError> {
        if at == self.stand.last {
            return Ok(Spot { offset: self.end, bytes: self.stand.bytes });
        }
        match Scout::new(&self.client, self.partition)?.find(at + 1)? {
            Place::At(spot) | Place::NotYet(spot) => Ok(spot),
            Place::Cut(first) => Err(JournalError::Cut { after: Position(at), first: Position(first) }),
        }
    }

    /// The newest checkpoint at or below `at`, with what had been consumed by then.
    pub(crate) fn checkpoint_at_or_below(
        &self,
        at: u64,
    ) -> Result<Option<(Pointer, Option<Cursor>)>, JournalError> {
        let scout = Scout::new(&self.client, self.partition)?;
        let found = scout.checkpoint(self.stand.checkpoint, at)?;
        Ok(found.map(|(pointer, header)| (pointer, header.stand.consumed)))
    }

    /// Says that the stop is clean.
    pub(crate) fn close(&mut self) -> Result<(), JournalError> {
        let journal = self.client.topics.journal.clone();
        let closed: Vec<_> = Pieces::new(Header::mark(Kind::Closed, self.stand), &[]).collect();
        self.write_journal(&journal, &closed)?;
        self.end_ownership();
        Ok(())
    }

    fn write_journal(&mut self, journal: &str, messages: &[Vec<u8>]) -> Result<Vec<u64>, JournalError> {
        let (partition, known) = (self.partition, messages.len());
        self.write(&writes(journal, partition, messages), known)
            .map_err(|failure| journal_error(partition, failure))
    }

    fn write(&mut self, writes: &[Write<'_>], known: usize) -> Result<Vec<u64>, Failure> {
        if self.progress.has_ended() {
            return Err(Failure::Fenced);
        }
        let written = self.transactions.write(writes, known);
        match &written {
            Err(Failure::Fenced) => {
                tracing::warn!(partition = self.partition, "fenced: another host owns the partition");
                self.end_ownership();
            }
            Err(Failure::Unclear(why)) => {
                tracing::warn!(partition = self.partition, why, "the outcome of a commit is unclear");
                self.end_ownership();
            }
            Err(Failure::Refused(_)) | Ok(_) => {}
        }
        written
    }

    fn moved_to(&mut self, stand: Stand, offsets: &[u64]) {
        self.stand = stand;
        self.end = offsets.last().map_or(self.end, |last| last + 1);
        self.note();
    }

    fn note(&self) {
        let before = self.stand.checkpoint.map_or(0, |pointer| pointer.tail_bytes);
        self.progress.last.store(self.stand.last, Ordering::Release);
        self.progress.bytes_since_checkpoint.store(self.stand.bytes - before, Ordering::Release);
        self.client.local(self.partition).moved(self.number, self.stand);
    }

    fn end_ownership(&self) {
        self.progress.ended.store(true, Ordering::Release);
        self.client.local(self.partition).end(self.number);
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.end_ownership();
    }
}

fn writes<'a>(journal: &'a str, partition: u32, messages: &'a [Vec<u8>]) -> Vec<Write<'a>> {
    let write = |body: &'a Vec<u8>| Write { topic: journal, partition, key: None, headers: &[], body };
    messages.iter().map(write).collect()
}

fn journal_error(partition: u32, failure: Failure) -> JournalError {
    match failure {
        Failure::Fenced => JournalError::Fenced { partition },
        Failure::Refused(why) | Failure::Unclear(why) => {
            JournalError::Kafka { what: format!("write the journal of partition {partition}"), why }
        }
    }
}

/// Refuses a cursor beyond what a topic holds: what it stands for is lost.
fn check_cursor(
    client: &Client,
    scout: &Scout,
    partition: u32,
    consumed: Option<Cursor>,
) -> Result<(), JournalError> {
    let Some(consumed) = consumed else { return Ok(()) };
    for (topic, cursor) in
        [(&client.topics.tasks, consumed.tasks), (&client.topics.messages, consumed.messages)]
    {
        let (first, end) = scout.watermarks(topic)?;
        // A cursor of zero has consumed nothing: it begins where the topic does.
        if cursor > 0 && !(first..=end).contains(&cursor) {
            return Err(JournalError::CursorOutside {
                topic: topic.to_string(),
                partition,
                cursor,
                first,
                end,
            });
        }
    }
    Ok(())
}
