//! What each `uses` means: a text such as `http_request@1` resolved to one component, and its input schema held
//! against the step's `with`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    diagnostic::{Place, Report, code},
    draft::Draft,
    hint, inputs,
    read::{At, MAX_NAME_BYTES, is_name, list},
    retry::RetryPart,
    schema,
    tree::{Node, Source},
};
use crate::plan::PluginPin;

/// The plugins that a document may use: what is installed.
pub trait Plugins {
    /// Resolves the text of a `uses`: `name`, `name@1` (the newest 1.x.y) or `name@1.2.3`.
    fn resolve(&self, uses: &str) -> Result<KnownPlugin, UnknownPlugin>;
}

/// An installed plugin.
#[derive(Clone, Debug)]
pub struct KnownPlugin {
    /// Exactly which.
    pub pin: PluginPin,
    /// The JSON Schema of its input, from its manifest.
    pub input_schema: Option<Value>,
}

/// There is no such plugin, or not that version of it.
#[derive(Clone, Debug, Default)]
pub struct UnknownPlugin {
    /// What could be written instead: near names, or the versions that there are.
    pub known: Vec<String>,
}

/// Resolves every `uses` once, and checks each step's `with`.
pub(super) fn resolve(
    draft: &Draft<'_>,
    plugins: &dyn Plugins,
    report: &mut Report<'_>,
) -> BTreeMap<String, PluginPin> {
    let mut pins = BTreeMap::new();
    let mut resolved: BTreeMap<&str, Option<Option<schema::Schema>>> = BTreeMap::new();
    for step in &draft.steps {
        let Some((uses, place)) = &step.uses else { continue };
        if !is_uses(uses) {
            let hint = "write `name@1`, `name@1.2.3` or `owner/name@1`".to_owned();
            report.hinted(
                place,
                code::BAD_USES,
                format!("`{}` names no plugin", schema::shorten(uses)),
                hint,
            );
            continue;
        }
        let known = resolved.entry(uses).or_insert_with(|| match plugins.resolve(uses) {
            Ok(known) => {
                check_retry(&known.pin, place, report);
                pins.insert(uses.clone(), known.pin);
                // What is no schema is the plugin's mistake, told where it is installed.
                Some(known.input_schema.and_then(|schema| schema::Schema::compile(&schema).ok()))
            }
            Err(UnknownPlugin { known }) => {
                let name = uses.split('@').next().unwrap_or(uses);
                let near = hint::nearest(uses, known.iter().map(String::as_str)).or_else(|| {
                    known.iter().map(String::as_str).find(|known| known.split('@').next() == Some(name))
                });
                let hint = match near {
                    Some(near) => Some(format!("did you mean `{near}`?")),
                    None if known.is_empty() => None,
                    None => Some(format!("there are {}", list(known.iter().map(String::as_str)))),
                };
                report.hinted(place, code::UNKNOWN_PLUGIN, format!("no plugin `{uses}` is installed"), hint);
                None
            }
        });
        if let Some(Some(schema)) = known {
            inputs::check(schema, step, report);
        }
    }
    pins
}

/// A manifest's retry rule that cannot be read is left out, which its users should know.
fn check_retry(pin: &PluginPin, place: &Place, report: &mut Report<'_>) {
    if let Some(retry) = &pin.retry {
        let (_, mistakes) = read_retry(retry);
        if let Some(mistake) = mistakes {
            let message = format!("the retry rule of the plugin `{}` is left out: {mistake}", pin.name);
            report.warning(place, code::BAD_PLUGIN_RETRY, message);
        }
    }
}

/// A manifest's retry rule, without the parts that cannot be read, and the first complaint about those.
pub(crate) fn read_retry(retry: &Value) -> (RetryPart, Option<String>) {
    let mut inner = Report::new(Source::new(""));
    let node = Node::from_value(retry);
    let part = RetryPart::read(At { node: &node, place: Place::default() }, &mut inner);
    (part, inner.mistakes.into_iter().next().map(|mistake| mistake.message))
}

/// `name`, `owner/name`, each with or without `@` and one to three numbers.
fn is_uses(text: &str) -> bool {
    let (path, version) = text.split_once('@').map_or((text, None), |(path, version)| (path, Some(version)));
    let number = |part: &str| {
        (1..=9).contains(&part.len())
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    path.len() <= 2 * MAX_NAME_BYTES
        && path.split('/').count() <= 2
        && path.split('/').all(is_name)
        && version.is_none_or(|version| version.split('.').count() <= 3 && version.split('.').all(number))
}
