//! Query parameters, strictly: an unknown one is refused, since a filter that is silently ignored shows wrong things.

use axum::extract::{FromRequestParts, Query};
use http::request::Parts;
use reipaz_core::ids::StepPath;
use serde::de::DeserializeOwned;

use super::{kinds, problem::Problem};

/// The query of a request as `T`, which should deny unknown fields.
#[derive(Debug)]
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(rejection) => {
                let text = rejection.body_text();
                let text = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
                Err(Problem::new(&kinds::INVALID_QUERY, text))
            }
        }
    }
}

/// A step, `/fetch` or `fetch`.
pub(super) fn step_path(text: &str) -> StepPath {
    if text.starts_with('/') { StepPath(text.into()) } else { StepPath::top(text) }
}

/// A page's length: `asked`, between 1 and the most, else the usual.
pub(super) fn page_limit(asked: Option<usize>, (usual, most): (usize, usize)) -> Result<usize, Problem> {
    match asked {
        None => Ok(usual),
        Some(limit) if (1..=most).contains(&limit) => Ok(limit),
        Some(limit) => {
            Err(Problem::new(&kinds::INVALID_QUERY, format!("limit={limit}: take a number from 1 to {most}")))
        }
    }
}
