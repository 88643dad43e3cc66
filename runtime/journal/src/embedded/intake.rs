//! Commands in memory (a bounded queue per partition) and messages from the log, joined for the owner.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{inbox, state::Shared, unblock};
use crate::{
    intake::{Arrived, Deliveries, Delivery, Ends, Full, Intake},
    ports::Cursor,
};

/// After so many messages in a row a waiting command has its turn.
const MESSAGES_IN_A_ROW: u32 = 64;

/// Both ends of the intake of every partition.
pub(crate) fn channels<T: Send + 'static>(shared: &Arc<Shared>, bound: usize) -> Ends<T> {
    let mut senders = Vec::new();
    let mut deliveries: Vec<Box<dyn Deliveries<T>>> = Vec::new();
    for partition in 0..shared.partitions.len() as u32 {
        let (sender, commands) = mpsc::channel(bound.max(1));
        senders.push(sender);
        deliveries.push(Box::new(Arrivals {
            shared: shared.clone(),
            partition,
            commands,
            paused: false,
            messages_in_a_row: 0,
        }));
    }
    (Arc::new(Commands { senders }), deliveries)
}

struct Commands<T> {
    senders: Vec<mpsc::Sender<T>>,
}

impl<T: Send> Intake<T> for Commands<T> {
    fn try_send(&self, partition: u32, command: T) -> Result<(), Full<T>> {
        let Some(sender) = self.senders.get(partition as usize) else { return Err(Full::Closed(command)) };
        sender.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(command) => Full::Busy(command),
            mpsc::error::TrySendError::Closed(command) => Full::Closed(command),
        })
    }

    fn depth(&self, partition: u32) -> usize {
        self.senders.get(partition as usize).map_or(0, |sender| sender.max_capacity() - sender.capacity())
    }
}

struct Arrivals<T> {
    shared: Arc<Shared>,
    partition: u32,
    commands: mpsc::Receiver<T>,
    paused: bool,
    messages_in_a_row: u32,
}

impl<T> Arrivals<T> {
    fn inbox(&self) -> &inbox::Inbox {
        &self.shared.partition(self.partition).inbox
    }

    fn message(&mut self) -> Option<Delivery<T>> {
        let (cursor, bytes) = self.inbox().pop()?;
        self.messages_in_a_row += 1;
        Some(Delivery { command: Arrived::Message(bytes), cursor: Some(cursor) })
    }

    fn command(&mut self) -> Option<Delivery<T>> {
        if self.paused {
            return None;
        }
        self.commands.try_recv().ok().map(|command| self.deliver(command))
    }

    fn deliver(&mut self, command: T) -> Delivery<T> {
        self.messages_in_a_row = 0;
        Delivery { command: Arrived::Command(command), cursor: None }
    }
}

#[async_trait]
impl<T: Send + 'static> Deliveries<T> for Arrivals<T> {
    async fn recv(&mut self) -> Option<Delivery<T>> {
        loop {
            if let Some(delivery) = self.try_recv() {
                return Some(delivery);
            }
            if self.inbox().is_behind() {
                let (shared, partition) = (self.shared.clone(), self.partition);
                if let Err(error) = unblock(move || inbox::read_on(&shared, partition)).await {
                    // Waiting parents must not wait for ever on a log that cannot be read.
                    tracing::error!(partition = self.partition, %error, "messages cannot be read; ending the process");
                    std::process::abort();
                }
                continue;
            }
            if self.commands.is_closed() && self.commands.is_empty() {
                return None;
            }
            let inbox = &self.shared.partition(self.partition).inbox;
            tokio::select! {
                () = inbox.ready.notified() => {}
                command = self.commands.recv(), if !self.paused => match command {
                    Some(command) => return Some(self.deliver(command)),
                    None => return self.message(),
                },
            }
        }
    }

    fn try_recv(&mut self) -> Option<Delivery<T>> {
        if self.messages_in_a_row >= MESSAGES_IN_A_ROW
            && let Some(command) = self.command()
        {
            return Some(command);
        }
        self.message().or_else(|| self.command())
    }

    fn pause(&mut self) {
        self.paused = true;
    }

    fn resume(&mut self) {
        self.paused = false;
    }

    fn seek(&mut self, consumed: Option<Cursor>) {
        self.inbox().seek(consumed.unwrap_or_default());
    }
}
