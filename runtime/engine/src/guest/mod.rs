//! What lies on the host's side of one guest: its virtual world and what is kept of it. Everything here belongs to one
//! store and dies with it, but for the notebook, which the outcome is made from.

pub(crate) mod clock;
pub(crate) mod limiter;
pub(crate) mod notebook;
mod random;
mod sockets;
pub(crate) mod state;
mod stdio;
