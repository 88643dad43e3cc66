//! One read-only statement for ClickHouse.

use std::sync::Arc;

use axum::{body::Body, extract::State};
use http::{HeaderMap, HeaderValue, Response, header};
use serde::Deserialize;

use super::{Shared, body, kinds, limits, problem::Problem, query::Params, respond::Answer};

/// Query of [`query`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SqlParams {
    format: Option<String>,
}

/// `POST /v1/sql?format=JSONEachRow`: the statement is the body, the answer ClickHouse's own.
pub(super) async fn query(
    State(shared): State<Arc<Shared>>,
    Params(params): Params<SqlParams>,
    headers: HeaderMap,
    statement: Body,
) -> Answer {
    let format = params.format.unwrap_or_else(|| "JSONEachRow".to_owned());
    if format.is_empty()
        || format.len() > 64
        || !format.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        let detail =
            format!("format: {format:?} is none of ClickHouse's; take JSONEachRow, CSV, PrettyCompact...");
        return Err(Problem::new(&kinds::INVALID_QUERY, detail));
    }
    let statement = body::read(&headers, statement, body::SQL, limits::SQL_BYTES).await?;
    let statement = body::text(&statement)?.trim();
    if statement.is_empty() {
        return Err(Problem::new(&kinds::MALFORMED_BODY, "the body is empty: send one statement"));
    }
    let rows = shared.facade.sql(statement, &format).await?;
    let mut response = Response::new(Body::from(rows));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(&format)));
    Ok(response)
}

fn content_type(format: &str) -> &'static str {
    match format {
        "JSONEachRow" | "JSONCompactEachRow" | "JSONLines" | "NDJSON" => "application/x-ndjson",
        "CSV" | "CSVWithNames" => "text/csv; charset=utf-8",
        "Native" | "Parquet" | "Arrow" | "RowBinary" => "application/octet-stream",
        json if json.starts_with("JSON") => "application/json",
        _ => "text/plain; charset=utf-8",
    }
}
