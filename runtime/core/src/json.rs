//! JSON values as text. The core carries payloads, compares and hashes them, and never walks them, so it keeps them as
//! shared text and leaves parsing to those who look inside.

use std::sync::Arc;

/// One JSON value, UTF-8 text, shared and immutable. Whoever makes one has checked that it is one JSON value.
pub type Json = Arc<str>;

/// The text of JSON null, shared.
pub fn null() -> Json {
    static NULL: std::sync::OnceLock<Json> = std::sync::OnceLock::new();
    Arc::clone(NULL.get_or_init(|| Arc::from("null")))
}

/// Serde for a [`Json`] field: its value stands in the surrounding JSON as itself, not as a string.
pub mod raw {
    use super::Json;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::value::RawValue;

    /// Writes the value itself.
    pub fn serialize<S: Serializer>(json: &Json, s: S) -> Result<S::Ok, S::Error> {
        <&RawValue>::deserialize(&mut serde_json::Deserializer::from_str(json))
            .map_err(serde::ser::Error::custom)?
            .serialize(s)
    }

    /// Reads any value as text.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Json, D::Error> {
        Ok(Json::from(Box::<RawValue>::deserialize(d)?.get()))
    }
}

/// As [`raw`], for an `Option<Json>`.
pub mod optional_raw {
    use super::Json;
    use serde::{Deserialize, Deserializer, Serializer};
    use serde_json::value::RawValue;

    /// Writes the value itself, or null.
    pub fn serialize<S: Serializer>(json: &Option<Json>, s: S) -> Result<S::Ok, S::Error> {
        match json {
            Some(json) => super::raw::serialize(json, s),
            None => s.serialize_none(),
        }
    }

    /// Reads any value as text; an absent one or null is `None`.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Json>, D::Error> {
        Ok(Option::<Box<RawValue>>::deserialize(d)?.map(|raw| Json::from(raw.get())))
    }
}
