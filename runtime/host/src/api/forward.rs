//! Requests about a run that another host decides for are passed on to that host, and its answers come back as they are:
//! long polls and streams too. A partition that moves meanwhile is looked for again within the request's own time.
//!
//! Publishing and installing go to the owner of the first partition, so that what was installed a moment ago is known to what
//! is published next. Should two hosts take themselves for that owner, the catalogue lets one of them be first
//! ([`reipaz_journal::Catalog::insert`]).

use std::{str::FromStr, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::IntoResponse,
};
use http::{Method, Response};
use http_body_util::{BodyExt, Limited};
use reipaz_core::ids::RunId;
use tokio::time::Instant;

use super::{kinds, limits, prefer, problem::Problem};
use crate::peers::{FORWARDED, Passed, Peers, is_elsewhere};

/// How long an owner is looked for, beside what the caller asked to wait.
const PATIENCE: Duration = Duration::from_secs(15);

/// The layer.
pub(super) async fn layer(State(peers): State<Arc<Peers>>, request: Request, next: Next) -> Response<Body> {
    let Some(partition) = partition(&peers, request.method(), request.uri().path()) else {
        return next.run(request).await;
    };
    if request.headers().contains_key(FORWARDED) {
        return if peers.is_here(partition) { next.run(request).await } else { not_here(partition) };
    }
    let wait = prefer::wait(request.headers()).unwrap_or_default();
    let deadline = Instant::now() + wait + PATIENCE;
    let most =
        if request.uri().path() == "/v1/plugins" { limits::PLUGIN_BYTES } else { limits::DOCUMENT_BYTES };
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, most + 1).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => {
            return Problem::new(&kinds::TOO_LARGE, format!("the body is over the limit of {most} bytes"))
                .with("limit_bytes", most)
                .into_response();
        }
    };
    let passed = Passed {
        method: head.method.clone(),
        target: head.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
        headers: head.headers.clone(),
        body: body.clone(),
    };
    loop {
        match peers.pass_on(partition, &passed, deadline).await {
            Ok(Some(response)) => return response,
            Ok(None) => {
                let request = Request::from_parts(head.clone(), Body::from(body.clone()));
                let response = next.clone().run(request).await;
                // It was let go while it was asked: whoever has it now is asked instead.
                if !is_elsewhere(response.status()) || Instant::now() >= deadline {
                    return response;
                }
            }
            Err(error) => {
                return Problem::new(&kinds::NOT_READY, error.to_string())
                    .retry_after(Duration::from_secs(1))
                    .into_response();
            }
        }
    }
}

fn not_here(partition: u32) -> Response<Body> {
    Problem::new(&kinds::NOT_OWNER, format!("this host does not own partition {partition}")).into_response()
}

/// Whose partition decides; none: whichever host is asked.
fn partition(peers: &Peers, method: &Method, path: &str) -> Option<u32> {
    let rest = path.strip_prefix("/v1/")?;
    match rest.strip_prefix("runs/") {
        Some(run) => {
            let id = run.split('/').next().unwrap_or_default();
            RunId::from_str(id).ok().map(|run| peers.home(run))
        }
        None => (*method == Method::POST && matches!(rest, "workflows" | "plugins")).then_some(0),
    }
}
