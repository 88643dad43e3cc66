//! What arrives at owners: commands, which die with the owner that they were sent to; tasks and messages, which lie where they
//! were written and come again from whatever cursor an owner starts at.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use reipaz_journal::{Arrived, Cursor, Deliveries, Delivery, Task};

use crate::owner::Command;

/// The durable sources.
#[derive(Default)]
pub(super) struct Topics {
    /// By offset; none: something that is no task, such as the mark of a producer's transaction.
    pub(super) tasks: Vec<Option<Task>>,
    pub(super) messages: Vec<Bytes>,
}

/// One owner's end.
#[derive(Clone)]
pub(super) struct SimulatedIntake {
    topics: Arc<Mutex<Topics>>,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    commands: VecDeque<Command>,
    next: Cursor,
    paused: bool,
    sought: bool,
    revoked: bool,
}

impl SimulatedIntake {
    pub(super) fn new(topics: &Arc<Mutex<Topics>>) -> Self {
        Self { topics: Arc::clone(topics), inner: Arc::default() }
    }

    pub(super) fn send(&self, command: Command) {
        self.inner.lock().unwrap().commands.push_back(command);
    }

    /// Nothing more comes.
    pub(super) fn revoke(&self) {
        self.inner.lock().unwrap().revoked = true;
    }
}

#[async_trait]
impl Deliveries<Command> for SimulatedIntake {
    async fn recv(&mut self) -> Option<Delivery<Command>> {
        match self.try_recv() {
            Some(delivery) => Some(delivery),
            None if self.inner.lock().unwrap().revoked => None,
            // Whoever waits here is asked again when something has happened.
            None => std::future::pending().await,
        }
    }

    fn try_recv(&mut self) -> Option<Delivery<Command>> {
        let mut inner = self.inner.lock().unwrap();
        assert!(inner.sought, "nothing is taken before the journal's cursor is known");
        if let Some(command) = inner.commands.pop_front() {
            return Some(Delivery { command: Arrived::Command(command), cursor: None });
        }
        if inner.revoked {
            return None;
        }
        let topics = self.topics.lock().unwrap();
        if let Some(message) = topics.messages.get(inner.next.messages as usize) {
            inner.next.messages += 1;
            let cursor = Cursor { messages: inner.next.messages, tasks: 0 };
            return Some(Delivery { command: Arrived::Message(message.clone()), cursor: Some(cursor) });
        }
        while !inner.paused
            && let Some(slot) = topics.tasks.get(inner.next.tasks as usize)
        {
            inner.next.tasks += 1;
            if let Some(task) = slot {
                let cursor = Cursor { tasks: inner.next.tasks, messages: 0 };
                return Some(Delivery { command: Arrived::Task(task.clone()), cursor: Some(cursor) });
            }
        }
        None
    }

    fn pause(&mut self) {
        self.inner.lock().unwrap().paused = true;
    }

    fn resume(&mut self) {
        self.inner.lock().unwrap().paused = false;
    }

    fn seek(&mut self, consumed: Option<Cursor>) {
        let mut inner = self.inner.lock().unwrap();
        inner.next = consumed.unwrap_or_default();
        inner.sought = true;
    }

    fn read_up_to(&self) -> Option<Cursor> {
        Some(self.inner.lock().unwrap().next)
    }
}
