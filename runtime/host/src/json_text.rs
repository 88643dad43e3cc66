//! A payload's journey into the host: its text is checked once, stripped of insignificant white space, and from then
//! on carried as it is. No tree is built.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use reipaz_core::json::Json;

/// How deep an input's JSON may nest. Below serde_json's own 128, since expressions see the input a few levels down.
pub(crate) const JSON_DEPTH: usize = 100;

/// Why a text is no payload.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct PayloadError(serde_json::Error);

/// Checks that `text` is one JSON value that everybody further down can read (numbers in range, whole surrogate pairs,
/// nesting within [`JSON_DEPTH`]) and gives it back without the white space between its tokens.
///
/// Two submissions under one idempotency key are compared by this text, so how a client indents does not matter; the
/// order of its keys does.
pub(crate) fn payload(text: &str) -> Result<Json, PayloadError> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Sound { depth_left: JSON_DEPTH }.deserialize(&mut deserializer).map_err(PayloadError)?;
    deserializer.end().map_err(PayloadError)?;
    Ok(compact(text))
}

/// `text`, which is valid JSON, without the white space between tokens.
fn compact(text: &str) -> Json {
    let mut in_string = false;
    let mut escaped = false;
    let significant = |byte: u8| -> bool {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            return true;
        }
        in_string = byte == b'"';
        !matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
    };
    let mut kept = Vec::with_capacity(text.len());
    let mut significant = significant;
    kept.extend(text.bytes().filter(|byte| significant(*byte)));
    match String::from_utf8(kept) {
        Ok(kept) => Json::from(kept),
        // Only ASCII white space was taken out, so this cannot happen; the text itself is right in any case.
        Err(_) => Json::from(text),
    }
}

/// Walks a value and keeps nothing of it.
#[derive(Clone, Copy)]
struct Sound {
    depth_left: usize,
}

impl Sound {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        match self.depth_left.checked_sub(1) {
            Some(depth_left) => Ok(Self { depth_left }),
            None => Err(E::custom(format_args!("the JSON nests deeper than {JSON_DEPTH} levels"))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Sound {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Sound {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while items.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while entries.next_key_seed(inner)?.is_some() {
            entries.next_value_seed(inner)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_goes_between_tokens_and_stays_in_strings() {
        let text = "{ \"a b\" :\n [ 1 , \" \\\" x \\\\\" , null ]\t}";
        assert_eq!(&*payload(text).expect("sound"), r#"{"a b":[1," \" x \\",null]}"#);
    }

    #[test]
    fn numbers_keep_their_digits() {
        let text = "[12345678901234567890123.50,1.0,1e3]";
        assert_eq!(&*payload(text).expect("sound"), text);
    }

    #[test]
    fn what_would_fail_later_fails_here() {
        for text in ["", "{", "[1,]", "1 2", "\"\\ud800\"", "1e999", "nul", "{\"a\":1,}", "'a'"] {
            assert!(payload(text).is_err(), "{text:?}");
        }
        assert!(payload(&("[".repeat(JSON_DEPTH) + &"]".repeat(JSON_DEPTH))).is_ok());
        assert!(payload(&("[".repeat(JSON_DEPTH + 1) + &"]".repeat(JSON_DEPTH + 1))).is_err());
        assert!(payload(&"[".repeat(1 << 20)).is_err());
    }
}
