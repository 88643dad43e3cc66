//! Which names stand in a text of jq, and where the prelude's definitions begin and end. The build script reads the prelude
//! with it; at run time only a filter is read.

/// Everything in a text that could name a definition: `map`, `@csv`; without variables (`$x`) and fields (`.x`).
pub(crate) fn identifiers(source: &str) -> impl Iterator<Item = &str> {
    let bytes = source.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() {
            let start = at;
            if !(bytes[start] == b'@' || is_letter(bytes[start])) {
                at += 1;
                continue;
            }
            at += 1;
            while at < bytes.len() && (is_letter(bytes[at]) || bytes[at].is_ascii_digit()) {
                at += 1;
            }
            let before = start.checked_sub(1).map(|before| bytes[before]);
            let field_of_something = before == Some(b'.') && (start < 2 || bytes[start - 2] != b'.');
            if before != Some(b'$') && !field_of_something {
                return Some(&source[start..at]);
            }
        }
        None
    })
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}
