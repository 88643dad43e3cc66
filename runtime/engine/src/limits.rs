//! Every bound of the engine, in one place, with its reason. Those that an operator may want to change are fields of
//! [`crate::EngineConfig`], which takes its defaults from here.

use std::time::Duration;

/// The largest component that is accepted, in bytes. Python components are around 18 MiB, JavaScript ones 12 MiB.
pub const PLUGIN_BYTES: usize = 32 << 20;

/// How much linear memory one attempt may have in all, in bytes.
pub const MEMORY_BYTES: usize = 256 << 20;

/// Elements of one table. The largest of the known toolchains, componentize-py, needs some 15,000.
pub const TABLE_ELEMENTS: usize = 20_000;

/// Core instances of one component. componentize-py makes 14.
pub const CORE_INSTANCES: u32 = 16;

/// Tables of one component.
pub const TABLES: u32 = 4;

/// Linear memories of one component: one for each language's module, and one to spare for a composed component.
pub const MEMORIES: u32 = 2;

/// How much of a memory stays resident between attempts, in bytes: what a small guest touches anyway, so that its next
/// attempt faults in nothing.
pub const KEEP_RESIDENT_BYTES: usize = 1 << 20;

/// Freed memories that keep what is resident of them for the plugin's next attempt. More would hold memory for bursts
/// of waiting guests, for whom a cold start is nothing.
pub const WARM_MEMORIES: u32 = 64;

/// The guest's stack, in bytes.
pub const STACK_BYTES: usize = 512 << 10;

/// The output of one attempt, and each value of an expression, in bytes of JSON.
pub const OUTPUT_BYTES: usize = 1 << 20;

/// The log of one attempt, in bytes of its lines' text. What is over it is counted and dropped.
pub const LOG_BYTES: usize = 64 << 10;

/// What a guest may hand to the host in one call, in bytes. More than any output or chunk of a body.
pub const HOSTCALL_BYTES: usize = 4 << 20;

/// The host's objects (streams, requests, sleeps) that a guest may hold at once.
pub const HANDLES: usize = 1_024;

/// What a guest may draw of randomness in one call, in bytes.
pub const RANDOM_BYTES: u64 = 1 << 20;

/// How deep JSON may nest, less than what serde_json reads (128), since an output is nested again in what surrounds it.
pub const JSON_DEPTH: usize = 100;

/// A failure's message, in bytes.
pub const MESSAGE_BYTES: usize = 4 << 10;

/// A failure's details, in bytes of JSON.
pub const DETAILS_BYTES: usize = 64 << 10;

/// Each schema of a manifest, and its extra, in bytes of JSON.
pub const SCHEMA_BYTES: usize = 256 << 10;

/// A progress note, in bytes.
pub const NOTE_BYTES: usize = 1 << 10;

/// How often a running guest looks whether it should stop: the worst lateness of a guest that runs alone.
pub const TICK: Duration = Duration::from_millis(1);

/// The least time between two reports of one attempt.
pub const REPORT_INTERVAL: Duration = Duration::from_millis(500);

/// How long `describe` may take. An interpreter that starts takes under a second.
pub const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the evaluation of a step's expressions may take.
pub const EXPRESSION_TIMEOUT: Duration = Duration::from_secs(1);

/// How much memory the evaluation of a step's expressions may take, in bytes.
pub const EXPRESSION_MEMORY_BYTES: usize = 64 << 20;

/// How long the compiler may take. Python takes some 20 s on 2 cores.
pub const COMPILE_TIMEOUT: Duration = Duration::from_secs(180);

/// How much compiled code is kept on disk, in bytes; what was not used longest goes first.
pub const CACHE_BYTES: u64 = 2 << 30;

/// How long the connector waits for a name and a connection when the guest says nothing.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A response's header section, in bytes.
pub const HTTP_HEADER_BYTES: usize = 64 << 10;

/// A response's header fields.
pub const HTTP_HEADERS: usize = 128;

/// The body of one request, in bytes.
pub const HTTP_REQUEST_BYTES: u64 = 16 << 20;

/// The body of one response, in bytes.
pub const HTTP_RESPONSE_BYTES: u64 = 64 << 20;

/// How long a connection may take, after a response, to be done with its request. A server that has answered in full and
/// has not read the request by then wants no more of it.
pub const HTTP_SETTLE_TIME: Duration = Duration::from_secs(1);

/// Idle connections kept for one host.
pub const HTTP_IDLE_PER_HOST: usize = 16;

/// Idle connections kept in all.
pub const HTTP_IDLE: usize = 256;

/// How long an idle connection is kept. Servers close theirs after 60 s and more, commonly.
pub const HTTP_IDLE_TIME: Duration = Duration::from_secs(30);

/// How much time on the fast threads a guest may take before it goes on on the slow ones. Most steps need less than half a
/// millisecond.
pub const FAST_SHARE: Duration = Duration::from_millis(2);
