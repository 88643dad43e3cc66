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
    // The first retries after a network error or a timeout may be immediate, so for a code both kinds are told.
    let codes = step.retry.by_error.keys().filter_map(|case| match case {
        Case::Code(code) => Some(code),
        Case::Class(_) => None,
    });
    let codes = codes.flat_map(|code| {
        let quick = format!("{code} (as a network error or timeout)");
        [(code.to_string(), ErrorClass::Transient, &**code), (quick, ErrorClass::Network, &**code)]
    });
    let mut failures: Vec<FailureSchedule> = Vec::new();
    for (name, class, code) in classes.chain(codes) {
        let (retries, gives_up) = follows(step, &Failure::new(class, code, ""));
        match failures.iter_mut().find(|known| known.retries == retries && known.gives_up == gives_up) {
            // Both kinds of the same code.
            Some(known)
                if known.failures.last().is_some_and(|last| name.starts_with(&format!("{last} ("))) => {}
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
