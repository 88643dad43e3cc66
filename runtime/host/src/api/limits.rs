//! Every bound of the API, each with its reason.

use std::time::Duration;

/// A workflow document, bytes. From the budget in ARCHITECTURE.md.
pub const DOCUMENT_BYTES: usize = 256 << 10;
/// A plugin component, bytes. From the same budget.
pub const PLUGIN_BYTES: usize = 32 << 20;
/// A body that submits a run, beyond the payload limit that the operator sets: room for metadata and the frame.
pub const SUBMIT_FRAME_BYTES: usize = 64 << 10;
/// Every other body (`{"reason": ...}`), bytes.
pub const SMALL_BODY_BYTES: usize = 64 << 10;
/// One SQL statement, bytes: what ClickHouse itself takes by default (`max_query_size`).
pub const SQL_BYTES: usize = 256 << 10;
/// A request's target (path and query), bytes: what proxies commonly let through.
pub const TARGET_BYTES: usize = 8 << 10;
/// A request's head in all, bytes. The HTTP layer answers 431 once so much has arrived and the head has not ended; one
/// that ends in the same read passes.
pub const HEAD_BYTES: usize = 64 << 10;

/// The longest `Prefer: wait`, whatever was asked for: proxies cut idle requests at 60 s or earlier.
pub const WAIT_MAX: Duration = Duration::from_secs(30);
/// Within this time a body has to arrive whole.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// As [`BODY_TIMEOUT`], for a plugin.
pub const PLUGIN_BODY_TIMEOUT: Duration = Duration::from_secs(300);
/// A request without a stream is answered within this time; above [`WAIT_MAX`] and [`BODY_TIMEOUT`] together.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);
/// As [`ANSWER_TIMEOUT`], for installing a plugin: compiling a Python component takes a while on a small machine.
pub const INSTALL_TIMEOUT: Duration = Duration::from_secs(900);
/// A connection that sends no request head for so long is closed.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// How long open connections get to finish once the host stops.
pub const STOP_GRACE: Duration = Duration::from_secs(5);
/// A comment line goes to an event stream that is silent for so long, so that nobody between takes it for dead.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// What an event stream tells its client to wait before it connects again.
pub const STREAM_RETRY: Duration = Duration::from_secs(1);

/// Connections at one time: the 2,000 waiters of the acceptance test several times over, and still below 1 GiB of
/// buffers at worst.
pub const CONNECTIONS: usize = 10_000;

/// Runs on one page, unless `limit` says otherwise, and at most.
pub const RUNS_PAGE: (usize, usize) = (50, 1_000);
/// Events in one answer, unless `limit` says otherwise, and at most.
pub const EVENTS_PAGE: (usize, usize) = (500, 5_000);
/// Attempts in one answer, unless `limit` says otherwise, and at most.
pub const ATTEMPTS_PAGE: (usize, usize) = (100, 1_000);
/// Log lines in one answer, unless `limit` says otherwise, and at most.
pub const LOGS_PAGE: (usize, usize) = (500, 5_000);

/// Runs that one bulk call changes, at most.
pub const BULK: usize = 100;
/// Between two of them: 50 a second.
pub const BULK_EVERY: Duration = Duration::from_millis(20);
/// How long a bulk call may take, since many functions are cut off at 10 s.
pub const BULK_TIME: Duration = Duration::from_secs(7);

/// An idempotency key, bytes.
pub const KEY_BYTES: usize = 255;
/// Entries of a run's metadata.
pub const METADATA_ENTRIES: usize = 32;
/// One name or value of a run's metadata, bytes.
pub const METADATA_BYTES: usize = 1 << 10;
/// Why somebody cancels, pauses or resumes, bytes.
pub const REASON_BYTES: usize = 1 << 10;
/// A caller's own request id, bytes; a longer one is replaced.
pub const REQUEST_ID_BYTES: usize = 64;

/// How much of a body that is too large is read before the answer.
pub const DISCARD_BYTES: usize = 64 << 20;

/// And for how long.
pub const DISCARD_TIME: Duration = Duration::from_secs(5);
