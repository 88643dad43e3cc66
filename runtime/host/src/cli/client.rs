//! The command line's side of the HTTP API: one client, and the host's refusals turned into failures.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use serde::{Deserialize, de::DeserializeOwned};

use super::exit::{Code, Failure};

/// Where a host listens when nobody says otherwise.
pub(crate) const DEFAULT_URL: &str = "http://127.0.0.1:7878";
/// What a long poll asks for: below the 10 s after which some proxies and functions cut.
pub(crate) const POLL: Duration = Duration::from_secs(8);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Beyond what any route takes: long polls, and installing a plugin on a slow machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(900);

/// How to reach the host.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Host")]
pub(crate) struct Connection {
    /// The host's URL [default: http://127.0.0.1:7878]
    #[arg(long, env = "REIPAZ_URL", value_name = "URL", global = false)]
    pub(crate) url: Option<String>,
    /// A token, where the host asks for one
    #[arg(long, env = "REIPAZ_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
}

impl Connection {
    /// The URL that somebody gave, if somebody did.
    pub(crate) fn given_url(&self) -> Option<&str> {
        self.url.as_deref().filter(|url| !url.is_empty())
    }

    /// A client of that host.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        Client::new(self.given_url().unwrap_or(DEFAULT_URL), self.token.as_deref())
    }
}

/// Talks to one host.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    url: String,
    token: Option<String>,
    pool: Pool<HttpConnector, Full<Bytes>>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its body.
    pub(crate) body: Bytes,
}

/// A problem document, as far as the command line shows it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ProblemView {
    pub(crate) title: String,
    pub(crate) detail: String,
    pub(crate) diagnostics: Vec<Mistake>,
    pub(crate) mistakes: Vec<InputMistake>,
    pub(crate) near: Vec<String>,
    pub(crate) hint: Option<String>,
}

/// A diagnostic of a document, as the API gives it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(crate) struct Mistake {
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) end_line: u32,
    pub(crate) end_column: u32,
    pub(crate) pointer: String,
    pub(crate) step: Option<String>,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

/// What a schema says against an input.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct InputMistake {
    pub(crate) pointer: String,
    pub(crate) message: String,
}

impl Client {
    /// Of the host at `url`.
    pub(crate) fn new(url: &str, token: Option<&str>) -> Result<Self, Failure> {
        let url = url.trim_end_matches('/');
        let refuse = |why: &str| {
            Err(Failure::usage(format!("{url:?} is no URL of a host: {why}"))
                .hint("write it as http://HOST:PORT"))
        };
        match url.parse::<Uri>() {
            Err(error) => return refuse(&error.to_string()),
            Ok(uri) if uri.host().is_none() => return refuse("it names no host"),
            Ok(uri) if uri.scheme_str() != Some("http") => {
                return refuse(
                    "only http is spoken here (put a local proxy in front of a host behind https)",
                );
            }
            Ok(_) => {}
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let pool = Pool::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Ok(Self {
            url: url.to_owned(),
            token: token.map(ToOwned::to_owned).filter(|token| !token.is_empty()),
            pool,
        })
    }

    /// Where it aims.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Whether a Reipaz host answers there.
    pub(crate) async fn is_reachable(&self) -> bool {
        let asked = self.send(Method::GET, "/readyz", HeaderMap::new(), Bytes::new());
        match tokio::time::timeout(CONNECT_TIMEOUT, asked).await {
            Ok(Ok(answer)) => serde_json::from_slice::<crate::facade::Readiness>(&answer.body).is_ok(),
            _ => false,
        }
    }

    /// Sends a request and gives whatever comes back.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let mut request = request.body(Full::new(body)).map_err(|error| {
            Failure::usage(format!("the request to {}{path} cannot be sent: {error}", self.url))
        })?;
        request.headers_mut().extend(headers);
        let asked = async {
            let response = self.pool.request(request).await.map_err(|error| self.unreachable(&error))?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(|error| self.unreachable(&error))?;
            Ok(Answer { status, body: body.to_bytes() })
        };
        tokio::time::timeout(ANSWER_TIMEOUT, asked).await.unwrap_or_else(|_| {
            Err(Failure::new(Code::Unreachable, format!("the host at {} does not answer", self.url)))
        })
    }

    fn unreachable(&self, error: &dyn std::error::Error) -> Failure {
        let mut deepest = error;
        while let Some(source) = deepest.source() {
            deepest = source;
        }
        Failure::new(Code::Unreachable, format!("no host answers at {}: {deepest}", self.url))
            .hint("start one with `reipaz serve`, or say where it is with --url or REIPAZ_URL")
    }

    /// `GET`, the answer's JSON as `T`.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.send(Method::GET, path, HeaderMap::new(), Bytes::new()).await?.json()
    }

    /// `GET` with a long poll.
    pub(crate) async fn poll<T: DeserializeOwned>(&self, path: &str, wait: Duration) -> Result<T, Failure> {
        let mut headers = HeaderMap::new();
        insert(&mut headers, "prefer", &format!("wait={}", wait.as_secs()))?;
        self.send(Method::GET, path, headers, Bytes::new()).await?.json()
    }

    /// `POST` of JSON.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<T, Failure> {
        self.post_bytes(path, "application/json", Bytes::from(body.to_string())).await?.json()
    }

    /// `POST` of anything.
    pub(crate) async fn post_bytes(
        &self,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        let mut headers = HeaderMap::new();
        insert(&mut headers, "content-type", content_type)?;
        self.send(Method::POST, path, headers, body).await
    }
}

/// Adds a header that comes from the command line.
pub(crate) fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) -> Result<(), Failure> {
    let value = http::HeaderValue::from_str(value)
        .map_err(|_| Failure::usage(format!("{value:?} cannot stand in the header {name}")))?;
    headers.insert(name, value);
    Ok(())
}

impl Answer {
    /// Itself, if it is no refusal.
    pub(crate) fn accepted(self) -> Result<Self, Failure> {
        if self.status.is_success() { Ok(self) } else { Err(self.problem().into_failure(self.status)) }
    }

    /// Its JSON, if it is no refusal.
    pub(crate) fn json<T: DeserializeOwned>(self) -> Result<T, Failure> {
        let answer = self.accepted()?;
        serde_json::from_slice(&answer.body).map_err(|error| {
            Failure::new(
                Code::Refused,
                format!("the host's answer is not what this version expects: {error}"),
            )
            .hint("is the host of the same version? `reipaz --version`, and /healthz of the host, tell")
        })
    }

    /// The problem document of a refusal.
    pub(crate) fn problem(&self) -> ProblemView {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| ProblemView {
            title: format!("HTTP {}", self.status),
            detail: String::from_utf8_lossy(&self.body[..self.body.len().min(300)]).trim().to_owned(),
            ..ProblemView::default()
        })
    }
}

impl ProblemView {
    /// The failure that a person reads.
    pub(crate) fn into_failure(self, status: StatusCode) -> Failure {
        let mut message = if self.detail.is_empty() { self.title.clone() } else { self.detail.clone() };
        // The first mistake stands in the detail already.
        for mistake in self.mistakes.iter().skip(1) {
            message.push_str(&format!("\n  at {}: {}", mistake.pointer, mistake.message));
        }
        let failure = Failure::new(Code::Refused, message);
        match (self.hint, self.near.is_empty(), status.as_u16()) {
            (Some(hint), _, _) => failure.hint(hint),
            (None, false, _) => failure.hint(format!("perhaps you mean {}", self.near.join(", "))),
            (None, true, 401) => failure.hint("give a token with --token or REIPAZ_TOKEN"),
            _ => failure,
        }
    }
}

/// A text as it can stand in a path or a query.
pub(crate) fn escape(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}
