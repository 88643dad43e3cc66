//! The way in: commands for an owner, and the messages that other partitions committed for it.
//!
//! Commands are the host's own type `T`, are bounded per partition and may be paused; a full queue gives the command
//! back, and the caller answers 429. Messages are durable before they arrive and are never paused, or a parent that
//! waits for its children would wait for ever.

use async_trait::async_trait;
use bytes::Bytes;

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
    /// The next arrival; waits for it. `None` when every [`Intake`] is gone and nothing waits. Dropping the future loses
    /// nothing.
    async fn recv(&mut self) -> Option<Delivery<T>>;

    /// The next arrival, if one is at hand.
    fn try_recv(&mut self) -> Option<Delivery<T>>;

    /// Stops commands; messages go on.
    fn pause(&mut self);

    /// Lets commands in again.
    fn resume(&mut self);

    /// Starts anew at what [`crate::Opened::consumed`] said, after a take-over: messages at or beyond it arrive (again).
    fn seek(&mut self, consumed: Option<Cursor>);
}

/// Both ends of an intake: the way in, and for each partition, in order, what its owner takes from.
pub type Ends<T> = (std::sync::Arc<dyn Intake<T>>, Vec<Box<dyn Deliveries<T>>>);
