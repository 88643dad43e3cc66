//! Which addresses a name may lead to.
//!
//! Default: only public unicast ones. Everything that the registries (RFC 6890 and its successors) reserve is refused:
//! this machine, its links, private networks, carrier-grade NAT, cloud metadata, multicast, documentation and benchmarks,
//! and every IPv6 form that carries such an IPv4 address inside. A grant that is that very address, or `localhost`, or a
//! network that the operator listed, makes an exception.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::grants::{HttpGrant, Network};

/// What one request's grants say of addresses.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    pub(crate) granted: Vec<HttpGrant>,
    pub(crate) networks: Vec<Network>,
}

impl Gate {
    /// Whether a connection to it may be made, or used.
    pub(crate) fn admits(&self, address: IpAddr) -> bool {
        let canonical = address.to_canonical();
        is_public(canonical)
            || self.granted.iter().any(|grant| grant.means(address) || grant.means(canonical))
            || self.networks.iter().any(|network| network.contains(canonical))
    }

    /// Those of a name's addresses that may be used.
    pub(crate) fn filter(&self, addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
        addresses.into_iter().filter(|address| self.admits(address.ip())).collect()
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0, ..)                        // this network
            | (10, ..)                 // private
            | (100, 64..=127, _)       // carrier-grade NAT
            | (127, ..)                // loopback
            | (169, 254, _)            // link-local, cloud metadata
            | (172, 16..=31, _)        // private
            | (192, 0, 0)              // protocol assignments
            | (192, 0, 2)              // documentation
            | (192, 31, 196)           // AS112
            | (192, 52, 193)           // AMT
            | (192, 88, 99)            // 6to4 relays
            | (192, 168, _)            // private
            | (192, 175, 48)           // AS112
            | (198, 18..=19, _)        // benchmarks
            | (198, 51, 100)           // documentation
            | (203, 0, 113)            // documentation
            | (224..=255, ..) // multicast, reserved, broadcast
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let s = address.segments();
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        // NAT64 carries an IPv4 address at its end (RFC 6052).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        // 6to4 carries one at its start (RFC 3056).
        [0x2002, high, low, ..] => embedded(high, low),
        // Teredo, ORCHID, benchmarks, documentation, local assignments: 2001::/23, 2001:db8::/32, 3fff::/20.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Only 2000::/3 is global unicast; the rest is loopback, link-local, unique local, multicast or unassigned.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(grants: &[&str], networks: &[&str]) -> Gate {
        Gate {
            granted: grants.iter().map(|g| HttpGrant::parse(g).expect("a grant")).collect(),
            networks: networks.iter().map(|n| n.parse().expect("a network")).collect(),
        }
    }

    fn admits(gate: &Gate, address: &str) -> bool {
        gate.admits(address.parse().expect("an address"))
    }

    #[test]
    fn only_public_addresses_are_admitted_by_default() {
        let gate = gate(&["* *:*"], &[]);
        for public in
            ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::808:808"]
        {
            assert!(admits(&gate, public), "{public}");
        }
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::7f00:1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "fec0::1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
            "100::1",
        ] {
            assert!(!admits(&gate, private), "{private}");
        }
    }

    #[test]
    fn a_grant_that_is_the_address_makes_an_exception() {
        let gate = gate(&["GET 127.0.0.1:9000"], &[]);
        assert!(admits(&gate, "127.0.0.1"));
        assert!(admits(&gate, "::ffff:127.0.0.1"), "the same address in another dress");
        assert!(!admits(&gate, "127.0.0.2"));
    }

    #[test]
    fn localhost_leads_to_this_machine_and_nowhere_else() {
        let gate = gate(&["GET localhost:9000"], &[]);
        assert!(admits(&gate, "127.0.0.1") && admits(&gate, "::1"));
        assert!(!admits(&gate, "10.0.0.1"));
    }

    #[test]
    fn a_granted_name_does_not_open_private_networks() {
        assert!(!admits(&gate(&["GET orders.internal"], &[]), "10.0.0.7"));
        assert!(admits(&gate(&["GET orders.internal"], &["10.0.0.0/8"]), "10.0.0.7"));
        assert!(!admits(&gate(&["GET orders.internal"], &["10.0.0.0/8"]), "169.254.169.254"));
    }
}
