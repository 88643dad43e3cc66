//! The published JSON Schema, which editors use, accepts what is accepted here and refuses what a schema can refuse.

use serde_json::Value;

use crate::{accepted::ORDERS, support};

fn published() -> jsonschema::Validator {
    let schema: Value =
        serde_json::from_str(include_str!("../../schema/workflow-1.schema.json")).expect("it is JSON");
    assert!(jsonschema::meta::is_valid(&schema));
    jsonschema::validator_for(&schema).expect("it is a JSON Schema")
}

#[test]
fn accepted_documents_satisfy_it() {
    let schema = published();
    for text in [ORDERS, include_str!("golden/orders.yaml"), include_str!("golden/smallest.json")] {
        let document = support::accepted(text).pinned.document;
        let mistakes: Vec<_> = schema.iter_errors(&document).map(|error| error.to_string()).collect();
        assert_eq!(mistakes, [""; 0]);
    }
}

#[test]
fn it_refuses_what_a_schema_can_refuse() {
    let schema = published();
    let good = support::accepted(ORDERS).pinned.document;
    let changes: [(&str, Value); 11] = [
        ("/reipaz", 2.into()),
        ("/name", "Orders".into()),
        ("/timeout", "48 hours".into()),
        ("/input", 5.into()),
        ("/steps", serde_json::json!({})),
        ("/steps/fetch/uses", "fetch@latest".into()),
        ("/steps/fetch/retry/attempts", 0.into()),
        ("/steps/fetch/grants/http/0", "https://shop.example".into()),
        ("/steps/report/needs", "audit".into()),
        ("/steps/audit/if", 1.into()),
        ("/secrets/0", "Shop-Token".into()),
    ];
    for (pointer, value) in changes {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).expect("the document has it") = value;
        assert!(!schema.is_valid(&bad), "{pointer}");
    }
    let mut unknown = good;
    unknown["steps"]["fetch"]["wiht"] = Value::Null;
    assert!(!schema.is_valid(&unknown));
}

#[test]
fn it_knows_the_same_keys() {
    let schema: Value =
        serde_json::from_str(include_str!("../../schema/workflow-1.schema.json")).expect("it is JSON");
    let keys = |pointer: &str| {
        let properties = schema.pointer(pointer).and_then(Value::as_object).expect("it has properties");
        properties.keys().cloned().collect::<Vec<_>>()
    };
    for (pointer, itself, document) in [
        ("/properties", "", "zzz_unknown: 1\n"),
        ("/$defs/step/properties", "", "steps: {a: {zzz_unknown: 1}}\n"),
        ("/$defs/retry/properties", "retry", "defaults: {retry: {zzz_unknown: 1}}\n"),
        ("/properties/defaults/properties", "defaults", "defaults: {zzz_unknown: 1}\n"),
        ("/properties/concurrency/properties", "concurrency", "concurrency: {zzz_unknown: 1}\n"),
        (
            "/properties/concurrency/properties/rate/properties",
            "rate",
            "concurrency: {rate: {zzz_unknown: 1}}\n",
        ),
        ("/properties/on_failure/properties", "on_failure", "on_failure: {zzz_unknown: 1}\n"),
    ] {
        let mistakes = support::refused(document);
        let hint = mistakes
            .iter()
            .find(|mistake| mistake.code == "unknown_key")
            .and_then(|mistake| mistake.hint.clone());
        let hint = hint.expect("the hint lists the keys");
        let mut told: Vec<_> =
            hint.split('`').skip(1).step_by(2).filter(|word| *word != itself).map(str::to_owned).collect();
        told.sort();
        assert_eq!(told, keys(pointer), "{hint}");
    }
}
