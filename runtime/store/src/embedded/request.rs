//! Reads a request of ClickHouse's HTTP interface: which statement, in which session, with which parameters. Pure;
//! the parts of the interface that make no sense here (sessions by id, roles, compression) are refused by name.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;

use super::insert_data;

/// Used when neither the statement nor the request names one, as ClickHouse does.
const DEFAULT_FORMAT: &str = "TabSeparated";

/// What to run, and where.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Statement {
    /// The statement, without the data behind an `INSERT ... FORMAT x`.
    pub(super) sql: Vec<u8>,
    /// That data.
    pub(super) data: Option<Bytes>,
    /// Names (without `param_`) and values in escaped text form.
    pub(super) parameters: Vec<(Vec<u8>, Vec<u8>)>,
    /// For statements without a FORMAT of their own.
    pub(super) format: String,
    /// The session that it needs.
    pub(super) session: SessionKey,
}

/// What a session was set to. Requests with the same key can share one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SessionKey {
    /// The current database; empty: the engine's default.
    pub(super) database: String,
    /// Settings by name.
    pub(super) settings: BTreeMap<String, String>,
}

impl SessionKey {
    /// Whether the engine itself refuses writes in this session.
    pub(super) fn is_readonly(&self) -> bool {
        self.settings.get("readonly").is_some_and(|value| value != "0")
    }

    /// The statements that make a new session this one. `readonly` comes last: behind it nothing can be set.
    pub(super) fn statements(&self) -> Vec<String> {
        let mut statements = Vec::new();
        if !self.database.is_empty() {
            let name = self.database.replace('\\', "\\\\").replace('`', "\\`");
            statements.push(format!("USE `{name}`"));
        }
        let (last, first): (Vec<_>, Vec<_>) = self.settings.iter().partition(|(name, _)| *name == "readonly");
        for (name, value) in first.into_iter().chain(last) {
            let value = value.replace('\\', "\\\\").replace('\'', "\\'");
            statements.push(format!("SET {name} = '{value}'"));
        }
        statements
    }
}

/// Why a request is no statement.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRequest {
    /// Part of the interface, but not here.
    #[error("the embedded ClickHouse does not support {0}")]
    Unsupported(String),
    /// A setting's name has only letters, digits and `_`.
    #[error("{0:?} is no name of a setting")]
    SettingName(String),
    /// Neither in the query parameter nor in the body.
    #[error("there is no statement: send it as the body or as the parameter `query`")]
    Empty,
    /// The body is not the form that its content type announces.
    #[error("the multipart form is malformed")]
    Form,
}

/// Reads a request. `query_string` as in the URL, `header` looks one up, `body` is the whole body.
pub(super) fn read<'h>(
    query_string: &str,
    header: impl Fn(&str) -> Option<&'h str>,
    body: &Bytes,
) -> Result<Statement, BadRequest> {
    let mut statement = Statement { format: DEFAULT_FORMAT.to_owned(), ..Statement::default() };
    let mut sql: Vec<u8> = Vec::new();
    if let Some(format) = header("x-clickhouse-format") {
        format.clone_into(&mut statement.format);
    }
    if let Some(database) = header("x-clickhouse-database") {
        database.clone_into(&mut statement.session.database);
    }
    for (name, value) in form_urlencoded::parse(query_string.as_bytes()) {
        take(&mut statement, &mut sql, name, value.as_bytes())?;
    }
    let body = match header("content-type").and_then(boundary) {
        None => body.clone(),
        Some(boundary) => {
            for (name, value) in fields(body, boundary)? {
                take(&mut statement, &mut sql, String::from_utf8_lossy(name), value)?;
            }
            Bytes::new()
        }
    };
    (statement.sql, statement.data) = part(sql, body);
    if statement.sql.iter().all(u8::is_ascii_whitespace) {
        return Err(BadRequest::Empty);
    }
    Ok(statement)
}

/// The statement and its data, whichever of the two stand in the URL and in the body.
fn part(mut sql: Vec<u8>, body: Bytes) -> (Vec<u8>, Option<Bytes>) {
    if sql.is_empty() {
        let start = insert_data::find(&body).map(|found| found.start);
        return match start {
            Some(start) => (body[..start].to_vec(), Some(body.slice(start..))),
            None => (body.into(), None),
        };
    }
    if let Some(start) = insert_data::find(&sql).map(|found| found.start) {
        // Data may begin in the URL and go on in the body, as it does in ClickHouse.
        let data = if start == sql.len() { body } else { [&sql[start..], &body].concat().into() };
        sql.truncate(start);
        return (sql, Some(data));
    }
    if !body.is_empty() {
        sql.push(b'\n');
        sql.extend_from_slice(&body);
    }
    (sql, None)
}

/// One `name=value` of the URL or of a form.
fn take(
    statement: &mut Statement,
    sql: &mut Vec<u8>,
    name: Cow<'_, str>,
    value: &[u8],
) -> Result<(), BadRequest> {
    let text = || String::from_utf8_lossy(value).into_owned();
    match &*name {
        "query" => sql.extend_from_slice(value),
        "database" => statement.session.database = text(),
        "default_format" => statement.format = text(),
        // The whole result is always ready before the answer starts, nothing is compressed, and who asks was checked.
        "user"
        | "password"
        | "quota_key"
        | "query_id"
        | "wait_end_of_query"
        | "buffer_size"
        | "compress"
        | "enable_http_compression"
        | "send_progress_in_http_headers" => {}
        "decompress" if value == b"0" => {}
        "decompress" | "session_id" | "session_timeout" | "session_check" | "role" => {
            return Err(BadRequest::Unsupported(name.into_owned()));
        }
        _ => match name.strip_prefix("param_") {
            Some(parameter) => statement.parameters.push((parameter.as_bytes().to_vec(), value.to_vec())),
            None if is_setting(&name) => {
                statement.session.settings.insert(name.into_owned(), text());
            }
            None => return Err(BadRequest::SettingName(name.into_owned())),
        },
    }
    Ok(())
}

fn is_setting(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The boundary of `multipart/form-data; boundary=...`.
fn boundary(content_type: &str) -> Option<&str> {
    let parameters = content_type.trim().strip_prefix("multipart/form-data")?;
    let boundary = parameters.split(';').find_map(|part| part.trim().strip_prefix("boundary="))?;
    Some(boundary.trim_matches('"'))
}

/// A field of a form: name and value.
type Field<'b> = (&'b [u8], &'b [u8]);

/// The fields of a form (RFC 7578), in order.
fn fields<'b>(body: &'b [u8], boundary: &str) -> Result<Vec<Field<'b>>, BadRequest> {
    let delimiter = format!("\r\n--{boundary}");
    let opening = delimiter.as_bytes().get(2..).ok_or(BadRequest::Form)?;
    let mut rest = body.strip_prefix(opening).ok_or(BadRequest::Form)?;
    let mut fields = Vec::new();
    while !rest.starts_with(b"--") {
        rest = rest.strip_prefix(b"\r\n").ok_or(BadRequest::Form)?;
        let end = find(rest, delimiter.as_bytes()).ok_or(BadRequest::Form)?;
        let (part, after) = (&rest[..end], &rest[end + delimiter.len()..]);
        let headers_end = find(part, b"\r\n\r\n").ok_or(BadRequest::Form)?;
        let (headers, value) = (&part[..headers_end], &part[headers_end + 4..]);
        let start = find(headers, b"name=\"").ok_or(BadRequest::Form)? + 6;
        let length = find(&headers[start..], b"\"").ok_or(BadRequest::Form)?;
        fields.push((&headers[start..start + length], value));
        rest = after;
    }
    Ok(fields)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &str) -> Option<&'static str> {
        None
    }

    #[test]
    fn a_statement_in_the_url_comes_before_the_data_in_the_body() {
        let url = "query=INSERT+INTO+t+FORMAT+RowBinary&database=d";
        let read = read(url, none, &Bytes::from_static(b"\n\0\xFF;\n")).expect("reads");
        assert_eq!(read.sql, b"INSERT INTO t FORMAT RowBinary");
        assert_eq!(read.data.as_deref(), Some(&b"\n\0\xFF;\n"[..]));
        assert_eq!(read.session.statements(), ["USE `d`"]);
    }

    #[test]
    fn a_statement_in_the_body_may_have_its_data_behind_it() {
        let body = Bytes::from_static(b"INSERT INTO t FORMAT TSV\n\na\n");
        let read = read("", none, &body).expect("reads");
        assert_eq!(read.sql, b"INSERT INTO t FORMAT TSV\n");
        assert_eq!(read.data.as_deref(), Some(&b"\na\n"[..]));
    }

    #[test]
    fn readonly_is_set_last_and_values_cannot_leave_their_quotes() {
        let read = read("readonly=1&max_threads=1'%3B+DROP&a=%5C'", none, &Bytes::from_static(b"SELECT 1"))
            .expect("reads");
        let expected = ["SET a = '\\\\\\''", "SET max_threads = '1\\'; DROP'", "SET readonly = '1'"];
        assert_eq!(read.session.statements(), expected);
        assert!(read.session.is_readonly());
    }

    #[test]
    fn a_form_carries_the_statement_and_its_parameters() {
        let body = b"--XX\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nSELECT {a:String}\r\n\
            --XX\r\nContent-Disposition: form-data; name=\"param_a\"\r\n\r\nx\r\n--\xFF\r\n--XX--\r\n";
        let header = |name: &str| (name == "content-type").then_some("multipart/form-data; boundary=XX");
        let read = read("default_format=CSV", header, &Bytes::from_static(body)).expect("reads");
        assert_eq!(read.sql, b"SELECT {a:String}");
        assert_eq!(read.parameters, [(b"a".to_vec(), b"x\r\n--\xFF".to_vec())]);
        assert_eq!(read.format, "CSV");
    }

    #[test]
    fn what_is_no_part_of_the_interface_here_is_refused() {
        assert_eq!(
            read("session_id=1", none, &Bytes::from_static(b"x")),
            Err(BadRequest::Unsupported("session_id".into()))
        );
        assert_eq!(
            read("a+b=1", none, &Bytes::from_static(b"x")),
            Err(BadRequest::SettingName("a b".into()))
        );
        assert_eq!(read("", none, &Bytes::from_static(b" \n")), Err(BadRequest::Empty));
        let header = |name: &str| (name == "content-type").then_some("multipart/form-data; boundary=X");
        assert_eq!(read("", header, &Bytes::from_static(b"--X\r\nnothing")), Err(BadRequest::Form));
    }
}
