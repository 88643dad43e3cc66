//! What the journal alone must say, whoever wrote it: exactly one end between retries, nothing after it, attempts in
//! order, and for each step that ran or did not a reason that its workflow gives.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use reipaz_core::{
    event::{AttemptResult, Event, Fact, FinalStatus, RunEvent, SkipReason},
    ids::{RunId, StepPath},
    partition::{Run, RunStatus, StepStatus},
    plan::{Condition, Plan},
};

/// Follows a journal event by event.
#[derive(Default)]
pub(crate) struct Audit {
    runs: HashMap<RunId, Seen>,
    /// Runs that were forgotten at some time.
    pub(crate) forgotten: HashSet<RunId>,
}

#[derive(Default)]
struct Seen {
    seq: u32,
    ended: bool,
    paused: bool,
    failed: HashSet<StepPath>,
    ends: usize,
    retries: usize,
    running: HashMap<StepPath, u32>,
    attempts: HashMap<StepPath, u32>,
}

impl Audit {
    pub(crate) fn see(&mut self, event: &Event) {
        match event {
            Event::Run(event) => self.see_run(event),
            Event::RunForgotten(event) => {
                if let Some(seen) = self.runs.remove(&event.run) {
                    assert!(seen.ended, "run {} was forgotten before its end", event.run);
                }
                self.forgotten.insert(event.run);
            }
            Event::WorkflowPinned(_) | Event::KeyExpired(_) => {}
        }
    }

    /// Runs that were accepted, not forgotten, and have not ended.
    pub(crate) fn unended(&self) -> Vec<RunId> {
        self.runs.iter().filter(|(_, seen)| !seen.ended).map(|(run, _)| *run).collect()
    }

    fn see_run(&mut self, event: &RunEvent) {
        let seen = self.runs.entry(event.run).or_default();
        assert_eq!(event.seq, seen.seq + 1, "run {} has a gap", event.run);
        seen.seq = event.seq;
        let retried = matches!(event.fact, Fact::RunRetried(_));
        if retried {
            assert!(seen.ended || seen.paused, "{event:?} before the end");
        } else {
            assert!(!seen.ended, "{event:?} after the end");
        }
        match &event.fact {
            Fact::RunAccepted(_) => assert_eq!(event.seq, 1),
            Fact::AttemptStarted(it) => {
                let attempts = seen.attempts.entry(it.path.clone()).or_default();
                *attempts += 1;
                assert_eq!(it.attempt, *attempts, "attempts of {} are numbered in order", it.path);
                let doubled = seen.running.insert(it.path.clone(), it.attempt);
                assert_eq!(doubled, None, "two attempts of {} at once", it.path);
            }
            Fact::AttemptInterrupted(it) => assert_eq!(seen.running.get(&it.path), Some(&it.attempt)),
            Fact::AttemptReported(it) => assert_eq!(seen.running.get(&it.path), Some(&it.attempt)),
            Fact::AttemptFinished(it) => {
                assert_eq!(seen.running.remove(&it.path), Some(it.attempt), "one outcome an attempt");
                if matches!(it.result, AttemptResult::Error(_)) {
                    seen.failed.insert(it.path.clone());
                }
            }
            Fact::RetryScheduled(it) => {
                assert_eq!(seen.attempts[&it.path] + 1, it.attempt);
                assert!(seen.failed.remove(&it.path), "only a failed attempt is tried again");
                assert!(it.due >= event.at);
            }
            Fact::StepSkipped(it) => drop(seen.running.remove(&it.path)),
            Fact::RunFinished(it) => {
                (seen.ended, seen.ends, seen.paused) = (true, seen.ends + 1, false);
                assert_eq!(it.status == FinalStatus::Completed, it.error.is_none());
                seen.running.clear();
            }
            Fact::RunRetried(_) => {
                seen.retries += usize::from(seen.ended);
                seen.ended = false;
                seen.failed.clear();
            }
            Fact::StepContinued(it) => {
                assert!(seen.failed.remove(&it.path), "only a failed step is continued")
            }
            Fact::RunPaused(_) => seen.paused = true,
            Fact::RunResumed(_) => seen.paused = false,
        }
        assert!(seen.ends == seen.retries + usize::from(seen.ended), "one end between retries");
    }
}

/// Whether each step of a run stands where its workflow and the others' ends put it: told apart from how the partition
/// works it out.
pub(crate) fn explain(run: &Run) {
    let plan: &Arc<Plan> = run.plan();
    let steps: Vec<_> = run.steps().collect();
    // Whether a failure lies in or above each step.
    let mut tainted = vec![false; steps.len()];
    for (index, step) in steps.iter().enumerate() {
        let upstream = &plan.steps[index].upstream;
        let above = upstream.iter().any(|&before| tainted[before]);
        let all_over = upstream.iter().all(|&before| is_over(steps[before].status));
        let all_completed = upstream.iter().all(|&before| steps[before].status == StepStatus::Completed);
        let condition = &plan.steps[index].condition;
        tainted[index] = match (step.status, step.skipped) {
            (StepStatus::Failed, _) => true,
            (StepStatus::Skipped, Some(SkipReason::UpstreamFailed(_) | SkipReason::UpstreamSkipped(_))) => {
                above
            }
            _ => false,
        };
        match step.status {
            StepStatus::Running | StepStatus::Retrying | StepStatus::Completed | StepStatus::Failed => {
                let may = match condition {
                    Condition::Succeeded | Condition::Holds(_) => all_completed,
                    Condition::Always => all_over,
                    Condition::Failed => all_over && above,
                };
                assert!(may, "{} should not have started in {run:?}", step.path);
                assert_eq!(step.output.is_some(), step.status == StepStatus::Completed);
            }
            StepStatus::Skipped => {
                let may = match step.skipped.unwrap() {
                    SkipReason::ConditionFalse => step.attempts > 0,
                    SkipReason::NothingFailed => all_over && !above && matches!(condition, Condition::Failed),
                    SkipReason::UpstreamFailed(path) => status_of(run, path) == StepStatus::Failed,
                    SkipReason::UpstreamSkipped(path) => status_of(run, path) == StepStatus::Skipped,
                };
                assert!(may, "{} should not have been skipped in {run:?}", step.path);
            }
            StepStatus::Waiting => assert!(!run.status().is_terminal()),
            StepStatus::Cancelled => assert!(run.status().is_terminal() && run.error().is_some()),
        }
    }
    let says_why = steps.iter().all(|step| step.waiting_for.is_some() || is_over(step.status));
    assert!(says_why, "each step of {run:?} is over or says what it waits for");
    if run.status() == RunStatus::Completed {
        assert!(steps.iter().all(|step| matches!(step.status, StepStatus::Completed | StepStatus::Skipped)));
        assert!(run.output().is_some());
    }
}

fn status_of(run: &Run, path: &StepPath) -> StepStatus {
    run.steps().find(|step| step.path == path).unwrap().status
}

fn is_over(status: StepStatus) -> bool {
    use StepStatus::{Cancelled, Completed, Failed, Skipped};
    matches!(status, Completed | Failed | Skipped | Cancelled)
}
