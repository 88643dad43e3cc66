//! One change for many runs, at a rate that the host and what its steps call can bear: nobody can start a storm with it.
//!
//! A call goes through a part of the runs, newest first, and says where the next call goes on: so it ends within the time that
//! functions have, it needs nothing that could be lost with the host, and no run is taken twice, also if it fails again.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, extract::State};
use bytes::Bytes;
use form_urlencoded::Serializer;
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use reipaz_core::{
    ids::RunId,
    partition::{Again, RunStatus},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    Shared, body, cursor, kinds, limits,
    problem::Problem,
    respond::{self, Answer},
    runs::run_query,
};
use crate::{
    facade::{Change, RunPosition, RunSummary},
    peers::Passed,
};

/// How long the owner of one run is looked for.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    change: What,
    workflow: Option<String>,
    version: Option<u32>,
    status: Option<Vec<String>>,
    error: Option<Arc<str>>,
    created_from: Option<String>,
    created_before: Option<String>,
    reason: Option<Arc<str>>,
    limit: Option<usize>,
    cursor: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum What {
    Retry,
    Cancel,
    Pause,
    Resume,
}

#[derive(Serialize)]
struct Done {
    /// Those that were changed; of a dry run, those that would be.
    runs: Vec<RunId>,
    refused: Vec<Refused>,
    /// The `cursor` of the next call; null: it is done.
    next: Option<String>,
    /// Ended runs may be missing, because ClickHouse or a host cannot be asked now.
    partial: bool,
}

#[derive(Serialize)]
struct Refused {
    run: RunId,
    #[serde(rename = "type")]
    kind: String,
    detail: String,
}

impl What {
    fn change(self, reason: Option<Arc<str>>) -> Change {
        match self {
            Self::Retry => Change::Retry(Again::default()),
            Self::Cancel => Change::Cancel { reason },
            Self::Pause => Change::Pause { reason },
            Self::Resume => Change::Resume { reason },
        }
    }

    /// The runs that it is for, unless somebody says otherwise.
    fn statuses(self) -> &'static [RunStatus] {
        use RunStatus::{Failed, Paused, Pending, Running, Waiting};
        match self {
            Self::Retry => &[Failed],
            Self::Cancel => &[Pending, Running, Waiting, Paused],
            Self::Pause => &[Pending, Running, Waiting],
            Self::Resume => &[Paused],
        }
    }
}

impl Request {
    fn check(&self) -> Result<(), Problem> {
        let refuse = |detail: &str| Err(Problem::new(&kinds::MALFORMED_BODY, detail));
        let named = [
            self.workflow.is_some(),
            self.status.is_some(),
            self.error.is_some(),
            self.created_from.is_some(),
            self.created_before.is_some(),
        ];
        if !named.contains(&true) {
            return refuse(
                "this would be for every run of every workflow: give workflow, status, error, created_from or \
                 created_before",
            );
        }
        if self.change == What::Retry && self.reason.is_some() {
            return refuse("`reason`: a retry takes none");
        }
        if self.reason.as_ref().is_some_and(|reason| reason.len() > limits::REASON_BYTES) {
            return refuse(&format!("`reason`: at most {} bytes", limits::REASON_BYTES));
        }
        if self.limit.is_some_and(|limit| !(1..=limits::BULK).contains(&limit)) {
            return refuse(&format!("`limit`: 1 to {}", limits::BULK));
        }
        Ok(())
    }

    /// As `GET /v1/runs` takes it.
    fn query(&self, cursor: Option<&str>) -> String {
        let status = match &self.status {
            Some(status) => status.join(","),
            None => self.change.statuses().iter().map(|status| status.as_str()).collect::<Vec<_>>().join(","),
        };
        let mut query = Serializer::new(String::new());
        query.append_pair("status", &status).append_pair("limit", &limits::RUNS_PAGE.1.to_string());
        let given = [
            ("workflow", self.workflow.as_deref()),
            ("created_from", self.created_from.as_deref()),
            ("created_before", self.created_before.as_deref()),
            ("cursor", cursor),
        ];
        for (name, value) in given {
            query.extend_pairs(value.map(|value| (name, value)));
        }
        query.extend_pairs(self.version.map(|version| ("version", version.to_string())));
        query.finish()
    }

    fn is_for(&self, run: &RunSummary) -> bool {
        self.error.as_ref().is_none_or(|code| run.error.as_ref().is_some_and(|error| error.code == *code))
    }
}

/// `POST /v1/runs/bulk`.
pub(super) async fn change(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Body) -> Answer {
    let request: Request =
        body::parse(&body::read(&headers, body, body::JSON, limits::SMALL_BODY_BYTES).await?)?;
    request.check()?;
    let Ok(_turn) = shared.bulk.try_lock() else {
        let detail = "another bulk change goes on; they go one at a time";
        return Err(Problem::new(&kinds::OVERLOADED, detail).retry_after(Duration::from_secs(1)));
    };
    let end = Instant::now() + limits::BULK_TIME;
    let mut pace = interval(limits::BULK_EVERY);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let limit = request.limit.unwrap_or(limits::BULK);
    let mut done =
        Done { runs: Vec::new(), refused: Vec::new(), next: request.cursor.clone(), partial: false };
    loop {
        let text = request.query(done.next.as_deref());
        let mut query = run_query(&text)?;
        query.text = text;
        let page = shared.facade.list_runs(query).await?;
        done.partial |= page.partial;
        for run in &page.runs {
            if request.is_for(run) {
                if done.runs.len() + done.refused.len() == limit || Instant::now() >= end {
                    return respond::json(StatusCode::OK, &done);
                }
                if !request.dry_run {
                    pace.tick().await;
                    match one(&shared, &headers, &request, run.id).await {
                        Ok(()) => done.runs.push(run.id),
                        Err(Stays::Refused(kind, detail)) => {
                            done.refused.push(Refused { run: run.id, kind, detail });
                        }
                        // The next call takes it again.
                        Err(Stays::NotNow(problem)) if done.next == request.cursor => return Err(problem),
                        Err(Stays::NotNow(_)) => return respond::json(StatusCode::OK, &done),
                    }
                } else {
                    done.runs.push(run.id);
                }
            }
            done.next = Some(cursor::of_run(RunPosition { created_at: run.created_at, id: run.id }));
        }
        if !page.more {
            done.next = None;
            return respond::json(StatusCode::OK, &done);
        }
        if Instant::now() >= end {
            return respond::json(StatusCode::OK, &done);
        }
    }
}

/// Why a run stays as it is.
enum Stays {
    /// Because of what it is: the problem's type and detail.
    Refused(String, String),
    /// Nobody can change it at this moment.
    NotNow(Problem),
}

impl From<Problem> for Stays {
    fn from(problem: Problem) -> Self {
        match problem.kind().status {
            421 | 429 | 500.. => Self::NotNow(problem),
            _ => Self::Refused(problem.kind().path(), problem.detail().to_owned()),
        }
    }
}

/// Changes one run, wherever it is.
async fn one(shared: &Shared, headers: &HeaderMap, request: &Request, run: RunId) -> Result<(), Stays> {
    let change = request.change.change(request.reason.clone());
    if let Some(peers) = &shared.settings.peers {
        let body = request.reason.as_ref().map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
        let mut passed = Passed::get(format!("/v1/runs/{run}/{}", change.as_str()));
        passed.method = Method::POST;
        passed.body = Bytes::from(body.to_string());
        passed.headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        if let Some(token) = headers.get(header::AUTHORIZATION) {
            passed.headers.insert(header::AUTHORIZATION, token.clone());
        }
        let not_now = |detail: String| {
            Stays::NotNow(Problem::new(&kinds::NOT_READY, detail).retry_after(Duration::from_secs(1)))
        };
        match peers.pass_on(peers.home(run), &passed, Instant::now() + PATIENCE).await {
            Ok(Some(response)) if response.status().is_success() => return Ok(()),
            Ok(Some(response)) => {
                let status = response.status().as_u16();
                let problem = problem_of(response.into_body()).await;
                return Err(match (status, problem) {
                    (400..=420 | 422..=428, Some(problem)) => Stays::Refused(problem.kind, problem.detail),
                    (_, problem) => not_now(
                        problem.map_or_else(|| format!("{status} for {run}"), |problem| problem.detail),
                    ),
                });
            }
            Ok(None) => {}
            Err(error) => return Err(not_now(error.to_string())),
        }
    }
    shared.facade.change(run, change).await.map(drop).map_err(|error| Problem::from(error).into())
}

#[derive(Deserialize)]
struct Told {
    #[serde(rename = "type")]
    kind: String,
    detail: String,
}

async fn problem_of(body: Body) -> Option<Told> {
    let body = Limited::new(body, limits::SMALL_BODY_BYTES).collect().await.ok()?;
    serde_json::from_slice(&body.to_bytes()).ok()
}
