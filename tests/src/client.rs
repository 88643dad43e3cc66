//! A client of the HTTP API that hides nothing: statuses, headers and bodies as they came.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};

use crate::wait;

/// Every answer comes within this, long polls included; else the test fails.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} with {}", self.status, self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's text, empty when it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The answer itself, once its status is `status`.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self
    }

    /// The last part of the `type` of a problem document with this status, after checking that it is one.
    #[track_caller]
    pub fn problem(&self, status: u16) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text());
        let problem = self.json();
        assert_eq!(problem["status"], status, "{problem}");
        for words in ["title", "detail"] {
            assert!(problem[words].as_str().is_some_and(|text| !text.is_empty()), "no {words}: {problem}");
        }
        let kind = problem["type"].as_str().expect("a problem has a type");
        kind.rsplit(['/', ':', '#']).next().expect("rsplit gives at least one part").to_owned()
    }
}

/// Talks to one host.
#[derive(Clone, Debug)]
pub struct Client {
    base: String,
    pool: Pool<HttpConnector, Full<Bytes>>,
}

impl Client {
    /// A client of the host at `base` (`http://127.0.0.1:7878`).
    pub fn new(base: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let pool =
            Pool::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(5)).build(connector);
        Self { base: base.to_owned(), pool }
    }

    /// Sends a request; what the connection did wrong comes as an error.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, hyper_util::client::legacy::Error> {
        let response = self.open(method, path, headers, body).await?;
        let (parts, body) = response.into_parts();
        // A body that breaks off counts as empty: the tests that cut connections look at nothing else.
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }

    /// Sends a request and hands out the response before its body has come, for streams.
    pub async fn open(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<http::Response<Incoming>, hyper_util::client::legacy::Error> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.pool.request(request.body(Full::new(body.into())).expect("a valid request")).await
    }

    /// Sends a request that must be answered.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let shown = format!("{method} {path}");
        tokio::time::timeout(ANSWER_WITHIN, self.try_send(method, path, headers, body))
            .await
            .unwrap_or_else(|_| panic!("{shown}: no answer within {ANSWER_WITHIN:?}"))
            .unwrap_or_else(|error| panic!("{shown}: {error:?}"))
    }

    /// `GET path`.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    /// `GET path` that may wait so many seconds.
    pub async fn get_waiting(&self, path: &str, seconds: u32) -> Answer {
        self.send(Method::GET, path, &[("prefer", &format!("wait={seconds}"))], Bytes::new()).await
    }

    /// `POST path` with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_with(path, &[], body).await
    }

    /// `POST path` with headers and a JSON body.
    pub async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let headers = [&[(header::CONTENT_TYPE.as_str(), "application/json")], headers].concat();
        self.send(Method::POST, path, &headers, body.to_string()).await
    }

    /// Publishes a document in YAML, whatever the answer.
    pub async fn publish(&self, yaml: &str) -> Answer {
        self.send(Method::POST, "/v1/workflows", &[("content-type", "application/yaml")], yaml.to_owned())
            .await
    }

    /// Publishes a document that must be sound.
    #[track_caller]
    pub fn must_publish(&self, yaml: &str) -> impl Future<Output = Value> {
        let publishing = self.clone();
        let yaml = yaml.to_owned();
        async move {
            let answer = publishing.publish(&yaml).await;
            assert!(answer.status.is_success(), "publishing failed: {}\n{yaml}", answer.text());
            answer.json()
        }
    }

    /// Starts a run without waiting for its end; gives its id.
    pub async fn submit(&self, workflow: &str, input: &Value) -> String {
        let answer = self.post(&format!("/v1/workflows/{workflow}/runs"), &json!({"input": input})).await;
        assert!(answer.status.is_success(), "{}", answer.text());
        answer.json()["id"].as_str().expect("a run has an id").to_owned()
    }

    /// Starts a run and waits for its end.
    pub async fn run(&self, workflow: &str, input: &Value) -> Value {
        let id = self.submit(workflow, input).await;
        self.finished(&id, Duration::from_secs(60)).await
    }

    /// The run once it is terminal.
    pub async fn finished(&self, id: &str, within: Duration) -> Value {
        wait::until(&format!("the end of run {id}"), within, || async {
            let answer = self.get_waiting(&format!("/v1/runs/{id}"), 8).await.expect(200).json();
            is_terminal(&answer).then_some(answer)
        })
        .await
    }

    /// All events of a run.
    pub async fn events(&self, id: &str) -> Vec<Value> {
        let mut events: Vec<Value> = Vec::new();
        loop {
            let after = events.last().map_or(0, seq);
            let page = self.get(&format!("/v1/runs/{id}/events?after={after}")).await.expect(200).json();
            let page = page["events"].as_array().expect("a page of events").clone();
            if page.is_empty() {
                return events;
            }
            events.extend(page);
        }
    }

    /// What the host says of a metric, the sum over its labels; 0 if it does not speak of it.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").await.expect(200).text();
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .filter(|(series, _)| series.split('{').next() == Some(name))
            .filter_map(|(_, value)| value.parse::<f64>().ok())
            .sum()
    }
}

/// Whether a run, as the API shows it, is over.
pub fn is_terminal(run: &Value) -> bool {
    matches!(run["status"].as_str(), Some("completed" | "failed" | "cancelled"))
}

/// An event's, or a run's, `seq`.
pub fn seq(value: &Value) -> u64 {
    value["seq"].as_u64().unwrap_or_else(|| panic!("no seq in {value}"))
}

/// The events of one type.
pub fn of_type<'e>(events: &'e [Value], kind: &str) -> Vec<&'e Value> {
    events.iter().filter(|event| event["type"] == kind).collect()
}
