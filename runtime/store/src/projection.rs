//! From events to rows. Every row is complete, so that the newest replaces all before it; for that the projection
//! remembers of each run what its rows repeat, from its first event until the partition forgets the run.
//!
//! It is a fold of the journal like the partition itself: [`Projection::seed`] learns from events whose rows are stored
//! already, [`Projection::apply`] learns and makes rows. Both must see a partition's events in order.

use std::{collections::HashMap, sync::Arc};

use reipaz_core::{
    event::{
        AttemptFinished, AttemptParked, AttemptResult, Event, Fact, FinalStatus, InterruptCause, LogLine,
        RunAccepted, RunEvent, RunFinished, SkipReason,
    },
    ids::{RunId, StepPath},
    json::{self, Json},
    partition::RunStatus,
    time::Timestamp,
};

use crate::{
    batch::RowBatch,
    rows::{AttemptRow, EventRow, LogRow, RunRow, Word},
};

/// What the rows of one partition need to know of its past.
#[derive(Debug, Default)]
pub struct Projection {
    runs: HashMap<RunId, Known>,
}

/// What is remembered of a run.
#[derive(Debug)]
struct Known {
    accepted: Arc<RunAccepted>,
    /// As it was accepted, or as a retry changed it.
    input: Json,
    /// The attempt that ended last, if it failed.
    failed: Option<Box<Failed>>,
    /// Of steps whose `on_failure` runs: their last attempts.
    handled: Vec<Failed>,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    deadline: Option<Timestamp>,
    status: RunStatus,
    /// Attempts that have begun, or are due, and have no outcome yet.
    open: Vec<Open>,
}

/// A failed attempt, without its log, and how often it had been interrupted.
type Failed = (AttemptFinished, u32);

/// An attempt without an outcome.
#[derive(Clone, Debug)]
struct Open {
    path: StepPath,
    attempt: u32,
    /// Scheduled for a time, else running.
    due: Option<(Timestamp, Arc<str>)>,
    started_at: Option<Timestamp>,
    interruptions: u32,
}

/// Where an event stands in the journal.
#[derive(Clone, Copy)]
struct Place {
    partition: u32,
    position: u64,
}

impl Projection {
    /// Knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Learns from an event whose rows are stored (one before the sink's position, or of a checkpoint there).
    pub fn seed(&mut self, event: &Event) {
        self.fold(event, None);
    }

    /// Learns from the event at `position` of `partition` and adds its rows to `batch`. Making the rows of an event
    /// again, after a crash, makes the same rows.
    pub fn apply(&mut self, partition: u32, position: u64, event: &Event, batch: &mut RowBatch) {
        self.fold(event, Some((Place { partition, position }, batch)));
    }

    /// How many runs it remembers.
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    fn fold(&mut self, event: &Event, rows: Option<(Place, &mut RowBatch)>) {
        match event {
            Event::Run(event) => self.fold_run(event, rows),
            Event::RunForgotten(forgotten) => {
                self.runs.remove(&forgotten.run);
            }
            // Workflow versions come from the catalogue, which knows their names and numbers.
            Event::WorkflowPinned(_) | Event::KeyExpired(_) | Event::Limit(_) => {}
        }
    }

    fn fold_run(&mut self, event: &RunEvent, rows: Option<(Place, &mut RowBatch)>) {
        if let Fact::RunAccepted(accepted) = &event.fact {
            self.runs.insert(event.run, Known::new(accepted, event.at));
        }
        let Some(known) = self.runs.get_mut(&event.run) else {
            tracing::warn!(run = %event.run, seq = event.seq, "an event of a run that the sink never heard of");
            return;
        };
        let (changed, closed) = known.learn(event);
        let Some((place, batch)) = rows else { return };
        let rows = Rows { known, event, place };
        batch.events.push(rows.event());
        match &event.fact {
            Fact::AttemptFinished(finished) => {
                batch.attempt(rows.finished(finished, &closed));
                rows.logs(&finished.path, finished.attempt, &finished.logs, batch);
            }
            Fact::AttemptReported(report) => rows.logs(&report.path, report.attempt, &report.logs, batch),
            Fact::StepSkipped(skipped) => {
                batch.attempt(rows.skipped(&skipped.path, &skipped.reason, &closed))
            }
            Fact::AttemptStarted(_) | Fact::AttemptInterrupted(_) | Fact::RetryScheduled(_) => {
                if let Some(open) = known.open.last() {
                    batch.attempt(rows.open(open));
                }
            }
            Fact::AttemptParked(parked) => {
                for open in &closed {
                    batch.attempt(rows.parked(open, parked));
                }
            }
            Fact::RunFinished(_) | Fact::HandlingStarted(_) => {
                for open in &closed {
                    batch.attempt(rows.cancelled(open));
                }
            }
            Fact::StepContinued(continued) => {
                let failed = known.failed.as_deref().filter(|failed| failed.0.path == continued.path);
                if let Some(failed) = failed {
                    batch.attempt(rows.continued(failed, &continued.output));
                }
            }
            Fact::RunAccepted(_)
            | Fact::RunPaused(_)
            | Fact::RunResumed(_)
            | Fact::RunRetried(_)
            | Fact::HandlingEnded(_)
            | Fact::LimitAsked(_)
            | Fact::RunAdmitted(_)
            | Fact::LimitLeft(_) => {}
        }
        if changed {
            batch.run(rows.run());
        }
    }
}

impl Known {
    fn new(accepted: &Arc<RunAccepted>, at: Timestamp) -> Self {
        Self {
            accepted: Arc::clone(accepted),
            input: Arc::clone(&accepted.input),
            failed: None,
            handled: Vec::new(),
            created_at: at,
            started_at: None,
            deadline: accepted.deadline,
            status: RunStatus::Pending,
            open: Vec::new(),
        }
    }

    /// Whether the run's own row changed, and the attempts that the event closed.
    fn learn(&mut self, event: &RunEvent) -> (bool, Vec<Open>) {
        let mut closed = Vec::new();
        let before = self.status;
        match &event.fact {
            Fact::RunAccepted(_) => return (true, closed),
            Fact::AttemptStarted(started) => {
                self.close(&started.path);
                // Of a retried run: the step starts afresh.
                drop(self.unhandle(&started.path));
                self.open.push(Open {
                    path: started.path.clone(),
                    attempt: started.attempt,
                    due: None,
                    started_at: Some(event.at),
                    interruptions: 0,
                });
                self.started_at.get_or_insert(event.at);
                if self.status == RunStatus::Pending {
                    self.status = RunStatus::Running;
                }
            }
            Fact::AttemptInterrupted(interrupted) => {
                let mut open = self.close(&interrupted.path).unwrap_or_else(|| Open {
                    path: interrupted.path.clone(),
                    attempt: interrupted.attempt,
                    due: None,
                    started_at: None,
                    interruptions: 0,
                });
                open.interruptions += u32::from(interrupted.cause == InterruptCause::HostLost);
                self.open.push(open);
            }
            Fact::AttemptFinished(finished) => {
                closed.extend(self.close(&finished.path));
                let failed = matches!(finished.result, AttemptResult::Error(_));
                self.failed = failed.then(|| {
                    let interruptions = closed.first().map_or(0, |open| open.interruptions);
                    Box::new((AttemptFinished { logs: Vec::new(), ..(**finished).clone() }, interruptions))
                });
            }
            Fact::StepContinued(continued) => {
                if let Some(failed) = self.unhandle(&continued.path) {
                    self.failed = Some(failed);
                }
            }
            Fact::HandlingStarted(started) if started.path.is_some() => {
                self.handled.extend(self.failed.take().map(|failed| *failed))
            }
            Fact::HandlingStarted(started) => {
                self.deadline = started.deadline;
                self.handled.clear();
                if self.status == RunStatus::Paused {
                    self.status = RunStatus::Running;
                }
                closed = std::mem::take(&mut self.open);
                return (true, closed);
            }
            Fact::HandlingEnded(ended) => drop(self.unhandle(&ended.path)),
            Fact::RetryScheduled(retry) => {
                self.close(&retry.path);
                self.open.push(Open {
                    path: retry.path.clone(),
                    attempt: retry.attempt,
                    due: Some((retry.due, Arc::clone(&retry.reason))),
                    started_at: None,
                    interruptions: 0,
                });
            }
            Fact::StepSkipped(skipped) => closed.extend(self.close(&skipped.path)),
            Fact::AttemptParked(parked) => closed.extend(self.close(&parked.path)),
            Fact::AttemptReported(_) | Fact::LimitAsked(_) | Fact::RunAdmitted(_) | Fact::LimitLeft(_) => {}
            Fact::RunPaused(_) => self.status = RunStatus::Paused,
            Fact::RunResumed(_) => {
                let began = self.started_at.is_some();
                self.status = if began { RunStatus::Running } else { RunStatus::Pending };
            }
            Fact::RunFinished(finished) => {
                self.started_at = finished.started_at.or(self.started_at);
                self.status = match finished.status {
                    FinalStatus::Completed => RunStatus::Completed,
                    FinalStatus::Failed => RunStatus::Failed,
                    FinalStatus::Cancelled => RunStatus::Cancelled,
                };
                closed = std::mem::take(&mut self.open);
                return (true, closed);
            }
            Fact::RunRetried(retried) => {
                self.deadline = retried.deadline;
                if let Some(input) = &retried.input {
                    self.input = Arc::clone(input);
                }
                self.status = RunStatus::Running;
                return (true, closed);
            }
        }
        (self.status != before, closed)
    }

    /// The failed attempt of a step whose `on_failure` is over.
    fn unhandle(&mut self, path: &StepPath) -> Option<Box<Failed>> {
        let index = self.handled.iter().position(|failed| failed.0.path == *path)?;
        Some(Box::new(self.handled.remove(index)))
    }

    fn close(&mut self, path: &StepPath) -> Option<Open> {
        let index = self.open.iter().position(|open| open.path == *path)?;
        Some(self.open.remove(index))
    }
}

/// Makes the rows of one event.
struct Rows<'e> {
    known: &'e Known,
    event: &'e RunEvent,
    place: Place,
}

impl Rows<'_> {
    fn run(&self) -> RunRow {
        let Known { accepted, .. } = self.known;
        let finished: Option<&RunFinished> = match &self.event.fact {
            Fact::RunFinished(finished) => Some(finished),
            _ => None,
        };
        let error = finished.and_then(|finished| finished.error.as_ref());
        RunRow {
            run: self.event.run.0,
            workflow: Arc::clone(&accepted.workflow),
            workflow_version: accepted.version,
            workflow_digest: accepted.plan.to_string().into(),
            status: Word::Borrowed(self.known.status.as_str()),
            seq: self.event.seq,
            input: Arc::clone(&self.known.input),
            output: finished.map_or_else(json::null, |finished| Arc::clone(&finished.output)),
            error_class: Word::Borrowed(error.map_or("", |error| error.class.as_str())),
            error_code: error.map_or_else(empty, |error| Arc::clone(&error.code)),
            error_message: error.map_or_else(empty, |error| Arc::clone(&error.message)),
            error_step: error
                .and_then(|error| error.step.as_ref())
                .map_or_else(empty, |step| Arc::clone(&step.0)),
            error_attempt: error.and_then(|error| error.attempt).unwrap_or(0),
            idempotency_key: accepted.idempotency_key.clone().unwrap_or_else(empty),
            metadata: accepted.metadata.clone(),
            trigger: accepted.trigger.clone().unwrap_or_else(empty),
            created_at: self.known.created_at,
            started_at: self.known.started_at,
            finished_at: finished.map(|_| self.event.at),
            deadline: self.known.deadline,
            partition: self.place.partition,
            version: self.place.position,
        }
    }

    /// An attempt of which only the step and the number are known.
    fn attempt(&self, step: &StepPath, attempt: u32, status: &'static str) -> AttemptRow {
        AttemptRow {
            run: self.event.run.0,
            step: Arc::clone(&step.0),
            attempt,
            workflow: Arc::clone(&self.known.accepted.workflow),
            status: Word::Borrowed(status),
            output: json::null(),
            error_class: Word::Borrowed(""),
            error_code: empty(),
            error_message: empty(),
            error_details: empty(),
            retry_after_ms: None,
            reason: empty(),
            due_at: None,
            started_at: None,
            finished_at: None,
            interruptions: 0,
            input_digest: String::new(),
            cpu_us: 0,
            wall_us: 0,
            queued_us: 0,
            memory_peak_bytes: 0,
            logs_dropped_bytes: 0,
            run_created_at: self.known.created_at,
            partition: self.place.partition,
            version: self.place.position,
        }
    }

    fn open(&self, open: &Open) -> AttemptRow {
        let status = if open.due.is_some() { "scheduled" } else { "running" };
        AttemptRow {
            due_at: open.due.as_ref().map(|(due, _)| *due),
            reason: open.due.as_ref().map_or_else(empty, |(_, reason)| Arc::clone(reason)),
            started_at: open.started_at,
            interruptions: open.interruptions,
            ..self.attempt(&open.path, open.attempt, status)
        }
    }

    fn cancelled(&self, open: &Open) -> AttemptRow {
        let finished_at = Some(self.event.at);
        AttemptRow { status: Word::Borrowed("cancelled"), finished_at, ..self.open(open) }
    }

    /// A circuit breaker did not let it through.
    fn parked(&self, open: &Open, parked: &AttemptParked) -> AttemptRow {
        AttemptRow {
            status: Word::Borrowed("parked"),
            reason: Arc::clone(&parked.breaker),
            due_at: Some(parked.due),
            finished_at: Some(self.event.at),
            ..self.open(open)
        }
    }

    /// In place of the attempt that found its condition false, if there was one.
    fn skipped(&self, step: &StepPath, reason: &SkipReason, closed: &[Open]) -> AttemptRow {
        let reason = match reason {
            SkipReason::ConditionFalse => "condition_false".into(),
            SkipReason::UpstreamSkipped(path) => format!("upstream_skipped {path}").into(),
            SkipReason::UpstreamFailed(path) => format!("upstream_failed {path}").into(),
            SkipReason::NothingFailed => "nothing_failed".into(),
        };
        let open = closed.first();
        AttemptRow {
            reason,
            started_at: open.and_then(|open| open.started_at),
            finished_at: Some(self.event.at),
            ..self.attempt(step, open.map_or(0, |open| open.attempt), "skipped")
        }
    }

    fn finished(&self, finished: &AttemptFinished, closed: &[Open]) -> AttemptRow {
        let usage = finished.usage;
        let base = AttemptRow {
            started_at: Some(finished.started_at),
            finished_at: Some(self.event.at),
            interruptions: closed.first().map_or(0, |open| open.interruptions),
            input_digest: finished.input_digest.map(|digest| digest.to_string()).unwrap_or_default(),
            cpu_us: usage.cpu_us,
            wall_us: usage.wall_us,
            queued_us: usage.queued_us,
            memory_peak_bytes: usage.memory_peak_bytes,
            logs_dropped_bytes: finished.logs_dropped_bytes,
            ..self.attempt(&finished.path, finished.attempt, "completed")
        };
        match &finished.result {
            AttemptResult::Output(output) => AttemptRow { output: Arc::clone(output), ..base },
            AttemptResult::Error(failure) => AttemptRow {
                status: Word::Borrowed("failed"),
                error_class: Word::Borrowed(failure.class.as_str()),
                error_code: Arc::clone(&failure.code),
                error_message: Arc::clone(&failure.message),
                error_details: failure.details.clone().unwrap_or_else(empty),
                retry_after_ms: failure.retry_after_ms,
                ..base
            },
        }
    }

    /// The same attempt, once its failure no longer counts.
    fn continued(&self, (failed, interruptions): &Failed, output: &Json) -> AttemptRow {
        AttemptRow {
            status: Word::Borrowed("continued"),
            output: Arc::clone(output),
            interruptions: *interruptions,
            ..self.finished(failed, &[])
        }
    }

    fn logs(&self, step: &StepPath, attempt: u32, lines: &[LogLine], batch: &mut RowBatch) {
        batch.logs.extend((0..).zip(lines).map(|(line, logged)| LogRow {
            run: self.event.run.0,
            seq: self.event.seq,
            line,
            workflow: Arc::clone(&self.known.accepted.workflow),
            step: Arc::clone(&step.0),
            attempt,
            at: logged.at,
            level: logged.level,
            message: Arc::clone(&logged.message),
            fields: logged.fields.clone(),
            run_created_at: self.known.created_at,
            partition: self.place.partition,
            version: self.place.position,
        }));
    }

    fn event(&self) -> EventRow {
        // It fails only for a payload that is no JSON, which the core never journals; a row says so all the same.
        let text = serde_json::to_string(self.event)
            .unwrap_or_else(|error| serde_json::json!({ "unreadable": error.to_string() }).to_string());
        EventRow {
            run: self.event.run.0,
            seq: self.event.seq,
            kind: Word::Borrowed(kind(&self.event.fact)),
            workflow: Arc::clone(&self.known.accepted.workflow),
            at: self.event.at,
            event: text.into(),
            run_created_at: self.known.created_at,
            partition: self.place.partition,
            version: self.place.position,
        }
    }
}

fn empty() -> Json {
    static EMPTY: std::sync::OnceLock<Json> = std::sync::OnceLock::new();
    Arc::clone(EMPTY.get_or_init(|| Arc::from("")))
}

/// The fact's `type` in JSON.
fn kind(fact: &Fact) -> &'static str {
    match fact {
        Fact::RunAccepted(_) => "run_accepted",
        Fact::AttemptStarted(_) => "attempt_started",
        Fact::AttemptInterrupted(_) => "attempt_interrupted",
        Fact::AttemptFinished(_) => "attempt_finished",
        Fact::AttemptReported(_) => "attempt_reported",
        Fact::RetryScheduled(_) => "retry_scheduled",
        Fact::StepSkipped(_) => "step_skipped",
        Fact::RunPaused(_) => "run_paused",
        Fact::RunResumed(_) => "run_resumed",
        Fact::RunFinished(_) => "run_finished",
        Fact::RunRetried(_) => "run_retried",
        Fact::StepContinued(_) => "step_continued",
        Fact::HandlingStarted(_) => "handling_started",
        Fact::HandlingEnded(_) => "handling_ended",
        Fact::AttemptParked(_) => "attempt_parked",
        Fact::LimitAsked(_) => "limit_asked",
        Fact::RunAdmitted(_) => "run_admitted",
        Fact::LimitLeft(_) => "limit_left",
    }
}
