//! A run's events: a page, a long poll, or a stream. All three are one loop over two questions to the host (what is
//! there above this seq? wake me when there is more), so none of them can miss an event.

use std::{collections::VecDeque, sync::Arc};

use axum::{
    body::Body,
    extract::{Path, State},
};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use reipaz_core::{ids::RunId, partition::RunStatus};
use serde::{Deserialize, Serialize};

use super::{
    Shared, kinds, limits, outermost, prefer,
    problem::Problem,
    query::{self, Params},
    respond::{self, Answer},
    runs::run_id,
};
use crate::facade::{EventView, WaitUntil};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Query of [`read`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventParams {
    after: Option<u32>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Page {
    events: Vec<EventView>,
    /// The `after` of the next request.
    next_after: u32,
    status: RunStatus,
    /// The run's last event; above `next_after` when there are more.
    seq: u32,
}

/// `GET /v1/runs/{id}/events`.
pub(super) async fn read(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    Params(params): Params<EventParams>,
    headers: HeaderMap,
) -> Answer {
    let id = run_id(&id)?;
    let limit = query::page_limit(params.limit, limits::EVENTS_PAGE)?;
    if outermost::wants_stream(&headers) {
        let after = last_event_id(&headers)?.or(params.after).unwrap_or(0);
        return follow(shared, id, after).await;
    }
    let after = params.after.unwrap_or(0);
    let wait = prefer::wait(&headers);
    let standing = shared.wait(id, WaitUntil::Beyond(after), wait.unwrap_or_default()).await?;
    let events =
        if standing.seq > after { shared.facade.events(id, after, limit).await? } else { Vec::new() };
    let next_after = events.last().map_or(after, |last| last.seq);
    let page = Page { events, next_after, status: standing.status, seq: standing.seq.max(next_after) };
    let answer = respond::json(StatusCode::OK, &page);
    match wait {
        Some(wait) => respond::with_header(answer, prefer::PREFERENCE_APPLIED, prefer::applied(wait)),
        None => answer,
    }
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u32>, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) else { return Ok(None) };
    match value.to_str().ok().and_then(|text| text.parse().ok()) {
        Some(seq) => Ok(Some(seq)),
        None => Err(Problem::new(
            &kinds::INVALID_HEADER,
            "Last-Event-ID: send the id of the last event, a number",
        )),
    }
}

/// The stream of server-sent events: one message an event with its seq as id, a comment when nothing happens, and a
/// last message `end` with the run's standing. A client that then connects again (browsers do) gets 204, which tells
/// it to stop.
async fn follow(shared: Arc<Shared>, id: RunId, after: u32) -> Answer {
    let standing = shared.facade.wait(id, WaitUntil::Terminal, std::time::Duration::ZERO).await?;
    if standing.status.is_terminal() && standing.seq <= after && after > 0 {
        let mut nothing = Response::new(Body::empty());
        *nothing.status_mut() = StatusCode::NO_CONTENT;
        return Ok(nothing);
    }
    let opening = format!("retry: {}\n\n", limits::STREAM_RETRY.as_millis());
    let follower = Follower { shared, id, after, ready: VecDeque::from([Bytes::from(opening)]), over: false };
    let messages = stream::unfold(follower, |mut follower| async move {
        let message = follower.next().await?;
        Some((Ok::<_, std::convert::Infallible>(message), follower))
    });
    let mut response = Response::new(Body::from_stream(messages));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

struct Follower {
    shared: Arc<Shared>,
    id: RunId,
    after: u32,
    ready: VecDeque<Bytes>,
    over: bool,
}

impl Follower {
    /// The next piece of the stream. It is asked for only when the one before is gone, so a slow reader holds a page of
    /// events at most.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            if self.over || self.shared.facade.draining().is_cancelled() {
                return None;
            }
            // What fails in the middle of a stream ends it; the client connects again and is told what is wrong.
            self.advance().await.ok()?;
        }
    }

    async fn advance(&mut self) -> Result<(), Problem> {
        let until = WaitUntil::Beyond(self.after);
        let standing = self.shared.wait(self.id, until, self.shared.settings.heartbeat).await?;
        if standing.seq > self.after {
            let events = self.shared.facade.events(self.id, self.after, limits::EVENTS_PAGE.0).await?;
            for event in events {
                self.after = self.after.max(event.seq);
                self.ready.push_back(format!("id: {}\ndata: {}\n\n", event.seq, event.json).into());
            }
            if !self.ready.is_empty() {
                return Ok(());
            }
        }
        if standing.status.is_terminal() && standing.seq <= self.after {
            let end = format!(
                "event: end\ndata: {{\"seq\":{},\"status\":\"{}\"}}\n\n",
                standing.seq,
                standing.status.as_str()
            );
            self.ready.push_back(end.into());
            self.over = true;
        } else if !self.shared.facade.draining().is_cancelled() {
            self.ready.push_back(Bytes::from_static(b": still here\n\n"));
        }
        Ok(())
    }
}
