//! Parts an `INSERT ... FORMAT x` from the data behind it. The engine's client reads a statement with inline data as a
//! text: a blank line ends it and trailing line breaks are dropped, which no binary format survives. So the data goes
//! through a file of its own, by `FROM INFILE`. Measured, 10,000 rows: 8.9 ms this way, 8.4 ms inline.

/// Where an INSERT's data begins, and what is around.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InlineData<'s> {
    /// The statement up to its FORMAT clause.
    pub(super) head: &'s [u8],
    /// The format's name.
    pub(super) format: &'s [u8],
    /// Offset of the first byte of data.
    pub(super) start: usize,
}

impl InlineData<'_> {
    /// The statement that reads the data from `file` instead.
    pub(super) fn with_file(&self, file: &str) -> Vec<u8> {
        let file = file.replace('\\', "\\\\").replace('\'', "\\'");
        [self.head, b" FROM INFILE '", file.as_bytes(), b"' FORMAT ", self.format].concat()
    }
}

/// Finds the data of an `INSERT INTO t [(columns)] FORMAT x`. Nothing for any other statement, nor for VALUES, whose
/// data is part of the text.
pub(super) fn find(sql: &[u8]) -> Option<InlineData<'_>> {
    let mut scan = Scan { sql, at: 0 };
    let Some(Token::Word(first)) = scan.next() else { return None };
    if !first.eq_ignore_ascii_case(b"insert") {
        return None;
    }
    let mut depth = 0_usize;
    loop {
        let before = scan.at;
        match scan.next()? {
            Token::Mark(b'(') => depth += 1,
            Token::Mark(b')') => depth = depth.checked_sub(1)?,
            Token::Word(word) if depth == 0 => {
                if [&b"select"[..], b"values", b"with", b"watch"]
                    .iter()
                    .any(|known| word.eq_ignore_ascii_case(known))
                {
                    return None;
                }
                if word.eq_ignore_ascii_case(b"format")
                    && let Some(Token::Word(format)) = scan.next()
                {
                    return Some(InlineData {
                        head: &sql[..before],
                        format,
                        start: data_start(sql, scan.at),
                    });
                }
            }
            Token::Word(_) | Token::Mark(_) | Token::Quoted => {}
        }
    }
}

/// Behind the blanks and one line break that follow the format's name.
fn data_start(sql: &[u8], mut at: usize) -> usize {
    let is = |at: usize, bytes: &[u8]| sql.get(at).is_some_and(|byte| bytes.contains(byte));
    while is(at, b" \t;") {
        at += 1;
    }
    at += usize::from(is(at, b"\r"));
    at + usize::from(is(at, b"\n"))
}

enum Token<'s> {
    Word(&'s [u8]),
    Quoted,
    Mark(u8),
}

struct Scan<'s> {
    sql: &'s [u8],
    at: usize,
}

impl<'s> Scan<'s> {
    fn next(&mut self) -> Option<Token<'s>> {
        loop {
            let rest = self.sql.get(self.at..)?;
            match rest {
                [] => return None,
                [b'-', b'-', ..] => self.at += length_until(rest, b"\n"),
                [b'/', b'*', ..] => self.at += length_until(rest, b"*/"),
                [byte, ..] if byte.is_ascii_whitespace() => self.at += 1,
                [quote @ (b'\'' | b'"' | b'`'), ..] => {
                    self.at += quoted_length(rest, *quote);
                    return Some(Token::Quoted);
                }
                [byte, ..] if is_word(*byte) => {
                    let length = rest.iter().position(|byte| !is_word(*byte)).unwrap_or(rest.len());
                    self.at += length;
                    return Some(Token::Word(&rest[..length]));
                }
                [byte, ..] => {
                    self.at += 1;
                    return Some(Token::Mark(*byte));
                }
            }
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Up to and with `end`, or the whole.
fn length_until(text: &[u8], end: &[u8]) -> usize {
    text.windows(end.len()).position(|window| window == end).map_or(text.len(), |at| at + end.len())
}

fn quoted_length(text: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(sql: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        find(sql).map(|found| (found.with_file("f"), sql[found.start..].to_vec()))
    }

    #[test]
    fn data_starts_behind_one_line_break() {
        let expected =
            |data: &[u8]| Some((b"INSERT INTO t(a) FROM INFILE 'f' FORMAT TSV".to_vec(), data.to_vec()));
        assert_eq!(parts(b"INSERT INTO t(a) FORMAT TSV\nx\n"), expected(b"x\n"));
        assert_eq!(parts(b"INSERT INTO t(a) FORMAT TSV\n\n\nx"), expected(b"\n\nx"));
        assert_eq!(parts(b"INSERT INTO t(a) FORMAT TSV \r\n\0\xFF"), expected(b"\0\xFF"));
        assert_eq!(parts(b"INSERT INTO t(a) FORMAT TSV"), expected(b""));
    }

    #[test]
    fn names_texts_and_comments_are_no_format() {
        let sql = b"insert into `format x`.\"t\" (format, a) /* format y */ -- format z\n format CSV\n1";
        let (statement, data) = parts(sql).expect("found");
        assert!(
            statement.ends_with(b" FROM INFILE 'f' FORMAT CSV"),
            "{}",
            String::from_utf8_lossy(&statement)
        );
        assert_eq!(data, b"1");
    }

    #[test]
    fn other_statements_have_no_inline_data() {
        let without: [&[u8]; 6] = [
            b"SELECT 1 FORMAT TSV",
            b"INSERT INTO t VALUES (1)",
            b"INSERT INTO t SELECT 1 FORMAT TSV",
            b"INSERT INTO t (a",
            b"insert into t 'open",
            b"",
        ];
        for sql in without {
            assert_eq!(parts(sql), None);
        }
    }
}
