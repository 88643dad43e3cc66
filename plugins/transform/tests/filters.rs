//! Filters over data, and the codes of what goes wrong. The language itself is tested in jq_core.

use reipaz_plugin_transform::ReipazStep;
use reipaz_sdk::{Context, ErrorClass, StepError, testing};
use serde_json::{Value, json};

fn run(filter: &str, data: &str) -> Result<String, StepError> {
    let filter = Value::from(filter);
    testing::run::<ReipazStep>(Context::default(), &format!("{{\"data\": {data}, \"filter\": {filter}}}"))
}

#[test]
fn the_filters_one_value_is_the_output() {
    assert_eq!(run("map(.price) | add", r#"[{"price": 2}, {"price": 0.5}]"#).expect("a sum"), "2.5");
    assert_eq!(run(".", "12345678901234567890").expect("the same"), "12345678901234567890");
}

#[test]
fn each_mistake_has_its_code() {
    for (filter, code) in [
        (".a |", "jq_parse"),
        ("$input", "jq_parse"),
        ("now", "jq_parse"),
        (".a.b", "jq_failed"),
        ("empty", "jq_no_result"),
        ("1, 2", "jq_many_results"),
        ("infinite", "jq_not_json"),
    ] {
        let error = run(filter, "[]").expect_err(filter);
        assert_eq!((error.class, error.code.as_str()), (ErrorClass::Permanent, code), "{filter}");
        assert!(!error.message.is_empty());
    }
}

#[test]
fn the_manifest_says_what_it_takes() {
    let manifest = testing::describe::<ReipazStep>();
    assert_eq!((manifest.name.as_str(), manifest.version.as_str()), ("transform", "1.0.0"));
    assert_eq!(manifest.input_schema["required"], json!(["data", "filter"]));
    assert!(manifest.grants.is_empty());
}
