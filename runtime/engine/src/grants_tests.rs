//! Grants as their readers expect them.

use super::*;

fn grant(text: &str) -> HttpGrant {
    HttpGrant::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

fn grants(texts: &[&str]) -> Grants {
    Grants { http: texts.iter().map(|t| grant(t)).collect(), ..Grants::default() }
}

fn allowed(text: &str, method: &str, host: &str, port: u16, https: bool) -> bool {
    let default_port = if https { 443 } else { 80 };
    grants(&[text]).matching(method, &Host::parse(host), port, default_port).next().is_some()
}

#[test]
fn method_host_and_port_must_all_fit() {
    let text = "GET api.example.com";
    assert!(allowed(text, "GET", "api.example.com", 443, true));
    assert!(allowed(text, "GET", "API.example.com.", 80, false), "case and the root's dot do not matter");
    assert!(!allowed(text, "POST", "api.example.com", 443, true));
    assert!(!allowed(text, "GET", "example.com", 443, true));
    assert!(!allowed(text, "GET", "api.example.com.evil.net", 443, true));
    assert!(!allowed(text, "GET", "api.example.com", 8080, false));
    assert!(!allowed(text, "GET", "api.example.com", 443, false), "443 is not http's own port");
}

#[test]
fn a_star_stands_for_what_is_under_a_name_and_not_for_it() {
    let text = "* *.example.com:8443";
    assert!(allowed(text, "DELETE", "a.example.com", 8443, true));
    assert!(allowed(text, "DELETE", "a.b.example.com", 8443, true));
    assert!(!allowed(text, "DELETE", "example.com", 8443, true));
    assert!(!allowed(text, "DELETE", "badexample.com", 8443, true));
}

#[test]
fn addresses_have_one_spelling() {
    assert!(allowed("GET [::1]:9000", "GET", "[0:0::1]", 9000, false));
    assert!(allowed("POST 127.0.0.1:9000", "POST", "127.0.0.1", 9000, false));
    assert!(!allowed("* *.0.0.1", "GET", "127.0.0.1", 80, false), "an address is under no name");
}

#[test]
fn several_methods_and_all_ports() {
    let text = "get,HEAD files.example.com:*";
    assert!(allowed(text, "HEAD", "files.example.com", 1, false));
    assert!(!allowed(text, "PUT", "files.example.com", 1, false));
}

#[test]
fn text_survives_a_round_trip() {
    for text in
        ["GET api.example.com", "* *", "GET,POST *.example.com:8443", "* 127.0.0.1:*", "GET [::1]:9000"]
    {
        assert_eq!(grant(text).to_string(), text);
        let json = serde_json::to_string(&grant(text)).expect("json");
        assert_eq!(serde_json::from_str::<HttpGrant>(&json).expect("grant"), grant(text));
    }
}

#[test]
fn nonsense_is_refused() {
    for text in [
        "",
        "GET",
        "GET a b",
        "G3T a",
        "GET a:port",
        "GET *.",
        "GET https://a",
        "GET a/b",
        "GET a..b",
        "GET *a",
    ] {
        assert!(HttpGrant::parse(text).is_err(), "{text:?}");
    }
    assert!(serde_json::from_str::<Grants>(r#"{"https": []}"#).is_err(), "unknown keys are errors");
}

#[test]
fn narrowing_never_widens() {
    let operator = grants(&["GET *.example.com", "* 127.0.0.1:9000"]);
    let step = |texts: &[&str]| {
        operator.narrow(&grants(texts)).http.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(step(&["* *"]), ["GET *.example.com"], "and not the address, whose port is none of a scheme");
    assert_eq!(step(&["* *:*"]), ["GET *.example.com", "* 127.0.0.1:9000"]);
    assert_eq!(step(&["GET,POST shop.example.com"]), ["GET shop.example.com"]);
    assert_eq!(step(&["POST shop.example.com"]), [""; 0]);
    assert_eq!(step(&["GET other.org"]), [""; 0]);
    assert_eq!(step(&["PUT 127.0.0.1:9000"]), ["PUT 127.0.0.1:9000"]);
    assert_eq!(step(&[]), [""; 0]);
}

#[test]
fn a_map_of_lists_is_read_whole_or_refused() {
    let parse =
        |kind: &str, text: &str| Grants::parse(&BTreeMap::from([(kind.to_owned(), vec![text.to_owned()])]));
    assert_eq!(parse("http", "GET a.example"), Ok(grants(&["GET a.example"])));
    assert!(parse("private_networks", "10.0.0.0/8").is_ok_and(|grants| grants.is_empty()));
    assert!(parse("http", "nonsense").is_err());
    assert!(matches!(parse("files", "/"), Err(GrantsError::UnknownKind(_))));
}

#[test]
fn networks_contain_their_addresses() {
    let inside = |network: &str, address: &str| {
        network.parse::<Network>().expect("network").contains(address.parse().expect("address"))
    };
    assert!(inside("10.0.0.0/8", "10.255.1.2"));
    assert!(!inside("10.0.0.0/8", "11.0.0.1"));
    assert!(inside("0.0.0.0/0", "8.8.8.8"));
    assert!(inside("192.168.1.7", "192.168.1.7"));
    assert!(!inside("192.168.1.7", "192.168.1.8"));
    assert!(inside("fd00::/8", "fd12::1"));
    assert!(!inside("fd00::/8", "10.0.0.1"));
    assert!("10.0.0.0/33".parse::<Network>().is_err());
    assert!("ten".parse::<Network>().is_err());
}
