//! Workflow versions: publish, find.

use std::sync::Arc;

use bytes::Bytes;
use reipaz_core::{
    document,
    ids::Digest,
    json::Json,
    plan::{PinnedWorkflow, Plan},
    time::Timestamp,
};

use super::{Catalog, records::WorkflowRecord};
use crate::{
    clock,
    facade::{FacadeError, PublishedWorkflow, ValidatedWorkflow, VersionView, WorkflowView},
    schedule::schedules,
};

/// One published version, compiled.
pub(crate) struct Version {
    pub(crate) name: String,
    pub(crate) version: u32,
    pub(crate) digest: Digest,
    /// [`PinnedWorkflow`] as canonical JSON.
    pub(crate) canonical: Json,
    pub(crate) pinned: PinnedWorkflow,
    pub(crate) plan: Arc<Plan>,
    pub(crate) ui: Option<serde_json::Value>,
    pub(crate) created_at: Timestamp,
}

impl Version {
    pub(super) fn from_record(bytes: &[u8]) -> Result<Self, String> {
        let record: WorkflowRecord = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let plan = record.pinned.compile().map_err(|error| error.to_string())?;
        Ok(Self {
            name: record.name,
            version: record.version,
            digest: plan.digest,
            canonical: record.pinned.canonical(),
            pinned: record.pinned,
            plan: Arc::new(plan),
            ui: record.ui,
            created_at: record.created_at,
        })
    }

    /// As the API shows it.
    pub(crate) fn view(&self) -> VersionView {
        let mut document = self.pinned.document.clone();
        if let (Some(ui), Some(object)) = (&self.ui, document.as_object_mut()) {
            object.insert("ui".to_owned(), ui.clone());
        }
        VersionView {
            name: self.name.clone(),
            version: self.version,
            digest: self.digest,
            document,
            plugins: self.pinned.plugins.clone(),
            created_at: self.created_at,
        }
    }
}

impl Catalog {
    /// Checks a document and stores it, unless its content has a version already.
    pub(crate) async fn publish(&self, text: &str) -> Result<PublishedWorkflow, FacadeError> {
        let _one_at_a_time = self.publishing.lock().await;
        let checked = document::check(text, self).map_err(FacadeError::Document)?;
        let name = checked.plan.name.to_string();
        let digest = checked.plan.digest;
        let published = |version, created| PublishedWorkflow {
            name: name.clone(),
            version,
            digest,
            created,
            warnings: checked.warnings.clone(),
        };
        loop {
            let known = self.version_by_digest(&name, &digest);
            if let Some(known) = known.as_ref().filter(|known| checked.ui.is_none() || known.ui == checked.ui)
            {
                return Ok(published(known.version, false));
            }
            let next = {
                let state = self.read();
                let newest = state.workflows.get(&name).and_then(|versions| versions.last_key_value());
                newest.map_or(1, |(newest, _)| newest + 1)
            };
            let record = WorkflowRecord {
                name: name.clone(),
                version: known.as_ref().map_or(next, |known| known.version),
                pinned: checked.pinned.clone(),
                ui: checked.ui.clone(),
                created_at: known.as_ref().map_or_else(clock::wall, |known| known.created_at),
            };
            let bytes =
                serde_json::to_vec(&record).map_err(|error| FacadeError::Internal(error.to_string()))?;
            let version = Version::from_record(&bytes).map_err(FacadeError::Internal)?;
            let (key, bytes) = (record.key(), Bytes::from(bytes));
            let first = match &known {
                // The same content; only what the editor keeps beside it is new.
                Some(_) => self.port.put(&key, bytes).await.map(|()| None),
                None => self.port.insert(&key, bytes).await,
            };
            // Another host published at the same time: that is this version, and ours the next.
            if let Some(first) = first.map_err(journal_error)? {
                let first = Version::from_record(&first).map_err(FacadeError::Internal)?;
                self.add_version(Arc::new(first));
                continue;
            }
            let number = version.version;
            self.add_version(Arc::new(version));
            return Ok(published(number, known.is_none()));
        }
    }

    /// Checks a document.
    pub(crate) fn validate(&self, text: &str, explain: bool) -> Result<ValidatedWorkflow, FacadeError> {
        let checked = document::check(text, self).map_err(FacadeError::Document)?;
        Ok(ValidatedWorkflow {
            name: checked.plan.name.to_string(),
            digest: checked.plan.digest,
            steps: checked.plan.steps.iter().map(|step| step.path.clone()).collect(),
            plugins: checked.pinned.plugins,
            warnings: checked.warnings,
            schedules: explain.then(|| schedules(&checked.plan)),
        })
    }

    /// The newest version of each.
    pub(crate) fn workflows(&self) -> Vec<WorkflowView> {
        let state = self.read();
        state.workflows.values().filter_map(workflow_view).collect()
    }

    /// The newest version of one.
    pub(crate) fn workflow(&self, name: &str) -> Result<WorkflowView, FacadeError> {
        let found = self.read().workflows.get(name).and_then(workflow_view);
        found.ok_or_else(|| self.unknown_workflow(name))
    }

    /// This version, or the newest.
    pub(crate) fn version(&self, name: &str, version: Option<u32>) -> Result<Arc<Version>, FacadeError> {
        let found = self.read().workflows.get(name).map(|versions| {
            let newest = versions.last_key_value().map(|(_, version)| Arc::clone(version));
            match version {
                None => newest.ok_or(0),
                Some(number) => {
                    let newest = newest.map_or(0, |version| version.version);
                    versions.get(&number).cloned().ok_or(newest)
                }
            }
        });
        match (found, version) {
            (Some(Ok(version)), _) => Ok(version),
            (Some(Err(newest)), Some(version)) => {
                Err(FacadeError::UnknownVersion { name: name.to_owned(), version, newest })
            }
            _ => Err(self.unknown_workflow(name)),
        }
    }

    /// All versions there are, oldest first.
    pub(crate) fn all_versions(&self) -> Vec<Arc<Version>> {
        self.read().workflows.values().flat_map(|versions| versions.values().cloned()).collect()
    }

    pub(super) fn add_version(&self, version: Arc<Version>) {
        let mut state = self.write();
        state.workflows.entry(version.name.clone()).or_default().insert(version.version, version);
    }

    fn version_by_digest(&self, name: &str, digest: &Digest) -> Option<Arc<Version>> {
        let state = self.read();
        state.workflows.get(name)?.values().find(|version| version.digest == *digest).cloned()
    }

    fn unknown_workflow(&self, name: &str) -> FacadeError {
        let near = super::plugins::near(name, self.read().workflows.keys());
        FacadeError::UnknownWorkflow { name: name.to_owned(), near }
    }
}

fn workflow_view(versions: &std::collections::BTreeMap<u32, Arc<Version>>) -> Option<WorkflowView> {
    let (number, newest) = versions.last_key_value()?;
    Some(WorkflowView {
        name: newest.name.clone(),
        version: *number,
        versions: versions.keys().copied().collect(),
        digest: newest.digest,
        input_schema: newest.pinned.document.get("input").cloned(),
        created_at: newest.created_at,
    })
}

/// A catalogue record that could not be written.
pub(super) fn journal_error(error: reipaz_journal::JournalError) -> FacadeError {
    match error {
        reipaz_journal::JournalError::NoSpace { .. } => FacadeError::StorageFull,
        other => FacadeError::Internal(other.to_string()),
    }
}
