//! What the host decides about the engine. The defaults work; all but `cache_dir` and `jq` can stay.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::{Resolver, SystemResolver, breaker::BreakerRules, limits};

/// How the engine is set up.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// How many guests may be in the engine at once; a guest that waits for an answer holds its permit. Each takes
    /// address space (576 MiB), and memory only for what it touches.
    pub permits: usize,
    /// Threads that run guests; nothing else runs on them.
    pub threads: usize,
    /// Where compiled code is kept. Private to this host: what lies in it is executed.
    pub cache_dir: PathBuf,
    /// How much compiled code is kept there.
    pub cache_bytes: u64,
    /// Linear memory of one attempt, at most [`limits::MEMORY_BYTES`].
    pub memory_bytes: usize,
    /// Output of one attempt.
    pub output_bytes: usize,
    /// Log of one attempt.
    pub log_bytes: usize,
    /// Time for all expressions of one step.
    pub expression_timeout: Duration,
    /// Memory for all expressions of one step.
    pub expression_memory_bytes: usize,
    /// The process that compiles.
    pub compiler: CompilerCommand,
    /// The built-in jq component (`wit/jq.wit`). Without it every evaluation fails.
    pub jq: Option<Bytes>,
    /// Whether freed memory is found by the kernel's `PAGEMAP_SCAN`; by default where the kernel has it (6.7).
    pub pagemap_scan: PagemapScan,
    /// What outgoing HTTP may take.
    pub http: HttpLimits,
    /// Who knows the addresses of the names that guests call.
    pub resolver: Arc<dyn Resolver>,
    /// When circuit breakers open.
    pub breakers: BreakerRules,
}

/// What outgoing HTTP may take.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// For the name and the connection, when the guest says nothing.
    pub connect_timeout: Duration,
    /// The body of one request.
    pub request_bytes: u64,
    /// The body of one response.
    pub response_bytes: u64,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connect_timeout: limits::CONNECT_TIMEOUT,
            request_bytes: limits::HTTP_REQUEST_BYTES,
            response_bytes: limits::HTTP_RESPONSE_BYTES,
        }
    }
}

/// Whether `PAGEMAP_SCAN` is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PagemapScan {
    /// Where the kernel has it.
    #[default]
    Auto,
    /// Not even there; for comparison.
    Off,
}

/// The start of the command line of the process that compiles: it must end in [`crate::compile_child_main`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompilerCommand {
    /// Program and first arguments.
    pub argv: Vec<OsString>,
}

impl Default for CompilerCommand {
    /// This very program with `internal-compile`.
    fn default() -> Self {
        let program =
            std::env::current_exe().map_or_else(|_| OsString::from("reipaz"), PathBuf::into_os_string);
        Self { argv: vec![program, OsString::from("internal-compile")] }
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            permits: 256,
            threads: std::thread::available_parallelism().map_or(2, usize::from),
            cache_dir: PathBuf::from("cache"),
            cache_bytes: limits::CACHE_BYTES,
            memory_bytes: limits::MEMORY_BYTES,
            output_bytes: limits::OUTPUT_BYTES,
            log_bytes: limits::LOG_BYTES,
            expression_timeout: limits::EXPRESSION_TIMEOUT,
            expression_memory_bytes: limits::EXPRESSION_MEMORY_BYTES,
            compiler: CompilerCommand::default(),
            jq: None,
            pagemap_scan: PagemapScan::Auto,
            http: HttpLimits::default(),
            resolver: Arc::new(SystemResolver),
            breakers: BreakerRules::default(),
        }
    }
}
