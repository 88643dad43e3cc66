//! Whether a commit waits a moment. A commit on a journal that hosts share takes some milliseconds, a silent step some
//! microseconds: what begins with a run's first event is under way when the run ends, and the end needs a second one. So a
//! commit waits for the silent attempts that started ahead of it, if they are quick.

use std::{collections::HashSet, time::Duration};

use reipaz_core::{
    ids::{AttemptId, RunId},
    partition::{Effect, Input},
};
use tokio::time::Instant;

/// How long at most: less than a commit takes.
const AT_MOST: Duration = Duration::from_millis(2);

/// Something that started before its events were durable.
#[derive(PartialEq, Eq, Hash)]
enum Early {
    Attempt(AttemptId),
    Output(RunId),
}

/// What a commit waits for.
#[derive(Default)]
pub(super) struct Linger {
    early: HashSet<Early>,
    until: Option<Instant>,
}

impl Linger {
    /// This is started ahead of the commit of its events.
    pub(super) fn started(&mut self, effect: &Effect) {
        self.early.extend(match effect {
            Effect::StartAttempt(start) => Some(Early::Attempt(start.id.clone())),
            Effect::EvaluateOutput(evaluate) => Some(Early::Output(evaluate.run)),
            Effect::CancelAttempt(_) => None,
        });
    }

    /// This has come back.
    pub(super) fn ended(&mut self, input: &Input) {
        match input {
            Input::AttemptDone(done) => self.early.remove(&Early::Attempt(done.id.clone())),
            Input::OutputDone(done) => self.early.remove(&Early::Output(done.run)),
            _ => false,
        };
    }

    /// Whether a commit that could start now should wait. What takes longer than it waits is waited for only once.
    pub(super) fn holds(&mut self) -> bool {
        let now = Instant::now();
        if self.early.is_empty() || self.until.is_some_and(|until| until <= now) {
            self.early.clear();
            self.until = None;
            return false;
        }
        self.until.get_or_insert(now + AT_MOST);
        true
    }

    /// When the commit that waits starts at the latest.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }
}
