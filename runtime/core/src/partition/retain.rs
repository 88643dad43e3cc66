//! How long runs that are over, and idempotency keys, stay in memory; and checkpoints, which hold exactly what stays.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{Partition, Run, decide::Deciding};
use crate::{
    event::{AttemptResult, Event, Fact, KeptKey, KeyExpired, LogLine, RunForgotten},
    failure::Failure,
    fault,
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
        events.extend(self.limits.checkpoint(self.last_time));
        events.extend(runs.into_iter().flat_map(|run| run.history.iter().cloned()));
        events.push(Arc::new(Event::KeyExpired(KeyExpired { run: CHECKPOINT_END, at: self.last_time })));
        events
    }

    pub(super) fn ended(&mut self, completed: bool) -> &mut Ended {
        if completed { &mut self.completed } else { &mut self.failed }
    }

    /// The terminal runs of a kind, and how long they stay.
    fn kept(&self, completed: bool) -> (&Ended, Keep) {
        let config = &self.config;
        match completed {
            true => (
                &self.completed,
                Keep {
                    age: config.terminal_min_age,
                    runs: config.max_terminal_runs,
                    bytes: config.max_terminal_bytes,
                },
            ),
            false => (
                &self.failed,
                Keep {
                    age: config.failed_min_age,
                    runs: config.max_failed_runs,
                    bytes: config.max_failed_bytes,
                },
            ),
        }
    }

    /// When the oldest terminal run may go, as far as that is known.
    pub(super) fn next_forgetting(&self) -> Option<Timestamp> {
        [true, false].into_iter().filter_map(|completed| self.next_of(completed)).min()
    }

    fn next_of(&self, completed: bool) -> Option<Timestamp> {
        let (ended, keep) = self.kept(completed);
        let (finished_at, oldest) = ended.first()?;
        if self.may_forget(completed, self.last_time).is_some() {
            return Some(self.last_time);
        }
        let run = self.runs.get(&oldest)?;
        (run.position <= self.stored).then(|| finished_at.plus(keep.age))
    }

    /// The oldest terminal run of a kind, if it may go.
    fn may_forget(&self, completed: bool, now: Timestamp) -> Option<(Timestamp, RunId)> {
        let (ended, keep) = self.kept(completed);
        let (finished_at, oldest) = ended.first()?;
        let run = self.runs.get(&oldest)?;
        let may = if run.position <= self.stored {
            finished_at.plus(keep.age) <= now || ended.len() > keep.runs || ended.bytes() > keep.bytes
        } else {
            // Both kinds together: it is one host's memory.
            self.terminal_runs() > self.config.max_unstored_runs
                || self.completed.bytes() + self.failed.bytes() > self.config.max_unstored_bytes
        };
        may.then_some((finished_at, oldest))
    }
}

/// How long terminal runs stay once they are stored.
struct Keep {
    age: Duration,
    runs: usize,
    bytes: u64,
}

/// Terminal runs of one kind, by their end.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Ended {
    by_end: BTreeSet<(Timestamp, RunId)>,
    bytes: u64,
}

impl Ended {
    pub(super) fn insert(&mut self, at: Timestamp, run: RunId, bytes: u64) {
        self.by_end.insert((at, run));
        self.bytes += bytes;
    }

    pub(super) fn remove(&mut self, at: Timestamp, run: RunId, bytes: u64) {
        self.by_end.remove(&(at, run));
        self.bytes -= bytes;
    }

    pub(super) fn contains(&self, at: Timestamp, run: RunId) -> bool {
        self.by_end.contains(&(at, run))
    }

    pub(super) fn len(&self) -> usize {
        self.by_end.len()
    }

    /// Estimated memory.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn first(&self) -> Option<(Timestamp, RunId)> {
        self.by_end.first().copied()
    }
}

impl Deciding<'_> {
    /// Forgets runs and keys whose time is over.
    pub(super) fn let_go(&mut self) {
        let at = self.at;
        for _ in 0..self.partition.config.due_per_tick {
            let partition = &self.partition;
            let next = partition.may_forget(true, at).or_else(|| partition.may_forget(false, at));
            let Some((finished_at, run)) = next else { break };
            let expires = finished_at.plus(self.partition.config.idempotency_retention);
            let accepted = self.partition.run(run).map(|run| &run.accepted);
            let key = accepted
                .filter(|accepted| accepted.idempotency_key.is_some() && expires > at)
                .filter(|_| !fault::is_made("a key forgotten with its run"))
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
            Fact::AttemptParked(parked) => size_of_val(&**parked) + parked.breaker.len(),
            Fact::RunFinished(finished) => {
                size_of_val(&**finished)
                    + finished.output.len()
                    + finished.error.as_ref().map_or(0, |error| error.message.len())
            }
            Fact::LimitAsked(asked) => {
                size_of_val(&**asked) + asked.limit.name.len() + text(asked.limit.key.as_deref())
            }
            Fact::RunRetried(retried) => text(retried.input.as_deref()),
            Fact::StepContinued(continued) => continued.output.len(),
            Fact::HandlingStarted(started) => {
                size_of_val(&**started) + started.error.as_ref().map_or(0, |error| error.message.len())
            }
            _ => 0,
        },
        Event::WorkflowPinned(_) | Event::RunForgotten(_) | Event::KeyExpired(_) | Event::Limit(_) => 0,
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
