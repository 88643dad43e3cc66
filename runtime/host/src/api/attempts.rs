//! Every attempt of a run: what it ran, how it ended, what it said last, what follows. All of it stands in the run's
//! events; here they are put together, so this works alike for runs in memory and for those that only ClickHouse has.

mod told;

use std::{collections::BTreeMap, sync::Arc};

use axum::extract::{Path, State};
use http::StatusCode;
use reipaz_core::{
    ids::{RunId, StepPath},
    plan::PluginPin,
};
use serde::Deserialize;
use serde_json::Value;

use self::told::{Kept, Teller};
use super::{
    Shared, kinds, limits,
    problem::Problem,
    query::{self, Params},
    respond::{self, Answer},
    runs::run_id,
};
use crate::facade::{AttemptStatus, AttemptView, AttemptsPage, FacadeError};

/// Query of [`list`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AttemptParams {
    after: Option<usize>,
    step: Option<String>,
    status: Option<AttemptStatus>,
    limit: Option<usize>,
}

/// `GET /v1/runs/{id}/attempts`.
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    Params(params): Params<AttemptParams>,
) -> Answer {
    let id = run_id(&id)?;
    let limit = query::page_limit(params.limit, limits::ATTEMPTS_PAGE)?;
    let step = params.step.as_deref().map(query::step_path);
    let run = shared.facade.run(id).await?;
    // A run may be of a workflow that was never there, or is not any more.
    let version = match shared.facade.workflow_version(&run.workflow, run.version).await {
        Ok(version) => Some(version),
        Err(FacadeError::UnknownWorkflow { .. } | FacadeError::UnknownVersion { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let wanted = |(_, attempt): &(usize, AttemptView)| {
        step.as_ref().is_none_or(|step| attempt.step == *step)
            && params.status.is_none_or(|status| attempt.status == status)
    };
    let after = params.after.unwrap_or(0);
    // Which have a status is known at the end only.
    let last = params.status.is_none().then(|| step.is_none().then_some(after + limit)).flatten();
    let kept = Kept { places: after..last.unwrap_or(usize::MAX), step: step.clone() };
    // They keep their places, whatever becomes of them meanwhile.
    let mut found =
        all(&shared, id, kept).await?.into_iter().enumerate().skip(after).filter(wanted).take(limit + 1);
    let mut attempts: Vec<_> = found.by_ref().collect();
    let next_after = if attempts.len() > limit { attempts.pop().map(|(place, _)| place) } else { None };
    let with_plugin = |(_, mut attempt): (usize, AttemptView)| {
        attempt.plugin =
            version.as_ref().and_then(|version| plugin(&version.document, &version.plugins, &attempt.step));
        attempt
    };
    let attempts = attempts.into_iter().map(with_plugin).collect();
    let status = shared.facade.run(id).await?.status;
    respond::json(StatusCode::OK, &AttemptsPage { attempts, next_after, status })
}

async fn all(shared: &Shared, id: RunId, kept: Kept) -> Result<Vec<AttemptView>, Problem> {
    let mut teller = Teller::new(kept);
    let mut after = 0;
    loop {
        let events = shared.facade.events(id, after, limits::EVENTS_PAGE.0).await?;
        let Some(last) = events.last() else { return Ok(teller.attempts()) };
        after = last.seq;
        for event in &events {
            teller.hear(&event.json).map_err(|error| {
                Problem::new(
                    &kinds::INTERNAL,
                    format!("event {} of {id} is not understood: {error}", event.seq),
                )
            })?;
        }
    }
}

/// What the document's step uses: `/fetch/on_failure/cached` stands at `steps.fetch.on_failure.steps.cached`.
fn plugin(document: &Value, pins: &BTreeMap<String, PluginPin>, step: &StepPath) -> Option<PluginPin> {
    let mut at = document;
    let mut names = step.0.split('/').skip(1).peekable();
    while let Some(name) = names.next() {
        at = match name {
            // A step may have that name too: then it stands last.
            "on_failure" if names.peek().is_some() => &at["on_failure"],
            name => &at["steps"][name],
        };
    }
    pins.get(at["uses"].as_str()?).cloned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_steps_plugin_is_found_wherever_it_stands() {
        let document = json!({
            "steps": {"fetch": {"uses": "a@1", "on_failure": {"steps": {"cached": {"uses": "b@1"}}}}},
            "on_failure": {"steps": {"tell": {"uses": "c@1"}}},
        });
        let pin = |name: &str| {
            let digest = reipaz_core::ids::Digest::of(name.as_bytes());
            PluginPin { name: name.to_owned(), version: "1.0.0".to_owned(), digest, retry: None }
        };
        let pins = ["a", "b", "c"].map(|name| (format!("{name}@1"), pin(name))).into();
        for (path, name) in [("/fetch", "a"), ("/fetch/on_failure/cached", "b"), ("/on_failure/tell", "c")] {
            assert_eq!(plugin(&document, &pins, &StepPath(path.into())), Some(pin(name)));
        }
        assert_eq!(plugin(&document, &pins, &StepPath("/gone".into())), None);
    }
}
