//! Following a plain path through JSON text, without building the values that it passes.

use std::{borrow::Cow, fmt};

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::View;
use crate::{
    expression::{Root, Segment},
    partition::{ScopeStep, StepStatus},
};

/// What a path led to: JSON text.
pub(super) enum Found<'a> {
    /// A slice of an input or output.
    Slice(&'a str),
    /// Made here, or by the engine.
    Owned(String),
}

impl Found<'_> {
    pub(super) fn json(&self) -> &str {
        match self {
            Self::Slice(text) => text,
            Self::Owned(text) => text,
        }
    }

    pub(super) fn truthy(&self) -> bool {
        !matches!(self.json().trim(), "null" | "false")
    }

    /// As part of a string: a string as it is, anything else as compact JSON.
    pub(super) fn text(&self) -> Cow<'_, str> {
        let json = self.json().trim();
        if json.starts_with('"')
            && let Ok(text) = serde_json::from_str::<String>(json)
        {
            return Cow::Owned(text);
        }
        compact(json)
    }
}

/// JSON without the white space between its tokens.
fn compact(json: &str) -> Cow<'_, str> {
    if !json.contains([' ', '\n', '\t', '\r']) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len());
    let (mut inside, mut escaped) = (false, false);
    for c in json.chars() {
        if !inside && matches!(c, ' ' | '\n' | '\t' | '\r') {
            continue;
        }
        inside ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        out.push(c);
    }
    Cow::Owned(out)
}

/// Why a path leads nowhere.
pub(super) struct CannotIndex {
    kind: &'static str,
    segment: Segment,
}

impl fmt::Display for CannotIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.segment {
            Segment::Key(key) => write!(f, "{} has no key {key:?}", self.kind),
            Segment::Index(index) => write!(f, "{} has no item {index}", self.kind),
        }
    }
}

/// Follows `segments` from `root`.
pub(super) fn follow<'a>(view: View<'a>, root: Root, segments: &[Segment]) -> Result<Found<'a>, CannotIndex> {
    match root {
        Root::Input => walk(&view.scope.input.0, segments),
        Root::Trigger => walk(view.scope.trigger.as_deref().unwrap_or("null"), segments),
        Root::Error => walk(view.scope.error.as_deref().unwrap_or("null"), segments),
        Root::Steps => match segments {
            [] => Ok(Found::Owned(steps(view))),
            [Segment::Key(name), rest @ ..] => {
                match view.scope.steps.iter().find(|step| step.name == *name) {
                    Some(found) => step(found, rest),
                    None => walk("null", rest),
                }
            }
            [_, rest @ ..] => walk("null", rest),
        },
        Root::Secrets => match segments {
            [] => Ok(Found::Owned(secrets(view))),
            [Segment::Key(name), rest @ ..] => match view.secrets.get(name) {
                Some(placeholder) => walk_made(quoted(placeholder), rest),
                None => walk("null", rest),
            },
            [_, rest @ ..] => walk("null", rest),
        },
        Root::Scope => match segments {
            [] => Ok(Found::Owned(whole_scope(view)())),
            [Segment::Key(name), rest @ ..] => match &**name {
                "input" => follow(view, Root::Input, rest),
                "steps" => follow(view, Root::Steps, rest),
                "trigger" => follow(view, Root::Trigger, rest),
                "error" => follow(view, Root::Error, rest),
                "secrets" => follow(view, Root::Secrets, rest),
                _ => walk("null", rest),
            },
            [_, rest @ ..] => walk("null", rest),
        },
    }
}

fn step<'a>(step: &'a ScopeStep, segments: &[Segment]) -> Result<Found<'a>, CannotIndex> {
    match segments {
        [] => Ok(Found::Owned(step_json(step))),
        [Segment::Key(name), rest @ ..] => match &**name {
            "output" => walk(&step.output, rest),
            "error" => walk(step.error.as_deref().unwrap_or("null"), rest),
            "status" => walk_made(quoted(status(step.status)), rest),
            _ => walk("null", rest),
        },
        [_, rest @ ..] => walk("null", rest),
    }
}

/// How to write the whole scope.
pub(super) fn whole_scope<'a>(view: View<'a>) -> impl Fn() -> String + 'a {
    move || {
        format!(
            r#"{{"input":{},"steps":{},"trigger":{},"secrets":{},"error":{}}}"#,
            view.scope.input.0,
            steps(view),
            view.scope.trigger.as_deref().unwrap_or("null"),
            secrets(view),
            view.scope.error.as_deref().unwrap_or("null")
        )
    }
}

fn steps(view: View<'_>) -> String {
    object(view.scope.steps.iter().map(|step| (&*step.name, step_json(step))))
}

fn secrets(view: View<'_>) -> String {
    object(view.secrets.iter().map(|(name, placeholder)| (&**name, quoted(placeholder))))
}

fn step_json(step: &ScopeStep) -> String {
    let error = step.error.as_deref().unwrap_or("null");
    format!(r#"{{"output":{},"status":{},"error":{error}}}"#, step.output, quoted(status(step.status)))
}

fn object<'a>(fields: impl Iterator<Item = (&'a str, String)>) -> String {
    let fields: Vec<_> = fields.map(|(name, value)| format!("{}:{value}", quoted(name))).collect();
    format!("{{{}}}", fields.join(","))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn status(status: StepStatus) -> &'static str {
    match status {
        StepStatus::Waiting => "waiting",
        StepStatus::Running => "running",
        StepStatus::Retrying => "retrying",
        StepStatus::Completed => "completed",
        StepStatus::Failed => "failed",
        StepStatus::Skipped => "skipped",
        StepStatus::Cancelled => "cancelled",
    }
}

fn walk<'a>(json: &'a str, segments: &[Segment]) -> Result<Found<'a>, CannotIndex> {
    let mut json = json;
    for segment in segments {
        json = child(json, segment)?.unwrap_or("null");
    }
    Ok(Found::Slice(json))
}

fn walk_made(json: String, segments: &[Segment]) -> Result<Found<'static>, CannotIndex> {
    if segments.is_empty() {
        return Ok(Found::Owned(json));
    }
    walk(&json, segments).map(|found| Found::Owned(found.json().to_owned()))
}

/// The text of what `segment` leads to inside `json`; `None` where it leads to nothing.
fn child<'a>(json: &'a str, segment: &Segment) -> Result<Option<&'a str>, CannotIndex> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    match Child(segment).deserialize(&mut deserializer) {
        Ok(Ok(found)) => Ok(found.map(RawValue::get)),
        Ok(Err(kind)) => Err(CannotIndex { kind, segment: segment.clone() }),
        // Whoever made the value has checked that it is JSON.
        Err(_) => Err(CannotIndex { kind: "a value that is no JSON", segment: segment.clone() }),
    }
}

struct Child<'s>(&'s Segment);

type Kind = &'static str;

impl<'de> DeserializeSeed<'de> for Child<'_> {
    type Value = Result<Option<&'de RawValue>, Kind>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Child<'_> {
    type Value = Result<Option<&'de RawValue>, Kind>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        match self.0 {
            Segment::Key(key) => {
                while let Some(matches) = map.next_key_seed(KeyIs(key))? {
                    if matches {
                        found = Some(map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
            }
            Segment::Index(_) => while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {},
        }
        Ok(Ok(found))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let index = match self.0 {
            Segment::Index(index) => *index,
            Segment::Key(_) => {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(Err("an array"));
            }
        };
        if index < 0 {
            let mut items: Vec<&RawValue> = Vec::new();
            while let Some(item) = seq.next_element()? {
                items.push(item);
            }
            let back = usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX);
            return Ok(Ok(items.len().checked_sub(back).and_then(|at| items.get(at).copied())));
        }
        for _ in 0..index {
            if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(Ok(None));
            }
        }
        let found = seq.next_element()?;
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Ok(found))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Ok(None))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Err("a boolean"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Err("a number"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Err("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Err("a number"))
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Err("a string"))
    }
}

/// Whether a key is this one, without keeping it.
struct KeyIs<'s>(&'s str);

impl<'de> DeserializeSeed<'de> for KeyIs<'_> {
    type Value = bool;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        Cow::<str>::deserialize(deserializer).map(|key| key == self.0)
    }
}
