//! As much of RFC 3986 as a request needs: scheme, authority, path with query. The host checks the authority again.

use super::{Error, ErrorKind};

/// The parts of an `http` or `https` URL.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Url<'a> {
    pub(crate) secure: bool,
    /// Host, and port if given.
    pub(crate) authority: &'a str,
    /// Begins with `/`; without the fragment, which is not for servers.
    pub(crate) path_with_query: String,
}

impl<'a> Url<'a> {
    pub(crate) fn parse(url: &'a str) -> Result<Self, Error> {
        let bad = |why: &str| Error::new(ErrorKind::BadRequest, format!("the URL {url:?} {why}"));
        let (scheme, rest) =
            url.split_once("://").ok_or_else(|| bad("has no scheme; it begins with http:// or https://"))?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(bad("is neither http nor https")),
        };
        if let Some(odd) = url.chars().find(|letter| letter.is_ascii_control() || *letter == ' ') {
            return Err(bad(&format!("contains {odd:?}, which must be percent-encoded")));
        }
        let rest = rest.split('#').next().unwrap_or(rest);
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.is_empty() {
            return Err(bad("names no host"));
        }
        if authority.contains('@') {
            return Err(bad("carries a user name or password; send them in an authorization header"));
        }
        let path = encode_non_ascii(path);
        let path_with_query = if path.starts_with('/') { path } else { format!("/{path}") };
        Ok(Self { secure, authority, path_with_query })
    }
}

/// The URL with a parameter more, before its fragment.
pub(crate) fn with_parameter(url: &str, name: &str, value: &str) -> String {
    let (base, fragment) = match url.split_once('#') {
        Some((base, fragment)) => (base, Some(fragment)),
        None => (url, None),
    };
    let separator = match base.split_once('?') {
        None => "?",
        Some((_, "")) => "",
        Some(_) => "&",
    };
    let mut with = format!("{base}{separator}{}={}", encode(name), encode(value));
    if let Some(fragment) = fragment {
        with.push('#');
        with.push_str(fragment);
    }
    with
}

/// Percent-encodes everything but what RFC 3986 calls unreserved.
fn encode(text: &str) -> String {
    percent_encode(text, |byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}

fn encode_non_ascii(text: &str) -> String {
    percent_encode(text, |byte| byte.is_ascii())
}

fn percent_encode(text: &str, stays: impl Fn(u8) -> bool) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if stays(byte) {
            encoded.push(byte as char);
        } else {
            encoded.push('%');
            encoded.push(DIGITS[usize::from(byte >> 4)] as char);
            encoded.push(DIGITS[usize::from(byte & 15)] as char);
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_url() {
        let url = Url::parse("https://api.example.com:8443/a/b?c=d#e").expect("a URL");
        assert_eq!(
            url,
            Url { secure: true, authority: "api.example.com:8443", path_with_query: "/a/b?c=d".into() }
        );
        assert_eq!(Url::parse("http://h").expect("a URL").path_with_query, "/");
        assert_eq!(Url::parse("HTTP://h?q").expect("a URL").path_with_query, "/?q");
        assert_eq!(Url::parse("http://h/ñ").expect("a URL").path_with_query, "/%C3%B1");
    }

    #[test]
    fn what_is_no_url_is_refused_with_a_reason() {
        for (url, why) in [
            ("example.com", "no scheme"),
            ("ftp://example.com", "neither http nor https"),
            ("http:///path", "names no host"),
            ("http://me:secret@example.com", "authorization header"),
            ("http://example.com/a b", "percent-encoded"),
            ("http://example.com/\r\nx: y", "percent-encoded"),
        ] {
            let error = Url::parse(url).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::BadRequest);
            assert!(error.to_string().contains(why), "{error}");
        }
    }

    #[test]
    fn parameters_are_encoded_and_come_before_the_fragment() {
        let url = with_parameter("http://h/p", "q", "a&b c");
        assert_eq!(url, "http://h/p?q=a%26b%20c");
        assert_eq!(with_parameter(&url, "ñ", "1"), "http://h/p?q=a%26b%20c&%C3%B1=1");
        assert_eq!(with_parameter("http://h/?#top", "a", "b"), "http://h/?a=b#top");
    }
}
