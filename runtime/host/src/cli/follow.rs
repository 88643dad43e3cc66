//! Following a run to its end by repeated long polls, through restarts of its host.

use std::time::Duration;

use reipaz_core::ids::RunId;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep};

use super::{
    client::{Client, POLL},
    exit::{Code, Failure},
    live::Live,
};
use crate::facade::RunView;

/// For so long a host that answered before may be away (restarting, say).
const AWAY: Duration = Duration::from_secs(60);
const AWAY_PAUSE: Duration = Duration::from_millis(500);
/// How often the live view moves on its own.
const FRAME: Duration = Duration::from_millis(100);

/// A run, and the very text that the host sent.
pub(crate) struct Fetched {
    pub(crate) run: RunView,
    pub(crate) text: Box<RawValue>,
}

impl Fetched {
    /// From what a host sent.
    pub(crate) fn new(text: Box<RawValue>) -> Result<Self, Failure> {
        let run = serde_json::from_str(text.get())
            .map_err(|error| Failure::new(Code::Refused, format!("the host's answer is no run: {error}")))?;
        Ok(Self { run, text })
    }

    /// Reads a run.
    pub(crate) async fn get(client: &Client, id: RunId) -> Result<Self, Failure> {
        Self::new(client.get(&format!("/v1/runs/{id}")).await?)
    }
}

/// Waits until the run is over, or until `deadline`, and gives it as it stands then.
pub(crate) async fn until_end(
    client: &Client,
    mut fetched: Fetched,
    deadline: Option<Instant>,
    mut live: Option<&mut Live>,
) -> Result<Fetched, Failure> {
    let mut answered = Instant::now();
    loop {
        if let Some(live) = live.as_mut() {
            live.show(&fetched.run);
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if fetched.run.status.is_terminal() || left.is_some_and(|left| left.is_zero()) {
            return Ok(fetched);
        }
        let wait = left.map_or(POLL, |left| left.min(POLL)).max(Duration::from_secs(1));
        let path = match live {
            // A live view wants every change, anybody else the end.
            Some(_) => format!("/v1/runs/{}?after={}", fetched.run.id, fetched.run.seq),
            None => format!("/v1/runs/{}", fetched.run.id),
        };
        match with_frames(client.poll(&path, wait), &mut live, &fetched.run, deadline).await {
            None => {}
            Some(Ok(text)) => {
                fetched = Fetched::new(text)?;
                answered = Instant::now();
            }
            Some(Err(failure)) if failure.code() == Code::Unreachable && answered.elapsed() < AWAY => {
                sleep(AWAY_PAUSE).await;
            }
            Some(Err(failure)) => return Err(failure),
        }
    }
}

/// Waits for `poll` while the live view goes on moving; `None` once the deadline is over.
async fn with_frames<T>(
    poll: impl Future<Output = T>,
    live: &mut Option<&mut Live>,
    run: &RunView,
    deadline: Option<Instant>,
) -> Option<T> {
    let mut poll = std::pin::pin!(poll);
    loop {
        let pause = match live {
            Some(_) => FRAME,
            None => Duration::from_secs(1),
        };
        tokio::select! {
            answer = poll.as_mut() => return Some(answer),
            () = sleep(pause) => {}
        }
        if let Some(live) = live.as_mut() {
            live.show(run);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return None;
        }
    }
}
