//! Plugins: install, look up.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    body::Body,
    extract::{Path, RawQuery, State},
};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};

use super::{
    Shared, body, kinds, limits,
    problem::Problem,
    query::Params,
    respond::{self, Answer},
};
use crate::facade::{InstallPlugin, PluginView};

/// `POST /v1/plugins?grant=http=GET%20api.example.com`: 201 for a new component, 200 for one that was there.
pub(super) async fn install(
    State(shared): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    component: Body,
) -> Answer {
    let InstallParams { grants, replace } = InstallParams::parse(query.as_deref().unwrap_or(""))?;
    let wasm =
        body::read_within(&headers, component, body::WASM, limits::PLUGIN_BYTES, limits::PLUGIN_BODY_TIMEOUT)
            .await?;
    if wasm.is_empty() {
        return Err(Problem::new(&kinds::MALFORMED_BODY, "the body is empty: send the component"));
    }
    let installed = shared.facade.install_plugin(InstallPlugin { wasm, grants, replace }).await?;
    let status = if installed.created { StatusCode::CREATED } else { StatusCode::OK };
    let place = format!("/v1/plugins/{}?version={}", installed.plugin.name, installed.plugin.version);
    respond::with_header(respond::json(status, &installed), header::LOCATION, place)
}

/// Query of [`install`].
#[derive(Debug, Default, PartialEq, Eq)]
struct InstallParams {
    grants: Option<BTreeMap<String, Vec<String>>>,
    replace: bool,
}

impl InstallParams {
    /// Reads `grant=KIND=VALUE`, any number of them, or `grants=none`, which takes away what was granted before; and
    /// `replace=true`.
    fn parse(query: &str) -> Result<Self, Problem> {
        let mut params = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match (&*name, &*value) {
                ("grant", value) => {
                    let Some((kind, value)) = value.split_once('=').filter(|(kind, _)| !kind.is_empty())
                    else {
                        let detail = format!("the grant {value:?} does not parse: write kind=value");
                        return Err(Problem::new(&kinds::INVALID_GRANT, detail).with("grant", value));
                    };
                    let grants = params.grants.get_or_insert_default();
                    grants.entry(kind.to_owned()).or_default().push(value.to_owned());
                }
                ("grants", "none") => {
                    params.grants.get_or_insert_default();
                }
                ("replace", "true") => params.replace = true,
                ("replace", "false") => params.replace = false,
                _ => {
                    let known = "`grant=KIND=VALUE`, `grants=none`, `replace=true`";
                    let detail = format!("unknown parameter `{name}={value}`; take {known}");
                    return Err(Problem::new(&kinds::INVALID_QUERY, detail));
                }
            }
        }
        Ok(params)
    }
}

#[derive(Serialize)]
struct Page {
    plugins: Vec<PluginView>,
}

/// `GET /v1/plugins`: all of them; an operator installs tens, not thousands.
pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Answer {
    respond::json(StatusCode::OK, &Page { plugins: shared.facade.plugins().await? })
}

/// Query of [`read`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadParams {
    version: Option<String>,
}

/// `GET /v1/plugins/{name}`: the newest version, or the one that is asked for. A name may have a slash in it.
pub(super) async fn read(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Params(params): Params<ReadParams>,
) -> Answer {
    respond::json(StatusCode::OK, &shared.facade.plugin(&name, params.version.as_deref()).await?)
}
