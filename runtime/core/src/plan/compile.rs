//! From a pinned workflow to its plan. Deterministic, and total on whatever was accepted once: new hosts compile what
//! old ones journalled. So it looks only at what a plan is made of, and leaves judging to [`crate::document::check`].

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::Value;

use super::{Handles, InputCheck, OnFailure, PinnedWorkflow, Plan, RunFailure, StepIndex, StepPlan};
use crate::{
    document::{self, Node, Report, Source, StepDraft},
    ids::{Digest, StepPath},
    json::Json,
    retry::RetryRule,
};

/// How long an attempt may take where neither the step nor the workflow's `defaults` say so.
pub const DEFAULT_STEP_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a pinned workflow has no plan: it is damaged, or newer than this host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored workflow cannot be compiled: {pointer}: {message}")]
pub struct CompileError {
    /// RFC 6901 pointer into the document.
    pub pointer: String,
    /// One sentence.
    pub message: String,
}

impl PinnedWorkflow {
    /// The workflow as JSON text without white space, keys sorted at every level.
    pub fn canonical(&self) -> Json {
        let mut out = String::from(r#"{"document":"#);
        write_sorted(&self.document, &mut out);
        out.push_str(r#","plugins":"#);
        // A map of strings and digests: nothing in it can fail to be written.
        write_sorted(&serde_json::to_value(&self.plugins).unwrap_or_default(), &mut out);
        out.push('}');
        out.into()
    }

    /// The version's digest: of [`Self::canonical`].
    pub fn digest(&self) -> Digest {
        Digest::of(self.canonical().as_bytes())
    }

    /// Compiles the workflow.
    pub fn compile(&self) -> Result<Plan, CompileError> {
        let root = Node::from_value(&self.document);
        let mut report = Report::new(Source::new(""));
        let draft = document::read(&root, &mut report);
        let graph = document::resolve(&draft, &mut report);
        let refuse = |pointer: &str, message: &str| CompileError {
            pointer: pointer.to_owned(),
            message: message.to_owned(),
        };
        if let Some(mistake) = report.mistakes.first() {
            return Err(refuse(&mistake.pointer, &mistake.message));
        }
        let name = draft.name.as_deref().ok_or_else(|| refuse("/name", "there is no name"))?;
        // Where each step of the draft stands in the plan.
        let mut place = vec![0; draft.steps.len()];
        for (index, step) in graph.order.iter().enumerate() {
            place[*step] = index;
        }
        let sorted = |steps: &mut dyn Iterator<Item = usize>| {
            let mut steps: Vec<_> = steps.map(|step| place[step]).collect();
            steps.sort_unstable();
            steps
        };
        let output_reads = sorted(&mut graph.output_reads.iter().copied());
        let upstream: Vec<_> =
            graph.upstream.iter().map(|needs| sorted(&mut needs.iter().copied())).collect();
        let reads: Vec<_> = graph.reads.iter().map(|reads| sorted(&mut reads.iter().copied())).collect();
        let mut downstream = vec![Vec::new(); draft.steps.len()];
        for (index, step) in graph.order.iter().enumerate() {
            upstream[*step].iter().for_each(|need| downstream[*need].push(index));
        }
        let handled_reads: Vec<_> =
            graph.handled_reads.iter().map(|reads| sorted(&mut reads.iter().copied())).collect();
        let paths: Vec<StepPath> = draft.steps.iter().map(|step| path(&draft.steps, step)).collect();
        let mut handlers: BTreeMap<Option<usize>, Vec<StepIndex>> = BTreeMap::new();
        for (step, index) in draft.steps.iter().zip(&place) {
            match step.handles {
                Some(Handles::Step(failed)) => handlers.entry(Some(failed)).or_default().push(*index),
                Some(Handles::Run) => handlers.entry(None).or_default().push(*index),
                None => {}
            }
        }
        handlers.values_mut().for_each(|steps| steps.sort_unstable());
        let mut drafts: Vec<_> = draft.steps.into_iter().map(Some).collect();
        let mut steps = Vec::with_capacity(drafts.len());
        for (index, at) in graph.order.iter().enumerate() {
            let Some(step) = drafts[*at].take() else { continue };
            let pointer = step.place.pointer;
            let uses =
                step.uses.map(|(uses, _)| uses).ok_or_else(|| refuse(&pointer, "the step has no `uses`"))?;
            let plugin = self.plugins.get(&uses).cloned();
            let plugin = plugin.ok_or_else(|| refuse(&pointer, "what the step uses is not pinned"))?;
            let from_plugin =
                plugin.retry.as_ref().map(|retry| document::read_retry(retry).0).unwrap_or_default();
            let mut secrets: Vec<Arc<str>> =
                step.with_reads.secrets.into_iter().map(|(name, _)| name).collect();
            secrets.sort_unstable();
            secrets.dedup();
            steps.push(Arc::new(StepPlan {
                path: paths[*at].clone(),
                name: step.name,
                handles: step.handles.map(|handles| match handles {
                    Handles::Step(failed) => Handles::Step(place[failed]),
                    Handles::Run => Handles::Run,
                }),
                plugin,
                with: step.with,
                condition: step.condition,
                upstream: upstream[*at].clone(),
                downstream: std::mem::take(&mut downstream[index]),
                reads: reads[*at].clone(),
                secrets,
                timeout: step.times.attempt.or(draft.times.attempt).unwrap_or(DEFAULT_STEP_TIMEOUT),
                total_timeout: step.times.total.or(draft.times.total),
                queue_timeout: step.times.queue.or(draft.times.queue),
                heartbeat_timeout: step.times.heartbeat.or(draft.times.heartbeat),
                on_failure: match step.on_failure {
                    OnFailure::Steps { .. } => OnFailure::Steps {
                        steps: handlers.remove(&Some(*at)).unwrap_or_default(),
                        output: step.handled.map(|output| (output, handled_reads[*at].clone())),
                    },
                    other => other,
                },
                retry: step.retry.over(draft.retry.over(from_plugin.over(RetryRule::default()))),
                grants: step.grants,
            }));
        }
        Ok(Plan {
            name: name.into(),
            digest: self.digest(),
            input_schema: draft.input.map(|(schema, _)| schema.to_string().into()),
            timeout: draft.timeout,
            secrets: draft.secrets.into_iter().map(|(name, _)| name).collect(),
            steps,
            output: draft.output,
            output_reads,
            concurrency: draft.concurrency,
            on_failure: draft
                .on_failure
                .map(|timeout| RunFailure { steps: handlers.remove(&None).unwrap_or_default(), timeout }),
            input_check: InputCheck::default(),
        })
    }
}

/// Where a step stands: one of an `on_failure` stands under what it is there for.
fn path(steps: &[StepDraft<'_>], step: &StepDraft<'_>) -> StepPath {
    let name = &step.name;
    match step.handles {
        None => StepPath::top(name),
        Some(Handles::Run) => StepPath(format!("/on_failure/{name}").into()),
        Some(Handles::Step(failed)) => StepPath(format!("/{}/on_failure/{name}", steps[failed].name).into()),
    }
}

/// Writes JSON with sorted keys, whatever order the map type has.
fn write_sorted(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { "," });
                write_sorted(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(key, _)| *key);
            out.push('{');
            for (index, (key, field)) in fields.into_iter().enumerate() {
                out.push_str(if index == 0 { "" } else { "," });
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_sorted(field, out);
            }
            out.push('}');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}
