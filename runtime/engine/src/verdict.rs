//! From what wasmtime says to why an attempt failed. The order matters: a guest that was refused memory dies of something
//! else, so limits come before traps, and a denial comes before whatever the guest made of it.

use wasmtime::Trap;
use wasmtime::component::ResourceTableError;
use wasmtime_wasi::I32Exit;

use crate::attempt::{Class, Failure};
use crate::bindings::step::exports::reipaz::step::handler::StepError;
use crate::bindings::step::reipaz::step::types::ErrorClass;
use crate::breaker::{Parked, Told};
use crate::guest::limiter::Refused;
use crate::guest::notebook::cut;
use crate::guest::state::Denials;
use crate::limits;

/// The code of a failure whose attempt's `timeout` was over.
pub const ATTEMPT_TIMEOUT: &str = "attempt_timeout";

/// The code of a failure whose attempt had no permit in time.
pub const QUEUE_TIMEOUT: &str = "queue_timeout";

/// Why a guest was interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Interrupted {
    #[error("its time ran out")]
    Deadline,
    #[error("it did not report progress")]
    Silent(std::time::Duration),
    #[error("it was cancelled")]
    Cancelled,
}

impl Interrupted {
    pub(crate) fn failure(self, timeout: std::time::Duration) -> Failure {
        match self {
            Self::Deadline => Failure::new(
                Class::Timeout,
                ATTEMPT_TIMEOUT,
                format!("The attempt did not end within its {} ms.", timeout.as_millis()),
            ),
            Self::Silent(within) => Failure::new(
                Class::Timeout,
                "heartbeat_timeout",
                format!("The attempt reported no progress for {} ms.", within.as_millis()),
            ),
            Self::Cancelled => Failure::new(Class::Cancelled, "cancelled", "The attempt was cancelled."),
        }
    }
}

/// Why an attempt did not start.
pub(crate) fn not_started() -> Failure {
    Failure::new(Class::Transient, QUEUE_TIMEOUT, "No place to run was free in time.")
}

/// What a failure says about the plugin: a trap or a limit is its own doing; what passes by itself is the other side's, if it
/// called one.
pub(crate) fn about_the_plugin(class: Class, called: bool) -> Told {
    match class {
        Class::Trap | Class::Resource => Told::Failed,
        Class::Transient | Class::Network | Class::Timeout if !called => Told::Failed,
        Class::Transient | Class::Network | Class::Timeout | Class::RateLimited => Told::Nothing,
        Class::Cancelled | Class::Denied => Told::Nothing,
        Class::Permanent => Told::Passed,
    }
}

/// What becomes of an attempt one of whose calls a breaker did not let through, if it failed. It is as good as not made if
/// none of its calls went through. If one did, it counts: a failure that passes by itself is tried again when the breaker is
/// looked at again, and any other stands.
pub(crate) fn parked(
    result: Result<String, Failure>,
    called: bool,
    parked: Option<Parked>,
) -> (Result<String, Failure>, Option<Parked>) {
    let (Err(mut failure), Some(parked)) = (result.clone(), parked) else { return (result, None) };
    match failure.class {
        Class::Resource | Class::Timeout | Class::Denied | Class::Cancelled => (result, None),
        _ if !called => (result, Some(parked)),
        Class::Transient | Class::Network => {
            let recheck = u64::try_from(parked.recheck.as_millis()).unwrap_or(u64::MAX);
            failure.retry_after_ms = Some(failure.retry_after_ms.unwrap_or(0).max(recheck));
            (Err(failure), None)
        }
        Class::Permanent | Class::RateLimited | Class::Trap => (result, None),
    }
}

/// What a guest ran into, as its limiter remembers it.
pub(crate) fn refused(refused: Refused, memory_bytes: usize) -> Failure {
    match refused {
        Refused::Memory => Failure::new(
            Class::Resource,
            "out_of_memory",
            format!("The step needs more than the {} MiB of memory that it may have.", memory_bytes >> 20),
        ),
        Refused::Table => Failure::new(
            Class::Resource,
            "table_limit",
            format!("The step needs a table of more than {} elements.", limits::TABLE_ELEMENTS),
        ),
    }
}

/// What a guest that did not come back died of.
pub(crate) fn died(error: &wasmtime::Error, timeout: std::time::Duration) -> Failure {
    if let Some(interrupted) = error.downcast_ref::<Interrupted>() {
        return interrupted.failure(timeout);
    }
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        let message = format!("The step ended its process with status {} instead of returning.", exit.0);
        return Failure::new(Class::Trap, "exit", message);
    }
    if let Some(ResourceTableError::Full) = error.downcast_ref::<ResourceTableError>() {
        let message = format!("The step holds more than {} of the host's handles at once.", limits::HANDLES);
        return Failure::new(Class::Resource, "handle_limit", message);
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return trapped(*trap);
    }
    let root = error.root_cause().to_string();
    if root.starts_with("too much data is being copied") {
        let message =
            format!("The step handed more than {} MiB to the host at once.", limits::HOSTCALL_BYTES >> 20);
        return Failure::new(Class::Resource, "output_too_large", message);
    }
    Failure::new(
        Class::Trap,
        "host_call_failed",
        cut(format!("A call to the host failed: {root}."), limits::MESSAGE_BYTES),
    )
}

fn trapped(trap: Trap) -> Failure {
    let (class, code) = match trap {
        // A stack has a bound like memory has.
        Trap::StackOverflow => (Class::Resource, "stack_overflow"),
        Trap::UnreachableCodeReached => (Class::Trap, "unreachable"),
        Trap::MemoryOutOfBounds => (Class::Trap, "memory_out_of_bounds"),
        Trap::IntegerDivisionByZero => (Class::Trap, "division_by_zero"),
        _ => (Class::Trap, "trap"),
    };
    let message = match trap {
        Trap::StackOverflow => "The step used up its stack; it probably recurses without end.".to_owned(),
        Trap::UnreachableCodeReached => {
            "The step aborted (a panic, usually; its log has the message).".to_owned()
        }
        other => format!("The step trapped: {other}."),
    };
    Failure::new(class, code, message)
}

/// What a step reported itself, within bounds, unless the host knows better.
pub(crate) fn reported(error: StepError, denials: &Denials) -> Failure {
    if let Some(denied) = denials.failure() {
        return denied;
    }
    let class = match error.class {
        ErrorClass::Permanent => Class::Permanent,
        ErrorClass::Transient => Class::Transient,
        ErrorClass::Network => Class::Network,
        ErrorClass::Timeout => Class::Timeout,
        ErrorClass::RateLimited => Class::RateLimited,
    };
    Failure {
        class,
        code: code(error.code),
        message: cut(error.message, limits::MESSAGE_BYTES),
        retry_after_ms: error.retry_after_ms,
        details: error.details.map(details),
    }
}

/// Codes are for programs, so what is not one becomes `step_error`.
fn code(code: String) -> String {
    if crate::manifest::is_name(&code) && !RESERVED.contains(&code.as_str()) {
        code
    } else {
        "step_error".to_owned()
    }
}

/// Codes by which the host knows what it decided itself.
const RESERVED: [&str; 6] =
    [ATTEMPT_TIMEOUT, QUEUE_TIMEOUT, "step_timeout", "breaker_open", "host_lost", "host_fault"];

/// Details are JSON whatever the guest gave.
fn details(text: String) -> String {
    if text.len() <= limits::DETAILS_BYTES && crate::output::is_json(&text) {
        return text;
    }
    let text = cut(text, limits::DETAILS_BYTES / 2);
    serde_json::Value::String(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported_by_step(code: &str, details: Option<&str>) -> Failure {
        let error = StepError {
            class: ErrorClass::Transient,
            code: code.into(),
            message: "m".repeat(2 * limits::MESSAGE_BYTES),
            retry_after_ms: Some(5),
            details: details.map(str::to_owned),
        };
        reported(error, &Denials::default())
    }

    #[test]
    fn what_a_step_reports_is_kept_within_bounds() {
        let failure = reported_by_step("http_503", Some("{\"a\": 1}"));
        assert_eq!(
            (failure.class, failure.code.as_str(), failure.retry_after_ms),
            (Class::Transient, "http_503", Some(5))
        );
        assert_eq!(failure.message.len(), limits::MESSAGE_BYTES);
        assert_eq!(failure.details.as_deref(), Some("{\"a\": 1}"));
    }

    #[test]
    fn details_are_json_and_codes_are_names_whatever_comes() {
        let failure = reported_by_step("What a Mess", Some("not \"json\""));
        assert_eq!(failure.code, "step_error");
        assert_eq!(reported_by_step("breaker_open", None).code, "step_error", "that is the host's to say");
        assert_eq!(failure.details.as_deref(), Some("\"not \\\"json\\\"\""));
    }

    #[test]
    fn an_attempt_is_parked_only_if_nothing_of_it_went_out() {
        let breaker = crate::breaker::BreakerId {
            kind: crate::breaker::BreakerKind::Authority,
            name: "https://shop.example:443".into(),
        };
        let open = || Some(Parked { breaker: breaker.clone(), recheck: std::time::Duration::from_secs(7) });
        let failed = |class| Err(Failure::new(class, "c", "m"));
        let is_parked = |class, called| parked(failed(class), called, open()).1.is_some();
        assert!(is_parked(Class::Network, false) && is_parked(Class::Trap, false));
        assert!(!is_parked(Class::Timeout, false) && !is_parked(Class::Resource, false));
        assert!(!is_parked(Class::Network, true));
        let (result, _) = parked(failed(Class::Network), true, open());
        assert_eq!(result.err().and_then(|failure| failure.retry_after_ms), Some(7_000));
        assert_eq!(parked(Ok("1".into()), false, open()), (Ok("1".into()), None), "it found another way");
    }

    #[test]
    fn a_denial_outlives_what_the_step_makes_of_it() {
        let denials = Denials::default();
        denials.add("http_denied", "no".into());
        let error = StepError {
            class: ErrorClass::Network,
            code: "network".into(),
            message: String::new(),
            retry_after_ms: None,
            details: None,
        };
        assert_eq!(reported(error, &denials).class, Class::Denied);
    }

    #[test]
    fn a_full_stack_is_a_used_up_resource() {
        let failure = died(&wasmtime::Error::from(Trap::StackOverflow), std::time::Duration::ZERO);
        assert_eq!((failure.class, failure.code.as_str()), (Class::Resource, "stack_overflow"));
    }
}
