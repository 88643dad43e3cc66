//! Log lines, kept with the attempt.
//!
//! ```
//! use reipaz_sdk::{info, warn};
//! let rows = 7;
//! info!("parsed {rows} rows");
//! warn!("skipped", line = 12, why = "no date");
//! ```
//!
//! Inside a component they go to the host, which caps them per attempt and says how much it dropped; natively to stderr.

use std::fmt;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every turn of a loop.
    Trace,
    /// For whoever debugs the step.
    Debug,
    /// What happened.
    Info,
    /// Something to look at.
    Warn,
    /// Something that failed.
    Error,
}

/// Writes one line with fields by name. The macros are more convenient.
#[cfg(target_family = "wasm")]
pub fn log(level: Level, message: fmt::Arguments<'_>, fields: &[(&str, &dyn fmt::Display)]) {
    use crate::guest::bindings::reipaz::step::log as host;
    let level = match level {
        Level::Trace => host::Level::Trace,
        Level::Debug => host::Level::Debug,
        Level::Info => host::Level::Info,
        Level::Warn => host::Level::Warn,
        Level::Error => host::Level::Error,
    };
    let fields: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect();
    host::log(level, &message.to_string(), &fields);
}

/// Writes one line with fields by name. The macros are more convenient.
#[cfg(not(target_family = "wasm"))]
pub fn log(level: Level, message: fmt::Arguments<'_>, fields: &[(&str, &dyn fmt::Display)]) {
    let mut line = format!("{} {message}", format!("{level:?}").to_lowercase());
    for (name, value) in fields {
        line.push_str(&format!(" {name}={value}"));
    }
    eprintln!("{line}");
}

/// Shared by the five levels.
#[doc(hidden)]
#[macro_export]
macro_rules! __log {
    ($level:ident, $message:literal $(, $field:ident = $value:expr)* $(,)?) => {
        $crate::log::log(
            $crate::log::Level::$level,
            ::core::format_args!($message),
            &[$((::core::stringify!($field), &$value as &dyn ::core::fmt::Display)),*],
        )
    };
    ($level:ident, $($argument:tt)+) => {
        $crate::log::log($crate::log::Level::$level, ::core::format_args!($($argument)+), &[])
    };
}

/// Writes a log line of level trace: `trace!("row {i}", value = x)`.
#[macro_export]
macro_rules! trace { ($($line:tt)+) => { $crate::__log!(Trace, $($line)+) }; }
/// Writes a log line of level debug: `debug!("row {i}", value = x)`.
#[macro_export]
macro_rules! debug { ($($line:tt)+) => { $crate::__log!(Debug, $($line)+) }; }
/// Writes a log line of level info: `info!("read {n} rows", file = name)`.
#[macro_export]
macro_rules! info { ($($line:tt)+) => { $crate::__log!(Info, $($line)+) }; }
/// Writes a log line of level warn: `warn!("row skipped", line = 12)`.
#[macro_export]
macro_rules! warn { ($($line:tt)+) => { $crate::__log!(Warn, $($line)+) }; }
/// Writes a log line of level error: `error!("gave up", tries = 3)`.
#[macro_export]
macro_rules! error { ($($line:tt)+) => { $crate::__log!(Error, $($line)+) }; }
