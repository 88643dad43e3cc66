//! jq, as the plugin `transform` and the host's expressions speak it: jaq, minus what a sandboxed, repeatable step must not have
//! (`env`, `$ENV`, `now`, `input`, `inputs`, `halt`, `debug`, `stderr`, local time), plus what jq has and jaq lacks.
//!
//! Each attempt is a fresh instance, so a filter is compiled from its text every time, and the library it is compiled against
//! is most of that work. Hence the one idea here: [`library`] holds jq's definitions as text and compiles only those that the
//! filter names, directly or through others.
//!
//! What runs away here (jq can loop, recurse and allocate without end) is the sandbox's business: nothing in this crate bounds it.

mod dates;
mod json;
mod library;
mod natives;
mod program;
mod regex;

pub use jaq_json::Val;
pub use json::{NotJson, read, write};
pub use program::{CompileError, Program, RunError};

/// jq's truth: everything but `false` and `null`.
pub fn truthy(value: &Val) -> bool {
    !matches!(value, Val::Null | Val::Bool(false))
}
