//! How a command ends: its exit code, and one clear line on standard error. Scripts may rely on the codes.

use std::{fmt, process::ExitCode};

/// What an exit code means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// The run failed, or was cancelled; the doctor found a failure.
    Failed = 1,
    /// The command line, or a file that it names, is wrong. (clap ends with this code too.)
    Usage = 2,
    /// No host answers.
    Unreachable = 3,
    /// The host answered and refused.
    Refused = 4,
    /// A workflow document, or a step's source, has mistakes.
    Document = 5,
    /// A tool that the command needs is missing, or failed.
    Tool = 6,
    /// The host's configuration is wrong.
    Config = 10,
    /// The host cannot have its port.
    Listen = 11,
    /// Another host has the data directory, or it cannot be used.
    DataDir = 12,
    /// The journal is damaged, or was written by another version. Nothing was changed.
    Journal = 13,
    /// Any other reason why the host does not start, or stopped by itself.
    Host = 14,
}

/// The table of codes, for `reipaz --help`.
pub(crate) const TABLE: &str = "\
Exit codes:
   0  done               4  refused by the host          11  port in use
   1  run, check failed  5  mistakes in the document     12  data directory in use
   2  wrong usage        6  a tool is missing or failed  13  journal damaged
   3  no host answers   10  configuration wrong          14  host failed";

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Code,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// With one line for a person: what, where, why.
    pub(crate) fn new(code: Code, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string(), hint: None }
    }

    /// Wrong usage.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Code::Usage, message)
    }

    /// For when all has been said already.
    pub(crate) fn silent(code: Code) -> Self {
        Self { code, message: String::new(), hint: None }
    }

    /// With how to mend it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// Its code.
    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// Says it on standard error and gives the code.
    pub(crate) fn report(&self) -> ExitCode {
        if !self.message.is_empty() {
            super::output::note(&self.to_string());
        }
        ExitCode::from(self.code as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\n  help: {hint}"))
    }
}

/// What every command gives back.
pub(crate) type Done = Result<(), Failure>;
