//! Who may call: bearer tokens where the operator configured some; without any, only programs of this machine, which a
//! web page is kept from posing as (a page can reach loopback addresses through a DNS name of its own, and can send
//! simple requests across origins).

use axum::http::{HeaderMap, Method, Uri};
use http::{header, uri::Authority};
use sha2::{Digest, Sha256};

use super::{kinds, problem::Problem};

/// The rule of one host.
#[derive(Clone, Debug)]
pub(super) struct Access {
    tokens: Vec<[u8; 32]>,
    origins: Vec<String>,
}

impl Access {
    /// With these tokens (none: loopback callers only) and these web origins (`*`: any).
    pub(super) fn new(tokens: &[String], origins: &[String]) -> Self {
        Self {
            tokens: tokens.iter().map(|token| Sha256::digest(token.as_bytes()).into()).collect(),
            origins: origins.iter().map(|origin| origin.trim_end_matches('/').to_ascii_lowercase()).collect(),
        }
    }

    /// Lets a request pass or says why not.
    pub(super) fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        if self.tokens.is_empty() {
            check_host(uri, headers)?;
        }
        if !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
            self.check_origin(headers)?;
        }
        if self.tokens.is_empty() || is_open(uri.path()) { Ok(()) } else { self.check_token(headers) }
    }

    fn check_token(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let refuse = |detail| Err(Problem::new(&kinds::UNAUTHORIZED, detail));
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return refuse("the request has no Authorization header");
        };
        let token = value
            .as_bytes()
            .split_at_checked(7)
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "));
        let Some((_, token)) = token else { return refuse("the Authorization header is not `Bearer TOKEN`") };
        let given: [u8; 32] = Sha256::digest(token.trim_ascii()).into();
        // Every token is compared whole, and as a digest: the time tells nothing about any of them.
        let matches = self.tokens.iter().fold(false, |found, known| {
            let difference = known.iter().zip(&given).fold(0, |difference, (a, b)| difference | (a ^ b));
            found | (std::hint::black_box(difference) == 0)
        });
        if matches { Ok(()) } else { refuse("the token is not one of this host's") }
    }

    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let origin = origin.to_str().unwrap_or("").to_ascii_lowercase();
        let host =
            headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("").to_ascii_lowercase();
        let own =
            origin.split_once("://").is_some_and(|(_, authority)| !host.is_empty() && authority == host);
        if own || self.origins.iter().any(|allowed| allowed == "*" || *allowed == origin) {
            Ok(())
        } else {
            Err(Problem::new(
                &kinds::ORIGIN_REFUSED,
                format!("the origin {origin:?} is not one that may change things"),
            ))
        }
    }
}

/// What probes, and clients that look for the API's shape, may read without a token.
fn is_open(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/openapi.json") || path.starts_with("/problems")
}

fn check_host(uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let given = match headers.get(header::HOST) {
        Some(host) => host.to_str().unwrap_or(""),
        None => uri.authority().map_or("", Authority::as_str),
    };
    if is_loopback(given) {
        Ok(())
    } else {
        Err(Problem::new(&kinds::HOST_REFUSED, format!("the Host header {given:?} is not a loopback name")))
    }
}

fn is_loopback(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.to_ascii_lowercase().ends_with(".localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn with(name: header::HeaderName, value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("127.0.0.1:7878"))]);
        headers.insert(name, HeaderValue::from_static(value));
        headers
    }

    fn refused(access: &Access, method: &Method, headers: &HeaderMap) -> Option<u16> {
        let uri = Uri::from_static("/v1/runs");
        access.check(method, &uri, headers).err().map(|problem| problem.kind().status)
    }

    #[test]
    fn without_tokens_only_loopback_names_are_answered() {
        let access = Access::new(&[], &[]);
        for host in ["127.0.0.1", "127.0.0.1:7878", "localhost:1", "[::1]:7878", "LocalHost", "a.localhost:1"]
        {
            assert_eq!(refused(&access, &Method::GET, &with(header::HOST, host)), None, "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:7878",
            "",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "localhost.evil.example",
        ] {
            assert_eq!(refused(&access, &Method::GET, &with(header::HOST, host)), Some(421), "{host}");
        }
    }

    #[test]
    fn with_tokens_one_of_them_is_needed() {
        let access = Access::new(&["first-token-0123".to_owned(), "second-token-012".to_owned()], &[]);
        let given = |value| refused(&access, &Method::GET, &with(header::AUTHORIZATION, value));
        assert_eq!(given("Bearer second-token-012"), None);
        assert_eq!(given("bearer first-token-0123"), None);
        assert_eq!(given("Bearer second-token-013"), Some(401));
        assert_eq!(given("Bearer "), Some(401));
        assert_eq!(given("Basic Zm9v"), Some(401));
        assert_eq!(refused(&access, &Method::GET, &HeaderMap::new()), Some(401));
        let open = access.check(&Method::GET, &Uri::from_static("/healthz"), &HeaderMap::new());
        assert!(open.is_ok());
    }

    #[test]
    fn a_foreign_page_may_not_change_anything() {
        let access = Access::new(&[], &["https://console.example".to_owned()]);
        let post = |origin| refused(&access, &Method::POST, &with(header::ORIGIN, origin));
        assert_eq!(post("https://evil.example"), Some(403));
        assert_eq!(post("null"), Some(403));
        assert_eq!(post("https://console.example"), None);
        assert_eq!(post("http://127.0.0.1:7878"), None);
        assert_eq!(refused(&access, &Method::POST, &with(header::ACCEPT, "*/*")), None);
        assert_eq!(refused(&access, &Method::GET, &with(header::ORIGIN, "https://evil.example")), None);
    }
}
