//! The tables, as a list of migrations. A migration that was released is never edited: further ones are appended, and
//! they only add (tables, columns with defaults), so that an older host goes on working beside a newer one.
//!
//! All tables are ReplacingMergeTree: the sink writes a row again when it learns more of what the row is about, or
//! after a crash, and the row with the highest `version` (the journal position of the event that it comes from)
//! replaces the others. Until parts are merged the older ones are still there: read with `FINAL`, or with the
//! setting `final = 1`, as Reipaz's own SQL endpoint does. Rows are partitioned by the month in which their run was
//! created, which never changes, so a row and its replacements always meet, and `FINAL` need not look across
//! partitions.
//!
//! `fsync_after_insert` and `fsync_part_directory`: an insert is answered when its rows are on disk, because the
//! journal is cut below what the sink has stored.

/// One step of the schema.
pub(crate) struct Migration {
    /// Counts from 1.
    pub(crate) number: u32,
    /// For people.
    pub(crate) name: &'static str,
    /// Each can be executed again without harm: a crash between two of them repeats the migration.
    pub(crate) statements: &'static [&'static str],
}

/// Where applied migrations are noted.
pub(crate) const MIGRATIONS_TABLE: &str = "
CREATE TABLE IF NOT EXISTS schema_migrations
(
    number UInt32 COMMENT 'Counts from 1',
    name String COMMENT 'What it brought',
    applied_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC') COMMENT 'When'
)
ENGINE = ReplacingMergeTree ORDER BY number
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Which changes of the schema were applied'";

/// All migrations, ascending.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration {
        number: 1,
        name: "workflows, plugins, runs, attempts, logs, events",
        statements: &[WORKFLOWS, PLUGINS, RUNS, ATTEMPTS, LOGS, EVENTS],
    },
    Migration { number: 2, name: "sink_positions", statements: &[SINK_POSITIONS] },
];

// Where several hosts share the partitions, a partition's new owner goes on where the last one stopped.
const SINK_POSITIONS: &str = "
CREATE TABLE IF NOT EXISTS sink_positions
(
    partition UInt32 COMMENT 'Of the journal',
    position UInt64 COMMENT 'All rows of events up to here are stored'
)
ENGINE = ReplacingMergeTree(position) ORDER BY partition
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'How far the journal has been projected'";

const WORKFLOWS: &str = "
CREATE TABLE IF NOT EXISTS workflows
(
    name LowCardinality(String) COMMENT 'The workflow',
    version UInt32 COMMENT 'Counts from 1',
    digest String COMMENT 'Of the pinned workflow, sha256:...',
    pinned String COMMENT 'The document and what each uses was resolved to, as JSON' CODEC(ZSTD(3)),
    created_at DateTime64(6, 'UTC') COMMENT 'When it was published'
)
ENGINE = ReplacingMergeTree ORDER BY (name, version)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Published workflow versions'";

const PLUGINS: &str = "
CREATE TABLE IF NOT EXISTS plugins
(
    name LowCardinality(String) COMMENT 'The plugin, http_request or acme/score',
    version String COMMENT 'Its full version',
    digest String COMMENT 'Of the component, sha256:...',
    summary String COMMENT 'What it does, in a sentence',
    installed_at DateTime64(6, 'UTC') COMMENT 'When'
)
ENGINE = ReplacingMergeTree ORDER BY (name, version, digest)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Installed plugins'";

// Ordered by time, because lists are; a run is found by its id through the filter (1 in 100 granules by mistake).
const RUNS: &str = "
CREATE TABLE IF NOT EXISTS runs
(
    run UUID COMMENT 'Its id',
    workflow LowCardinality(String) COMMENT 'The workflow',
    workflow_version UInt32 COMMENT 'The version that it started with and keeps',
    workflow_digest String COMMENT 'Digest of that version, sha256:...' CODEC(ZSTD(1)),
    status LowCardinality(String) COMMENT 'pending, running, paused, completed, failed or cancelled',
    seq UInt32 COMMENT 'The last event that this row knows of',
    input String COMMENT 'JSON' CODEC(ZSTD(1)),
    output String COMMENT 'JSON; null unless completed' CODEC(ZSTD(1)),
    error_class LowCardinality(String) COMMENT 'permanent, transient, network, timeout, rate_limited, resource, trap, denied, cancelled or host; empty unless failed',
    error_code LowCardinality(String) COMMENT 'Stable, for programs',
    error_message String COMMENT 'For people' CODEC(ZSTD(1)),
    error_step String COMMENT 'The step that failed first' CODEC(ZSTD(1)),
    error_attempt UInt32 COMMENT 'Its last attempt; 0 if no step is to blame',
    idempotency_key String COMMENT 'The submitter''s; empty if there is none' CODEC(ZSTD(1)),
    metadata Map(LowCardinality(String), String) COMMENT 'Carried along by the submitter' CODEC(ZSTD(1)),
    trigger String COMMENT 'What started it, JSON; empty if it was submitted' CODEC(ZSTD(1)),
    created_at DateTime64(6, 'UTC') COMMENT 'When it was accepted' CODEC(Delta, ZSTD(1)),
    started_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When its first attempt was decided' CODEC(ZSTD(1)),
    finished_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When it ended' CODEC(ZSTD(1)),
    deadline Nullable(DateTime64(6, 'UTC')) COMMENT 'When it fails as a timeout' CODEC(ZSTD(1)),
    partition UInt32 COMMENT 'The journal''s partition that decides for it',
    version UInt64 COMMENT 'Journal position of the event behind this row; the highest row counts' CODEC(Delta, ZSTD(1)),
    INDEX run_filter run TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(created_at) ORDER BY (created_at, run)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Runs: one row each, complete; read with FINAL'";

const ATTEMPTS: &str = "
CREATE TABLE IF NOT EXISTS attempts
(
    run UUID COMMENT 'The run',
    step String COMMENT 'Path of the step, /fetch' CODEC(ZSTD(1)),
    attempt UInt32 COMMENT 'Counts from 1; 0 for a step that was skipped',
    workflow LowCardinality(String) COMMENT 'The run''s workflow',
    status LowCardinality(String) COMMENT 'scheduled, running, completed, failed, continued (failed, and the run goes on), cancelled, skipped or parked (a circuit breaker was open)',
    output String COMMENT 'JSON; null unless completed' CODEC(ZSTD(1)),
    error_class LowCardinality(String) COMMENT 'As in runs; empty unless failed',
    error_code LowCardinality(String) COMMENT 'Stable, for programs',
    error_message String COMMENT 'For people' CODEC(ZSTD(1)),
    error_details String COMMENT 'JSON with whatever helps a review; empty if there is nothing' CODEC(ZSTD(1)),
    retry_after_ms Nullable(UInt64) COMMENT 'The patience that the other side asked for',
    reason String COMMENT 'Why it was skipped, or which part of the retry rule gave its time' CODEC(ZSTD(1)),
    due_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When it is to start, while scheduled' CODEC(ZSTD(1)),
    started_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When it was decided to start' CODEC(ZSTD(1)),
    finished_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When it ended' CODEC(ZSTD(1)),
    interruptions UInt32 COMMENT 'How often its host was lost',
    input_digest String COMMENT 'Of the evaluated with, sha256:...' CODEC(ZSTD(1)),
    cpu_us UInt64 COMMENT 'CPU time in the guest',
    wall_us UInt64 COMMENT 'From instantiation to outcome',
    queued_us UInt64 COMMENT 'From decision to instantiation',
    memory_peak_bytes UInt64 COMMENT 'Of the guest''s memories',
    logs_dropped_bytes UInt64 COMMENT 'Log over the limit',
    run_created_at DateTime64(6, 'UTC') COMMENT 'When the run was accepted' CODEC(Delta, ZSTD(1)),
    partition UInt32 COMMENT 'The journal''s partition',
    version UInt64 COMMENT 'Journal position of the event behind this row; the highest row counts' CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(run_created_at) ORDER BY (run, step, attempt)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Attempts at steps, with their outputs: one row each, complete; read with FINAL'";

const LOGS: &str = "
CREATE TABLE IF NOT EXISTS logs
(
    run UUID COMMENT 'The run',
    seq UInt32 COMMENT 'The event that carries the line',
    line UInt32 COMMENT 'Counts from 0 within the event',
    workflow LowCardinality(String) COMMENT 'The run''s workflow',
    step String COMMENT 'Path of the step' CODEC(ZSTD(1)),
    attempt UInt32 COMMENT 'Counts from 1',
    at DateTime64(6, 'UTC') COMMENT 'The attempt''s own clock' CODEC(Delta, ZSTD(1)),
    level Enum8('trace' = 0, 'debug' = 1, 'info' = 2, 'warn' = 3, 'error' = 4) COMMENT 'How grave',
    message String COMMENT 'The text' CODEC(ZSTD(1)),
    fields Map(LowCardinality(String), String) COMMENT 'Structured fields' CODEC(ZSTD(1)),
    run_created_at DateTime64(6, 'UTC') COMMENT 'When the run was accepted' CODEC(Delta, ZSTD(1)),
    partition UInt32 COMMENT 'The journal''s partition',
    version UInt64 COMMENT 'Journal position of the event' CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(run_created_at) ORDER BY (run, seq, line)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'What steps logged'";

const EVENTS: &str = "
CREATE TABLE IF NOT EXISTS events
(
    run UUID COMMENT 'The run',
    seq UInt32 COMMENT 'Counts from 1 within the run, without gaps',
    type LowCardinality(String) COMMENT 'run_accepted, attempt_started, attempt_finished, run_finished...',
    workflow LowCardinality(String) COMMENT 'The run''s workflow',
    at DateTime64(6, 'UTC') COMMENT 'Partition time of the decision' CODEC(Delta, ZSTD(1)),
    event String COMMENT 'The whole event as JSON' CODEC(ZSTD(1)),
    run_created_at DateTime64(6, 'UTC') COMMENT 'When the run was accepted' CODEC(Delta, ZSTD(1)),
    partition UInt32 COMMENT 'The journal''s partition',
    version UInt64 COMMENT 'Journal position; with the partition it identifies the event' CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(run_created_at) ORDER BY (run, seq)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'All that happened to runs: the journal''s events'";
