//! What is told of a run that has ended.

use std::collections::BTreeMap;

use bytes::Bytes;
use reipaz_core::{
    event::RunError,
    ids::RunId,
    json::Json,
    partition::{Run, RunStatus},
    time::Timestamp,
};
use reipaz_journal::{Outlet, Published};
use serde::{Deserialize, Serialize};

/// What is told of a run that has ended: a CloudEvent (1.0, structured mode), keyed by the run, with the headers that its
/// task had.
pub(crate) fn result(run: &Run) -> Published {
    let accepted = run.accepted();
    let status = run.status();
    let finished_at = run.finished_at().unwrap_or_else(|| run.created_at());
    let data = Data {
        run: run.id(),
        workflow: &accepted.workflow,
        version: accepted.version,
        status,
        output: run.output().cloned(),
        error: run.error(),
        idempotency_key: accepted.idempotency_key.as_deref(),
        metadata: accepted.metadata.iter().map(|(name, value)| (&**name, &**value)).collect(),
        created_at: run.created_at(),
        finished_at,
    };
    let id = run.id().to_string();
    let event = CloudEvent {
        specversion: "1.0",
        id: format!("{id}/{}", run.seq()),
        source: "/reipaz",
        kind: format!("reipaz.run.{}", status.as_str()),
        subject: &id,
        time: finished_at,
        datacontenttype: "application/json",
        data,
    };
    let mut headers =
        vec![("content-type".to_owned(), Bytes::from_static(b"application/cloudevents+json; charset=utf-8"))];
    headers.extend(correlation(accepted.trigger.as_ref()));
    Published {
        to: Outlet::Results,
        key: Bytes::from(id.clone()),
        headers,
        // Every payload in it was checked when it came in.
        body: Bytes::from(serde_json::to_vec(&event).unwrap_or_default()),
    }
}

#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: String,
    source: &'static str,
    #[serde(rename = "type")]
    kind: String,
    subject: &'a str,
    time: Timestamp,
    datacontenttype: &'static str,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    run: RunId,
    workflow: &'a str,
    version: u32,
    status: RunStatus,
    #[serde(with = "reipaz_core::json::optional_raw")]
    output: Option<Json>,
    error: Option<&'a RunError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<&'a str, &'a str>,
    created_at: Timestamp,
    finished_at: Timestamp,
}

fn correlation(trigger: Option<&Json>) -> Vec<(String, Bytes)> {
    #[derive(Deserialize)]
    struct Read {
        kafka: Headers,
    }
    #[derive(Deserialize)]
    struct Headers {
        headers: BTreeMap<String, String>,
    }
    let read = trigger.and_then(|trigger| serde_json::from_str::<Read>(trigger).ok());
    let headers = read.map(|read| read.kafka.headers).unwrap_or_default();
    headers.into_iter().map(|(name, value)| (name, Bytes::from(value))).collect()
}
