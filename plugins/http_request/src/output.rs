//! What a workflow sees of an answer.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reipaz_sdk::StepError;
use reipaz_sdk::http::Response;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

/// The answer.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {
    /// The status code.
    pub status: u16,
    /// Headers by name, in lower case; values of a repeated name are joined by `, ` (those of `set-cookie` by a line break).
    pub headers: BTreeMap<String, String>,
    /// How the body stands in `body`.
    pub encoding: Encoding,
    /// The JSON value, the text, or base64; null when there is no body.
    #[schemars(with = "serde_json::Value")]
    pub body: Box<RawValue>,
}

/// How a body stands in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// There is none.
    None,
    /// The content type says JSON, and this is its value.
    Json,
    /// Text as it came.
    Text,
    /// Neither JSON nor text: base64 (RFC 4648, section 4).
    Base64,
}

impl Output {
    /// Reads an answer.
    ///
    /// # Errors
    /// When the content type promises JSON and the body is none.
    pub(crate) fn read(response: Response) -> Result<Self, StepError> {
        let status = response.status();
        let headers = join(&response);
        let content_type = response.header("content-type").unwrap_or_default().to_ascii_lowercase();
        let (encoding, body) = read_body(&content_type, response.into_bytes())?;
        Ok(Self { status, headers, encoding, body })
    }
}

fn read_body(content_type: &str, bytes: Vec<u8>) -> Result<(Encoding, Box<RawValue>), StepError> {
    if bytes.is_empty() {
        return Ok((Encoding::None, to_raw_value(&())?));
    }
    if is_json(content_type) {
        // The text stays as it is, so that numbers keep their digits.
        let body: Box<RawValue> = serde_json::from_slice(&bytes).map_err(|error| {
            StepError::permanent(
                "http_invalid_json",
                format!("the answer's content type says JSON, but: {error}"),
            )
        })?;
        return Ok((Encoding::Json, body));
    }
    let text = if content_type.contains("charset=iso-8859-1") {
        Ok(bytes.iter().map(|byte| char::from(*byte)).collect())
    } else {
        String::from_utf8(bytes)
    };
    match text {
        Ok(text) => Ok((Encoding::Text, to_raw_value(&text)?)),
        Err(error) => Ok((Encoding::Base64, to_raw_value(&BASE64.encode(error.as_bytes()))?)),
    }
}

/// `application/json`, `application/problem+json; charset=utf-8`.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence == "application/json" || essence == "text/json" || essence.ends_with("+json")
}

fn join(response: &Response) -> BTreeMap<String, String> {
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in response.headers().iter() {
        let name = name.to_ascii_lowercase();
        let separator = if name == "set-cookie" { "\n" } else { ", " };
        headers
            .entry(name)
            .and_modify(|known| {
                known.push_str(separator);
                known.push_str(value);
            })
            .or_insert_with(|| value.to_owned());
    }
    headers
}
