//! How far a long step is: a heartbeat to the host, and the host's only way to ask a step to stop early.

/// Tells how much is done, of how much if that is known, and in words if there are any.
///
/// Gives false when the attempt should stop (cancelled, or the host is draining): return an error soon then. Natively it
/// prints to stderr and gives true.
#[cfg(target_family = "wasm")]
pub fn report(done: u64, total: impl Into<Option<u64>>, note: &str) -> bool {
    crate::guest::bindings::reipaz::step::progress::report(done, total.into(), note)
}

/// Tells how much is done, of how much if that is known, and in words if there are any.
///
/// Gives false when the attempt should stop (cancelled, or the host is draining): return an error soon then. Natively it
/// prints to stderr and gives true.
#[cfg(not(target_family = "wasm"))]
pub fn report(done: u64, total: impl Into<Option<u64>>, note: &str) -> bool {
    match total.into() {
        Some(total) => eprintln!("progress {done}/{total} {note}"),
        None => eprintln!("progress {done} {note}"),
    }
    true
}
