//! The engine: plugins and attempts. It compiles and keeps components, and executes one attempt of one step at a time in a
//! fresh instance, within limits, in a world of its own.
//!
//! It knows nothing of runs and their state, of Kafka or ClickHouse, or of the core: an [`Attempt`] comes in, an [`Outcome`]
//! goes out, and it always comes: no guest, expression or network can keep it longer than its timeout.
//!
//! Where to look: [`Engine`] is the whole surface; `driver` runs one guest; `guest/` is the world that it sees; `http/` the
//! way out of it; `verdict` says why it failed; `inspect`, `compiler`, `artefact` and `native` bring a binary in; `limits`
//! has every bound.

#![warn(missing_docs)]

mod artefact;
mod attempt;
mod bindings;
mod breaker;
mod compiler;
mod config;
mod driver;
mod engine;
mod evaluate;
mod grants;
mod guest;
mod http;
mod inspect;
mod install;
pub mod limits;
mod machine;
mod manifest;
mod native;
mod output;
mod threads;
mod ticker;
mod verdict;

pub use artefact::CacheError;
pub use attempt::{
    Attempt, Class, Context, Evaluated, Evaluation, Failure, Level, LogLine, NoSecrets, Outcome, Progress,
    Report, Reports, Secrets, Usage,
};
pub use breaker::{
    BreakerChange, BreakerId, BreakerKind, BreakerRules, BreakerState, BreakerView, Breakers, Parked,
};
pub use compiler::{CompileError, compile_child_main};
pub use config::{CompilerCommand, EngineConfig, HttpLimits, PagemapScan};
pub use engine::{Engine, EngineError, Stats};
pub use grants::{GrantError, Grants, GrantsError, HttpGrant, Network, NetworkError};
pub use http::{Resolver, SystemResolver};
pub use inspect::NotAStep;
pub use install::{InstallError, Installed, LoadError};
pub use manifest::{GrantRequest, Manifest};
pub use verdict::{ATTEMPT_TIMEOUT, QUEUE_TIMEOUT};
