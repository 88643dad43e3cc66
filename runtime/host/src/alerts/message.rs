//! Alerts as webhooks get them: the body of Prometheus Alertmanager's webhooks, version 4, so that whoever receives those
//! understands these. Pure.

use std::sync::Arc;

use bytes::Bytes;
use reipaz_core::{ids::Digest, time::Timestamp};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::facade::{AlertStatus, AlertView};

/// Alerts in one request. Labels and texts are bounded (`board`), so a body stays below the 1 MiB that receivers commonly take.
pub(super) const ALERTS_PER_POST: usize = 32;

/// See [`ALERTS_PER_POST`].
#[cfg(test)]
const BODY_BYTES_MAX: usize = 1 << 20;

/// What Alertmanager says of an alert that is not over.
const NO_END: &str = "0001-01-01T00:00:00Z";

/// One request, the same at each try.
#[derive(Clone, Debug)]
pub(super) struct Post {
    pub(super) body: Bytes,
    /// The same at each try: a receiver that saw it may ignore it. A repetition of an alert that goes on has another.
    pub(super) idempotency_key: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Payload<'a> {
    version: &'a str,
    group_key: &'a str,
    truncated_alerts: u64,
    status: AlertStatus,
    receiver: &'a str,
    group_labels: Map<String, Value>,
    common_labels: Value,
    common_annotations: Map<String, Value>,
    #[serde(rename = "externalURL")]
    external_url: &'a str,
    alerts: Vec<Value>,
}

/// These alerts as one request, made at `at`. `url` is where the host is reached.
pub(super) fn post(alerts: &[Arc<AlertView>], url: &str, at: Timestamp) -> Post {
    let fires = alerts.iter().any(|alert| alert.status == AlertStatus::Firing);
    let mut common = alerts.first().map(|alert| labels(alert)).unwrap_or_default();
    for alert in alerts {
        let labels = labels(alert);
        common.retain(|name, value| labels.get(name) == Some(value));
    }
    let payload = Payload {
        version: "4",
        group_key: "{}:{}",
        truncated_alerts: 0,
        status: if fires { AlertStatus::Firing } else { AlertStatus::Resolved },
        receiver: "reipaz",
        group_labels: Map::new(),
        common_labels: Value::Object(common),
        common_annotations: Map::new(),
        external_url: url,
        alerts: alerts.iter().map(|alert| one(alert, url)).collect(),
    };
    // Texts, numbers and maps with text keys always serialise.
    let body = serde_json::to_vec(&payload).unwrap_or_default();
    let idempotency_key = Digest::of(&[&body[..], &at.0.to_be_bytes()].concat()).to_string();
    Post { body: Bytes::from(body), idempotency_key }
}

fn one(alert: &AlertView, url: &str) -> Value {
    json!({
        "status": alert.status,
        "labels": labels(alert),
        "annotations": annotations(alert),
        "startsAt": alert.started_at,
        "endsAt": alert.resolved_at.map_or_else(|| NO_END.to_owned(), |at| at.to_string()),
        "generatorURL": match alert.sample_run {
            Some(run) => format!("{url}/v1/runs/{run}"),
            None => format!("{url}/v1/alerts"),
        },
        "fingerprint": alert.fingerprint,
    })
}

/// Those that tell it from others, and what receivers route by.
fn labels(alert: &AlertView) -> Map<String, Value> {
    let own = [("kind", alert.kind.as_str()), ("severity", alert.severity.as_str())];
    let own = own.map(|(name, value)| (name.to_owned(), Value::from(value)));
    let known = alert.labels.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
    known.chain(own).collect()
}

/// Alertmanager's annotations are texts, all of them.
fn annotations(alert: &AlertView) -> Map<String, Value> {
    let own = [
        ("summary", Some(alert.summary.clone())),
        ("description", Some(alert.what_to_do.clone())),
        ("count", Some(alert.count.to_string())),
        ("sample_run", alert.sample_run.map(|run| run.to_string())),
    ];
    let own = own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Value::from(value?))));
    let known = alert.annotations.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
    known.chain(own).collect()
}

#[cfg(test)]
mod tests {
    use reipaz_core::ids::RunId;

    use super::*;
    use crate::facade::{AlertKind, Severity};

    fn alert(code: &str, status: AlertStatus) -> Arc<AlertView> {
        let labels = [("alertname", "ReipazErrorPattern"), ("code", code), ("host", "a:1")];
        Arc::new(AlertView {
            fingerprint: format!("{code:0>16}"),
            kind: AlertKind::ErrorPattern,
            severity: Severity::Warning,
            status,
            started_at: Timestamp::from_millis(1_000),
            resolved_at: (status == AlertStatus::Resolved).then(|| Timestamp::from_millis(61_000)),
            labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            count: 20,
            summary: "it fails".to_owned(),
            what_to_do: "look".to_owned(),
            annotations: [("partition".to_owned(), "3".to_owned())].into(),
            sample_run: Some(RunId(uuid::Uuid::from_u128(7))),
        })
    }

    #[test]
    fn a_body_is_what_alertmanager_sends() {
        let alerts = [alert("a", AlertStatus::Firing), alert("b", AlertStatus::Resolved)];
        let body: Value =
            serde_json::from_slice(&post(&alerts, "http://a:1", Timestamp(0)).body).expect("JSON");
        assert_eq!(body["version"], "4");
        assert_eq!(body["status"], "firing", "one of them is");
        assert_eq!(body["commonLabels"]["alertname"], "ReipazErrorPattern");
        assert_eq!(body["commonLabels"].get("code"), None, "they differ in it");
        assert_eq!(body["externalURL"], "http://a:1");
        let [first, second] = [&body["alerts"][0], &body["alerts"][1]];
        assert_eq!((&first["status"], &second["status"]), (&json!("firing"), &json!("resolved")));
        assert_eq!(first["labels"]["severity"], "warning");
        assert_eq!(first["labels"]["code"], "a");
        assert_eq!(first["annotations"]["count"], "20");
        assert_eq!(first["annotations"]["partition"], "3");
        assert_eq!(first["startsAt"], "1970-01-01T00:00:01.000000Z");
        assert_eq!(first["endsAt"], NO_END);
        assert_eq!(second["endsAt"], "1970-01-01T00:01:01.000000Z");
        assert!(first["generatorURL"].as_str().expect("a URL").starts_with("http://a:1/v1/runs/00000000-"));
    }

    #[test]
    fn a_repetition_is_another_request_and_a_body_is_bounded() {
        let key = |status, at| post(&[alert("a", status)], "http://a:1", Timestamp(at)).idempotency_key;
        assert_eq!(key(AlertStatus::Firing, 1), key(AlertStatus::Firing, 1));
        assert_ne!(key(AlertStatus::Firing, 1), key(AlertStatus::Firing, 2));
        assert_ne!(key(AlertStatus::Firing, 1), key(AlertStatus::Resolved, 1));

        let mut largest = AlertView::clone(&alert("a", AlertStatus::Firing));
        let text = "\u{1}".repeat(super::super::board::TEXT_CHARS);
        largest.labels.extend((0..6).map(|n| (n.to_string(), text[..128].to_owned())));
        largest.annotations.extend((0..4).map(|n| (n.to_string(), text.clone())));
        largest.summary.clone_from(&text);
        let alerts: Vec<_> = (0..ALERTS_PER_POST).map(|_| Arc::new(largest.clone())).collect();
        let bytes = post(&alerts, "http://a:1", Timestamp(0)).body.len();
        assert!(bytes < BODY_BYTES_MAX, "{bytes} with texts that JSON writes with six characters each");
    }
}
