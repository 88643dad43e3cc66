//! What each of the host's refusals is called outside: [`FacadeError`] to [`Problem`], case by case.

use std::time::Duration;

use reipaz_core::document::{Diagnostic, code};

use super::{kinds, problem::Problem};
use crate::facade::FacadeError;

/// When to come back to a ClickHouse that is not there: its own reconnecting tries about that often.
const STORE_RETRY: Duration = Duration::from_secs(5);

impl From<FacadeError> for Problem {
    fn from(error: FacadeError) -> Self {
        let detail = error.to_string();
        match error {
            FacadeError::Document(diagnostics) => document(&diagnostics),
            FacadeError::Input(mistakes) => {
                let first = mistakes.first().map_or(String::new(), |first| {
                    let at = if first.pointer.is_empty() { "the input" } else { &first.pointer };
                    format!(": at {at}: {}", first.message)
                });
                Self::new(&kinds::INVALID_INPUT, format!("{detail}{first}")).with("mistakes", mistakes)
            }
            FacadeError::UnknownWorkflow { name, near } => {
                Self::new(&kinds::WORKFLOW_NOT_FOUND, detail).with("workflow", name).with("near", near)
            }
            FacadeError::UnknownVersion { name, newest, .. } => {
                Self::new(&kinds::VERSION_NOT_FOUND, detail).with("workflow", name).with("newest", newest)
            }
            FacadeError::UnknownRun(run) => Self::new(&kinds::RUN_NOT_FOUND, detail).with("run", run),
            FacadeError::UnknownPlugin { name, near } => {
                Self::new(&kinds::PLUGIN_NOT_FOUND, detail).with("plugin", name).with("near", near)
            }
            FacadeError::UnknownStep(step) => Self::new(&kinds::UNKNOWN_STEP, detail).with("step", step),
            FacadeError::KeyReused(run) => Self::new(&kinds::KEY_REUSED, detail).with("run", run),
            FacadeError::RunExists(run) => Self::new(&kinds::RUN_EXISTS, detail).with("run", run),
            FacadeError::WrongStatus { run, status } => {
                // RunStatus is the core's; the member must be its JSON.
                Self::new(&kinds::WRONG_STATUS, detail).with("run", run).with("status", status)
            }
            FacadeError::NeverStarted(run) => Self::new(&kinds::NEVER_STARTED, detail).with("run", run),
            FacadeError::Forgotten(run) => Self::new(&kinds::RUN_FORGOTTEN, detail).with("run", run),
            FacadeError::StepRunning(step) => Self::new(&kinds::STEP_RUNNING, detail).with("step", step),
            FacadeError::PluginRefused { code, hint, message } => {
                Self::new(&kinds::PLUGIN_REFUSED, message).with("code", code).with("hint", hint)
            }
            FacadeError::PluginExists { name, version } => {
                Self::new(&kinds::PLUGIN_EXISTS, detail).with("plugin", name).with("version", version)
            }
            FacadeError::Grant { grant, .. } => Self::new(&kinds::INVALID_GRANT, detail).with("grant", grant),
            FacadeError::TooLarge { limit_bytes, actual_bytes, .. } => Self::new(&kinds::TOO_LARGE, detail)
                .with("limit_bytes", limit_bytes)
                .with("actual_bytes", actual_bytes),
            FacadeError::Overloaded { retry_after, .. } => {
                Self::new(&kinds::OVERLOADED, detail).retry_after(retry_after)
            }
            FacadeError::StorageFull => Self::new(&kinds::STORAGE_FULL, detail),
            FacadeError::NotReady { retry_after, .. } => {
                Self::new(&kinds::NOT_READY, detail).retry_after(retry_after)
            }
            FacadeError::Moved(_) => Self::new(&kinds::NOT_OWNER, detail),
            FacadeError::StoreUnavailable { .. } => {
                Self::new(&kinds::STORE_UNAVAILABLE, detail).retry_after(STORE_RETRY)
            }
            FacadeError::Sql { message } => Self::new(&kinds::SQL_REFUSED, message),
            FacadeError::Internal(words) => {
                Self::new(&kinds::INTERNAL, "the host's log says more under this request id").internal(words)
            }
        }
    }
}

fn document(diagnostics: &[Diagnostic]) -> Problem {
    let unreadable = [code::SYNTAX, code::TAB, code::EMPTY, code::MULTIPLE_DOCUMENTS];
    let malformed = diagnostics.iter().any(|diagnostic| unreadable.contains(&diagnostic.code));
    let kind = if malformed { &kinds::MALFORMED_DOCUMENT } else { &kinds::INVALID_DOCUMENT };
    let first = diagnostics.first().map_or(String::new(), |first| {
        format!(", the first in line {}, column {}: {}", first.line, first.column, first.message)
    });
    let mistakes = if diagnostics.len() == 1 {
        "1 mistake".to_owned()
    } else {
        format!("{} mistakes", diagnostics.len())
    };
    Problem::new(kind, format!("the document has {mistakes}{first}")).with("diagnostics", diagnostics)
}
