//! Rows on their way to ClickHouse. A row that a later one of the same batch replaces is never sent: a run of
//! milliseconds costs one row in `runs` and one per attempt, not one per event.

use std::{collections::HashMap, sync::Arc};

use reipaz_core::{ids::Digest, json::Json, time::Timestamp};
use uuid::Uuid;

use crate::rows::{AttemptRow, EventRow, LogRow, PluginRow, RunRow, WorkflowRow};

/// Rows of all tables, of any number of partitions.
#[derive(Clone, Debug, Default)]
pub struct RowBatch {
    pub(crate) workflows: Vec<WorkflowRow>,
    pub(crate) plugins: Vec<PluginRow>,
    pub(crate) runs: Vec<RunRow>,
    pub(crate) attempts: Vec<AttemptRow>,
    pub(crate) logs: Vec<LogRow>,
    pub(crate) events: Vec<EventRow>,
    run_places: HashMap<Uuid, usize>,
    attempt_places: HashMap<(Uuid, Arc<str>, u32), usize>,
}

impl RowBatch {
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.workflows.len()
            + self.plugins.len()
            + self.runs.len()
            + self.attempts.len()
            + self.logs.len()
            + self.events.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows() == 0
    }

    /// Adds a workflow version; `pinned` is its canonical JSON.
    pub fn workflow(
        &mut self,
        name: &str,
        version: u32,
        digest: &Digest,
        pinned: &Json,
        created_at: Timestamp,
    ) {
        let (digest, pinned) = (digest.to_string(), Arc::clone(pinned));
        self.workflows.push(WorkflowRow { name: name.into(), digest, pinned, created_at, version });
    }

    /// Adds an installed plugin.
    pub fn plugin(
        &mut self,
        name: &str,
        version: &str,
        digest: &Digest,
        summary: &str,
        installed_at: Timestamp,
    ) {
        self.plugins.push(PluginRow {
            name: name.into(),
            version: version.into(),
            digest: digest.to_string(),
            summary: summary.into(),
            installed_at,
        });
    }

    pub(crate) fn run(&mut self, row: RunRow) {
        match self.run_places.get(&row.run) {
            Some(&place) => self.runs[place] = row,
            None => {
                self.run_places.insert(row.run, self.runs.len());
                self.runs.push(row);
            }
        }
    }

    pub(crate) fn attempt(&mut self, row: AttemptRow) {
        let key = (row.run, Arc::clone(&row.step), row.attempt);
        match self.attempt_places.get(&key) {
            Some(&place) => self.attempts[place] = row,
            None => {
                self.attempt_places.insert(key, self.attempts.len());
                self.attempts.push(row);
            }
        }
    }
}
