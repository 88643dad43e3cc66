//! The queue before the log's writer. It needs no bound of its own: an owner has one batch in flight, and `open` and
//! `close` send one frame each, so it holds at most a few entries per partition.

use std::{
    sync::{Condvar, Mutex},
    time::Instant,
};

use tokio::sync::oneshot;

use super::frame::Frame;
use crate::{
    error::CommitError,
    ports::{Cursor, Outgoing, Position},
};

/// A batch on its way to the log.
pub(crate) struct Request {
    pub(crate) partition: u32,
    /// The owner that sent it.
    pub(crate) generation: u64,
    pub(crate) frame: Frame,
    pub(crate) cursor: Option<Cursor>,
    /// The frame's messages, to be delivered once it is durable.
    pub(crate) messages: Vec<Outgoing>,
    pub(crate) reply: oneshot::Sender<Result<Position, CommitError>>,
    pub(crate) sent: Instant,
}

#[derive(Default)]
struct Queue {
    requests: Vec<Request>,
    closed: bool,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Mailbox {
    queue: Mutex<Queue>,
    ready: Condvar,
}

impl Mailbox {
    /// Hands a batch to the writer; gives it back when the writer is gone.
    pub(crate) fn send(&self, request: Request) -> Result<(), Box<Request>> {
        let mut queue = self.queue.lock().expect("no holder of the queue panics");
        if queue.closed {
            return Err(Box::new(request));
        }
        queue.requests.push(request);
        drop(queue);
        self.ready.notify_one();
        Ok(())
    }

    /// Waits for batches and takes all of them, in order, into the empty `into`. False when the mailbox is closed and
    /// empty.
    pub(crate) fn take(&self, into: &mut Vec<Request>) -> bool {
        let mut queue = self.queue.lock().expect("no holder of the queue panics");
        while queue.requests.is_empty() && !queue.closed {
            queue = self.ready.wait(queue).expect("no holder of the queue panics");
        }
        std::mem::swap(&mut queue.requests, into);
        !into.is_empty()
    }

    /// Lets the writer finish what waits, and end.
    pub(crate) fn close(&self) {
        self.queue.lock().expect("no holder of the queue panics").closed = true;
        self.ready.notify_one();
    }
}
