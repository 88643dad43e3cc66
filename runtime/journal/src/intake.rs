//! The way in: commands for an owner, tasks that producers wrote for it, and the messages that other partitions
//! committed for it.
//!
//! Commands are the host's own type `T` and are bounded per partition; a full queue gives the command
//! back, and the caller answers 429. Tasks are durable before they arrive and may be paused: they wait where they lie.
//! Messages are durable before they arrive and are never paused, or a parent that waits for its children would wait for
//! ever.

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::ports::Cursor;

/// Where commands are handed in.
pub trait Intake<T>: Send + Sync {
    /// Queues a command for the owner of `partition`, or gives it back.
    fn try_send(&self, partition: u32, command: T) -> Result<(), Full<T>>;

    /// How many commands wait for the owner of `partition`.
    fn depth(&self, partition: u32) -> usize;
}

/// The queue took nothing, and why. The command comes back.
#[derive(Debug, thiserror::Error)]
pub enum Full<T> {
    /// The partition's queue is at its bound: try again later.
    #[error("the partition's queue is full: try again later")]
    Busy(T),
    /// The partition has no owner here (any more).
    #[error("the partition's owner is gone")]
    Closed(T),
}

impl<T> Full<T> {
    /// The command that was not taken.
    pub fn into_command(self) -> T {
        match self {
            Self::Busy(command) | Self::Closed(command) => command,
        }
    }
}

/// What arrives at an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrived<T> {
    /// A command, through [`Intake::try_send`].
    Command(T),
    /// A message that a partition committed for this one.
    Message(Bytes),
    /// What a producer wrote for this partition.
    Task(Task),
}

/// Where a task stands in the durable source that it came from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// The source's name.
    pub topic: std::sync::Arc<str>,
    /// Its partition.
    pub partition: u32,
    /// Its number there.
    pub offset: u64,
}

/// What a producer wrote, untouched: nothing about it has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Where it stands; the same place for ever.
    pub source: Source,
    /// The key, if it has one.
    pub key: Option<Bytes>,
    /// Named properties, in order; a name may come twice.
    pub headers: Vec<(String, Bytes)>,
    /// The body; `None` where the producer wrote none at all.
    pub body: Option<Bytes>,
    /// When it was written, Unix milliseconds, by the producer's or the source's clock; 0 where it does not say.
    pub at_ms: i64,
}

/// One arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery<T> {
    /// What arrived.
    pub command: Arrived<T>,
    /// What the owner commits (merged by [`Cursor::advance`]) with this arrival's effects, when the source is durable.
    pub cursor: Option<Cursor>,
}

/// The owner's end of the intake of one partition. Deliveries of one source arrive in order.
#[async_trait]
pub trait Deliveries<T>: Send {
    /// The next arrival; waits for it. `None` when every [`Intake`] is gone or the partition was revoked, and no command
    /// waits; or when the durable source cannot be read any more (which was logged): open the partition anew to learn
    /// why. Dropping the future loses nothing.
    async fn recv(&mut self) -> Option<Delivery<T>>;

    /// The next arrival, if one is at hand.
    fn try_recv(&mut self) -> Option<Delivery<T>>;

    /// Stops tasks, which wait where they lie; commands and messages go on. Without a durable source there is nothing to stop.
    fn pause(&mut self);

    /// Lets tasks in again.
    fn resume(&mut self);

    /// Starts at what [`crate::Opened::consumed`] said, after a take-over: tasks and messages at or beyond it arrive
    /// (again). Before the first call none need arrive.
    fn seek(&mut self, consumed: Option<Cursor>);

    /// How far the durable source has been read: what stands below has arrived, or is nothing that arrives (the marks of
    /// producers' transactions, and what those undid). `None` where that is not known.
    fn read_up_to(&self) -> Option<Cursor> {
        None
    }
}

/// The way in for tasks, where there is a durable source of them. The embedded implementation has none: its owner is
/// always at hand, and commands reach it by [`Intake`].
#[async_trait]
pub trait Tasks: Send + Sync {
    /// Writes a task for the owner of `partition`; durable when it returns. An error other than
    /// [`SendError::Unavailable`] means that nothing was written.
    async fn send(&self, partition: u32, task: NewTask) -> Result<(), SendError>;

    /// Where the next task for the owner of `partition` would stand: every task that is written by now stands below.
    async fn end(&self, partition: u32) -> Result<u64, SendError>;
}

/// A task to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTask {
    /// The key, if it has one.
    pub key: Option<Bytes>,
    /// Named properties, in order.
    pub headers: Vec<(String, Bytes)>,
    /// The body.
    pub body: Bytes,
}

/// Why a task was not written.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// There is no such partition.
    #[error("there is no partition {0}")]
    NoSuchPartition(u32),
    /// It is larger than what the source takes.
    #[error("a task of {bytes} bytes is over the limit of {limit} bytes")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The bound.
        limit: u64,
    },
    /// Too many wait to be written: try again later.
    #[error("too many tasks wait to be written: try again later")]
    Busy,
    /// The source did not confirm it in time. It may have been written all the same: send it again with the same
    /// idempotency key.
    #[error("it is unclear whether the task was written ({0}): send it again with the same idempotency key")]
    Unavailable(String),
}

/// Which partitions this process owns, as that changes.
#[async_trait]
pub trait Assignments<T>: Send {
    /// The next change; waits for it. `None` when every [`Intake`] is gone or there is nothing more to come. Dropping the
    /// future loses nothing.
    async fn next(&mut self) -> Option<Change<T>>;
}

/// A change of what this process owns.
pub enum Change<T> {
    /// The partition is this process's: open its journal, and seek the deliveries to its cursor.
    Assigned {
        /// Which partition.
        partition: u32,
        /// What its owner takes from.
        deliveries: Box<dyn Deliveries<T>>,
    },
    /// The partition goes to somebody else: stop, close its journal, then say so. Who takes too long is fenced.
    Revoked {
        /// Which partition.
        partition: u32,
        /// To be used (or dropped) once the journal is closed.
        released: oneshot::Sender<()>,
    },
}

/// Both ends of an intake: the way in, and for each partition, in order, what its owner takes from.
pub type Ends<T> = (std::sync::Arc<dyn Intake<T>>, Vec<Box<dyn Deliveries<T>>>);
