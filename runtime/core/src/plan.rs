//! What a checked document compiles to: the steps in an order in which each stands after those it depends on, with
//! everything resolved that can be before a run. Immutable and shared by all runs of a version.

mod compile;
mod input;

pub use compile::{CompileError, DEFAULT_STEP_TIMEOUT};
pub use input::{InputCheck, InputMistake};

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    expression::{Expression, Template},
    ids::{Digest, StepPath},
    json::Json,
    limit::LimitRule,
    retry::RetryRule,
};

/// A workflow version as it is stored: the document without `ui`, and what each `uses` was resolved to. Its canonical
/// JSON is what the version's digest is taken of, so identical content gives the same version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedWorkflow {
    /// The document as JSON, keys sorted, `ui` removed.
    pub document: serde_json::Value,
    /// By the text of `uses`.
    pub plugins: BTreeMap<String, PluginPin>,
}

impl PinnedWorkflow {
    /// What stands for a workflow of which only the name is known: it has no step, and can only fail.
    pub fn unknown(name: &str) -> Self {
        let document = serde_json::json!({ "reipaz": 1, "name": name, "steps": {} });
        Self { document, plugins: BTreeMap::new() }
    }
}

/// What a `uses` means in one workflow version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginPin {
    /// The plugin's name, `http_request` or `acme/score`.
    pub name: String,
    /// Its full version, `1.2.0`.
    pub version: String,
    /// Digest of the component.
    pub digest: Digest,
    /// The manifest's own retry rule, where it has one, as in a document's `retry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<serde_json::Value>,
}

/// A compiled workflow version.
#[derive(Debug)]
pub struct Plan {
    /// The workflow's name.
    pub name: Arc<str>,
    /// Digest of the [`PinnedWorkflow`]'s canonical JSON.
    pub digest: Digest,
    /// The JSON Schema that a run's input must satisfy, as JSON text.
    pub input_schema: Option<Json>,
    /// How long a run may take in all.
    pub timeout: Option<Duration>,
    /// Names that expressions may use as `$secrets.NAME`.
    pub secrets: Vec<Arc<str>>,
    /// In dependency order, those of an `on_failure` after all others; [`StepIndex`] counts in this.
    pub steps: Vec<Arc<StepPlan>>,
    /// The run's output; null when absent.
    pub output: Option<Template>,
    /// The steps that `output` reads; ascending.
    pub output_reads: Vec<StepIndex>,
    /// How many of its runs there may be.
    pub concurrency: Option<Concurrency>,
    /// What runs when the run has failed, before it ends.
    pub on_failure: Option<RunFailure>,
    /// `input_schema`, compiled when the first input is checked.
    pub input_check: InputCheck,
}

/// A step's place in [`Plan::steps`].
pub type StepIndex = usize;

/// One step, resolved.
#[derive(Debug)]
pub struct StepPlan {
    /// Where it stands.
    pub path: StepPath,
    /// Its name in the document, and in `$steps`.
    pub name: Arc<str>,
    /// Set for a step of an `on_failure`: it runs only if this has failed.
    pub handles: Option<Handles>,
    /// What executes it.
    pub plugin: PluginPin,
    /// Its input.
    pub with: Template,
    /// When it runs.
    pub condition: Condition,
    /// All steps it depends on, by reference or `needs`; ascending, without doubles.
    pub upstream: Vec<StepIndex>,
    /// All steps that depend on it; ascending.
    pub downstream: Vec<StepIndex>,
    /// Those of all steps whose outputs its expressions read; ascending.
    pub reads: Vec<StepIndex>,
    /// Names of the secrets that its `with` uses: all that its attempts may have.
    pub secrets: Vec<Arc<str>>,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How long all its attempts may take together, from the start of the first.
    pub total_timeout: Option<Duration>,
    /// How long an attempt may wait for a place to run.
    pub queue_timeout: Option<Duration>,
    /// How long an attempt may run without telling progress.
    pub heartbeat_timeout: Option<Duration>,
    /// What becomes of the run when its attempts are used up.
    pub on_failure: OnFailure,
    /// When it is tried again.
    pub retry: RetryRule,
    /// What the document narrows the operator's grants to, by kind (`http`: `["GET shop.example"]`); absent: not
    /// narrowed.
    pub grants: Option<BTreeMap<String, Vec<String>>>,
}

/// What becomes of a run when a step has failed for good.
#[derive(Clone, Debug, Default)]
pub enum OnFailure {
    /// The step has failed, and so has the run once nothing more can go on.
    #[default]
    Fail,
    /// The run is paused, for a person to look at.
    Pause,
    /// The step counts as completed, with this as its output. Made of plain paths and literals only.
    ContinueWith(Template),
    /// These steps run. When none of them has failed and there is an output, the step counts as completed with that; else it
    /// has failed.
    Steps {
        /// Ascending.
        steps: Vec<StepIndex>,
        /// Made of plain paths and literals only, and the steps that it reads (ascending).
        output: Option<(Template, Vec<StepIndex>)>,
    },
}

/// What a step of an `on_failure` is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handles {
    /// The failure of this step.
    Step(StepIndex),
    /// The failure of the run.
    Run,
}

/// How many runs of a workflow there may be.
#[derive(Clone, Debug)]
pub struct Concurrency {
    /// Each value of it is counted by itself. Made of plain paths and literals only; it reads no step.
    pub key: Option<Template>,
    /// How many. The version is not known here, and 0.
    pub rule: LimitRule,
}

/// A workflow's own `on_failure`.
#[derive(Clone, Debug)]
pub struct RunFailure {
    /// What runs; ascending.
    pub steps: Vec<StepIndex>,
    /// How long all of it may take. The run's own `timeout` is over by then, or does not count any more.
    pub timeout: Duration,
}

/// When a step runs, once all its upstream steps have ended.
#[derive(Debug)]
pub enum Condition {
    /// No upstream step failed or was skipped.
    Succeeded,
    /// As [`Condition::Succeeded`], and this is true for the run's data.
    Holds(Expression),
    /// In any case.
    Always,
    /// Some upstream step failed.
    Failed,
}
