//! What the built components are, read off their bytes: the names of imports stand in them as text.

use reipaz_plugins::{JQ, STANDARD};

/// What a component brings is compiled at install, so growth is worth a look.
const MAX_BYTES: usize = 2 << 20;

fn mentions(component: &[u8], name: &str) -> bool {
    component.windows(name.len()).any(|window| window == name.as_bytes())
}

fn all() -> impl Iterator<Item = (&'static str, &'static [u8])> {
    STANDARD.iter().map(|bundled| (bundled.name, bundled.bytes)).chain([("jq", JQ)])
}

#[test]
fn each_is_a_component_of_its_contract() {
    for (name, bytes) in all() {
        // The preamble of a component: magic, version 13, layer 1 (a core module has layer 0).
        assert_eq!(bytes[..8], *b"\0asm\x0d\0\x01\0", "{name}");
        let contract = if name == "jq" { "reipaz:jq/evaluate@0.1.0" } else { "reipaz:step/handler@0.1.0" };
        assert!(mentions(bytes, contract), "{name}");
    }
}

#[test]
fn only_http_request_can_reach_outside() {
    for (name, bytes) in all() {
        assert_eq!(mentions(bytes, "wasi:http/"), name == "http_request", "{name}");
        for package in ["wasi:sockets/", "wasi:filesystem/"] {
            assert!(!mentions(bytes, package), "{name} imports {package}");
        }
    }
}

#[test]
fn they_stay_small() {
    for (name, bytes) in all() {
        assert!(bytes.len() < MAX_BYTES, "{name} has {} bytes", bytes.len());
    }
}
