//! Submitting a run: the path that has to be light. The body is walked once for its frame and once to check the input;
//! no tree is built, and the input's text goes on as it is.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Path, State},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use reipaz_core::{ids::RunId, json};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Shared, body, kinds, limits, prefer,
    problem::Problem,
    respond::{self, Answer},
};
use crate::{facade::SubmitRequest, json_text, submission};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Submission<'a> {
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
    version: Option<u32>,
    id: Option<RunId>,
    #[serde(default)]
    metadata: BTreeMap<Arc<str>, Arc<str>>,
}

/// `POST /v1/workflows/{name}/runs`: 202 once the run is durable, or 200 with the ended run when the wait sufficed.
pub(super) async fn submit(
    State(shared): State<Arc<Shared>>,
    Path(workflow): Path<String>,
    headers: HeaderMap,
    submission: Body,
) -> Answer {
    let most = shared.settings.payload_bytes + limits::SUBMIT_FRAME_BYTES;
    let submission = body::read(&headers, submission, body::JSON, most).await?;
    let wait = prefer::wait(&headers);
    let request = request(
        workflow,
        &submission,
        shared.settings.payload_bytes,
        idempotency_key(&headers)?,
        wait.unwrap_or_default(),
    )?;
    let submitted = shared.facade.submit(request).await?;

    let ended = submitted.run.status.is_terminal();
    let status = if ended { StatusCode::OK } else { StatusCode::ACCEPTED };
    let mut answer = respond::json(status, &submitted.run);
    answer = respond::with_header(answer, header::LOCATION, format!("/v1/runs/{}", submitted.run.id));
    if submitted.existing {
        answer = respond::with_header(answer, IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    match wait.filter(|_| ended) {
        Some(wait) => respond::with_header(answer, prefer::PREFERENCE_APPLIED, prefer::applied(wait)),
        None => answer,
    }
}

fn request(
    workflow: String,
    submission: &[u8],
    payload_bytes: usize,
    idempotency_key: Option<Arc<str>>,
    wait: Duration,
) -> Result<SubmitRequest, Problem> {
    let submission = if submission.is_empty() { b"{}" } else { submission };
    let Submission { input, version, id, metadata } =
        serde_json::from_slice(submission).map_err(|error| body::malformed(&error))?;
    let refuse = |detail: String| Err(Problem::new(&kinds::MALFORMED_BODY, detail));

    let input = match input {
        None => json::null(),
        Some(input) => payload(input, payload_bytes)?,
    };
    if id.is_some() && idempotency_key.is_some() {
        return refuse("send `id` or an Idempotency-Key, not both: a key chooses the run's id".to_owned());
    }
    if let Err(why) = submission::check_metadata(&metadata) {
        return refuse(why);
    }
    Ok(SubmitRequest {
        workflow,
        version,
        input,
        idempotency_key,
        metadata: metadata.into_iter().collect(),
        run_id: id,
        wait,
    })
}

/// An input as it is kept, if it is not too large.
pub(super) fn payload(input: &RawValue, payload_bytes: usize) -> Result<json::Json, Problem> {
    let input = json_text::payload(input.get())
        .map_err(|error| Problem::new(&kinds::MALFORMED_BODY, format!("`input`: {error}")))?;
    if input.len() > payload_bytes {
        let detail = format!("the input has {} bytes, over the limit of {payload_bytes}", input.len());
        return Err(Problem::new(&kinds::TOO_LARGE, detail)
            .with("limit_bytes", payload_bytes)
            .with("actual_bytes", input.len()));
    }
    Ok(input)
}

/// The key, with or without the quotes that the header's draft standard asks for.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<Arc<str>>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let refuse =
        |detail: &str| Err(Problem::new(&kinds::INVALID_HEADER, format!("Idempotency-Key: {detail}")));
    let Ok(text) = value.to_str() else { return refuse("only visible ASCII characters can stand in it") };
    let key = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text).trim();
    match key.len() {
        0 => refuse("it is empty"),
        length if length > limits::KEY_BYTES => {
            refuse(&format!("it has {length} characters; at most {}", limits::KEY_BYTES))
        }
        _ if headers.get_all(IDEMPOTENCY_KEY).iter().count() > 1 => refuse("it is there more than once"),
        _ => Ok(Some(Arc::from(key))),
    }
}
