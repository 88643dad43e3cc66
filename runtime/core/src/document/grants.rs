//! A step's `grants`: what it narrows the operator's grants to. Only the form is checked here; whether the operator
//! gave as much is known where the plugin is installed.

use std::{collections::BTreeMap, net::Ipv6Addr};

use super::{
    diagnostic::{Report, code},
    hint,
    read::{At, Fields, items, string},
};

/// The kinds of grants that there are.
const KINDS: [&str; 1] = ["http"];
/// What `http` grants may allow; `*` is all of them.
const METHODS: [&str; 8] = ["*", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/// No step lists more grants of one kind.
const MAX_GRANTS: usize = 100;

/// Reads `grants`.
pub(super) fn read(at: At<'_>, report: &mut Report<'_>) -> BTreeMap<String, Vec<String>> {
    let mut grants = BTreeMap::new();
    let Some(fields) = Fields::of(at, "`grants`", &KINDS, &[], report) else { return grants };
    for kind in KINDS {
        let Some(at) = fields.get(kind) else { continue };
        let entries = items(&at, &format!("`{kind}`"), report);
        if entries.len() > MAX_GRANTS {
            let message = format!("a step has at most {MAX_GRANTS} grants of a kind");
            report.mistake(&at.place, code::OUT_OF_RANGE, message);
        }
        let mut list = Vec::new();
        for entry in entries.iter().take(MAX_GRANTS) {
            let Some(text) = string(entry, "a grant", report) else { continue };
            match check_http(text) {
                Ok(()) => list.push(text.to_owned()),
                Err((message, hint)) => report.hinted(&entry.place, code::BAD_GRANT, message, hint),
            }
        }
        grants.insert(kind.to_owned(), list);
    }
    grants
}

/// `METHOD host[:port]`.
fn check_http(text: &str) -> Result<(), (String, Option<String>)> {
    let form = || Some("write a method and a host: `GET api.example.com`, `* *.example.com:8443`".to_owned());
    let Some((method, host)) = text.split_once(' ') else {
        return Err((format!("`{text}` is no HTTP grant"), form()));
    };
    if !METHODS.contains(&method) {
        let hint = hint::nearest(method, METHODS).map(|near| format!("did you mean `{near}`?"));
        let upper = method.to_ascii_uppercase();
        let hint = if METHODS.contains(&upper.as_str()) { Some(format!("write `{upper}`")) } else { hint };
        return Err((format!("`{method}` is no HTTP method that can be granted"), hint.or_else(form)));
    }
    if let Some((scheme, rest)) = host.split_once("://") {
        let bare = rest.split('/').next().unwrap_or(rest);
        return Err((
            format!("a grant names a host, without `{scheme}://`"),
            Some(format!("write `{method} {bare}`")),
        ));
    }
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            if address.parse::<Ipv6Addr>().is_err() {
                return Err((format!("`[{address}]` is no IPv6 address"), None));
            }
            ("v6", port.strip_prefix(':').or((!port.is_empty()).then_some("")))
        }
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    if port.is_some_and(|port| !matches!(port.parse::<u16>(), Ok(1..))) {
        return Err((format!("the port of `{host}` is no number from 1 to 65535"), None));
    }
    let labels = name.strip_prefix("*.").unwrap_or(name);
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if name != "*" && !labels.split('.').all(label) {
        let hint = if name.contains('/') { Some("a grant has no path".to_owned()) } else { form() };
        return Err((format!("`{name}` is no host name"), hint));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_http;

    #[test]
    fn a_grant_is_a_method_and_a_host() {
        for good in [
            "GET api.example.com",
            "* *.example.com:8443",
            "POST 127.0.0.1:9000",
            "GET [::1]:80",
            "GET [::1]",
            "* *",
        ] {
            assert_eq!(check_http(good), Ok(()), "{good}");
        }
        for bad in [
            "api.example.com",
            "get api.example.com",
            "GET https://api.example.com/x",
            "GET api.example.com/x",
            "GET host:0",
            "GET host:70000",
            "GET [::1",
            "GET [::x]",
            "GET a..b",
            "GET ",
            "GET  a",
            "",
            "GET a.*.b",
        ] {
            assert!(check_http(bad).is_err(), "{bad}");
        }
    }
}
