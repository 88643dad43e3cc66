//! From a name to its addresses. A port, since the one thing that matters about it cannot be shown with the machine's own
//! resolver: whatever it says at the next look, a connection goes to the address that was checked.

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;

/// Looks names up.
#[async_trait]
pub trait Resolver: Debug + Send + Sync {
    /// Its addresses, with this port, in the order in which they are to be tried. None of them is trusted.
    async fn lookup(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// The machine's resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn lookup(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((name, port)).await?.collect())
    }
}
