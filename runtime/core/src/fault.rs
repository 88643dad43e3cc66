//! Faults of the protocol, switched on by name, to show that the simulations find them. Only the feature `fault_points` has
//! them: without it the answer is a constant, and the code that asks is compiled away.

/// Whether this fault is to be made on this thread.
#[cfg(feature = "fault_points")]
pub fn is_made(name: &str) -> bool {
    switch::ON.get() == Some(name)
}

/// Whether this fault is to be made on this thread.
#[cfg(not(feature = "fault_points"))]
#[inline(always)]
pub const fn is_made(_: &str) -> bool {
    false
}

/// Makes this fault, and no other, on this thread from now on; or none.
#[cfg(feature = "fault_points")]
pub fn make(name: Option<&'static str>) {
    switch::ON.set(name);
}

#[cfg(feature = "fault_points")]
mod switch {
    use std::cell::Cell;

    thread_local! {
        pub(super) static ON: Cell<Option<&'static str>> = const { Cell::new(None) };
    }
}
