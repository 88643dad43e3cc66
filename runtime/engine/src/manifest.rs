//! What a component says about itself, checked: it is shown to people, stored with the digest, and its schemas decide what
//! documents may pass, so nothing unread gets through.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::grants::{Grants, HttpGrant};

/// What a component says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// `[a-z][a-z0-9_]*`, or `owner/name` where both are such.
    pub name: String,
    /// A semantic version.
    pub version: String,
    /// One line.
    pub summary: String,
    /// JSON Schema of the input.
    pub input_schema: Value,
    /// JSON Schema of the output.
    pub output_schema: Value,
    /// What it asks for.
    pub grants: Vec<GrantRequest>,
    /// What later versions add; an object.
    pub extra: Value,
}

/// A capability that a component asks for; the operator decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRequest {
    /// `http`.
    pub kind: String,
    /// `GET api.example.com`.
    pub value: String,
    /// For the operator.
    pub why: String,
}

impl Manifest {
    /// What it asks for and `grants` do not give, for instance to refuse an installation. A request for any host is given
    /// by any grant of that kind: which hosts, is the operator's choice.
    pub fn lacks<'a>(&'a self, grants: &Grants) -> Vec<&'a GrantRequest> {
        self.grants.iter().filter(|request| !given(request, grants)).collect()
    }

    /// Every mistake in it, in words.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        if self.name.split('/').count() > 2 || !self.name.split('/').all(is_name) {
            mistakes.push(format!(
                "its name {:?} is not of the form [a-z][a-z0-9_]*, nor two such with a slash between",
                self.name
            ));
        }
        if !is_version(&self.version) {
            mistakes.push(format!("its version {:?} is not a semantic version such as 1.4.2", self.version));
        }
        for (what, schema) in [("input", &self.input_schema), ("output", &self.output_schema)] {
            if !(schema.is_object() || schema.is_boolean()) {
                mistakes.push(format!(
                    "its {what} schema is JSON but no schema: it must be an object or a boolean"
                ));
            }
        }
        for request in &self.grants {
            if request.kind != "http" {
                mistakes.push(format!("it asks for a grant of unknown kind {:?}", request.kind));
            } else if let Err(error) = HttpGrant::parse(&request.value) {
                mistakes.push(format!("it asks for an http grant that cannot be read: {error}"));
            }
        }
        if !self.extra.is_object() {
            mistakes.push("its extra is not a JSON object".to_owned());
        }
        mistakes
    }
}

fn given(request: &GrantRequest, grants: &Grants) -> bool {
    match (request.kind.as_str(), HttpGrant::parse(&request.value)) {
        ("http", Ok(wanted)) if wanted.any_host() => !grants.http.is_empty(),
        ("http", Ok(wanted)) => grants.http.iter().any(|given| given.covers(&wanted)),
        _ => false,
    }
}

/// Names are `[a-z][a-z0-9_]*`, at most 64 characters.
pub(crate) fn is_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Three numbers, with the usual `-pre` and `+build` after them.
fn is_version(version: &str) -> bool {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<&str> = core.split('.').collect();
    numbers.len() == 3
        && version.len() <= 64
        && version.is_ascii()
        && numbers.iter().all(|n| {
            !n.is_empty()
                && n.bytes().all(|b| b.is_ascii_digit())
                && (*n == "0" || !n.starts_with('0'))
                && n.len() < 10
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            name: "score".into(),
            version: "1.0.0".into(),
            summary: String::new(),
            input_schema: Value::Bool(true),
            output_schema: serde_json::json!({}),
            grants: Vec::new(),
            extra: serde_json::json!({}),
        }
    }

    #[test]
    fn a_sound_manifest_has_no_mistakes() {
        assert_eq!(manifest().mistakes(), Vec::<String>::new());
    }

    #[test]
    fn a_name_may_say_whose_it_is() {
        let named = |name: &str| Manifest { name: name.into(), ..manifest() }.mistakes();
        assert_eq!(named("acme/score"), Vec::<String>::new());
        for bad in ["acme/", "/score", "a/b/c", "acme/Score", ""] {
            assert_eq!(named(bad).len(), 1, "{bad}");
        }
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let bad = Manifest {
            name: "No-Name".into(),
            version: "1.0".into(),
            input_schema: Value::Null,
            grants: vec![GrantRequest { kind: "files".into(), value: "/".into(), why: String::new() }],
            ..manifest()
        };
        assert_eq!(bad.mistakes().len(), 4, "{:?}", bad.mistakes());
    }

    #[test]
    fn versions_are_semantic() {
        for good in ["0.1.0", "1.22.333", "1.0.0-alpha.1", "1.0.0+build"] {
            assert!(is_version(good), "{good}");
        }
        for bad in ["1", "1.2", "01.2.3", "v1.2.3", "", "1.2.3.4", "1.2.x"] {
            assert!(!is_version(bad), "{bad}");
        }
    }

    #[test]
    fn what_is_asked_for_and_not_given_is_named() {
        let asks = |value: &str| Manifest {
            grants: vec![GrantRequest { kind: "http".into(), value: value.into(), why: String::new() }],
            ..manifest()
        };
        let given = Grants {
            http: vec![HttpGrant::parse("GET api.example.com").expect("a grant")],
            ..Grants::default()
        };
        assert!(asks("GET api.example.com").lacks(&given).is_empty());
        assert!(asks("* *").lacks(&given).is_empty(), "any host means: the operator chooses");
        assert_eq!(asks("* *").lacks(&Grants::default()).len(), 1);
        assert_eq!(asks("POST api.example.com").lacks(&given).len(), 1);
    }
}
