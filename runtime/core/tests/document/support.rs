//! The plugins that the documents of these tests may use.

use reipaz_core::{
    document::{Checked, Diagnostic, KnownPlugin, Plugins, UnknownPlugin, check},
    ids::Digest,
    plan::PluginPin,
};
use serde_json::{Value, json};

/// `http_request` 1.2.0, `transform` 1.0.0 and `acme/score` 2.1.0.
pub(crate) struct Installed;

impl Plugins for Installed {
    fn resolve(&self, uses: &str) -> Result<KnownPlugin, UnknownPlugin> {
        let (name, wanted) = uses.split_once('@').unwrap_or((uses, ""));
        let (version, input_schema, retry) = match name {
            "http_request" => ("1.2.0", Some(http_schema()), Some(json!({"attempts": 7, "base": "2s"}))),
            "transform" => ("1.0.0", Some(json!({"type": "object", "required": ["filter"]})), None),
            "acme/score" => ("2.1.0", None, None),
            _ => return Err(UnknownPlugin { known: vec!["http_request@1".into(), "transform@1".into()] }),
        };
        if !(wanted.is_empty() || version == wanted || version.starts_with(&format!("{wanted}."))) {
            return Err(UnknownPlugin { known: vec![format!("{name}@{version}")] });
        }
        let digest = Digest::of(name.as_bytes());
        let pin = PluginPin { name: name.into(), version: version.into(), digest, retry };
        Ok(KnownPlugin { pin, input_schema })
    }
}

fn http_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "url": {"type": "string", "pattern": "^https?://"},
            "method": {"enum": ["GET", "POST"]},
            "headers": {"type": "object", "additionalProperties": {"type": "string"}},
            "retries": {"type": "integer", "minimum": 0},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        },
        "required": ["url"],
        "additionalProperties": false,
        "if": {"properties": {"method": {"const": "POST"}}, "required": ["method"]},
        "then": {"properties": {"body": true}},
    })
}

pub(crate) fn accepted(text: &str) -> Checked {
    check(text, &Installed).unwrap_or_else(|mistakes| panic!("refused:\n{}\n{text}", shown(&mistakes)))
}

pub(crate) fn refused(text: &str) -> Vec<Diagnostic> {
    match check(text, &Installed) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(mistakes) => mistakes,
    }
}

pub(crate) fn shown(mistakes: &[Diagnostic]) -> String {
    mistakes.iter().map(|mistake| format!("{} {mistake}\n", mistake.pointer)).collect()
}
