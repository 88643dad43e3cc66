//! The catalogue's records as they are stored: JSON, by key.

use std::collections::BTreeMap;

use reipaz_core::{ids::Digest, plan::PinnedWorkflow, time::Timestamp};
use serde::{Deserialize, Serialize};

use crate::facade::WantedGrant;

/// Keys of workflow versions: `workflow/NAME/0000000001`.
pub(super) const WORKFLOW: &str = "workflow/";

/// Keys of plugins: `plugin/NAME/VERSION`.
pub(super) const PLUGIN: &str = "plugin/";

/// Keys of what owners announce: `owner/0003`.
pub(crate) const OWNER: &str = "owner/";

/// One workflow version.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WorkflowRecord {
    pub(super) name: String,
    pub(super) version: u32,
    pub(super) pinned: PinnedWorkflow,
    /// What belongs to an editor; outside the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ui: Option<serde_json::Value>,
    pub(super) created_at: Timestamp,
}

impl WorkflowRecord {
    pub(super) fn key(&self) -> String {
        format!("{WORKFLOW}{}/{:010}", self.name, self.version)
    }
}

/// One plugin version.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PluginRecord {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) digest: Digest,
    pub(super) summary: String,
    pub(super) input_schema: Option<serde_json::Value>,
    pub(super) output_schema: Option<serde_json::Value>,
    /// The manifest's own retry rule.
    #[serde(default)]
    pub(super) retry: Option<serde_json::Value>,
    pub(super) wants: Vec<WantedGrant>,
    /// What the operator gave at installation.
    pub(super) grants: BTreeMap<String, Vec<String>>,
    pub(super) standard: bool,
    pub(super) size_bytes: u64,
    pub(super) installed_at: Timestamp,
}

impl PluginRecord {
    pub(super) fn key(&self) -> String {
        format!("{PLUGIN}{}/{}", self.name, self.version)
    }
}
