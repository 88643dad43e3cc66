//! What a plugin may do outside: today, which hosts it may call over HTTP and how.
//!
//! A grant is `METHOD HOST` or `METHOD HOST:PORT`. The method is one, several with commas, or `*`. The host is exact, an IP
//! address (IPv6 in brackets), `*.example.com` for whatever lies under it, or `*`. Without a port the scheme's own (80 and
//! 443) are meant, `:*` means all.
//!
//! The one idea: a name is not an address. Whoever controls a name decides where it leads, so an address that is not
//! public (see [`crate::http`]) is refused unless the grant itself is that address, is `localhost`, or the operator listed
//! the network in `private_networks`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a plugin may do outside. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grants {
    /// Which requests it may send.
    #[serde(default)]
    pub http: Vec<HttpGrant>,
    /// Networks that are not public and that names may lead to nevertheless, `10.0.0.0/8`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub private_networks: Vec<Network>,
}

impl Grants {
    /// Reads grants as operators and documents write them: a kind (`http`, `private_networks`) and its list.
    pub fn parse(given: &BTreeMap<String, Vec<String>>) -> Result<Self, GrantsError> {
        let mut grants = Self::default();
        for (kind, list) in given {
            match kind.as_str() {
                "http" => {
                    grants.http = list.iter().map(|text| HttpGrant::parse(text)).collect::<Result<_, _>>()?;
                }
                "private_networks" => {
                    grants.private_networks =
                        list.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
                }
                unknown => return Err(GrantsError::UnknownKind(unknown.to_owned())),
            }
        }
        Ok(grants)
    }

    /// No grant with an outside effect.
    pub fn is_empty(&self) -> bool {
        self.http.is_empty()
    }

    /// What both allow: a step's own grants narrow what the operator gave and never widen it.
    pub fn narrow(&self, step: &Grants) -> Grants {
        let mut http: Vec<HttpGrant> = Vec::new();
        for given in &self.http {
            for wanted in &step.http {
                if let Some(both) = given.meet(wanted).filter(|both| !http.contains(both)) {
                    http.push(both);
                }
            }
        }
        Grants { http, private_networks: self.private_networks.clone() }
    }

    /// The grants that allow this request, by method, host and port.
    pub(crate) fn matching<'a>(
        &'a self,
        method: &'a str,
        host: &'a Host,
        port: u16,
        default_port: u16,
    ) -> impl Iterator<Item = &'a HttpGrant> {
        self.http.iter().filter(move |grant| grant.allows(method, host, port, default_port))
    }
}

/// Which requests may be sent. As text: `GET api.example.com`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HttpGrant {
    /// Upper case, sorted; none means every method.
    methods: Vec<String>,
    host: HostPattern,
    port: PortPattern,
}

/// A grant that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: {what}; write it as METHOD HOST or METHOD HOST:PORT, for instance GET api.example.com")]
pub struct GrantError {
    text: String,
    what: &'static str,
}

/// Grants that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantsError {
    /// There is no such kind.
    #[error("there is no grant of the kind {0:?}; there are http and private_networks")]
    UnknownKind(String),
    /// One of `http`.
    #[error(transparent)]
    Http(#[from] GrantError),
    /// One of `private_networks`.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HostPattern {
    Any,
    /// Whatever ends in a dot and this.
    Under(String),
    Exact(Host),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PortPattern {
    Any,
    OfScheme,
    Exact(u16),
}

/// A host as it stands in a URL, in one spelling.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    Address(IpAddr),
    /// Lower case, without the root's dot.
    Name(String),
}

impl Host {
    /// Reads the host of an authority, IPv6 with its brackets.
    pub(crate) fn parse(text: &str) -> Self {
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        match bare.parse::<IpAddr>() {
            Ok(address) => Self::Address(address),
            Err(_) => Self::Name(text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase()),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl HttpGrant {
    /// Reads `METHOD HOST[:PORT]`.
    pub fn parse(text: &str) -> Result<Self, GrantError> {
        let wrong = |what| GrantError { text: text.to_owned(), what };
        let mut words = text.split_ascii_whitespace();
        let (Some(methods), Some(place), None) = (words.next(), words.next(), words.next()) else {
            return Err(wrong("two words are needed"));
        };
        let mut methods: Vec<String> = match methods {
            "*" => Vec::new(),
            list => list.split(',').map(str::to_ascii_uppercase).collect(),
        };
        if methods.iter().any(|m| m.is_empty() || !m.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-')) {
            return Err(wrong("a method is made of letters, or is * alone"));
        }
        methods.sort();
        methods.dedup();
        let (host, port) = split_port(place);
        let port = match port {
            None => PortPattern::OfScheme,
            Some("*") => PortPattern::Any,
            Some(number) => PortPattern::Exact(number.parse().map_err(|_| wrong("the port is no number"))?),
        };
        let host = match host {
            "*" => HostPattern::Any,
            host => match host.strip_prefix("*.") {
                Some(rest) if is_host_name(rest) => HostPattern::Under(rest.to_ascii_lowercase()),
                None if matches!(Host::parse(host), Host::Address(_)) || is_host_name(host) => {
                    HostPattern::Exact(Host::parse(host))
                }
                _ => return Err(wrong("the host is neither a name, nor an address, nor * or *.name")),
            },
        };
        Ok(Self { methods, host, port })
    }

    /// Whether any host is meant.
    pub fn any_host(&self) -> bool {
        self.host == HostPattern::Any
    }

    /// Whether this allows everything that `other` allows.
    pub fn covers(&self, other: &HttpGrant) -> bool {
        self.meet(other).as_ref() == Some(other)
    }

    /// Whether the grant itself is this address, or `localhost` and the address leads back to this machine: then the
    /// operator meant it, public or not.
    pub(crate) fn means(&self, address: IpAddr) -> bool {
        match &self.host {
            HostPattern::Exact(Host::Address(meant)) => *meant == address,
            HostPattern::Exact(Host::Name(name)) => name == "localhost" && address.is_loopback(),
            HostPattern::Any | HostPattern::Under(_) => false,
        }
    }

    fn allows(&self, method: &str, host: &Host, port: u16, default_port: u16) -> bool {
        let method_fits = self.methods.is_empty() || self.methods.iter().any(|m| m == method);
        let host_fits = match &self.host {
            HostPattern::Any => true,
            HostPattern::Under(parent) => is_under(host, parent),
            HostPattern::Exact(exact) => exact == host,
        };
        let port_fits = match self.port {
            PortPattern::Any => true,
            PortPattern::OfScheme => port == default_port,
            PortPattern::Exact(exact) => exact == port,
        };
        method_fits && host_fits && port_fits
    }

    fn meet(&self, other: &HttpGrant) -> Option<HttpGrant> {
        let methods = match (self.methods.as_slice(), other.methods.as_slice()) {
            ([], both) | (both, []) => both.to_vec(),
            (mine, theirs) => {
                let both: Vec<String> = mine.iter().filter(|m| theirs.contains(m)).cloned().collect();
                (!both.is_empty()).then_some(both)?
            }
        };
        let host = match (&self.host, &other.host) {
            (HostPattern::Any, narrower) | (narrower, HostPattern::Any) => narrower.clone(),
            (HostPattern::Under(a), HostPattern::Under(b)) if a == b || ends_under(a, b) => self.host.clone(),
            (HostPattern::Under(a), HostPattern::Under(b)) if ends_under(b, a) => other.host.clone(),
            (HostPattern::Under(parent), exact @ HostPattern::Exact(host))
            | (exact @ HostPattern::Exact(host), HostPattern::Under(parent))
                if is_under(host, parent) =>
            {
                exact.clone()
            }
            (HostPattern::Exact(a), HostPattern::Exact(b)) if a == b => self.host.clone(),
            _ => return None,
        };
        let port = match (self.port, other.port) {
            (PortPattern::Any, narrower) | (narrower, PortPattern::Any) => narrower,
            (PortPattern::OfScheme, exact @ PortPattern::Exact(80 | 443))
            | (exact @ PortPattern::Exact(80 | 443), PortPattern::OfScheme) => exact,
            (a, b) if a == b => a,
            _ => return None,
        };
        Some(HttpGrant { methods, host, port })
    }
}

fn is_under(host: &Host, parent: &str) -> bool {
    matches!(host, Host::Name(name) if ends_under(name, parent))
}

fn ends_under(name: &str, parent: &str) -> bool {
    name.strip_suffix(parent).is_some_and(|front| front.len() > 1 && front.ends_with('.'))
}

/// The last colon starts a port, unless it stands inside brackets or the whole is a bare IPv6 address.
fn split_port(place: &str) -> (&str, Option<&str>) {
    if place.parse::<IpAddr>().is_ok() {
        return (place, None);
    }
    match place.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (place, None),
    }
}

fn is_host_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

impl fmt::Display for HttpGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.methods.as_slice() {
            [] => f.write_str("*")?,
            methods => f.write_str(&methods.join(","))?,
        }
        match &self.host {
            HostPattern::Any => f.write_str(" *")?,
            HostPattern::Under(parent) => write!(f, " *.{parent}")?,
            HostPattern::Exact(host) => write!(f, " {host}")?,
        }
        match self.port {
            PortPattern::Any => f.write_str(":*"),
            PortPattern::OfScheme => Ok(()),
            PortPattern::Exact(port) => write!(f, ":{port}"),
        }
    }
}

impl FromStr for HttpGrant {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, GrantError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for HttpGrant {
    type Error = GrantError;

    fn try_from(text: String) -> Result<Self, GrantError> {
        Self::parse(&text)
    }
}

impl From<HttpGrant> for String {
    fn from(grant: HttpGrant) -> Self {
        grant.to_string()
    }
}

/// An IP network, `10.0.0.0/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

/// A network that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network; write it as 10.0.0.0/8")]
pub struct NetworkError(String);

impl Network {
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.checked_shr(32 - u32::from(self.prefix_bits)).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.checked_shr(128 - u32::from(self.prefix_bits)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let wrong = || NetworkError(text.to_owned());
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            None => longest,
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= longest).ok_or_else(wrong)?,
        };
        Ok(Self { address, prefix_bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, NetworkError> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

#[cfg(test)]
#[path = "grants_tests.rs"]
mod tests;
