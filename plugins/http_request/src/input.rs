//! What a workflow can ask for, and the request that comes of it.

use std::collections::BTreeMap;
use std::time::Duration;

use reipaz_sdk::StepError;
use reipaz_sdk::http::{MAX_BODY_BYTES, Request};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// How long a response's body may be unless the step says otherwise: what a step's output may hold.
const DEFAULT_BODY_BYTES: usize = 1 << 20;

const USER_AGENT: &str = concat!("reipaz-http-request/", env!("CARGO_PKG_VERSION"));

/// The request.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Where to: `https://api.example.com/orders`.
    pub url: String,
    /// GET if not said.
    #[serde(default)]
    pub method: Method,
    /// Headers by name.
    #[serde(default)]
    pub headers: BTreeMap<String, Scalar>,
    /// Parameters that are added to the URL, percent-encoded; a list gives a parameter several times, null leaves it out.
    #[serde(default)]
    pub query: BTreeMap<String, Parameter>,
    /// A string is sent as it is; anything else as JSON. The header `content-type` wins over what that implies.
    #[serde(default)]
    pub body: Option<Value>,
    /// How long each wait may be (for the connection, the first byte, the next byte): `500ms`, `10s`, `5m`. The step's own
    /// timeout bounds the whole.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[0-9]+(ms|s|m|h)$"))]
    pub timeout: Option<String>,
    /// The statuses that are a success; every 2xx if not said.
    #[serde(default)]
    pub expected_statuses: Option<Vec<u16>>,
    /// How long the answer's body may be; 1 MiB if not said, 8 MiB at most.
    #[serde(default)]
    pub max_body_bytes: Option<usize>,
}

/// The request's method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

impl Method {
    fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
        }
    }

    /// Whether repeating it may change more than the first time did, by RFC 9110, section 9.2.2.
    fn needs_idempotency_key(self) -> bool {
        matches!(self, Self::Post | Self::Patch)
    }
}

/// One value of a header or parameter.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Scalar {
    /// Text.
    Text(String),
    /// A number.
    Number(serde_json::Number),
    /// `true` or `false`.
    Flag(bool),
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
            Self::Flag(flag) => write!(f, "{flag}"),
        }
    }
}

/// One parameter of the query.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Parameter {
    /// Given once.
    One(Scalar),
    /// Given several times.
    Many(Vec<Scalar>),
    /// Left out.
    None(()),
}

impl Input {
    /// The request as it is sent.
    ///
    /// # Errors
    /// When the timeout is no duration, or the body's bound is over what is possible.
    pub(crate) fn into_request(self, idempotency_key: &str) -> Result<Request, StepError> {
        let mut request =
            Request::new(self.method.as_str(), self.url).max_body_bytes(body_bound(self.max_body_bytes)?);
        for (name, parameter) in &self.query {
            match parameter {
                Parameter::One(value) => request = request.query(name, value),
                Parameter::Many(values) => {
                    for value in values {
                        request = request.query(name, value);
                    }
                }
                Parameter::None(()) => {}
            }
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if request.header_str("user-agent").is_none() {
            request = request.header("user-agent", USER_AGENT);
        }
        if self.method.needs_idempotency_key() && request.header_str("idempotency-key").is_none() {
            request = request.header("Idempotency-Key", idempotency_key);
        }
        if let Some(timeout) = &self.timeout {
            request = request.timeout(duration(timeout)?);
        }
        Ok(match self.body {
            None | Some(Value::Null) => request,
            Some(Value::String(text)) => request.text(text),
            Some(json) => request.json(&json),
        })
    }
}

fn body_bound(asked: Option<usize>) -> Result<usize, StepError> {
    match asked {
        None => Ok(DEFAULT_BODY_BYTES),
        Some(bytes) if bytes <= MAX_BODY_BYTES => Ok(bytes),
        Some(bytes) => Err(StepError::permanent(
            "bad_input",
            format!("max_body_bytes is {bytes}; at most {MAX_BODY_BYTES} are possible"),
        )),
    }
}

/// `500ms`, `10s`, `5m`, `48h`.
fn duration(text: &str) -> Result<Duration, StepError> {
    let bad = || {
        StepError::permanent(
            "bad_input",
            format!("timeout: {text:?} is no duration; one is `500ms`, `10s` or `5m`"),
        )
    };
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(bad)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| bad())?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(bad()),
    };
    match number.checked_mul(milliseconds) {
        Some(total) if total > 0 => Ok(Duration::from_millis(total)),
        _ => Err(bad()),
    }
}
