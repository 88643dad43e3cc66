//! When steps are tried again, worked out for whoever writes a workflow.

use std::time::Duration;

use reipaz_core::{
    failure::{ErrorClass, Failure},
    plan::{Plan, StepPlan},
    retry::{Case, ExplainedRetry, GiveUp},
};

use crate::facade::{FailureSchedule, RetryView, StepSchedule};

/// Every step's.
pub(crate) fn schedules(plan: &Plan) -> Vec<StepSchedule> {
    plan.steps.iter().map(|step| schedule(step)).collect()
}

fn schedule(step: &StepPlan) -> StepSchedule {
    let classes = ErrorClass::ALL.into_iter().map(|class| (class.as_str().to_owned(), class, "any"));
    // Of a failure with a code of its own the class does not matter.
    let codes = step.retry.by_error.keys().filter_map(|case| match case {
        Case::Code(code) => Some((code.to_string(), ErrorClass::Permanent, &**code)),
        Case::Class(_) => None,
    });
    let mut failures: Vec<FailureSchedule> = Vec::new();
    for (name, class, code) in classes.chain(codes) {
        let (retries, gives_up) = follows(step, &Failure::new(class, code, ""));
        match failures.iter_mut().find(|known| known.retries == retries && known.gives_up == gives_up) {
            Some(known) => known.failures.push(name),
            None => failures.push(FailureSchedule { failures: vec![name], retries, gives_up }),
        }
    }
    StepSchedule {
        step: step.path.clone(),
        timeout_ms: millis(step.timeout),
        total_timeout_ms: step.total_timeout.map(millis),
        failures,
    }
}

fn follows(step: &StepPlan, failure: &Failure) -> (Vec<RetryView>, GiveUp) {
    let explained = step.retry.explain(failure);
    let in_time = |retry: &ExplainedRetry| step.total_timeout.is_none_or(|total| retry.latest < total);
    let retries: Vec<RetryView> = explained
        .retries
        .iter()
        .take_while(|retry| in_time(retry))
        .map(|retry| RetryView {
            attempt: retry.attempt,
            reason: retry.reason,
            least_ms: millis(retry.least),
            most_ms: millis(retry.most),
            latest_ms: millis(retry.latest),
        })
        .collect();
    let gives_up = if retries.len() < explained.retries.len() { GiveUp::Window } else { explained.gives_up };
    (retries, gives_up)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
