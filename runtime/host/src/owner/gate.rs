//! The gate between what is decided and what is seen: nothing leaves the host before the events that it follows from
//! are durable. One commit is in flight; what is decided meanwhile collects for the next (group commit).
//!
//! The gate does no I/O. The owner puts decisions in, takes a batch to commit when none is in flight, and gets back
//! what that commit releases.

use std::collections::HashSet;

use bytes::Bytes;
use reipaz_core::{
    fault,
    ids::{AttemptId, RunId},
    partition::Effect,
};
use reipaz_journal::{NewTask, Published};

/// Something to say to somebody, once it may be said.
pub(crate) type Answer = Box<dyn FnOnce() + Send>;

/// What one commit makes durable.
#[derive(Default)]
pub(crate) struct ToCommit {
    /// Encoded events.
    pub(crate) records: Vec<Bytes>,
    /// Encoded messages, by partition.
    pub(crate) messages: Vec<(u32, Bytes)>,
    /// Tasks for other partitions.
    pub(crate) tasks: Vec<(u32, NewTask)>,
    /// For readers outside.
    pub(crate) published: Vec<Published>,
    /// It must go through even if there is nothing in it: see [`Gate::prove`].
    pub(crate) proof: bool,
}

impl ToCommit {
    fn is_empty(&self) -> bool {
        self.records.is_empty()
            && self.messages.is_empty()
            && self.tasks.is_empty()
            && self.published.is_empty()
            && !self.proof
    }
}

/// What waits for one commit.
#[derive(Default)]
pub(crate) struct Held {
    to_commit: ToCommit,
    /// The same as [`ToCommit::proof`], once that was taken.
    proof: bool,
    /// Effects of those events.
    pub(crate) effects: Vec<Effect>,
    /// Answers that show those events.
    pub(crate) answers: Vec<Answer>,
    /// Runs that those events are about.
    runs: HashSet<RunId>,
    /// There are such events, of runs or not.
    any: bool,
    /// Attempts that those effects interrupt.
    cancelled: HashSet<AttemptId>,
}

impl Held {
    fn is_empty(&self) -> bool {
        self.to_commit.is_empty()
    }

    fn add(&mut self, effect: Effect) {
        if let Effect::CancelAttempt(id) = &effect {
            self.cancelled.insert(id.clone());
        }
        self.effects.push(effect);
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Gate {
    pending: Held,
    in_flight: Option<Held>,
}

impl Gate {
    /// Adds one event of a decision.
    pub(crate) fn hold_record(&mut self, record: Bytes, about: Option<RunId>) {
        self.pending.to_commit.records.push(record);
        self.pending.any = true;
        self.pending.runs.extend(about);
    }

    /// Adds a message of a decision.
    pub(crate) fn hold_message(&mut self, to: u32, body: Bytes) {
        self.pending.to_commit.messages.push((to, body));
    }

    /// Adds a task that is another partition's.
    pub(crate) fn hold_task(&mut self, to: u32, task: NewTask) {
        self.pending.to_commit.tasks.push((to, task));
    }

    /// Adds what readers outside are told.
    pub(crate) fn hold_published(&mut self, published: Published) {
        self.pending.to_commit.published.push(published);
    }

    /// From here until a commit has gone through, nothing is said: somebody else may own the partition by now, and only the
    /// journal can tell.
    pub(crate) fn prove(&mut self) {
        self.pending.to_commit.proof = true;
        self.pending.proof = true;
    }

    /// Adds an effect of the decision whose events were just held. Comes back when nothing is held: what it follows
    /// from is durable (a recovered owner takes up what was under way), so it may be done at once.
    #[must_use]
    pub(crate) fn hold_effect(&mut self, effect: Effect) -> Option<Effect> {
        if fault::is_made("an effect before its commit") {
            return Some(effect);
        } else if !self.pending.is_empty() {
            self.pending.add(effect);
        } else if let Some(held) = &mut self.in_flight {
            held.add(effect);
        } else {
            return Some(effect);
        }
        None
    }

    /// Whether this attempt is still to be interrupted. A run whose key has expired may be forgotten, and its id accepted
    /// again, before that: what starts then under the same name must come after it, or it is what is interrupted.
    pub(crate) fn holds_cancel_of(&self, id: &AttemptId) -> bool {
        let holds =
            |held: &Held| held.cancelled.contains(id) && !fault::is_made("a start ahead of an old cancel");
        holds(&self.pending) || self.in_flight.as_ref().is_some_and(holds)
    }

    /// Says `answer`, which shows `run` as it is now: at once if all of that is durable, else after the commit that
    /// makes it so.
    pub(crate) fn say(&mut self, run: Option<RunId>, answer: Answer) {
        let holds = |held: &Held| match run {
            _ if held.proof => true,
            Some(run) => held.runs.contains(&run),
            None => held.any,
        };
        if fault::is_made("an answer before its commit") {
            answer();
        } else if holds(&self.pending) {
            self.pending.answers.push(answer);
        } else if let Some(held) = self.in_flight.as_mut().filter(|held| holds(held)) {
            held.answers.push(answer);
        } else {
            answer();
        }
    }

    /// The next batch, if there is anything in it and no commit is in flight. It is in flight then.
    pub(crate) fn next_commit(&mut self) -> Option<ToCommit> {
        if self.in_flight.is_some() || self.pending.is_empty() {
            return None;
        }
        let mut held = std::mem::take(&mut self.pending);
        let batch = std::mem::take(&mut held.to_commit);
        self.in_flight = Some(held);
        Some(batch)
    }

    /// The commit in flight is durable: what it releases.
    pub(crate) fn committed(&mut self) -> Held {
        self.in_flight.take().unwrap_or_default()
    }

    /// Whether everything decided is durable.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.pending.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    fn run(n: u128) -> RunId {
        RunId(uuid::Uuid::from_u128(n))
    }

    fn counting(counter: &Arc<AtomicUsize>) -> Answer {
        let counter = Arc::clone(counter);
        Box::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        })
    }

    #[test]
    fn an_answer_waits_for_the_commit_that_holds_its_run() {
        let said = Arc::new(AtomicUsize::new(0));
        let mut gate = Gate::default();
        gate.hold_record(Bytes::from_static(b"a"), Some(run(1)));
        gate.say(Some(run(1)), counting(&said));
        assert_eq!(said.load(Ordering::SeqCst), 0, "not durable yet");

        let batch = gate.next_commit().expect("one record waits");
        assert_eq!(batch.records.len(), 1);
        gate.say(Some(run(1)), counting(&said));
        assert_eq!(said.load(Ordering::SeqCst), 0, "in flight is not durable");

        gate.committed().answers.into_iter().for_each(|answer| answer());
        assert_eq!(said.load(Ordering::SeqCst), 2);
    }

    fn id() -> AttemptId {
        AttemptId { run: run(1), path: reipaz_core::ids::StepPath::top("a"), attempt: 1 }
    }

    #[test]
    fn a_cancel_is_known_until_it_is_released() {
        let mut gate = Gate::default();
        gate.hold_record(Bytes::from_static(b"a"), Some(run(1)));
        assert!(gate.hold_effect(Effect::CancelAttempt(id())).is_none());
        assert!(gate.holds_cancel_of(&id()));
        assert!(!gate.holds_cancel_of(&AttemptId { attempt: 2, ..id() }));
        gate.next_commit().expect("one record waits");
        assert!(gate.holds_cancel_of(&id()), "in flight is not released");
        drop(gate.committed());
        assert!(!gate.holds_cancel_of(&id()));
    }

    #[test]
    fn an_effect_of_what_is_durable_comes_back_at_once() {
        let mut gate = Gate::default();
        assert!(gate.hold_effect(Effect::CancelAttempt(id())).is_some(), "nothing is held");

        gate.hold_record(Bytes::from_static(b"a"), Some(run(1)));
        assert!(gate.hold_effect(Effect::CancelAttempt(id())).is_none());
        gate.next_commit().expect("one record waits");
        assert!(gate.hold_effect(Effect::CancelAttempt(id())).is_none(), "in flight is not durable");
        assert_eq!(gate.committed().effects.len(), 2);
    }

    #[test]
    fn nothing_is_said_before_ownership_is_proved() {
        let said = Arc::new(AtomicUsize::new(0));
        let mut gate = Gate::default();
        gate.prove();
        gate.say(Some(run(1)), counting(&said));
        let batch = gate.next_commit().expect("the proof itself");
        assert!(batch.proof && batch.records.is_empty());
        gate.say(None, counting(&said));
        assert_eq!(said.load(Ordering::SeqCst), 0, "the proof is not there yet");
        gate.committed().answers.into_iter().for_each(|answer| answer());
        assert_eq!(said.load(Ordering::SeqCst), 2);
        gate.say(Some(run(1)), counting(&said));
        assert_eq!(said.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn an_answer_about_an_untouched_run_is_said_at_once() {
        let said = Arc::new(AtomicUsize::new(0));
        let mut gate = Gate::default();
        gate.hold_record(Bytes::from_static(b"a"), Some(run(1)));
        gate.say(Some(run(2)), counting(&said));
        assert_eq!(said.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn an_answer_that_shows_newer_events_waits_for_the_newer_commit() {
        let said = Arc::new(AtomicUsize::new(0));
        let mut gate = Gate::default();
        gate.hold_record(Bytes::from_static(b"a"), Some(run(1)));
        gate.next_commit().expect("first");
        gate.hold_record(Bytes::from_static(b"b"), Some(run(1)));
        gate.say(Some(run(1)), counting(&said));

        assert!(gate.next_commit().is_none(), "one commit in flight at a time");
        gate.committed().answers.into_iter().for_each(|answer| answer());
        assert_eq!(said.load(Ordering::SeqCst), 0, "the first commit does not hold event b");

        gate.next_commit().expect("second");
        gate.committed().answers.into_iter().for_each(|answer| answer());
        assert_eq!(said.load(Ordering::SeqCst), 1);
        assert!(gate.is_idle());
    }
}
