//! Sockets are denied, and the host remembers that a guest asked: the interfaces link, since a JavaScript or Python guest
//! imports all of WASI, but no socket is ever made and no name is looked up.

use wasmtime::component::{HasData, Resource};
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::{self, ResolveAddressStream};
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode, IpAddress, IpAddressFamily, Network};
use wasmtime_wasi::p2::bindings::sockets::{tcp_create_socket, udp_create_socket};
use wasmtime_wasi::p2::{DynPollable, IoError, SocketError, SocketResult, TcpSocket, UdpSocket};

use crate::guest::state::Denials;

/// The denied interfaces of one guest.
pub(crate) struct NoSockets<'a> {
    pub(crate) denials: &'a Denials,
}

/// Says to the linker where they are.
pub(crate) struct HasNoSockets;

impl HasData for HasNoSockets {
    type Data<'a> = NoSockets<'a>;
}

impl NoSockets<'_> {
    fn deny<T>(&self, what: &str) -> SocketResult<T> {
        self.denials.add(
            "socket_denied",
            format!("The step asked for {what}; steps have no sockets, only granted HTTP."),
        );
        Err(ErrorCode::AccessDenied.into())
    }
}

impl network::Host for NoSockets<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn network_error_code(&mut self, _error: Resource<IoError>) -> wasmtime::Result<Option<ErrorCode>> {
        Ok(None)
    }
}

impl network::HostNetwork for NoSockets<'_> {
    fn drop(&mut self, _network: Resource<Network>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl tcp_create_socket::Host for NoSockets<'_> {
    fn create_tcp_socket(&mut self, _family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        self.deny("a TCP socket")
    }
}

impl udp_create_socket::Host for NoSockets<'_> {
    async fn create_udp_socket(&mut self, _family: IpAddressFamily) -> SocketResult<Resource<UdpSocket>> {
        self.deny("a UDP socket")
    }
}

impl ip_name_lookup::Host for NoSockets<'_> {
    fn resolve_addresses(
        &mut self,
        _network: Resource<Network>,
        _name: String,
    ) -> SocketResult<Resource<ResolveAddressStream>> {
        self.deny("the address of a name")
    }
}

impl ip_name_lookup::HostResolveAddressStream for NoSockets<'_> {
    fn resolve_next_address(
        &mut self,
        _stream: Resource<ResolveAddressStream>,
    ) -> SocketResult<Option<IpAddress>> {
        self.deny("the address of a name")
    }

    fn subscribe(
        &mut self,
        _stream: Resource<ResolveAddressStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        Err(wasmtime::format_err!("no such stream was ever made"))
    }

    fn drop(&mut self, _stream: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        Ok(())
    }
}
