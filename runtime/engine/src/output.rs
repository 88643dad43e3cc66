//! Whether what a guest returns may pass as a step's output: JSON, of bounded size and depth.

use serde::de::IgnoredAny;

use crate::attempt::{Class, Failure};
use crate::limits;

/// The output, or what is wrong with it.
pub(crate) fn check(output: String, max_bytes: usize) -> Result<String, Failure> {
    if output.len() > max_bytes {
        let message = format!(
            "The output has {} bytes; {max_bytes} are allowed. Return a reference instead.",
            output.len()
        );
        return Err(Failure::new(Class::Resource, "output_too_large", message));
    }
    if depth(&output) > limits::JSON_DEPTH {
        let message = format!("The output nests deeper than {} levels.", limits::JSON_DEPTH);
        return Err(Failure::new(Class::Permanent, "bad_output", message));
    }
    match serde_json::from_str::<IgnoredAny>(&output) {
        Ok(_) => Ok(output),
        Err(error) => Err(Failure::new(
            Class::Permanent,
            "bad_output",
            format!("The output is no JSON value: {error}."),
        )),
    }
}

/// Whether the text is one JSON value of bounded depth.
pub(crate) fn is_json(text: &str) -> bool {
    depth(text) <= limits::JSON_DEPTH && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// The deepest nesting of brackets outside strings; right for JSON, and cheap, so that it can come before parsing.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'\\' => drop(bytes.next()),
                        b'"' => break,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_json_value_passes() {
        for good in ["null", "1", "\"a\"", "[1, {\"b\": []}]", " {} "] {
            assert_eq!(check(good.into(), 100).as_deref(), Ok(good));
        }
        for bad in ["", "nul", "{", "1 2", "{\"a\":}", "NaN"] {
            assert_eq!(check(bad.into(), 100).map_err(|f| f.code), Err("bad_output".into()), "{bad}");
        }
    }

    #[test]
    fn size_and_depth_are_bounded() {
        assert_eq!(check("\"aaaa\"".into(), 5).map_err(|f| f.code), Err("output_too_large".into()));
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(check(nested(limits::JSON_DEPTH), 1_000).is_ok());
        assert_eq!(
            check(nested(limits::JSON_DEPTH + 1), 1_000).map_err(|f| f.code),
            Err("bad_output".into())
        );
        assert_eq!(depth("\"[[[\\\"[[\""), 0);
    }
}
