//! Runs as the API shows them. What an owner holds becomes the facade's types here and nowhere else.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use reipaz_core::{
    event::{Event, Fact, LogLine, RunEvent},
    ids::{RunId, StepPath},
    json::Json,
    partition::{self, Partition, Run},
    time::Timestamp,
};

use crate::facade::{
    EventView, LimitView, LimitsView, LogPosition, LogQuery, LogView, RateView, RunPage, RunPosition,
    RunQuery, RunSummary, RunView, Standing, StepView, WaitingFor,
};

/// Where a run stands.
pub(crate) fn standing(run: &Run) -> Standing {
    Standing { seq: run.seq(), status: run.status() }
}

/// A run, whole.
pub(crate) fn run_view(run: &Run) -> RunView {
    let times = StepTimes::of(run);
    let accepted = run.accepted();
    RunView {
        id: run.id(),
        workflow: accepted.workflow.clone(),
        version: accepted.version,
        status: run.status(),
        seq: run.seq(),
        input: run.input().clone(),
        output: run.output().cloned(),
        error: run.error().cloned(),
        steps: run
            .steps()
            .filter(|step| step.called)
            .map(|step| (step.path.clone(), step_view(step, &times)))
            .collect(),
        idempotency_key: accepted.idempotency_key.clone(),
        metadata: accepted.metadata.iter().cloned().collect(),
        created_at: run.created_at(),
        started_at: run.started_at(),
        finished_at: run.finished_at(),
    }
}

fn step_view(step: partition::StepView<'_>, times: &StepTimes<'_>) -> StepView {
    let started_at = times.started.get(step.path).copied();
    StepView {
        status: step.status,
        attempts: step.attempts,
        output: step.output.cloned(),
        error: step.error.cloned(),
        waiting_for: step.waiting_for.and_then(waiting_for),
        progress: step.progress.cloned(),
        started_at,
        finished_at: times.ended.get(step.path).copied().filter(|_| is_over(step.status)),
    }
}

fn is_over(status: partition::StepStatus) -> bool {
    use partition::StepStatus::{Cancelled, Completed, Failed, Retrying, Running, Skipped, Waiting};
    match status {
        Completed | Failed | Skipped | Cancelled => true,
        Waiting | Running | Retrying => false,
    }
}

fn waiting_for(waiting: partition::WaitingFor) -> Option<WaitingFor> {
    match waiting {
        partition::WaitingFor::Steps { steps } => Some(WaitingFor::Steps { steps }),
        partition::WaitingFor::Retry { due, .. } => Some(WaitingFor::Retry { due }),
        partition::WaitingFor::Breaker { breaker, due } => Some(WaitingFor::Breaker { breaker, due }),
        partition::WaitingFor::Limit { limit, since } => Some(WaitingFor::Limit { limit, since }),
        partition::WaitingFor::Resume => Some(WaitingFor::Resume),
        // A step that runs waits for nothing but itself.
        partition::WaitingFor::Attempt { .. } | partition::WaitingFor::Output => None,
    }
}

/// When each step's first attempt was decided, and when it ended last.
#[derive(Default)]
struct StepTimes<'a> {
    started: HashMap<&'a StepPath, Timestamp>,
    ended: HashMap<&'a StepPath, Timestamp>,
}

impl<'a> StepTimes<'a> {
    fn of(run: &'a Run) -> Self {
        let mut times = Self::default();
        for event in run.history().iter().filter_map(|event| run_event(event)) {
            match &event.fact {
                Fact::AttemptStarted(started) => {
                    times.started.entry(&started.path).or_insert(event.at);
                }
                Fact::AttemptFinished(finished) => {
                    times.ended.insert(&finished.path, event.at);
                }
                Fact::StepSkipped(skipped) => {
                    times.ended.insert(&skipped.path, event.at);
                }
                _ => {}
            }
        }
        times
    }
}

fn run_event(event: &Event) -> Option<&RunEvent> {
    match event {
        Event::Run(event) => Some(event),
        Event::WorkflowPinned(_) | Event::RunForgotten(_) | Event::KeyExpired(_) | Event::Limit(_) => None,
    }
}

/// Events are told a page at a time, and the owner does nothing else meanwhile: a page ends with the event that makes it as
/// long as this, bytes of JSON.
const EVENTS_BYTES: usize = 2 << 20;

/// Events with a seq above `after`: at most `limit`, and fewer where they are large, but at least one if there is one.
pub(crate) fn events_after(run: &Run, after: u32, limit: usize) -> Vec<EventView> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    for event in run.history_after(after).iter().filter_map(|event| run_event(event)).take(limit) {
        // Only a payload that is no JSON could fail here, and every payload was checked when it came in.
        let Ok(json) = serde_json::to_string(event) else { continue };
        bytes += json.len();
        found.push(EventView { seq: event.seq, json: Json::from(json) });
        if bytes >= EVENTS_BYTES {
            break;
        }
    }
    found
}

/// Log lines that fit the query, in the order of their events.
pub(crate) fn logs(run: &Run, query: &LogQuery) -> Vec<LogView> {
    let first = query.after.map_or(0, |after| after.seq.saturating_sub(1));
    let mut found = Vec::new();
    for event in run.history_after(first).iter().filter_map(|event| run_event(event)) {
        let (path, attempt, lines) = match &event.fact {
            Fact::AttemptFinished(finished) => (&finished.path, finished.attempt, &finished.logs),
            Fact::AttemptReported(reported) => (&reported.path, reported.attempt, &reported.logs),
            _ => continue,
        };
        for (position, line) in positions(event.seq, lines) {
            let fits = query.after.is_none_or(|after| position > after)
                && query.step.as_ref().is_none_or(|step| step == path)
                && query.level.is_none_or(|level| line.level >= level);
            if fits {
                found.push(LogView {
                    position,
                    at: line.at,
                    step: path.clone(),
                    attempt,
                    level: line.level,
                    message: line.message.clone(),
                    fields: line.fields.iter().cloned().collect::<BTreeMap<_, _>>(),
                });
            }
            if found.len() >= query.limit {
                return found;
            }
        }
    }
    found
}

fn positions(seq: u32, lines: &[LogLine]) -> impl Iterator<Item = (LogPosition, &LogLine)> {
    (0..).zip(lines).map(move |(index, line)| (LogPosition { seq, index }, line))
}

/// Runs of one workflow that should be over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overdue {
    pub(crate) workflow: Arc<str>,
    /// How many.
    pub(crate) runs: u64,
    /// The one whose deadline is the longest ago.
    pub(crate) sample: RunId,
    pub(crate) deadline: Timestamp,
}

/// Runs whose deadline was before this moment and that are not over, by workflow.
pub(crate) fn overdue(partition: &Partition, before: Timestamp) -> Vec<Overdue> {
    let mut found: BTreeMap<&Arc<str>, Overdue> = BTreeMap::new();
    for run in partition.runs().filter(|run| run.finished_at().is_none()) {
        let Some(deadline) = run.deadline().filter(|deadline| *deadline < before) else { continue };
        let workflow = &run.accepted().workflow;
        let overdue = found.entry(workflow).or_insert_with(|| Overdue {
            workflow: Arc::clone(workflow),
            runs: 0,
            sample: run.id(),
            deadline,
        });
        overdue.runs += 1;
        if deadline < overdue.deadline {
            (overdue.sample, overdue.deadline) = (run.id(), deadline);
        }
    }
    found.into_values().collect()
}

/// The runs in memory that fit, newest first: one page.
pub(crate) fn page(partition: &Partition, query: &RunQuery) -> RunPage {
    let mut fitting: Vec<&Run> = partition.runs().filter(|run| fits(run, query)).collect();
    let key = |run: &&Run| std::cmp::Reverse((run.created_at(), run.id()));
    let more = fitting.len() > query.limit;
    if more {
        fitting.select_nth_unstable_by_key(query.limit, key);
        fitting.truncate(query.limit);
    }
    fitting.sort_unstable_by_key(key);
    RunPage { runs: fitting.into_iter().map(summary).collect(), more, partial: false }
}

fn fits(run: &Run, query: &RunQuery) -> bool {
    let position = RunPosition { created_at: run.created_at(), id: run.id() };
    query.workflow.as_deref().is_none_or(|name| name == &*run.accepted().workflow)
        && query.version.is_none_or(|version| version == run.accepted().version)
        && (query.status.is_empty() || query.status.contains(&run.status()))
        && query.created_from.is_none_or(|from| run.created_at() >= from)
        && query.created_before.is_none_or(|before| run.created_at() < before)
        && query.after.is_none_or(|after| position < after)
}

fn summary(run: &Run) -> RunSummary {
    let accepted = run.accepted();
    RunSummary {
        id: run.id(),
        workflow: accepted.workflow.clone(),
        version: accepted.version,
        status: run.status(),
        seq: run.seq(),
        error: run.error().cloned(),
        created_at: run.created_at(),
        started_at: run.started_at(),
        finished_at: run.finished_at(),
    }
}

/// The limits of a partition, and how many there are: those for which most wait, at most so many.
pub(crate) fn limits(partition: &Partition, most: usize) -> LimitsView {
    let mut limits: Vec<_> = partition.limits().map(limit).collect();
    let total = limits.len();
    limits.sort_by_key(|limit| std::cmp::Reverse((limit.queued, limit.held)));
    limits.truncate(most);
    LimitsView { limits, total }
}

fn limit(view: partition::LimitView) -> LimitView {
    let partition::LimitView { limit, rule, held, queued, waiting_since } = view;
    LimitView {
        kind: limit.kind,
        name: limit.name,
        key: limit.key,
        limit: rule.at_once,
        rate: rule.rate.map(|rate| RateView { starts: rate.starts, per_ms: rate.per_ms }),
        held,
        queued,
        max_queued: rule.max_queued,
        waiting_since,
    }
}
