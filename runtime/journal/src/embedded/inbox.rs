//! The durable messages that wait for one partition.
//!
//! A bounded queue of the newest ones, filled by the writer as batches become durable. Whoever starts, seeks or falls
//! behind the bound reads the log instead, until it has caught up with the durable end; then the queue is live again.
//! Each message has a number (its cursor), and only numbers beyond `reached` are taken in: that keeps the two sources
//! from giving one message twice.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{frame, state::Shared, walk::Walk};
use crate::{error::JournalError, ports::Cursor};

/// How many messages wait in memory at most; more wait in the log.
const QUEUE_LIMIT: usize = 4096;
/// How many bytes of messages wait in memory at most (one more message may exceed it).
const QUEUE_BYTES: usize = 4 << 20;

/// See the module.
pub(crate) struct Inbox {
    state: Mutex<State>,
    /// Woken when there may be something new.
    pub(crate) ready: Notify,
}

#[derive(Default)]
struct State {
    queue: VecDeque<(u64, Bytes)>,
    queue_bytes: usize,
    /// The number of the last message that was queued (or was consumed before).
    reached: u64,
    /// There may be more in the log than in the queue.
    behind: bool,
    /// Where in the log to go on reading; unknown at the start.
    read_at: Option<u64>,
    /// Counts seeks, so that a read that was under way is dropped.
    seeks: u64,
}

impl State {
    fn has_room(&self) -> bool {
        self.queue.len() < QUEUE_LIMIT && self.queue_bytes < QUEUE_BYTES
    }

    fn push(&mut self, number: u64, bytes: Bytes) {
        self.reached = number;
        self.queue_bytes += bytes.len();
        self.queue.push_back((number, bytes));
    }

    fn seek(&mut self, consumed: Cursor) {
        let seeks = self.seeks + 1;
        *self = Self { reached: consumed.messages, behind: true, seeks, ..Self::default() };
    }
}

impl Inbox {
    /// An inbox whose messages up to `consumed` have taken effect.
    pub(crate) fn starting_at(consumed: Cursor) -> Self {
        let mut state = State::default();
        state.seek(consumed);
        Self { state: Mutex::new(state), ready: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of an inbox panics")
    }

    /// Starts anew beyond `consumed`.
    pub(crate) fn seek(&self, consumed: Cursor) {
        self.state().seek(consumed);
        self.ready.notify_one();
    }

    /// A message of the durable frame at `lsn`.
    pub(crate) fn deliver(&self, lsn: u64, number: u64, bytes: Bytes) {
        let mut state = self.state();
        if !state.behind && number > state.reached {
            if state.has_room() {
                state.push(number, bytes);
            } else {
                state.behind = true;
                state.read_at = Some(lsn);
            }
        }
        drop(state);
        self.ready.notify_one();
    }

    /// The next message that is at hand.
    pub(crate) fn pop(&self) -> Option<(Cursor, Bytes)> {
        let mut state = self.state();
        let (number, bytes) = state.queue.pop_front()?;
        state.queue_bytes -= bytes.len();
        Some((Cursor { tasks: 0, messages: number }, bytes))
    }

    /// Whether [`Inbox::read_on`] may find more.
    pub(crate) fn is_behind(&self) -> bool {
        self.state().behind
    }
}

/// Reads on in the log for partition `to`, until its queue is full or has caught up. Blocks on the disk.
pub(crate) fn read_on(shared: &Arc<Shared>, to: u32) -> Result<(), JournalError> {
    let inbox = &shared.partition(to).inbox;
    let (seeks, reached, read_at) = {
        let mut state = inbox.state();
        if state.behind && !stands_in_log(shared, to, state.reached) {
            state.behind = false;
        }
        if !state.behind || !state.has_room() {
            return Ok(());
        }
        (state.seeks, state.reached, state.read_at)
    };
    let start = match read_at {
        Some(lsn) => lsn,
        // A number lies within its frame, so its segment's start is a place to begin.
        None => shared.segment_at(reached).map_or_else(|| shared.first_lsn(), |(segment, _)| segment.base),
    };
    let mut walk = Walk::from(shared, start);
    let mut found = Vec::new();
    let mut found_bytes = 0;
    let mut caught_up = false;
    while found.len() < QUEUE_LIMIT && found_bytes < QUEUE_BYTES {
        let Some((header, payload)) = walk.next(|header| header.messages > 0)? else {
            caught_up = true;
            break;
        };
        let parts = frame::parts(&header, payload).unwrap_or_default();
        for (index, message) in parts.messages.into_iter().enumerate() {
            let number = header.lsn + index as u64 + 1;
            if message.to == to && number > reached {
                found_bytes += message.bytes.len();
                found.push((number, message.bytes));
            }
        }
    }
    let mut state = inbox.state();
    if state.seeks == seeks && state.behind {
        for (number, bytes) in found {
            if number > state.reached {
                state.push(number, bytes);
            }
        }
        state.read_at = Some(walk.at());
        state.behind = !(caught_up && walk.at() >= shared.durable_end());
    }
    Ok(())
}

/// Whether a message for `to` beyond `reached` is durable.
fn stands_in_log(shared: &Shared, to: u32, reached: u64) -> bool {
    let segments = shared.segments.read().expect("no holder of the segments panics");
    segments.values().rev().any(|segment| {
        let messages = segment.messages.lock().expect("no holder of the list panics");
        messages.iter().any(|(known, last)| *known == to && *last > reached)
    })
}
