//! Commands in memory, one bounded queue per partition: the same for every implementation, because a command is never
//! durable. A partition without an owner here has no queue.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::mpsc;

use crate::intake::{Arrived, Delivery, Full, Intake};

/// After so many arrivals from a durable source in a row a waiting command has its turn.
const ARRIVALS_IN_A_ROW: u32 = 64;

/// The way in.
pub(crate) struct Commands<T> {
    queues: Vec<RwLock<Option<mpsc::Sender<T>>>>,
    bound: usize,
}

impl<T> Commands<T> {
    /// Queues for so many partitions, each with room for `bound` commands; none has an owner yet.
    pub(crate) fn new(partitions: u32, bound: usize) -> Arc<Self> {
        let queues = (0..partitions).map(|_| RwLock::default()).collect();
        Arc::new(Self { queues, bound: bound.max(1) })
    }

    /// Gives the partition a new owner, who takes from what comes back. The last one's queue takes no more.
    pub(crate) fn own(&self, partition: u32) -> Waiting<T> {
        let (sender, commands) = mpsc::channel(self.bound);
        self.set(partition, Some(sender));
        Waiting { commands, others_in_a_row: 0 }
    }

    /// The partition has no owner here any more.
    pub(crate) fn disown(&self, partition: u32) {
        self.set(partition, None);
    }

    fn set(&self, partition: u32, sender: Option<mpsc::Sender<T>>) {
        if let Some(queue) = self.queues.get(partition as usize) {
            *queue.write().unwrap_or_else(PoisonError::into_inner) = sender;
        }
    }

    fn queue(&self, partition: u32) -> Option<RwLockReadGuard<'_, Option<mpsc::Sender<T>>>> {
        self.queues.get(partition as usize).map(|queue| queue.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T: Send> Intake<T> for Commands<T> {
    fn try_send(&self, partition: u32, command: T) -> Result<(), Full<T>> {
        let queue = self.queue(partition);
        let Some(sender) = queue.as_deref().and_then(Option::as_ref) else {
            return Err(Full::Closed(command));
        };
        sender.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(command) => Full::Busy(command),
            mpsc::error::TrySendError::Closed(command) => Full::Closed(command),
        })
    }

    fn depth(&self, partition: u32) -> usize {
        let queue = self.queue(partition);
        let sender = queue.as_deref().and_then(Option::as_ref);
        sender.map_or(0, |sender| sender.max_capacity() - sender.capacity())
    }
}

/// The owner's end of a partition's queue.
pub(crate) struct Waiting<T> {
    commands: mpsc::Receiver<T>,
    others_in_a_row: u32,
}

impl<T> Waiting<T> {
    /// Something else had its turn.
    pub(crate) fn yield_turn(&mut self) {
        self.others_in_a_row += 1;
    }

    /// Whether a waiting command comes before anything else now.
    pub(crate) fn has_turn(&self) -> bool {
        self.others_in_a_row >= ARRIVALS_IN_A_ROW
    }

    /// The next command, if one is at hand.
    pub(crate) fn try_recv(&mut self) -> Option<T> {
        let command = self.commands.try_recv().ok()?;
        self.others_in_a_row = 0;
        Some(command)
    }

    /// The next command; `None` when there will be none.
    pub(crate) async fn recv(&mut self) -> Option<T> {
        let command = self.commands.recv().await;
        self.others_in_a_row = 0;
        command
    }

    /// Whether no command waits and none can come.
    pub(crate) fn is_over(&self) -> bool {
        self.commands.is_closed() && self.commands.is_empty()
    }
}

/// A command as it arrives: nothing durable moves with it.
pub(crate) fn command<T>(command: T) -> Delivery<T> {
    Delivery { command: Arrived::Command(command), cursor: None }
}
