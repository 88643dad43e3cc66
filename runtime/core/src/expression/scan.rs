//! A first look at an expression, without recursion: where it ends, and whether it is within the bounds that keep
//! jq's recursive parser, and everything that walks its tree, far from the end of the stack.

use super::{
    ExpressionError, ExpressionErrorKind, MAX_EXPRESSION_BYTES, MAX_EXPRESSION_NESTING,
    MAX_EXPRESSION_OPERATORS,
};

/// Words after which jq's parser descends.
const DESCENDING: [&str; 10] = ["if", "try", "catch", "reduce", "foreach", "def", "label", "as", "and", "or"];

/// Checks the bounds of a whole expression.
pub(super) fn check(source: &str) -> Result<(), ExpressionError> {
    run(source, false).map(|_| ())
}

/// Where the `}` stands that ends the expression at the start of `text`, if there is one.
pub(super) fn end(text: &str) -> Result<Option<usize>, ExpressionError> {
    run(text, true)
}

fn run(text: &str, until_brace: bool) -> Result<Option<usize>, ExpressionError> {
    let bytes = text.as_bytes();
    // What is open: one of `( [ { "`. A `(` right above a `"` is an interpolation.
    let mut open: Vec<(u8, usize)> = Vec::new();
    let mut operators = 0;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if at > MAX_EXPRESSION_BYTES {
            let message = format!("an expression has at most {MAX_EXPRESSION_BYTES} bytes");
            return Err(error(at, ExpressionErrorKind::TooLong, message));
        }
        let top = open.last().map(|(byte, _)| *byte);
        if top == Some(b'"') {
            match (byte, bytes.get(at + 1)) {
                (b'\\', Some(b'(')) => {
                    open.push((b'(', at + 1));
                    at += 1;
                }
                (b'\\', Some(_)) => at += 1,
                (b'"', _) => drop(open.pop()),
                _ => {}
            }
            at += 1;
        } else {
            match byte {
                b'"' | b'(' | b'[' | b'{' => open.push((byte, at)),
                b'}' if open.is_empty() && until_brace => return Ok(Some(at)),
                b')' | b']' | b'}' => match (top, byte) {
                    (Some(b'('), b')') | (Some(b'['), b']') | (Some(b'{'), b'}') => drop(open.pop()),
                    _ => {
                        let message = format!("`{}` closes nothing that is open here", byte as char);
                        return Err(error(at, ExpressionErrorKind::Syntax, message));
                    }
                },
                b'#' => at += bytes[at..].iter().take_while(|byte| **byte != b'\n').count().max(1) - 1,
                b'|' | b'+' | b'-' | b'*' | b'/' | b'%' | b'<' | b'>' | b'=' | b'!' => operators += 1,
                b',' if top != Some(b'{') => operators += 1,
                b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' | b'@' => {
                    let word = text[at..]
                        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '@')))
                        .unwrap_or(text.len() - at);
                    operators += usize::from(DESCENDING.contains(&&text[at..at + word]));
                    at += word - 1;
                }
                _ => {}
            }
            at += 1;
        }
        if open.len() > MAX_EXPRESSION_NESTING {
            let message = format!("an expression nests at most {MAX_EXPRESSION_NESTING} levels deep");
            return Err(error(at - 1, ExpressionErrorKind::TooLong, message));
        }
        if operators > MAX_EXPRESSION_OPERATORS {
            let message = format!("an expression has at most {MAX_EXPRESSION_OPERATORS} operators");
            return Err(error(at - 1, ExpressionErrorKind::TooLong, message));
        }
    }
    if text.len() > MAX_EXPRESSION_BYTES {
        let message = format!("an expression has at most {MAX_EXPRESSION_BYTES} bytes");
        return Err(error(MAX_EXPRESSION_BYTES, ExpressionErrorKind::TooLong, message));
    }
    if let Some((byte, at)) = open.last() {
        let message = format!("`{}` is never closed", *byte as char);
        return Err(error(*at, ExpressionErrorKind::Syntax, message));
    }
    Ok(None)
}

fn error(offset: usize, kind: ExpressionErrorKind, message: String) -> ExpressionError {
    ExpressionError { offset, kind, message, hint: None }
}
