//! The rows of the tables, field by field as in `schema.rs`. Each last field is a number on purpose: the `clickhouse`
//! crate takes an answer that ends like an error message for one, and so no text of a guest may stand at the end.

use std::{borrow::Cow, sync::Arc};

use clickhouse::Row;
use reipaz_core::{event::LogLevel, json::Json, time::Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// A word from a closed set (a status, a class): usually static.
pub type Word = Cow<'static, str>;

/// Pairs of a map column.
pub type Pairs = Vec<(Arc<str>, Arc<str>)>;

/// A row of `sink_positions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub(crate) struct SinkPositionRow {
    /// Of the journal.
    pub partition: u32,
    /// All rows of events up to here are stored.
    pub position: u64,
}

/// A row of `workflows`.
#[derive(Clone, Debug, PartialEq, Row, Serialize, Deserialize)]
pub struct WorkflowRow {
    /// The workflow.
    pub name: Arc<str>,
    /// `sha256:...` of the pinned workflow.
    pub digest: String,
    /// [`reipaz_core::plan::PinnedWorkflow`] as JSON.
    pub pinned: Json,
    /// When it was published.
    #[serde(with = "micros")]
    pub created_at: Timestamp,
    /// Counts from 1.
    pub version: u32,
}

/// A row of `plugins`.
#[derive(Clone, Debug, PartialEq, Row, Serialize, Deserialize)]
pub struct PluginRow {
    /// Its name.
    pub name: Arc<str>,
    /// Its full version.
    pub version: Arc<str>,
    /// `sha256:...` of the component.
    pub digest: String,
    /// One sentence.
    pub summary: Arc<str>,
    /// When.
    #[serde(with = "micros")]
    pub installed_at: Timestamp,
}

/// A row of `runs`.
#[derive(Clone, Debug, PartialEq, Row, Serialize, Deserialize)]
pub struct RunRow {
    /// Its id.
    #[serde(with = "clickhouse::serde::uuid")]
    pub run: Uuid,
    /// The workflow.
    pub workflow: Arc<str>,
    /// The version that it started with.
    pub workflow_version: u32,
    /// `sha256:...` of that version.
    pub workflow_digest: Arc<str>,
    /// `pending`, `running`, `paused`, `completed`, `failed` or `cancelled`.
    pub status: Word,
    /// The last event that this row knows of.
    pub seq: u32,
    /// JSON.
    pub input: Json,
    /// JSON; null unless completed.
    pub output: Json,
    /// Empty unless failed, as the four that follow.
    pub error_class: Word,
    /// Stable.
    pub error_code: Arc<str>,
    /// For people.
    pub error_message: Arc<str>,
    /// The step that failed first; empty if no step is to blame.
    pub error_step: Arc<str>,
    /// Its last attempt, or 0.
    pub error_attempt: u32,
    /// Empty if there is none.
    pub idempotency_key: Arc<str>,
    /// Carried along.
    pub metadata: Pairs,
    /// JSON; empty if it was submitted.
    pub trigger: Json,
    /// When it was accepted.
    #[serde(with = "micros")]
    pub created_at: Timestamp,
    /// When its first attempt was decided.
    #[serde(with = "optional_micros")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(with = "optional_micros")]
    pub finished_at: Option<Timestamp>,
    /// When it fails as a timeout.
    #[serde(with = "optional_micros")]
    pub deadline: Option<Timestamp>,
    /// The journal's partition.
    pub partition: u32,
    /// Journal position of the event behind this row.
    pub version: u64,
}

/// A row of `attempts`.
#[derive(Clone, Debug, PartialEq, Row, Serialize, Deserialize)]
pub struct AttemptRow {
    /// The run.
    #[serde(with = "clickhouse::serde::uuid")]
    pub run: Uuid,
    /// Path of the step.
    pub step: Arc<str>,
    /// Counts from 1; 0 for a skipped step.
    pub attempt: u32,
    /// The run's workflow.
    pub workflow: Arc<str>,
    /// `scheduled`, `running`, `completed`, `failed`, `cancelled` or `skipped`.
    pub status: Word,
    /// JSON; null unless completed.
    pub output: Json,
    /// Empty unless failed, as the three that follow.
    pub error_class: Word,
    /// Stable.
    pub error_code: Arc<str>,
    /// For people.
    pub error_message: Arc<str>,
    /// JSON, or empty.
    pub error_details: Json,
    /// The patience that the other side asked for.
    pub retry_after_ms: Option<u64>,
    /// Why it was skipped, or which part of the retry rule gave its time.
    pub reason: Arc<str>,
    /// When it is to start, while scheduled.
    #[serde(with = "optional_micros")]
    pub due_at: Option<Timestamp>,
    /// When it was decided to start.
    #[serde(with = "optional_micros")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(with = "optional_micros")]
    pub finished_at: Option<Timestamp>,
    /// How often its host was lost.
    pub interruptions: u32,
    /// `sha256:...` of the evaluated `with`, or empty.
    pub input_digest: String,
    /// CPU time in the guest.
    pub cpu_us: u64,
    /// From instantiation to outcome.
    pub wall_us: u64,
    /// From decision to instantiation.
    pub queued_us: u64,
    /// Of the guest's memories.
    pub memory_peak_bytes: u64,
    /// Log over the limit.
    pub logs_dropped_bytes: u64,
    /// When the run was accepted.
    #[serde(with = "micros")]
    pub run_created_at: Timestamp,
    /// The journal's partition.
    pub partition: u32,
    /// Journal position of the event behind this row.
    pub version: u64,
}

/// A row of `logs`.
#[derive(Clone, Debug, PartialEq, Row, Serialize, Deserialize)]
pub struct LogRow {
    /// The run.
    #[serde(with = "clickhouse::serde::uuid")]
    pub run: Uuid,
    /// The event that carries the line.
    pub seq: u32,
    /// Counts from 0 within the event.
    pub line: u32,
    /// The run's workflow.
    pub workflow: Arc<str>,
    /// Path of the step.
    pub step: Arc<str>,
    /// Counts from 1.
    pub attempt: u32,
    /// The attempt's own clock.
    #[serde(with = "micros")]
    pub at: Timestamp,
    /// How grave.
    #[serde(with = "level")]
    pub level: LogLevel,
    /// The text.
    pub message: Arc<str>,
    /// Structured fields.
    pub fields: Pairs,
    /// When the run was accepted.
    #[serde(with = "micros")]
    pub run_created_at: Timestamp,
    /// The journal's partition.
    pub partition: u32,
    /// Journal position of the event.
    pub version: u64,
}

/// A row of `events`.
#[derive(Clone, Debug, PartialEq, Row, Serialize, Deserialize)]
pub struct EventRow {
    /// The run.
    #[serde(with = "clickhouse::serde::uuid")]
    pub run: Uuid,
    /// Counts from 1 within the run.
    pub seq: u32,
    /// `run_accepted`, `attempt_started`...
    #[serde(rename = "type")]
    pub kind: Word,
    /// The run's workflow.
    pub workflow: Arc<str>,
    /// Partition time of the decision.
    #[serde(with = "micros")]
    pub at: Timestamp,
    /// The whole event as JSON.
    pub event: Json,
    /// When the run was accepted.
    #[serde(with = "micros")]
    pub run_created_at: Timestamp,
    /// The journal's partition.
    pub partition: u32,
    /// Journal position.
    pub version: u64,
}

/// [`Timestamp`] as `DateTime64(6)`.
pub(crate) mod micros {
    use super::{Deserialize, Deserializer, Serializer, Timestamp};

    pub(crate) fn serialize<S: Serializer>(time: &Timestamp, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_i64(i64::try_from(time.0).unwrap_or(i64::MAX))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Timestamp, D::Error> {
        let micros = i64::deserialize(d)?;
        u64::try_from(micros).map(Timestamp).map_err(|_| serde::de::Error::custom("a time before 1970"))
    }
}

/// [`Timestamp`] as `Nullable(DateTime64(6))`.
pub(crate) mod optional_micros {
    use super::{Deserialize, Deserializer, Serialize as _, Serializer, Timestamp};

    pub(crate) fn serialize<S: Serializer>(time: &Option<Timestamp>, s: S) -> Result<S::Ok, S::Error> {
        time.map(|time| i64::try_from(time.0).unwrap_or(i64::MAX)).serialize(s)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Timestamp>, D::Error> {
        let micros = Option::<i64>::deserialize(d)?;
        let time = micros.map(|micros| u64::try_from(micros).map(Timestamp)).transpose();
        time.map_err(|_| serde::de::Error::custom("a time before 1970"))
    }
}

/// [`LogLevel`] as the column's `Enum8`.
pub(crate) mod level {
    use super::{Deserialize, Deserializer, LogLevel, Serializer};

    pub(crate) fn number(level: LogLevel) -> i8 {
        match level {
            LogLevel::Trace => 0,
            LogLevel::Debug => 1,
            LogLevel::Info => 2,
            LogLevel::Warn => 3,
            LogLevel::Error => 4,
        }
    }

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    pub(crate) fn serialize<S: Serializer>(level: &LogLevel, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_i8(number(*level))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<LogLevel, D::Error> {
        Ok(match i8::deserialize(d)? {
            0 => LogLevel::Trace,
            1 => LogLevel::Debug,
            2 => LogLevel::Info,
            3 => LogLevel::Warn,
            4 => LogLevel::Error,
            other => return Err(serde::de::Error::custom(format!("no level has the number {other}"))),
        })
    }
}
