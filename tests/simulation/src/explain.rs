//! Whether a run's steps stand where its workflow puts them.

use std::sync::Arc;

use reipaz_core::{
    event::SkipReason,
    ids::StepPath,
    partition::{Run, RunStatus, StepStatus},
    plan::{Condition, Handles, Plan},
};

/// Whether each step of a run stands where its workflow and the others' ends put it: told apart from how the partition
/// works it out.
pub fn explain(run: &Run) {
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
        if !step.called {
            let needed = match plan.steps[index].handles.unwrap() {
                Handles::Step(failed) => steps[failed].status == StepStatus::Failed,
                Handles::Run => run.status() == RunStatus::Failed && run.accepted().refused.is_none(),
            };
            assert!(!needed, "{} should have been called for in {run:?}", step.path);
            continue;
        }
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
            StepStatus::Cancelled => assert!(run.error().is_some()),
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
