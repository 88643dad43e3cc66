//! Expressions where they stand in a document.

use reipaz_core::{
    document::{Checked, Diagnostic, KnownPlugin, Plugins, UnknownPlugin, check},
    expression::ExpressionKind,
    ids::Digest,
    plan::{Condition, PluginPin},
};
use serde_json::json;

/// Every plugin is installed, in version 1.0.0.
struct Everything;

impl Plugins for Everything {
    fn resolve(&self, uses: &str) -> Result<KnownPlugin, UnknownPlugin> {
        let pin = PluginPin {
            name: uses.into(),
            version: "1.0.0".into(),
            digest: Digest::of(uses.as_bytes()),
            retry: None,
        };
        Ok(KnownPlugin { pin, input_schema: None })
    }
}

/// A workflow of one step with this line.
fn with_line(line: &str) -> Result<Checked, Vec<Diagnostic>> {
    check(&format!("reipaz: 1\nname: w\nsteps:\n  a:\n    uses: echo\n    {line}\n"), &Everything)
}

#[test]
fn a_condition_may_be_true_or_false_with_and_without_quotes() {
    for (written, value) in
        [("true", true), ("false", false), ("\"true\"", true), ("\"false\"", false), ("' true '", true)]
    {
        let checked = with_line(&format!("if: {written}")).expect(written);
        let Condition::Holds(expression) = &checked.plan.steps[0].condition else {
            panic!("{written} is an expression")
        };
        assert_eq!(expression.kind, ExpressionKind::Literal(json!(value)), "{written}");
    }
}

#[test]
fn the_error_is_pointed_at_where_it_stands_in_its_string() {
    for line in [
        "if: «$error».code == 1",
        "if: $input.x == «$error».code",
        "with: {x: \"${ «$error» }\"}",
        "with: {x: \"${ 1 + «$error».n }\"}",
        "with: {x: \"é ${ 1 } ${ $input.x + «$error».n }\"}",
    ] {
        let before = line.split('«').next().unwrap_or_default();
        let column = "    ".len() + before.chars().count() + 1;
        let mistakes = with_line(&line.replace(['«', '»'], "")).expect_err(line);
        let told: Vec<_> =
            mistakes.iter().map(|told| (told.code, told.column as usize, told.end_column as usize)).collect();
        assert_eq!(told, [("unknown_name", column, column + "$error".len())], "{line}");
    }
}
