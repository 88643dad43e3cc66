//! What every submission must be, whichever way it came: over HTTP, or as a task that a producer wrote.

use std::{collections::BTreeMap, sync::Arc};

use rand::Rng;
use reipaz_core::{
    event::RunError,
    ids::RunId,
    json::Json,
    partition::Submit,
    plan::{PinnedWorkflow, Plan},
};

use crate::{api::limits, catalog::Catalog, facade::FacadeError};

/// Somebody asks for a run.
#[derive(Clone, Debug)]
pub(crate) struct Submission {
    /// The workflow's name.
    pub(crate) workflow: String,
    /// The newest when absent.
    pub(crate) version: Option<u32>,
    /// One JSON value, not yet checked against the workflow's schema.
    pub(crate) input: Json,
    /// One run per key and workflow.
    pub(crate) idempotency_key: Option<Arc<str>>,
    /// Which run it is to be; a key goes before it.
    pub(crate) run: RunId,
    /// Carried along and shown to every step.
    pub(crate) metadata: Vec<(Arc<str>, Arc<str>)>,
    /// For `$trigger`.
    pub(crate) trigger: Option<Json>,
}

impl Submission {
    /// The run that it stands for, whichever host computes it.
    pub(crate) fn run(&self) -> RunId {
        match &self.idempotency_key {
            Some(key) => RunId::from_key("", &self.workflow, key),
            None => self.run,
        }
    }

    /// What the partition is given, unless the workflow is unknown or refuses the input.
    pub(crate) fn prepare(
        &self,
        catalog: &Catalog,
        payload_bytes: usize,
    ) -> Result<Box<Submit>, FacadeError> {
        if self.input.len() > payload_bytes {
            return Err(FacadeError::TooLarge {
                what: "the input",
                actual_bytes: self.input.len(),
                limit_bytes: payload_bytes,
            });
        }
        let version = catalog.version(&self.workflow, self.version)?;
        if version.plan.input_schema.is_some() {
            let value = serde_json::from_str(&self.input)
                .map_err(|error| FacadeError::Internal(format!("an unchecked input: {error}")))?;
            version.plan.check_input(&value).map_err(FacadeError::Input)?;
        }
        Ok(self.submit(&version.plan, &version.canonical, version.version))
    }

    /// What the partition is given when the run was promised and cannot start: a run that has failed. None: not even its
    /// workflow can be named.
    pub(crate) fn refused(&self, catalog: &Catalog, error: RunError) -> Option<Box<Submit>> {
        let mut submit = match catalog.version(&self.workflow, self.version) {
            Ok(version) => self.submit(&version.plan, &version.canonical, version.version),
            Err(_) => {
                let unknown = PinnedWorkflow::unknown(&self.workflow);
                let plan = Arc::new(unknown.compile().ok()?);
                self.submit(&plan, &unknown.canonical(), self.version.unwrap_or_default())
            }
        };
        submit.refused = Some(error);
        Some(submit)
    }

    fn submit(&self, plan: &Arc<Plan>, pinned: &Json, version: u32) -> Box<Submit> {
        let mut seed = [0; 32];
        rand::rng().fill_bytes(&mut seed);
        Box::new(Submit {
            run: self.run(),
            plan: Arc::clone(plan),
            pinned: Arc::clone(pinned),
            version,
            input: Arc::clone(&self.input),
            idempotency_key: self.idempotency_key.clone(),
            metadata: self.metadata.clone(),
            trigger: self.trigger.clone(),
            seed,
            refused: None,
        })
    }
}

/// Metadata is shown to every step and stored with the run: it is bounded.
pub(crate) fn check_metadata(metadata: &BTreeMap<Arc<str>, Arc<str>>) -> Result<(), String> {
    if metadata.len() > limits::METADATA_ENTRIES {
        let (is, most) = (metadata.len(), limits::METADATA_ENTRIES);
        return Err(format!("`metadata` has {is} entries; at most {most}"));
    }
    let too_long = metadata.iter().find(|(name, value)| name.len().max(value.len()) > limits::METADATA_BYTES);
    match too_long {
        None => Ok(()),
        Some((name, _)) => {
            let name: String = name.chars().take(40).collect();
            Err(format!("`metadata`, {name:?}: at most {} bytes a name or value", limits::METADATA_BYTES))
        }
    }
}
