//! Workflows: publish, validate, look up.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, State},
};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};

use super::{
    Shared, body, kinds, limits,
    problem::Problem,
    query::{self, Params},
    respond::{self, Answer},
};
use crate::facade::WorkflowView;

/// `POST /v1/workflows`: 201 for a new version, 200 for one that was there.
pub(super) async fn publish(State(shared): State<Arc<Shared>>, headers: HeaderMap, document: Body) -> Answer {
    let document = body::read(&headers, document, body::DOCUMENT, limits::DOCUMENT_BYTES).await?;
    let published = shared.facade.publish(body::text(&document)?).await?;
    let status = if published.created { StatusCode::CREATED } else { StatusCode::OK };
    let place = format!("/v1/workflows/{}/versions/{}", published.name, published.version);
    respond::with_header(respond::json(status, &published), header::LOCATION, place)
}

/// Query of [`validate`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ValidateParams {
    #[serde(default)]
    explain: bool,
}

/// `POST /v1/workflows/validate`: as publishing, but nothing is stored.
pub(super) async fn validate(
    State(shared): State<Arc<Shared>>,
    Params(params): Params<ValidateParams>,
    headers: HeaderMap,
    document: Body,
) -> Answer {
    let document = body::read(&headers, document, body::DOCUMENT, limits::DOCUMENT_BYTES).await?;
    let validated = shared.facade.validate(body::text(&document)?, params.explain).await?;
    respond::json(StatusCode::OK, &validated)
}

/// Query of [`list`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParams {
    limit: Option<usize>,
    after: Option<String>,
}

#[derive(Serialize)]
struct Page<'a> {
    workflows: &'a [WorkflowView],
    next: Option<&'a str>,
}

/// `GET /v1/workflows`: by name, a page at a time.
pub(super) async fn list(State(shared): State<Arc<Shared>>, Params(params): Params<ListParams>) -> Answer {
    let limit = query::page_limit(params.limit, limits::RUNS_PAGE)?;
    let mut workflows = shared.facade.workflows().await?;
    if let Some(after) = params.after {
        workflows.retain(|workflow| workflow.name > after);
    }
    let page = &workflows[..limit.min(workflows.len())];
    let next = page.last().filter(|_| workflows.len() > limit).map(|last| last.name.as_str());
    respond::json(StatusCode::OK, &Page { workflows: page, next })
}

/// `GET /v1/workflows/{name}`.
pub(super) async fn newest(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Answer {
    respond::json(StatusCode::OK, &shared.facade.workflow(&name).await?)
}

/// `GET /v1/workflows/{name}/versions/{version}`.
pub(super) async fn version(
    State(shared): State<Arc<Shared>>,
    Path((name, version)): Path<(String, String)>,
) -> Answer {
    let version = version.parse().map_err(|_| {
        Problem::new(
            &kinds::VERSION_NOT_FOUND,
            format!("{version:?} is no version: versions are numbers from 1"),
        )
        .with("workflow", &name)
    })?;
    respond::json(StatusCode::OK, &shared.facade.workflow_version(&name, version).await?)
}
