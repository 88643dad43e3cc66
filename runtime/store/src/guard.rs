//! Which statements of users are let through to ClickHouse: exactly one, one that reads, and none that names files. It
//! reads tokens as ClickHouse's lexer does and understands nothing beyond them; the bounds and the refusal of writes
//! are ClickHouse's.

/// Why a statement is not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("there is no statement")]
    Empty,
    #[error("only one statement at a time")]
    Several,
    #[error("only SELECT, WITH, SHOW, DESCRIBE, EXPLAIN and EXISTS; this begins with {0:?}")]
    NotReading(String),
    #[error("{0} is not allowed here: files of the host are out of reach")]
    Files(&'static str),
    #[error("a text, a name or a comment is not closed")]
    Open,
}

/// What a statement may begin with.
const READING: &[&str] = &["select", "with", "show", "describe", "desc", "explain", "exists"];

/// Looks at a statement.
pub(crate) fn check(sql: &str) -> Result<(), Refusal> {
    let tokens = tokens(sql)?;
    let mut significant = tokens.iter().filter(|token| **token != Token::Other("("));
    match significant.next() {
        None | Some(Token::Semicolon) => return Err(Refusal::Empty),
        Some(Token::Word(word)) if READING.iter().any(|known| word.eq_ignore_ascii_case(known)) => {}
        Some(token) => return Err(Refusal::NotReading(token.text().to_owned())),
    }
    let last = tokens.iter().rposition(|token| *token != Token::Semicolon).unwrap_or(0);
    if tokens[..last].contains(&Token::Semicolon) {
        return Err(Refusal::Several);
    }
    for pair in tokens.windows(2) {
        let [left, right] = pair else { continue };
        if left.is("into") && right.is("outfile") {
            return Err(Refusal::Files("INTO OUTFILE"));
        }
        // As a function, and as the function that APPLY is given.
        let applied = left.is("apply") || (*left == Token::Other("(") && after_apply(&tokens, pair));
        if (left.is("file") && *right == Token::Other("(")) || (applied && right.is("file")) {
            return Err(Refusal::Files("the function file()"));
        }
    }
    Ok(())
}

/// Whether the bracket that begins `pair` is APPLY's.
fn after_apply(tokens: &[Token<'_>], pair: &[Token<'_>]) -> bool {
    // `pair` is a window of `tokens`: its place follows from the addresses.
    let index = tokens.iter().position(|token| std::ptr::eq(token, &raw const pair[0])).unwrap_or(0);
    index > 0 && tokens[index - 1].is("apply")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'s> {
    /// A keyword or a name, quoted or not (without its quotes).
    Word(&'s str),
    /// A text or a number.
    Literal(&'s str),
    Semicolon,
    /// A mark of one character.
    Other(&'s str),
}

impl<'s> Token<'s> {
    fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word(text) if text.eq_ignore_ascii_case(word))
    }

    fn text(&self) -> &'s str {
        match self {
            Self::Word(text) | Self::Literal(text) | Self::Other(text) => text,
            Self::Semicolon => ";",
        }
    }
}

fn tokens(sql: &str) -> Result<Vec<Token<'_>>, Refusal> {
    let mut tokens = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            _ if first.is_whitespace() || first == '\0' => {
                rest = &rest[first.len_utf8()..];
                continue;
            }
            '-' if rest.starts_with("--") => line(rest),
            '#' if rest.starts_with("# ") || rest.starts_with("#!") => line(rest),
            '/' if rest.starts_with("/*") => comment(rest)?,
            '\'' => {
                let length = quoted(rest, b'\'')?;
                tokens.push(Token::Literal(&rest[..length]));
                length
            }
            '`' | '"' => {
                let length = quoted(rest, first as u8)?;
                tokens.push(Token::Word(&rest[1..length - 1]));
                length
            }
            '$' if heredoc(rest).is_some() => {
                let length = heredoc(rest).ok_or(Refusal::Open)?;
                tokens.push(Token::Literal(&rest[..length]));
                length
            }
            _ if first == '_' || first == '$' || first.is_alphanumeric() => {
                let is_part = |c: char| c == '_' || c == '$' || c.is_alphanumeric();
                let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
                let text = &rest[..length];
                tokens.push(if first.is_ascii_digit() { Token::Literal(text) } else { Token::Word(text) });
                length
            }
            ';' => {
                tokens.push(Token::Semicolon);
                1
            }
            _ => {
                tokens.push(Token::Other(&rest[..first.len_utf8()]));
                first.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    Ok(tokens)
}

fn line(rest: &str) -> usize {
    rest.find('\n').unwrap_or(rest.len())
}

/// Comments nest in ClickHouse.
fn comment(rest: &str) -> Result<usize, Refusal> {
    let (mut depth, mut at) = (0_usize, 0);
    let bytes = rest.as_bytes();
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return Ok(at);
        }
    }
    Err(Refusal::Open)
}

/// Up to the closing quote; a backslash, or the quote doubled, escapes.
fn quoted(rest: &str, quote: u8) -> Result<usize, Refusal> {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        let escapes = bytes[at] == b'\\' || (bytes[at] == quote && bytes.get(at + 1) == Some(&quote));
        if escapes {
            at += 2;
        } else if bytes[at] == quote {
            return Ok(at + 1);
        } else {
            at += 1;
        }
    }
    Err(Refusal::Open)
}

/// `$tag$ ... $tag$`.
fn heredoc(rest: &str) -> Option<usize> {
    let end = rest[1..].find('$')? + 2;
    let tag = &rest[..end];
    let is_tag = tag[1..end - 1].chars().all(|c| c == '_' || c.is_alphanumeric());
    let close = rest[end..].find(tag)?;
    is_tag.then_some(end + close + end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_statements_pass() {
        for sql in [
            "SELECT 1",
            " -- hello\n /* a /* nested; */ */ select ';' as a, 'it''s; INTO OUTFILE' ;",
            "(SELECT 1) UNION ALL (SELECT 2)",
            "WITH 1 AS x SELECT x",
            "SELECT file FROM t",
            "SELECT `into`, outfile FROM t",
            "SELECT $$; drop$$, $tag$ it's $tag$",
            "EXPLAIN SELECT 1",
            "SELECT 'a\\'; DROP TABLE x'",
            "SELECT countIf(status = 'failed') FROM runs WHERE input LIKE '%file(%'",
        ] {
            assert_eq!(check(sql), Ok(()), "{sql}");
        }
    }

    #[test]
    fn anything_else_does_not() {
        let files = |what| Err(Refusal::Files(what));
        assert_eq!(check(" ; "), Err(Refusal::Empty));
        assert_eq!(check("/* only */"), Err(Refusal::Empty));
        assert_eq!(check("DROP TABLE runs"), Err(Refusal::NotReading("DROP".into())));
        assert_eq!(check("'x'"), Err(Refusal::NotReading("'x'".into())));
        assert_eq!(check("SELECT 1; SELECT 2"), Err(Refusal::Several));
        assert_eq!(check("SELECT 'open"), Err(Refusal::Open));
        assert_eq!(check("SELECT 1 /* open"), Err(Refusal::Open));
        assert_eq!(check("SELECT 1 INTO /**/ OutFile '/tmp/x'"), files("INTO OUTFILE"));
        assert_eq!(check("SELECT File ('/etc/passwd')"), files("the function file()"));
        assert_eq!(check("SELECT `file`('/etc/passwd')"), files("the function file()"));
        assert_eq!(check("SELECT path APPLY(file) FROM t"), files("the function file()"));
        assert_eq!(check("SELECT path APPLY file FROM t"), files("the function file()"));
    }

    #[test]
    fn no_text_makes_it_panic() {
        for sql in
            ["$", "$$", "'\\", "`", "\"", "/", "/*", "--", "#", "é$é$", "$é$é", "\u{0}", "$a$ $a", "*/"]
        {
            let _ = check(sql);
        }
    }
}
