//! The journal's port: what an owner and a sink may ask of a durable log, whoever keeps it.
//!
//! One owner a partition: [`Journal::open`] fences whoever had opened the same partition before, and hands over the
//! newest checkpoint, the records after it and the log to append to. One commit is in flight per partition (`&mut
//! self` says so); what is decided meanwhile goes into the next batch.

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    error::{CommitError, JournalError},
    intake::NewTask,
};

/// The place of a record in its partition: counts from 1, without gaps. Zero stands before the first record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// Before the first record.
    pub const START: Self = Self(0);
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// How far a partition has consumed what was sent to it: everything below the two numbers has taken effect. The
/// numbers are the implementation's own (log addresses, or offsets of a topic) and only grow. An owner merges the
/// cursors of the deliveries that it has handled ([`Cursor::advance`]) and commits the result with the batch that holds
/// their effects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The next task to consume, where tasks come from a durable source; zero elsewhere.
    pub tasks: u64,
    /// The next message of another partition to consume.
    pub messages: u64,
}

impl Cursor {
    /// Takes the farther of both, for each source.
    pub fn advance(&mut self, other: Cursor) {
        self.tasks = self.tasks.max(other.tasks);
        self.messages = self.messages.max(other.messages);
    }
}

/// One durable record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it stands.
    pub position: Position,
    /// What it holds.
    pub bytes: Bytes,
}

/// A message to a partition (another or the same), sent with a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The destination partition.
    pub to: u32,
    /// What it holds.
    pub bytes: Bytes,
}

/// Where something leaves the system, for whoever reads there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outlet {
    /// What became of runs.
    Results,
    /// Tasks that were not accepted, with the reason.
    Rejected,
}

/// Something for readers outside. The embedded implementation has no such readers: there it goes nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Where to.
    pub to: Outlet,
    /// What belongs together and stays in order.
    pub key: Bytes,
    /// Named properties, in order.
    pub headers: Vec<(String, Bytes)>,
    /// What it holds.
    pub body: Bytes,
}

/// What becomes durable together. All parts may be empty; a batch that is wholly empty commits at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The records, in order.
    pub records: Vec<Bytes>,
    /// The messages, delivered in order once the batch is durable.
    pub messages: Vec<Outgoing>,
    /// Tasks for the owners of other partitions, where tasks come from a durable source; elsewhere there are none.
    pub tasks: Vec<(u32, NewTask)>,
    /// How far intake has been consumed, where this batch moves it.
    pub consumed: Option<Cursor>,
    /// What readers outside are told; they see it once the batch is durable.
    pub published: Vec<Published>,
}

impl Batch {
    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
            && self.messages.is_empty()
            && self.tasks.is_empty()
            && self.consumed.is_none()
            && self.published.is_empty()
    }
}

/// The answer to a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The position of the partition's last durable record (unchanged by a batch without records).
    pub last: Position,
}

/// A partition's whole state as of one position, in chunks that only the owner understands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last record that the state includes.
    pub at: Position,
    /// The state.
    pub chunks: Vec<Bytes>,
}

/// What a new owner gets.
pub struct Opened {
    /// The newest valid checkpoint, if there is one.
    pub checkpoint: Option<Checkpoint>,
    /// The records after the checkpoint, or all of them.
    pub tail: Tail,
    /// How far intake had been consumed by the last durable batch that said so.
    pub consumed: Option<Cursor>,
    /// Where the owner appends.
    pub log: Box<dyn PartitionLog>,
    /// Whether the previous owner closed its log, or there was none. False after a crash.
    pub clean_stop: bool,
}

/// The records between a checkpoint and the end that was durable when the partition was opened, read in chunks so
/// that a long tail never stands in memory at once.
pub struct Tail {
    reader: Box<dyn Reader>,
    read: Position,
    end: Position,
}

/// How many bytes of records [`Tail::next`] reads at a time: large enough for sequential reads, small beside the state.
pub const TAIL_CHUNK_BYTES: usize = 4 << 20;

impl Tail {
    /// The records after `after` up to and including `end`, from `reader`.
    pub fn new(reader: Box<dyn Reader>, after: Position, end: Position) -> Self {
        Self { reader, read: after, end }
    }

    /// The next records in order, at least one; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<Record>>, JournalError> {
        if self.read >= self.end {
            return Ok(None);
        }
        let mut records = self.reader.read_after(self.read, TAIL_CHUNK_BYTES).await?;
        records.retain(|record| record.position <= self.end);
        match records.last() {
            Some(last) => self.read = last.position,
            None => {
                return Err(JournalError::Gap { read: self.read, end: self.end });
            }
        }
        Ok(Some(records))
    }

    /// The last record's position: where the partition stands once the tail is read.
    pub fn end(&self) -> Position {
        self.end
    }
}

/// A durable log of every partition.
#[async_trait]
pub trait Journal: Send + Sync {
    /// How many partitions there are; they are numbered from 0.
    fn partitions(&self) -> u32;

    /// Takes a partition over: fences its previous owner and recovers what it left.
    async fn open(&self, partition: u32) -> Result<Opened, JournalError>;

    /// Reads a partition's durable records, beside its owner. A partition that does not exist reads as an empty one.
    fn reader(&self, partition: u32) -> Box<dyn Reader>;
}

/// The owner's end of a partition.
#[async_trait]
pub trait PartitionLog: Send {
    /// Makes a batch durable; comes back when it is. Dropping the future leaves it unclear whether it is.
    async fn commit(&mut self, batch: Batch) -> Result<Committed, CommitError>;

    /// Stores the partition's state as of the durable position `at`.
    async fn checkpoint(&mut self, at: Position, chunks: Vec<Bytes>) -> Result<(), JournalError>;

    /// Permits to delete what is not needed to restart from `at`: the newest checkpoint at or below it stays, with all
    /// records after that checkpoint.
    async fn delete_before(&mut self, at: Position) -> Result<(), JournalError>;

    /// How much log a recovery would have to read for this partition's sake. When it exceeds the larger of 64 MiB and the
    /// state's size, a checkpoint is due.
    fn bytes_since_checkpoint(&self) -> u64;

    /// Ends the ownership and marks a clean stop, durably.
    async fn close(self: Box<Self>) -> Result<(), JournalError>;
}

/// Reads one partition's durable records.
#[async_trait]
pub trait Reader: Send {
    /// The newest valid checkpoint at or below `at`.
    async fn checkpoint_at_or_below(&mut self, at: Position) -> Result<Option<Checkpoint>, JournalError>;

    /// Durable records after `after`, in order, without gaps: at least one if there is one, else up to `max_bytes` of
    /// them. Empty at the end. Refuses with [`JournalError::Cut`] when the records after `after` were deleted.
    async fn read_after(&mut self, after: Position, max_bytes: usize) -> Result<Vec<Record>, JournalError>;

    /// Waits until a record beyond `position` is durable and answers with the last durable position.
    async fn wait_beyond(&mut self, position: Position) -> Position;
}
