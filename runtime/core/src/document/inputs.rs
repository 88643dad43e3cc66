//! A step's `with` against its plugin's input schema, as far as that can be known before a run: expressions may
//! become anything, so only what is literal is held against the schema.

use std::collections::HashSet;

use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

use super::{
    diagnostic::{Report, code, escape_pointer},
    draft::StepDraft,
    hint,
    read::At,
    schema::{Schema, shorten},
};
use crate::expression::Template;

/// No step is told more mistakes of its `with`.
const MAX_MISTAKES: usize = 20;

/// A template with something in the place of each expression, and where that is.
#[derive(Default)]
struct Sample {
    /// Pointers to what may become anything.
    any: HashSet<String>,
    /// Pointers to what may become any string.
    text: HashSet<String>,
}

impl Sample {
    fn of(&mut self, template: &Template, pointer: &str) -> Value {
        match template {
            Template::Literal(value) => value.clone(),
            Template::Whole(_) => {
                self.any.insert(pointer.to_owned());
                Value::Null
            }
            Template::Text(_) => {
                self.text.insert(pointer.to_owned());
                Value::String(String::new())
            }
            Template::Array(items) => items
                .iter()
                .enumerate()
                .map(|(index, item)| self.of(item, &format!("{pointer}/{index}")))
                .collect(),
            Template::Object(fields) => fields
                .iter()
                .map(|(key, field)| {
                    (key.clone(), self.of(field, &format!("{pointer}/{}", escape_pointer(key))))
                })
                .collect(),
        }
    }

    /// Whether a complaint about what stands at `pointer` holds whatever the expressions become.
    fn is_certain(&self, pointer: &str, keyword_path: &str, kind: &ValidationErrorKind) -> bool {
        use ValidationErrorKind as K;
        if self.any.is_empty() && self.text.is_empty() {
            return true;
        }
        // Which branch applies may depend on any expression.
        if ["/if/", "/then/", "/else/", "/not/", "/dependentSchemas/"]
            .iter()
            .any(|branch| keyword_path.contains(branch))
        {
            return false;
        }
        if self.any.contains(pointer) {
            return false;
        }
        if self.text.contains(pointer) {
            return matches!(kind, K::Type { .. });
        }
        let inside = |other: &String| other.strip_prefix(pointer).is_some_and(|rest| rest.starts_with('/'));
        let shape = matches!(
            kind,
            K::Type { .. }
                | K::Required { .. }
                | K::AdditionalProperties { .. }
                | K::AdditionalItems { .. }
                | K::MinProperties { .. }
                | K::MaxProperties { .. }
                | K::MinItems { .. }
                | K::MaxItems { .. }
                | K::PropertyNames { .. }
        );
        shape || !(self.any.iter().any(inside) || self.text.iter().any(inside))
    }
}

/// Reports what in a step's `with` the schema refuses for certain.
pub(super) fn check(schema: &Schema, step: &StepDraft<'_>, report: &mut Report<'_>) {
    let mut sample = Sample::default();
    let instance = sample.of(&step.with, "");
    let errors: Vec<_> = schema
        .mistakes(&instance)
        .into_iter()
        .flatten()
        .filter(|error| {
            let keyword_path = error.evaluation_path().to_string();
            sample.is_certain(&error.instance_path().to_string(), &keyword_path, error.kind())
        })
        .take(MAX_MISTAKES)
        .collect();
    for error in errors {
        let pointer = error.instance_path().to_string();
        let at = step.with_at.as_ref().map(|at| at.inside(&pointer));
        let place = at.as_ref().map_or(&step.place, |at| &at.place);
        let uses = step.uses.as_ref().map_or("the plugin", |(uses, _)| uses.as_str());
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                let known = schema.siblings(&error.schema_path().to_string());
                for key in unexpected {
                    let place =
                        at.as_ref().and_then(|at| key_place(at, key)).unwrap_or_else(|| place.clone());
                    let near = hint::nearest(key, known.iter().copied());
                    let hint = near.map(|near| format!("did you mean `{near}`?"));
                    report.hinted(&place, code::INPUT_REFUSED, format!("`{uses}` takes no `{key}`"), hint);
                }
            }
            ValidationErrorKind::Required { property } => {
                let property = property.as_str().unwrap_or_default();
                report.mistake(place, code::INPUT_REFUSED, format!("`{uses}` needs `{property}`"));
            }
            _ => {
                let message = format!("`{uses}` refuses this: {}", shorten(&error.to_string()));
                report.mistake(place, code::INPUT_REFUSED, message);
            }
        }
    }
}

fn key_place(at: &At<'_>, key: &str) -> Option<super::diagnostic::Place> {
    let field = at.node.field(key)?;
    Some(at.place.child(key, field.key_span))
}
