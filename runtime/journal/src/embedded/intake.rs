//! Commands in memory and messages from the log, joined for the owner. Everything is this process's own, for ever.

use std::sync::Arc;

use async_trait::async_trait;

use super::{inbox, state::Shared};
use crate::{
    commands::{Commands, Waiting, command},
    intake::{Arrived, Assignments, Change, Deliveries, Delivery, Ends},
    ports::Cursor,
    unblock::unblock,
};

/// Both ends of the intake of every partition.
pub(crate) fn channels<T: Send + 'static>(shared: &Arc<Shared>, bound: usize) -> Ends<T> {
    let partitions = shared.partitions.len() as u32;
    let commands = Commands::new(partitions, bound);
    let deliveries = (0..partitions).map(|partition| {
        let commands = commands.own(partition);
        Box::new(Arrivals { shared: shared.clone(), partition, commands }) as Box<dyn Deliveries<T>>
    });
    let deliveries = deliveries.collect();
    (commands, deliveries)
}

/// Every partition, assigned at once and never revoked.
pub(crate) struct All<T> {
    pub(crate) left: std::iter::Enumerate<std::vec::IntoIter<Box<dyn Deliveries<T>>>>,
}

#[async_trait]
impl<T: Send + 'static> Assignments<T> for All<T> {
    async fn next(&mut self) -> Option<Change<T>> {
        let (partition, deliveries) = self.left.next()?;
        Some(Change::Assigned { partition: partition as u32, deliveries })
    }
}

struct Arrivals<T> {
    shared: Arc<Shared>,
    partition: u32,
    commands: Waiting<T>,
}

impl<T> Arrivals<T> {
    fn inbox(&self) -> &inbox::Inbox {
        &self.shared.partition(self.partition).inbox
    }

    fn message(&mut self) -> Option<Delivery<T>> {
        let (cursor, bytes) = self.inbox().pop()?;
        self.commands.yield_turn();
        Some(Delivery { command: Arrived::Message(bytes), cursor: Some(cursor) })
    }

    fn command(&mut self) -> Option<Delivery<T>> {
        self.commands.try_recv().map(command)
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
            if self.commands.is_over() {
                return None;
            }
            let inbox = &self.shared.partition(self.partition).inbox;
            tokio::select! {
                () = inbox.ready.notified() => {}
                received = self.commands.recv() => match received {
                    Some(received) => return Some(command(received)),
                    None => return self.message(),
                },
            }
        }
    }

    fn try_recv(&mut self) -> Option<Delivery<T>> {
        if self.commands.has_turn()
            && let Some(command) = self.command()
        {
            return Some(command);
        }
        self.message().or_else(|| self.command())
    }

    fn pause(&mut self) {}

    fn resume(&mut self) {}

    fn seek(&mut self, consumed: Option<Cursor>) {
        self.inbox().seek(consumed.unwrap_or_default());
    }
}
