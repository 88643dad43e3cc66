//! What an owner has its log do, one thing at a time, while its loop goes on: commit what waits behind the gate, take a
//! checkpoint, cut what a checkpoint and the sink have made needless.

use std::{future::Future, pin::Pin, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use reipaz_core::{codec, fault};
use reipaz_journal::{Batch, CommitError, Committed, Cursor, JournalError, Outgoing, PartitionLog, Position};

use super::{Executor, Owner, OwnerError, gate::ToCommit, linger::Linger};

/// How long the owner waits before it tries a commit again that found no space.
const NO_SPACE_PAUSE: Duration = Duration::from_millis(500);

/// What the log is busy with, and how that ended.
pub(super) enum LogJob {
    Commit(Batch, Result<Committed, CommitError>),
    Checkpoint(u64, Result<(), JournalError>),
    Cut(u64, Result<(), JournalError>),
}

pub(super) type InFlight = Pin<Box<dyn Future<Output = (Box<dyn PartitionLog>, LogJob)> + Send>>;

/// A checkpoint that is being encoded.
pub(super) type Encoding = tokio::task::JoinHandle<Encoded>;

/// A checkpoint, ready to be written.
pub(super) struct Encoded {
    at: u64,
    chunks: Vec<Bytes>,
    size: StateSize,
}

/// How large a state was as a checkpoint, and what the core estimated its size to be then.
#[derive(Clone, Copy, Default)]
pub(super) struct StateSize {
    bytes: u64,
    estimated: u64,
}

impl StateSize {
    pub(super) fn new(chunks: &[Bytes], estimated: u64) -> Self {
        Self { bytes: chunks.iter().map(|chunk| chunk.len() as u64).sum(), estimated }
    }

    /// A recovery reads the last checkpoint (of this size) and the log since. What of that the state, now estimated at so
    /// much, no longer holds, it reads in vain: the next checkpoint is due when that is as much as the state itself, and as
    /// `bound`.
    fn is_outgrown(self, bytes_since: u64, estimated: u64, bound: u64) -> bool {
        let state = u128::from(self.bytes) * u128::from(estimated) / u128::from(self.estimated.max(1));
        // A nearly empty state is mostly its plans, which the estimate leaves out: their share must not be scaled up.
        let state = u64::try_from(state).unwrap_or(u64::MAX).min(estimated.max(self.bytes));
        (self.bytes + bytes_since).saturating_sub(state) >= state.max(bound)
    }
}

impl<X: Executor> Owner<X> {
    pub(super) fn start_commit(&mut self) {
        if self.log.is_none() || self.gate.is_idle() || self.linger.as_mut().is_some_and(Linger::holds) {
            return;
        }
        let Some(ToCommit { records, messages, tasks, published, proof }) = self.gate.next_commit() else {
            return;
        };
        let messages = messages.into_iter().map(|(to, bytes)| Outgoing { to, bytes }).collect();
        // A batch with a cursor in it is never empty.
        let mut consumed = self.consumed.or_else(|| proof.then(Cursor::default));
        if fault::is_made("a lost cursor")
            && !(records.is_empty() && published.is_empty() && tasks.is_empty())
        {
            consumed = None;
        }
        self.commit(Batch { records, messages, tasks, consumed, published }, Duration::ZERO);
    }

    fn commit(&mut self, batch: Batch, after: Duration) {
        let Some(mut log) = self.log.take() else { return };
        self.in_flight = Some(Box::pin(async move {
            if !after.is_zero() {
                tokio::time::sleep(after).await;
            }
            let result = log.commit(batch.clone()).await;
            (log, LogJob::Commit(batch, result))
        }));
    }

    pub(super) fn log_is_free(&mut self, log: Box<dyn PartitionLog>, job: LogJob) -> Result<(), OwnerError> {
        self.log = Some(log);
        match job {
            LogJob::Commit(batch, result) => self.committed(batch, result),
            LogJob::Checkpoint(at, Ok(())) => {
                self.checkpoint_at = at;
                self.parts.status.checkpoints.fetch_add(1, Ordering::Relaxed);
                tracing::info!(partition = self.parts.partition, position = at, "checkpoint taken");
                Ok(())
            }
            // The journal as it was is still whole: the next one is tried when it is due again.
            LogJob::Checkpoint(at, Err(error)) => {
                tracing::error!(partition = self.parts.partition, position = at, %error, "no checkpoint");
                Ok(())
            }
            LogJob::Cut(at, result) => {
                // What is not deleted now is deleted with the next checkpoint.
                self.cut_for = at;
                if let Err(error) = result {
                    tracing::error!(partition = self.parts.partition, position = at, %error, "the log was not cut");
                }
                Ok(())
            }
        }
    }

    fn committed(&mut self, batch: Batch, result: Result<Committed, CommitError>) -> Result<(), OwnerError> {
        match result {
            Ok(committed) => {
                self.durable = committed.last.0;
                self.parts.status.commits.fetch_add(1, Ordering::Relaxed);
                if self.parts.status.no_space.swap(false, Ordering::Relaxed) {
                    tracing::info!(partition = self.parts.partition, "space again: submissions are accepted");
                }
                let held = self.gate.committed();
                held.effects.into_iter().for_each(|effect| self.perform(effect));
                held.answers.into_iter().for_each(|answer| answer());
                Ok(())
            }
            Err(CommitError::NoSpace(reason)) => {
                if !self.parts.status.no_space.swap(true, Ordering::Relaxed) {
                    tracing::error!(
                        partition = self.parts.partition,
                        %reason,
                        "no space for the journal: submissions are refused and runs wait until there is some"
                    );
                }
                self.commit(batch, NO_SPACE_PAUSE);
                Ok(())
            }
            Err(CommitError::Unclear(_)) if fault::is_made("an unclear commit taken for success") => {
                let last = Position(self.durable + batch.records.len() as u64);
                self.committed(batch, Ok(Committed { last }))
            }
            Err(CommitError::Fenced | CommitError::Refused(_))
                if fault::is_made("a refused commit tried again") =>
            {
                self.commit(batch, NO_SPACE_PAUSE);
                Ok(())
            }
            Err(error) => {
                Err(OwnerError::Commit { partition: self.parts.partition, reason: error.to_string() })
            }
        }
    }

    /// A checkpoint is the state as of one decision: taken at once, encoded aside, written when its position is
    /// durable and the log is free.
    pub(super) async fn start_checkpoint(&mut self) {
        let Some(log) = self.log.as_ref() else { return };
        if let Some(encoding) = self.encoding.take_if(|encoding| encoding.is_finished()) {
            match encoding.await {
                Ok(encoded) => self.encoded = Some(encoded),
                Err(error) => {
                    tracing::error!(partition = self.parts.partition, %error, "a checkpoint was not encoded");
                }
            }
        } else if self.encoding.is_none()
            && self.encoded.is_none()
            && self.last_checkpoint.is_outgrown(
                log.bytes_since_checkpoint(),
                self.core.bytes(),
                self.parts.checkpoint_bytes,
            )
        {
            let (at, estimated) = (self.core.position(), self.core.bytes());
            let events = self.core.checkpoint();
            self.encoding = Some(self.parts.attempts.aside(move || {
                let chunks: Vec<_> = events.iter().map(|event| Bytes::from(codec::encode(event))).collect();
                Encoded { at, size: StateSize::new(&chunks, estimated), chunks }
            }));
        }
        let durable = self.durable;
        let Some(Encoded { at, chunks, size }) = self.encoded.take_if(|encoded| {
            encoded.at <= durable || fault::is_made("a checkpoint of what is not durable")
        }) else {
            return;
        };
        let Some(mut log) = self.log.take() else { return };
        self.last_checkpoint = size;
        self.in_flight = Some(Box::pin(async move {
            let result = log.checkpoint(Position(at), chunks).await;
            (log, LogJob::Checkpoint(at, result))
        }));
    }

    /// Once the sink has stored what the newest checkpoint covers, the log before it is needed by nobody.
    pub(super) fn start_cut(&mut self) {
        let stored = *self.parts.stored.borrow();
        let at = self.checkpoint_at;
        if self.cut_for >= at || stored < at {
            return;
        }
        let Some(mut log) = self.log.take() else { return };
        self.in_flight = Some(Box::pin(async move {
            let result = log.delete_before(Position(stored)).await;
            (log, LogJob::Cut(at, result))
        }));
    }
}

/// What the log is busy with, once done; never, when it is free.
pub(super) async fn in_flight(job: &mut Option<InFlight>) -> (Box<dyn PartitionLog>, LogJob) {
    match job.as_mut() {
        Some(future) => {
            let done = future.await;
            *job = None;
            done
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_due_when_half_of_what_a_recovery_reads_is_read_in_vain() {
        let size = |bytes, estimated| StateSize { bytes, estimated };
        let cases = [
            // (last checkpoint, log since, state now, bound) -> due
            (size(0, 0), 99, 500, 100, false),
            (size(0, 0), 100, 500, 100, true),
            // A state that stays as it is: twice its size is read.
            (size(1_000, 3_000), 999, 3_000, 100, false),
            (size(1_000, 3_000), 1_000, 3_000, 100, true),
            // All of the log is new state.
            (size(1_000, 3_000), 1_000, 6_000, 100, false),
            // A small state is not worth a checkpoint before the bound.
            (size(10, 30), 99, 30, 100, false),
            (size(10, 30), 100, 30, 100, true),
            // A state that was large: its checkpoint is what is read in vain.
            (size(1_000, 3_000), 0, 1_530, 100, false),
            (size(1_000, 3_000), 10, 1_500, 100, true),
            (size(1_000, 3_000), 10, 0, 100, true),
        ];
        for (last, since, state, bound, due) in cases {
            let told = last.is_outgrown(since, state, bound);
            assert_eq!(told, due, "{} of {}, {since}, {state}, {bound}", last.bytes, last.estimated);
        }
    }
}
