//! How long runs that are over, and idempotency keys, stay in memory; and checkpoints, which hold exactly what stays.

use std::sync::Arc;

use super::{Partition, Run, decide::Deciding};
use crate::{
    event::{AttemptResult, Event, Fact, KeptKey, KeyExpired, LogLine, RunForgotten},
    failure::Failure,
    ids::RunId,
    time::Timestamp,
};

/// No run has this id. The expiry of its key ends a checkpoint: positions are counted from there, and the event's time
/// is the checkpoint's.
pub(super) const CHECKPOINT_END: RunId = RunId(uuid::Uuid::nil());

/// What a kept key and its expiry take in memory, about.
pub(super) const KEPT_KEY_BYTES: u64 = 200;

impl Partition {
    /// The whole state as events: replaying them, and then the journal after this moment, gives what replaying the
    /// whole journal gives.
    pub fn checkpoint(&self) -> Vec<Arc<Event>> {
        let mut plans: Vec<_> = self.plans.iter().collect();
        plans.sort_unstable_by_key(|(digest, _)| **digest);
        let mut runs: Vec<&Run> = self.runs().collect();
        runs.sort_unstable_by_key(|run| (run.accepted_at, run.id));

        let mut events: Vec<Arc<Event>> =
            plans.into_iter().map(|(_, plan)| Arc::clone(&plan.event)).collect();
        events.extend(self.expiries.iter().filter_map(|(_, run)| {
            let key = Some(*self.keys.get(run)?);
            Some(Arc::new(Event::RunForgotten(RunForgotten { run: *run, at: self.last_time, key })))
        }));
        events.extend(runs.into_iter().flat_map(|run| run.history.iter().cloned()));
        events.push(Arc::new(Event::KeyExpired(KeyExpired { run: CHECKPOINT_END, at: self.last_time })));
        events
    }

    /// When the oldest terminal run may go, as far as that is known.
    pub(super) fn next_forgetting(&self) -> Option<Timestamp> {
        let &(finished_at, oldest) = self.terminal.first()?;
        if self.may_forget(oldest, self.last_time) {
            return Some(self.last_time);
        }
        let run = self.runs.get(&oldest)?;
        (run.position <= self.stored).then(|| finished_at.plus(self.config.terminal_min_age))
    }

    fn may_forget(&self, run: RunId, now: Timestamp) -> bool {
        let Some(run) = self.runs.get(&run) else { return false };
        let over = |runs: usize, bytes: u64| self.terminal.len() > runs || self.terminal_bytes > bytes;
        let config = &self.config;
        if run.position <= self.stored {
            let aged = run.finished_at().is_some_and(|at| at.plus(config.terminal_min_age) <= now);
            aged || over(config.max_terminal_runs, config.max_terminal_bytes)
        } else {
            over(config.max_unstored_runs, config.max_unstored_bytes)
        }
    }
}

impl Deciding<'_> {
    /// Forgets runs and keys whose time is over.
    pub(super) fn let_go(&mut self) {
        let at = self.at;
        for _ in 0..self.partition.config.due_per_tick {
            let Some(&(finished_at, run)) = self.partition.terminal.first() else { break };
            if !self.partition.may_forget(run, at) {
                break;
            }
            let expires = finished_at.plus(self.partition.config.idempotency_retention);
            let accepted = self.partition.run(run).map(|run| &run.accepted);
            let key = accepted
                .filter(|accepted| accepted.idempotency_key.is_some() && expires > at)
                .map(|accepted| KeptKey { input: accepted.input_digest, expires });
            self.emit(Event::RunForgotten(RunForgotten { run, at, key }));
        }
        for _ in 0..self.partition.config.due_per_tick {
            let too_many = self.partition.keys.len() > self.partition.config.max_kept_keys;
            let Some(&(expires, run)) = self.partition.expiries.first() else { break };
            if expires > at && !too_many {
                break;
            }
            self.emit(Event::KeyExpired(KeyExpired { run, at }));
        }
    }
}

/// About how many bytes of memory an event takes, what it shares with others included.
pub(super) fn weight(event: &Event) -> u64 {
    let texts = match event {
        Event::Run(event) => match &event.fact {
            Fact::RunAccepted(accepted) => {
                let pairs: usize =
                    accepted.metadata.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
                size_of_val(&**accepted) + accepted.input.len() + pairs + text(accepted.trigger.as_deref())
            }
            Fact::AttemptFinished(finished) => {
                let result = match &finished.result {
                    AttemptResult::Output(output) => output.len(),
                    AttemptResult::Error(failure) => failure_bytes(failure),
                };
                size_of_val(&**finished) + result + logs(&finished.logs)
            }
            Fact::AttemptReported(reported) => {
                size_of_val(&**reported)
                    + reported.progress.as_ref().map_or(0, |progress| progress.note.len())
                    + logs(&reported.logs)
            }
            Fact::RetryScheduled(scheduled) => size_of_val(&**scheduled),
            Fact::RunFinished(finished) => {
                size_of_val(&**finished)
                    + finished.output.len()
                    + finished.error.as_ref().map_or(0, |error| error.message.len())
            }
            _ => 0,
        },
        Event::WorkflowPinned(_) | Event::RunForgotten(_) | Event::KeyExpired(_) => 0,
    };
    // Two counters in front of the event and a pointer in the history.
    (size_of::<Event>() + 3 * size_of::<usize>() + texts) as u64
}

fn text(text: Option<&str>) -> usize {
    text.map_or(0, str::len)
}

fn failure_bytes(failure: &Failure) -> usize {
    failure.code.len() + failure.message.len() + text(failure.details.as_deref())
}

fn logs(lines: &[LogLine]) -> usize {
    let fields =
        |line: &LogLine| line.fields.iter().map(|(name, value)| name.len() + value.len() + 64).sum::<usize>();
    lines.iter().map(|line| size_of::<LogLine>() + line.message.len() + fields(line)).sum()
}
