//! What a `uses` may look like, and what is told about the plugin that it names.

use reipaz_core::{
    document::{Checked, Diagnostic, KnownPlugin, Plugins, UnknownPlugin, check},
    ids::Digest,
    plan::PluginPin,
};
use serde_json::{Value, json};

use crate::{
    refused::in_step,
    support::{refused, shown},
};

/// Every plugin there may be, with this schema and this retry rule.
struct Any {
    input_schema: Option<Value>,
    retry: Option<Value>,
}

impl Plugins for Any {
    fn resolve(&self, uses: &str) -> Result<KnownPlugin, UnknownPlugin> {
        let digest = Digest::of(uses.as_bytes());
        let pin =
            PluginPin { name: "any".into(), version: "1.0.0".into(), digest, retry: self.retry.clone() };
        Ok(KnownPlugin { pin, input_schema: self.input_schema.clone() })
    }
}

/// No plugin at all.
struct Nothing;

impl Plugins for Nothing {
    fn resolve(&self, _: &str) -> Result<KnownPlugin, UnknownPlugin> {
        Err(UnknownPlugin::default())
    }
}

fn uses(text: &str) -> String {
    in_step("").replace("acme/score@2", text)
}

#[test]
fn a_name_and_up_to_three_numbers_name_a_plugin() {
    let any = Any { input_schema: None, retry: None };
    let is_uses = |text: &str| match check(&uses(&format!("\"{text}\"")), &any) {
        Ok(_) => true,
        Err(mistakes) => {
            assert_eq!((mistakes.len(), mistakes[0].code), (1, "bad_uses"), "{text}: {}", shown(&mistakes));
            false
        }
    };
    let long = |length: usize| "a".repeat(length);
    for good in [
        "a",
        "a/b",
        "a@0",
        "a/b@1",
        "a@1.2",
        "a@1.0.12",
        "a@123456789",
        &format!("{}@1", long(64)),
        &format!("{}/{}@1", long(63), long(64)),
    ] {
        assert!(is_uses(good), "{good}");
    }
    for bad in [
        "",
        "@1",
        "a@",
        "a@latest",
        "a@1x",
        "a@v1",
        "a@01",
        "a@1.02",
        "a@1.",
        "a@1..2",
        "a@1.2.3.4",
        "a@1.x",
        "a@1234567890",
        "a@1@2",
        "/a",
        "a/",
        "a/b/c",
        "A",
        &long(65),
        &format!("a/{}", long(65)),
    ] {
        assert!(!is_uses(bad), "{bad}");
    }
}

#[test]
fn what_there_is_instead_is_told() {
    let hint = |mistakes: &[Diagnostic]| {
        assert_eq!((mistakes.len(), mistakes[0].code), (1, "unknown_plugin"), "{}", shown(mistakes));
        mistakes[0].hint.clone()
    };
    let told = |text: &str| hint(&refused(&uses(text))).expect("there are others");
    assert_eq!(told("transform@2"), "did you mean `transform@1.0.0`?");
    assert_eq!(told("something_else@1"), "there are `http_request@1` and `transform@1`");
    let nothing = check(&uses("transform@1"), &Nothing).expect_err("there are no plugins");
    assert_eq!(hint(&nothing), None);
}

#[test]
fn a_plugins_retry_rule_that_cannot_be_read_is_left_out_with_a_warning() {
    let with_rule = |rule: Value| -> Checked {
        let any = Any { input_schema: None, retry: Some(rule) };
        check(&in_step(""), &any).unwrap_or_else(|mistakes| panic!("{}", shown(&mistakes)))
    };
    assert_eq!(with_rule(json!({"attempts": 7})).warnings, []);
    let checked = with_rule(json!({"attempts": 7, "base": 2}));
    let [warning] = &checked.warnings[..] else { panic!("{}", shown(&checked.warnings)) };
    assert_eq!((warning.code, warning.pointer.as_str()), ("bad_plugin_retry", "/steps/a/uses"));
    assert_eq!((warning.line, warning.column), (5, 11));
    assert!(warning.message.contains("`any` is left out: 2 is no duration"), "{warning}");
    assert_eq!(checked.plan.steps[0].retry.attempts, 7);
}

#[test]
fn a_plugins_schema_refuses_what_no_expression_can_mend() {
    let list = json!({"type": "array", "uniqueItems": true});
    let any = Any { input_schema: Some(json!({"properties": {"a": list, "b": list}})), retry: None };
    let told = |with: &str| {
        let checked = check(&in_step(&format!("    with: {with}\n")), &any);
        let mistakes = checked.err().unwrap_or_default();
        mistakes.into_iter().map(|mistake| (mistake.code, mistake.pointer)).collect::<Vec<_>>()
    };
    let refused = |pointer: &str| vec![("input_refused", pointer.to_owned())];
    assert_eq!(told("{a: [1, 1]}"), refused("/steps/a/with/a"));
    assert_eq!(told("{a: [1, 1], b: [\"${ $input.x }\"]}"), refused("/steps/a/with/a"));
    assert_eq!(told("{a: [1, 1], c: \"x ${ $input.x }\"}"), refused("/steps/a/with/a"));
    // These may become different.
    assert_eq!(told("{a: [\"${ $input.x }\", \"${ $input.y }\"]}"), []);
    assert_eq!(told("{a: [\"x ${ $input.x }\", \"x ${ $input.y }\"]}"), []);
}
