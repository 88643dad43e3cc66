//! Reads a YAML file of the repository into JSON: mappings, sequences and scalars, all scalars as text.

use saphyr_parser::{Event, Parser};
use serde_json::{Map, Value};

/// The one document of `text`.
pub fn read(text: &str) -> Value {
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, _span) = event.unwrap_or_else(|error| panic!("{error}"));
        let value = match event {
            Event::Scalar(text, ..) => Value::String(text.into_owned()),
            Event::SequenceStart(..) => {
                open.push(Open::Sequence(Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Mapping(Map::new(), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop().expect("the parser balances them") {
                Open::Sequence(items) => Value::Array(items),
                Open::Mapping(fields, _) => Value::Object(fields),
            },
            Event::Alias(_) => panic!("aliases are not read here"),
            _ => continue,
        };
        match open.last_mut() {
            None => return value,
            Some(Open::Sequence(items)) => items.push(value),
            Some(Open::Mapping(fields, key)) => match key.take() {
                Some(key) => assert!(fields.insert(key, value).is_none(), "a key stands twice"),
                None => *key = Some(value.as_str().expect("a key is a text").to_owned()),
            },
        }
    }
    panic!("there is no document");
}

/// What has begun and has not ended.
enum Open {
    Sequence(Vec<Value>),
    Mapping(Map<String, Value>, Option<String>),
}
