//! What the API asks about runs that the owner no longer holds in memory. Every value is a bound parameter; the texts
//! of the statements are fixed parts.

use std::collections::BTreeMap;

use clickhouse::Row;
use reipaz_core::{
    event::LogLevel,
    ids::{RunId, StepPath},
    partition::RunStatus,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    error::StoreError,
    rows::{AttemptRow, EventRow, LogRow, RunRow, SinkPositionRow, Word, level, micros, optional_micros},
    store::Store,
};

/// Which runs; all conditions that are given must hold.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    /// Only of this workflow.
    pub workflow: Option<String>,
    /// Only of this version of it.
    pub version: Option<u32>,
    /// Only with one of these; empty: any.
    pub status: Vec<RunStatus>,
    /// Only created at or after.
    pub created_from: Option<Timestamp>,
    /// Only created before.
    pub created_before: Option<Timestamp>,
    /// Only behind this one in the list: the last of the page before.
    pub after: Option<(Timestamp, RunId)>,
}

/// A run in a list: without input, output and what else may be large.
#[derive(Clone, Debug, PartialEq, Row, Serialize, Deserialize)]
pub struct RunHead {
    /// Its id.
    #[serde(with = "clickhouse::serde::uuid")]
    pub run: Uuid,
    /// The workflow.
    pub workflow: std::sync::Arc<str>,
    /// The version that it started with.
    pub workflow_version: u32,
    /// As in [`RunRow::status`].
    pub status: Word,
    /// Empty unless failed, as the four that follow.
    pub error_class: Word,
    /// Stable.
    pub error_code: std::sync::Arc<str>,
    /// For people.
    pub error_message: std::sync::Arc<str>,
    /// The step that failed first.
    pub error_step: std::sync::Arc<str>,
    /// Its last attempt.
    pub error_attempt: u32,
    /// When it was accepted.
    #[serde(with = "micros")]
    pub created_at: Timestamp,
    /// When its first attempt was decided.
    #[serde(with = "optional_micros")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(with = "optional_micros")]
    pub finished_at: Option<Timestamp>,
    /// The last event that the row knows of.
    pub seq: u32,
}

/// Which log lines of a run; all conditions that are given must hold.
#[derive(Clone, Debug, Default)]
pub struct LogFilter {
    /// Only behind this one: event and line.
    pub after: Option<(u32, u32)>,
    /// Only of this step.
    pub step: Option<StepPath>,
    /// Only this grave or graver.
    pub level: Option<LogLevel>,
}

impl Store {
    /// How far a partition's journal has been stored, by partition: [`Store::note_sink_positions`].
    pub async fn sink_positions(&self) -> Result<BTreeMap<u32, u64>, StoreError> {
        let query = self.client()?.query("SELECT ?fields FROM sink_positions FINAL");
        let rows = self.timely(query.fetch_all::<SinkPositionRow>()).await?;
        Ok(rows.into_iter().map(|row| (row.partition, row.position)).collect())
    }

    /// A run's row.
    pub async fn run(&self, run: RunId) -> Result<Option<RunRow>, StoreError> {
        let query = self.client()?.query("SELECT ?fields FROM runs FINAL WHERE run = {run:UUID}");
        self.timely(query.param("run", run.to_string()).fetch_optional::<RunRow>()).await
    }

    /// Runs, newest first: descending by (created_at, run), ids compared as their text is.
    pub async fn list_runs(&self, filter: &RunFilter, limit: usize) -> Result<Vec<RunHead>, StoreError> {
        let mut conditions = vec!["1"];
        let mut query_parameters: Vec<(&str, String)> = vec![("limit", limit.to_string())];
        if let Some(workflow) = &filter.workflow {
            conditions.push("workflow = {workflow:String}");
            query_parameters.push(("workflow", workflow.clone()));
        }
        if let Some(version) = filter.version {
            conditions.push("workflow_version = {version:UInt32}");
            query_parameters.push(("version", version.to_string()));
        }
        if !filter.status.is_empty() {
            conditions.push("has(splitByChar(',', {status:String}), status)");
            let words: Vec<&str> = filter.status.iter().map(|status| status.as_str()).collect();
            query_parameters.push(("status", words.join(",")));
        }
        if let Some(from) = filter.created_from {
            conditions.push("created_at >= fromUnixTimestamp64Micro({from:Int64}, 'UTC')");
            query_parameters.push(("from", from.0.to_string()));
        }
        if let Some(before) = filter.created_before {
            conditions.push("created_at < fromUnixTimestamp64Micro({before:Int64}, 'UTC')");
            query_parameters.push(("before", before.0.to_string()));
        }
        if let Some((at, run)) = filter.after {
            // The first condition says nothing new; it is the one that the index understands.
            conditions.push("created_at <= fromUnixTimestamp64Micro({after_at:Int64}, 'UTC')");
            conditions.push(
                "(created_at, UUIDToNum(run)) \
                 < (fromUnixTimestamp64Micro({after_at:Int64}, 'UTC'), UUIDToNum({after_run:UUID}))",
            );
            query_parameters.push(("after_at", at.0.to_string()));
            query_parameters.push(("after_run", run.to_string()));
        }
        let sql = format!(
            "SELECT ?fields FROM runs FINAL WHERE {} \
             ORDER BY created_at DESC, UUIDToNum(run) DESC LIMIT {{limit:UInt64}}",
            conditions.join(" AND ")
        );
        let query = self.client()?.query(&sql);
        let query = query_parameters.into_iter().fold(query, |query, (name, value)| query.param(name, value));
        self.timely(query.fetch_all::<RunHead>()).await
    }

    /// All attempts of a run, by step and number; skipped steps are among them as attempt 0.
    pub async fn attempts(&self, run: RunId) -> Result<Vec<AttemptRow>, StoreError> {
        let sql = "SELECT ?fields FROM attempts FINAL WHERE run = {run:UUID} ORDER BY step, attempt";
        let query = self.client()?.query(sql).param("run", run.to_string());
        self.timely(query.fetch_all::<AttemptRow>()).await
    }

    /// Log lines of a run, in the order of their events.
    pub async fn logs(
        &self,
        run: RunId,
        filter: &LogFilter,
        limit: usize,
    ) -> Result<Vec<LogRow>, StoreError> {
        let sql = "SELECT ?fields FROM logs FINAL WHERE run = {run:UUID} \
            AND (seq, line) > ({seq:Int64}, {line:Int64}) \
            AND (empty({step:String}) OR step = {step:String}) \
            AND toInt8(level) >= {level:Int8} \
            ORDER BY seq, line LIMIT {limit:UInt64}";
        let after = filter.after.map_or((-1, -1), |(seq, line)| (i64::from(seq), i64::from(line)));
        let query = self
            .client()?
            .query(sql)
            .param("run", run.to_string())
            .param("seq", after.0)
            .param("line", after.1)
            .param("step", filter.step.as_ref().map_or("", StepPath::as_str))
            .param("level", filter.level.map_or(0, level::number))
            .param("limit", limit as u64);
        self.timely(query.fetch_all::<LogRow>()).await
    }

    /// Events of a run behind `after`, ascending.
    pub async fn events(&self, run: RunId, after: u32, limit: usize) -> Result<Vec<EventRow>, StoreError> {
        let sql = "SELECT ?fields FROM events FINAL WHERE run = {run:UUID} AND seq > {after:UInt32} \
            ORDER BY seq LIMIT {limit:UInt64}";
        let query = self
            .client()?
            .query(sql)
            .param("run", run.to_string())
            .param("after", after)
            .param("limit", limit as u64);
        self.timely(query.fetch_all::<EventRow>()).await
    }
}
