//! What a run's events tell about its attempts.

use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
};

use reipaz_core::{
    event::{InterruptCause, LogLine, Usage},
    failure::Failure,
    ids::{Digest, StepPath},
    json::Json,
    time::Timestamp,
};
use serde::{Deserialize, de::IgnoredAny};

use crate::facade::{AttemptLine, AttemptStatus, AttemptView, NextAttempt};

/// So many of an attempt's last lines are shown.
const TAIL: usize = 20;

/// Whose log lines and failure's details are kept: a run may have far more of them than one answer.
pub(super) struct Kept {
    pub(super) places: Range<usize>,
    pub(super) step: Option<StepPath>,
}

/// Hears events in their order.
pub(super) struct Teller {
    kept: Kept,
    attempts: Vec<AttemptView>,
    /// Where each stands; of one that is executed again under its number, the last.
    places: HashMap<(StepPath, u32), usize>,
    tails: HashMap<usize, VecDeque<AttemptLine>>,
    ended_at: Option<Timestamp>,
}

/// Of any event.
#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    at: Timestamp,
}

#[derive(Deserialize)]
struct OfStep {
    step: StepPath,
}

/// Of an event about an attempt, whichever; the rest of it is passed over.
#[derive(Deserialize)]
struct About {
    step: StepPath,
    attempt: u32,
    #[serde(default)]
    started_at: Option<Timestamp>,
    #[serde(default)]
    error: Option<Failure>,
    #[serde(default)]
    input_digest: Option<Digest>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    logs: Vec<LogLine>,
    #[serde(default)]
    logs_dropped_bytes: u64,
    #[serde(default)]
    cause: Option<InterruptCause>,
    #[serde(default)]
    due: Option<Timestamp>,
    #[serde(default)]
    delay_ms: u64,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    breaker: Option<String>,
}

impl Teller {
    pub(super) fn new(kept: Kept) -> Self {
        let (attempts, places, tails) = Default::default();
        Self { kept, attempts, places, tails, ended_at: None }
    }

    /// One more event: the JSON of a `RunEvent`.
    pub(super) fn hear(&mut self, event: &Json) -> Result<(), serde_json::Error> {
        let Kind { kind, at } = serde_json::from_str(event)?;
        match kind {
            "attempt_started"
            | "attempt_interrupted"
            | "attempt_reported"
            | "attempt_finished"
            | "attempt_parked"
            | "retry_scheduled" => self.attempt(kind, at, serde_json::from_str(event)?),
            "step_skipped" => self.skip(&serde_json::from_str::<OfStep>(event)?.step, at),
            "run_finished" => self.ended_at = Some(at),
            // One that was paused goes on, with what is executed in it.
            "run_retried" => self.ended_at.take().into_iter().for_each(|at| self.cancel(at)),
            "handling_started" if is_of_the_run(event)? => self.cancel(at),
            _ => {}
        }
        Ok(())
    }

    fn attempt(&mut self, kind: &str, at: Timestamp, about: About) {
        let scheduled = kind == "retry_scheduled";
        // A retry tells the number of the next attempt.
        let number = if scheduled { about.attempt.saturating_sub(1) } else { about.attempt };
        let place = self.place(&about.step, number, at);
        let kept = self.kept.places.contains(&place)
            && self.kept.step.as_ref().is_none_or(|step| *step == about.step);
        let attempt = &mut self.attempts[place];
        match kind {
            "attempt_interrupted" if about.cause == Some(InterruptCause::HostLost) => attempt.times_lost += 1,
            "attempt_parked" => {
                (attempt.status, attempt.ended_at) = (AttemptStatus::Parked, Some(at));
                attempt.next = Some(NextAttempt {
                    due: about.due.unwrap_or(at),
                    delay_ms: about.due.map_or(0, |due| millis(due, at)),
                    reason: about.breaker.map(|breaker| format!("breaker {breaker}")).unwrap_or_default(),
                });
            }
            "attempt_finished" => {
                attempt.status =
                    if about.error.is_none() { AttemptStatus::Completed } else { AttemptStatus::Failed };
                attempt.started_at = about.started_at.unwrap_or(attempt.started_at);
                attempt.ended_at = Some(at);
                attempt.error = about.error;
                if let Some(error) = attempt.error.as_mut().filter(|_| !kept) {
                    error.details = None;
                }
                attempt.input_digest = about.input_digest;
                attempt.usage = about.usage;
                attempt.logs_dropped_bytes = about.logs_dropped_bytes;
            }
            _ if scheduled => {
                attempt.next = Some(NextAttempt {
                    due: about.due.unwrap_or(at),
                    delay_ms: about.delay_ms,
                    reason: about.reason.unwrap_or_default(),
                });
            }
            _ => {}
        }
        if !kept {
            return;
        }
        let tail = self.tails.entry(place).or_default();
        for LogLine { at, level, message, fields } in about.logs {
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(AttemptLine { at, level, message, fields: fields.into_iter().collect() });
        }
    }

    fn place(&mut self, step: &StepPath, attempt: u32, at: Timestamp) -> usize {
        let key = (step.clone(), attempt);
        if let Some(&place) = self.places.get(&key) {
            return place;
        }
        let place = self.attempts.len();
        self.attempts.push(AttemptView::new(step.clone(), attempt, at));
        self.places.insert(key, place);
        place
    }

    /// The attempt evaluated the step's `if`, which was false.
    fn skip(&mut self, step: &StepPath, at: Timestamp) {
        let running =
            |attempt: &&mut AttemptView| attempt.step == *step && attempt.status == AttemptStatus::Running;
        if let Some(attempt) = self.attempts.iter_mut().rfind(running) {
            (attempt.status, attempt.ended_at) = (AttemptStatus::Skipped, Some(at));
        }
    }

    /// Whatever was executed was interrupted.
    fn cancel(&mut self, at: Timestamp) {
        for attempt in self.attempts.iter_mut().filter(|attempt| attempt.status == AttemptStatus::Running) {
            (attempt.status, attempt.ended_at) = (AttemptStatus::Cancelled, Some(at));
        }
        // Nothing follows any more, unless it has begun.
        for attempt in &mut self.attempts {
            if !self.places.contains_key(&(attempt.step.clone(), attempt.attempt + 1)) {
                attempt.next = None;
            }
        }
    }

    /// All of them, in the order in which they started.
    pub(super) fn attempts(mut self) -> Vec<AttemptView> {
        if let Some(at) = self.ended_at {
            self.cancel(at);
        }
        for (place, tail) in self.tails {
            self.attempts[place].last_logs = tail.into();
        }
        self.attempts
    }
}

/// The run has failed, and what else went on in it is cancelled.
fn is_of_the_run(event: &str) -> Result<bool, serde_json::Error> {
    #[derive(Deserialize)]
    struct Handling {
        step: Option<IgnoredAny>,
    }
    Ok(serde_json::from_str::<Handling>(event)?.step.is_none())
}

fn millis(later: Timestamp, earlier: Timestamp) -> u64 {
    u64::try_from(later.since(earlier).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use reipaz_core::failure::ErrorClass;
    use serde_json::{Value, json};

    use super::*;

    fn told(events: &[Value]) -> Vec<AttemptView> {
        let mut teller = Teller::new(Kept { places: 0..usize::MAX, step: None });
        for (second, event) in events.iter().enumerate() {
            let mut event = event.clone();
            event["at"] = json!(Timestamp(1_000_000 * second as u64));
            teller.hear(&Json::from(event.to_string())).expect("an event");
        }
        teller.attempts()
    }

    #[test]
    fn an_attempt_is_told_with_its_failure_its_last_lines_and_what_follows() {
        let line = |n: usize| json!({"at": Timestamp(0), "level": "info", "message": format!("line {n}")});
        let error = json!({"class": "network", "code": "reset", "message": "gone", "details": {"big": 1.50}});
        let attempts = told(&[
            json!({"type": "run_accepted", "workflow": "x"}),
            json!({"type": "attempt_started", "step": "/a", "attempt": 1}),
            json!({"type": "attempt_interrupted", "step": "/a", "attempt": 1, "cause": "host_lost", "times_lost": 7}),
            json!({"type": "attempt_reported", "step": "/a", "attempt": 1, "logs": (0..15).map(line).collect::<Vec<_>>()}),
            json!({"type": "attempt_finished", "step": "/a", "attempt": 1, "started_at": Timestamp(1_000_000),
                    "error": error, "usage": Usage::default(), "logs": (15..25).map(line).collect::<Vec<_>>()}),
            json!({"type": "retry_scheduled", "step": "/a", "attempt": 2, "due": Timestamp(9_000_000),
                    "delay_ms": 4000, "reason": "backoff"}),
            json!({"type": "attempt_started", "step": "/a", "attempt": 2}),
        ]);
        let [first, second] = &attempts[..] else { panic!("{attempts:?}") };
        assert_eq!((first.status, first.times_lost), (AttemptStatus::Failed, 1));
        assert_eq!((first.started_at, first.ended_at), (Timestamp(1_000_000), Some(Timestamp(4_000_000))));
        let failure = first.error.as_ref().expect("it failed");
        assert_eq!((failure.class, &*failure.code), (ErrorClass::Network, "reset"));
        assert_eq!(failure.details.as_deref(), Some(r#"{"big":1.5}"#));
        let lines: Vec<_> = first.last_logs.iter().map(|line| &*line.message).collect();
        assert_eq!((lines.len(), lines[0], lines[19]), (TAIL, "line 5", "line 24"));
        let next = first.next.as_ref().expect("another follows");
        assert_eq!((next.due, next.delay_ms, &*next.reason), (Timestamp(9_000_000), 4000, "backoff"));
        assert_eq!((second.attempt, second.status), (2, AttemptStatus::Running));
    }

    #[test]
    fn lines_and_details_are_kept_only_of_those_that_are_asked_for() {
        let error = json!({"class": "network", "code": "reset", "message": "gone", "details": {"big": 1}});
        let line = json!({"at": Timestamp(0), "level": "info", "message": "line"});
        let ended = |step: &str| {
            json!({"type": "attempt_finished", "step": step, "attempt": 1, "error": error, "logs": [line],
                "at": Timestamp(0)})
        };
        let told = |places: Range<usize>, step: Option<&str>| {
            let step = step.map(|step| StepPath(step.into()));
            let mut teller = Teller::new(Kept { places, step });
            for step in ["/a", "/b", "/c"] {
                teller.hear(&Json::from(ended(step).to_string())).expect("an event");
            }
            let kept = |attempt: AttemptView| {
                let error = attempt.error.expect("it failed");
                assert_eq!(&*error.message, "gone");
                assert_eq!(error.details.is_some(), !attempt.last_logs.is_empty());
                error.details.is_some()
            };
            teller.attempts().into_iter().map(kept).collect::<Vec<_>>()
        };
        assert_eq!(told(0..usize::MAX, None), [true, true, true]);
        assert_eq!(told(1..2, None), [false, true, false]);
        assert_eq!(told(0..usize::MAX, Some("/c")), [false, false, true]);
    }

    #[test]
    fn each_way_to_end_has_its_word() {
        let start =
            |step: &str, attempt: u32| json!({"type": "attempt_started", "step": step, "attempt": attempt});
        let attempts = told(&[
            start("/a", 1),
            json!({"type": "attempt_parked", "step": "/a", "attempt": 1, "breaker": "plugin x", "due": Timestamp(7_000_000)}),
            start("/a", 2),
            json!({"type": "attempt_finished", "step": "/a", "attempt": 2, "output": null}),
            start("/b", 1),
            json!({"type": "step_skipped", "step": "/b", "reason": "condition_false"}),
            start("/c", 1),
            json!({"type": "handling_started", "error": {}}),
            start("/on_failure/d", 1),
            json!({"type": "run_finished", "status": "failed"}),
        ]);
        let ends: Vec<_> = attempts.iter().map(|attempt| (attempt.status, attempt.ended_at)).collect();
        let at = |second: u64| Some(Timestamp(1_000_000 * second));
        assert_eq!(
            ends,
            [
                (AttemptStatus::Parked, at(1)),
                (AttemptStatus::Completed, at(3)),
                (AttemptStatus::Skipped, at(5)),
                (AttemptStatus::Cancelled, at(7)),
                (AttemptStatus::Cancelled, at(9)),
            ]
        );
        assert_eq!(attempts[0].next.as_ref().map(|next| &*next.reason), Some("breaker plugin x"));
        // A run that was retried goes on; what its end interrupted stays so.
        let retried =
            [start("/a", 1), json!({"type": "run_finished"}), json!({"type": "run_retried"}), start("/a", 2)];
        let ends: Vec<_> = told(&retried).iter().map(|attempt| attempt.status).collect();
        assert_eq!(ends, [AttemptStatus::Cancelled, AttemptStatus::Running]);
    }

    #[test]
    fn what_goes_on_in_a_paused_run_goes_on_when_it_is_retried_and_nothing_follows_its_end() {
        let finished = |step: &str| {
            let error = json!({"class": "network", "code": "reset", "message": "gone"});
            json!({"type": "attempt_finished", "step": step, "attempt": 1, "error": error})
        };
        let start = |step: &str| json!({"type": "attempt_started", "step": step, "attempt": 1});
        let scheduled = json!({"type": "retry_scheduled", "step": "/c", "attempt": 2, "due": Timestamp(99_000_000),
            "delay_ms": 4000, "reason": "backoff"});
        let mut events = vec![
            start("/a"),
            start("/b"),
            start("/c"),
            finished("/a"),
            finished("/c"),
            scheduled,
            json!({"type": "run_paused"}),
            json!({"type": "run_retried"}),
        ];
        let attempts = told(&events);
        assert_eq!(attempts[1].status, AttemptStatus::Running);
        assert!(attempts[2].next.is_some());
        events.push(json!({"type": "run_finished"}));
        let attempts = told(&events);
        assert_eq!(
            (attempts[1].status, attempts[1].ended_at),
            (AttemptStatus::Cancelled, Some(Timestamp(8_000_000)))
        );
        assert!(attempts[2].next.is_none());
    }
}
