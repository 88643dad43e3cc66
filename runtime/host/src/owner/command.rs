//! What the API asks of an owner, and the answers.

use std::sync::Arc;

use reipaz_core::{
    ids::RunId,
    partition::{Input, Refusal, Reply, Submit},
    time::Timestamp,
};
use tokio::sync::oneshot;

use crate::facade::{
    Change, EventView, LimitsView, LogQuery, LogView, RunPage, RunQuery, RunView, Standing, WaitUntil,
};
use crate::view::Overdue;

/// A request to an owner. Whoever sent it may have gone: a closed answer channel is no error.
pub(crate) enum Command {
    /// Start a run; answered when it is durable, or, if `until_terminal`, when it has ended.
    Submit { submit: Box<Submit>, until_terminal: bool, answer: oneshot::Sender<Submitted> },
    /// Cancel, pause, resume, retry.
    Change { run: RunId, change: Change, answer: oneshot::Sender<Reply> },
    /// A run as it stands; none: not in memory.
    Read { run: RunId, answer: oneshot::Sender<Option<RunView>> },
    /// Its events above a seq, at most so many.
    Events { run: RunId, after: u32, limit: usize, answer: oneshot::Sender<Option<Vec<EventView>>> },
    /// Its log lines.
    Logs { run: RunId, query: LogQuery, answer: oneshot::Sender<Option<Vec<LogView>>> },
    /// When it has come so far.
    Wait { run: RunId, until: WaitUntil, answer: oneshot::Sender<Option<Standing>> },
    /// When all tasks below this place have taken effect.
    CaughtUp { tasks: u64, answer: oneshot::Sender<()> },
    /// Runs whose deadline was before this moment and that are not over.
    Overdue { before: Timestamp, answer: oneshot::Sender<Vec<Overdue>> },
    /// The limits whose home the partition is, at most so many.
    Limits { most: usize, answer: oneshot::Sender<LimitsView> },
    /// Runs in memory that fit, newest first.
    List { query: Arc<RunQuery>, answer: oneshot::Sender<RunPage> },
}

/// The answer to [`Command::Submit`].
pub(crate) enum Submitted {
    /// The run.
    Accepted { existing: bool, run: Box<RunView> },
    /// It has been there, and has left memory since: ClickHouse has it.
    Elsewhere(RunId),
    /// Nothing happened.
    Refused(Refusal),
    /// The disk is full.
    NoSpace,
}

/// A change as the partition's input.
pub(crate) fn input(run: RunId, change: Change) -> Input {
    match change {
        Change::Cancel { reason } => Input::Cancel(run, reason),
        Change::Pause { reason } => Input::Pause(run, reason),
        Change::Resume { reason } => Input::Resume(run, reason),
        Change::Retry(again) => Input::Retry(run, again),
    }
}
