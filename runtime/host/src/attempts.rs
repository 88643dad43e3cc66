//! Executes attempts: evaluates a step's expressions, runs its plugin in the engine, and gives the outcome back to the
//! owner that asked. It decides nothing: what comes out is an input to the partition like any other.

use std::{
    collections::{BTreeMap, HashMap},
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use hmac::{Hmac, KeyInit, Mac};
use reipaz_core::{
    event::{AttemptResult, LogLevel, LogLine, Progress, Usage},
    expression::evaluate::{self, View},
    failure::{ErrorClass, Failure, STEP_TIMEOUT},
    ids::{AttemptId, Digest},
    json::Json,
    partition::{
        AttemptDone, AttemptOutcome, AttemptReport, EvaluateOutput, Input, OutputDone, Scope, StartAttempt,
    },
    plan::{Condition, StepPlan},
    time::{Timestamp, format_duration},
};
use reipaz_engine::{self as engine, Engine, Grants};
use sha2::Sha256;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{catalog::Catalog, owner::Executor, secrets::SecretStore};

/// The attempts of one owner.
#[derive(Clone)]
pub(crate) struct Attempts(Arc<Inner>);

struct Inner {
    engine: Engine,
    catalog: Arc<Catalog>,
    secrets: Arc<SecretStore>,
    outcomes: mpsc::Sender<Input>,
    /// Those without an outcome that the owner could have taken.
    running: Mutex<Running>,
    /// Told whenever one leaves `running`.
    ended: Notify,
    stopping: AtomicBool,
    payload_bytes: usize,
}

impl Attempts {
    /// Outcomes go to `outcomes`; it is read until the owner has closed its journal.
    pub(crate) fn new(
        engine: Engine,
        catalog: Arc<Catalog>,
        secrets: Arc<SecretStore>,
        outcomes: mpsc::Sender<Input>,
        payload_bytes: usize,
    ) -> Self {
        Self(Arc::new(Inner {
            engine,
            catalog,
            secrets,
            outcomes,
            running: Mutex::default(),
            ended: Notify::new(),
            stopping: AtomicBool::new(false),
            payload_bytes,
        }))
    }

    async fn output(&self, ask: &EvaluateOutput) -> Result<Json, Failure> {
        let Some(template) = &ask.plan.output else { return Ok(reipaz_core::json::null()) };
        let seed = derive_seed(&ask.run_seed, "output", 0);
        // A run that waits for its output can only be cancelled as a whole; the expression's own limits end it soon.
        let cancel = CancellationToken::new();
        match self.render(&Condition::Succeeded, template, &ask.scope, &[], seed, None, cancel).await? {
            Rendered::Value(json) => self.bounded(json, "output"),
            // `Succeeded` has no expression that could be false.
            Rendered::ConditionFalse => Ok(reipaz_core::json::null()),
        }
    }

    async fn execute(&self, start: StartAttempt, cancel: &CancellationToken) -> AttemptDone {
        let step = Arc::clone(&start.plan.steps[start.step]);
        let times = Times::from_now(&step, start.left);
        let mut done = self.execute_in(&times, start, Arc::clone(&step), cancel).await;
        if let AttemptOutcome::Result(AttemptResult::Error(failure)) = &mut done.outcome {
            times.name(failure, &step);
        }
        done
    }

    async fn execute_in(
        &self,
        times: &Times,
        start: StartAttempt,
        step: Arc<StepPlan>,
        cancel: &CancellationToken,
    ) -> AttemptDone {
        let seed = derive_seed(&start.run_seed, start.id.path.as_str(), start.id.attempt);
        let rendered = self
            .render(
                &step.condition,
                &step.with,
                &start.scope,
                &step.secrets,
                seed,
                times.to_start(),
                cancel.clone(),
            )
            .await
            .and_then(|rendered| match rendered {
                Rendered::Value(json) => self.bounded(json, "input").map(Rendered::Value),
                Rendered::ConditionFalse => Ok(Rendered::ConditionFalse),
            });
        let input = match rendered {
            Ok(Rendered::Value(json)) => json,
            Ok(Rendered::ConditionFalse) => return done(start.id, AttemptOutcome::ConditionFalse, None),
            Err(failure) => {
                return done(start.id, AttemptOutcome::Result(AttemptResult::Error(failure)), None);
            }
        };
        let input_digest = Digest::of(input.as_bytes());
        if let Err(failure) = self.loaded(&step.plugin.digest, times.to_start()).await {
            return done(start.id, AttemptOutcome::Result(AttemptResult::Error(failure)), Some(input_digest));
        }
        let attempt = engine::Attempt {
            digest: step.plugin.digest.0,
            plugin: Some(format!("{}@{}", step.plugin.name, step.plugin.version).into()),
            context: engine::Context {
                run: start.id.run.to_string(),
                workflow: start.plan.name.to_string(),
                step: start.id.path.to_string(),
                attempt: start.id.attempt,
                idempotency_key: start.id.idempotency_key(),
                metadata: start
                    .metadata
                    .iter()
                    .map(|(name, value)| (name.to_string(), value.to_string()))
                    .collect(),
            },
            input,
            grants: self.grants(&step),
            secrets: self.0.secrets.for_names(&step.secrets),
            seed,
            clock_start_us: start.started_at.0,
            timeout: start.timeout,
            start_by: times.start_by,
            end_by: times.end_by,
            heartbeat_timeout: step.heartbeat_timeout,
            cancel: cancel.clone(),
            reports: Some(Arc::new(ToOwner { id: start.id.clone(), outcomes: self.0.outcomes.clone() })),
        };
        let outcome = self.0.engine.run(attempt).await;
        AttemptDone {
            id: start.id,
            outcome: match (outcome.parked, outcome.result) {
                (Some(engine::Parked { breaker, recheck }), _) => {
                    AttemptOutcome::Parked { breaker: breaker.to_string().into(), recheck }
                }
                (None, Ok(output)) => AttemptOutcome::Result(AttemptResult::Output(output.into())),
                (None, Err(failure)) => AttemptOutcome::Result(AttemptResult::Error(to_failure(failure))),
            },
            input_digest: Some(input_digest),
            usage: Usage {
                cpu_us: outcome.usage.cpu_us,
                wall_us: outcome.usage.wall_us,
                memory_peak_bytes: outcome.usage.memory_peak_bytes,
                queued_us: outcome.usage.queued_us,
            },
            logs: outcome.logs.into_iter().map(to_log_line).collect(),
            logs_dropped_bytes: outcome.logs_dropped_bytes,
        }
    }

    /// Has the engine load the plugin, by that time. It goes on loading for the next attempt if that is over.
    async fn loaded(&self, plugin: &Digest, by: Option<Instant>) -> Result<(), Failure> {
        let engine = self.0.engine.clone();
        if engine.is_loaded(&plugin.0) {
            return Ok(());
        }
        let (catalog, plugin) = (Arc::clone(&self.0.catalog), *plugin);
        let loading = tokio::spawn(async move { catalog.ensure_loaded(&engine, &plugin).await });
        let loaded = match by {
            None => loading.await,
            Some(by) => match timeout_at(by, loading).await {
                Ok(loaded) => loaded,
                Err(_) => return Err(Failure::new(ErrorClass::Transient, engine::QUEUE_TIMEOUT, "")),
            },
        };
        loaded.unwrap_or_else(|_| Err(host_fault()))
    }

    /// At most one engine call: none when all expressions are plain paths.
    #[allow(clippy::too_many_arguments, reason = "a step's expressions, and what bounds their evaluation")]
    async fn render(
        &self,
        condition: &Condition,
        template: &reipaz_core::expression::Template,
        scope: &Scope,
        secrets: &[Arc<str>],
        seed: [u8; 32],
        start_by: Option<Instant>,
        cancel: CancellationToken,
    ) -> Result<Rendered, Failure> {
        let secrets: BTreeMap<Arc<str>, String> =
            secrets.iter().map(|name| (Arc::clone(name), SecretStore::placeholder(name))).collect();
        let view = View { scope, secrets: &secrets };
        if evaluate::holds(condition, view).transpose()? == Some(false) {
            return Ok(Rendered::ConditionFalse);
        }
        let mut filters = evaluate::prepare(condition, template);
        if filters.filters.is_empty() {
            return evaluate::render(template, view, &mut std::iter::empty()).map(Rendered::Value);
        }
        let condition = filters.has_condition.then(|| filters.filters.remove(0));
        let evaluated = self
            .0
            .engine
            .evaluate(engine::Evaluation {
                scope: evaluate::scope_json(scope, &secrets)?,
                condition,
                filters: filters.filters,
                seed,
                start_by,
                cancel,
            })
            .await
            .map_err(to_failure)?;
        if evaluated.condition == Some(false) {
            return Ok(Rendered::ConditionFalse);
        }
        evaluate::render(template, view, &mut evaluated.values.into_iter()).map(Rendered::Value)
    }

    fn grants(&self, step: &StepPlan) -> Arc<Grants> {
        self.0.catalog.grants(&step.plugin.digest, step.grants.as_ref())
    }

    fn bounded(&self, json: Json, what: &str) -> Result<Json, Failure> {
        let limit = self.0.payload_bytes;
        if json.len() <= limit {
            return Ok(json);
        }
        Err(Failure::new(
            ErrorClass::Resource,
            format!("{what}_too_large"),
            format!("the {what} has {} bytes, over the limit of {limit}", json.len()),
        ))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Running> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Executor for Attempts {
    fn is_silent(&self, start: &StartAttempt) -> bool {
        let step = &start.plan.steps[start.step];
        self.0.engine.is_silent(&step.plugin.digest.0, &self.grants(step))
    }

    fn start(&self, start: StartAttempt) {
        if self.0.stopping.load(Ordering::Acquire) {
            // The owner interrupts what has no outcome; the next host executes it.
            return;
        }
        let (number, cancel) = self.lock().begin(&start.id);
        let this = self.clone();
        self.0.engine.handle().spawn(async move {
            let id = start.id.clone();
            crash_here_if_asked(&start);
            // A fault of ours must not leave a run without an outcome.
            let executed = AssertUnwindSafe(this.execute(start, &cancel)).catch_unwind().await;
            let done = executed.unwrap_or_else(|_| {
                done(id.clone(), AttemptOutcome::Result(AttemptResult::Error(host_fault())), None)
            });
            if !cancel.is_cancelled() {
                drop(this.0.outcomes.send(Input::AttemptDone(Box::new(done))).await);
            }
            // Only now: an owner that drains takes who is not running and told nothing for interrupted.
            this.lock().end(&id, number);
            this.0.ended.notify_one();
        });
    }

    fn cancel(&self, id: &AttemptId) {
        self.lock().cancel(id);
    }

    fn cancel_all(&self) {
        self.lock().cancel_all();
    }

    fn stop_starting(&self) {
        self.0.stopping.store(true, Ordering::Release);
    }

    fn running(&self) -> usize {
        self.lock().by_id.len()
    }

    async fn one_ended(&self) {
        self.0.ended.notified().await;
    }

    fn evaluate_output(&self, ask: EvaluateOutput) -> Option<Input> {
        let plain = match &ask.plan.output {
            None => Some(Ok(reipaz_core::json::null())),
            Some(template) if evaluate::prepare_template(template).filters.is_empty() => {
                let view = View { scope: &ask.scope, secrets: &BTreeMap::new() };
                Some(evaluate::render(template, view, &mut std::iter::empty()))
            }
            Some(_) => None,
        };
        if let Some(result) = plain {
            return Some(output_done(&ask, result.and_then(|json| self.bounded(json, "output"))));
        }
        let this = self.clone();
        self.0.engine.handle().spawn(async move {
            let output = AssertUnwindSafe(this.output(&ask)).catch_unwind().await;
            let done = output_done(&ask, output.unwrap_or_else(|_| Err(host_fault())));
            drop(this.0.outcomes.send(done).await);
        });
        None
    }

    fn aside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        tokio::task::spawn_blocking(work)
    }
}

/// What is being executed. The same attempt may come twice: a run whose key has expired may be forgotten and its id
/// accepted again while an interrupted attempt of the first is still ending.
#[derive(Default)]
struct Running {
    /// How many executions have begun.
    begun: u64,
    /// With the number that tells executions apart.
    by_id: HashMap<AttemptId, (u64, CancellationToken)>,
}

impl Running {
    /// An execution begins, and ends one of the same attempt that still goes on: that one's outcome belongs to nobody.
    fn begin(&mut self, id: &AttemptId) -> (u64, CancellationToken) {
        self.begun += 1;
        let execution = (self.begun, CancellationToken::new());
        if let Some((_, before)) = self.by_id.insert(id.clone(), execution.clone()) {
            before.cancel();
        }
        execution
    }

    /// That execution has ended; a later one of the same attempt goes on.
    fn end(&mut self, id: &AttemptId, number: u64) {
        if self.by_id.get(id).is_some_and(|&(current, _)| current == number) {
            self.by_id.remove(id);
        }
    }

    fn cancel(&self, id: &AttemptId) {
        if let Some((_, cancel)) = self.by_id.get(id) {
            cancel.cancel();
        }
    }

    fn cancel_all(&self) {
        self.by_id.values().for_each(|(_, cancel)| cancel.cancel());
    }
}

/// Takes a running attempt's reports to its owner. They share the outcomes' queue, so that none comes after its outcome.
struct ToOwner {
    id: AttemptId,
    outcomes: mpsc::Sender<Input>,
}

impl engine::Reports for ToOwner {
    fn take(&self, report: engine::Report) -> Result<(), engine::Report> {
        let Ok(place) = self.outcomes.try_reserve() else { return Err(report) };
        place.send(Input::AttemptReport(AttemptReport {
            id: self.id.clone(),
            progress: report.progress.map(|progress| Progress {
                done: progress.done,
                total: progress.total,
                note: progress.note.into(),
            }),
            logs: report.logs.into_iter().map(to_log_line).collect(),
        }));
        Ok(())
    }
}

/// What a step's expressions came to.
enum Rendered {
    Value(Json),
    ConditionFalse,
}

fn output_done(ask: &EvaluateOutput, result: Result<Json, Failure>) -> Input {
    let result = match result {
        Ok(json) => AttemptResult::Output(json),
        Err(failure) => AttemptResult::Error(failure),
    };
    Input::OutputDone(OutputDone { run: ask.run, seq: ask.seq, result })
}

/// An attempt's times that do not wait for anything.
struct Times {
    start_by: Option<Instant>,
    end_by: Option<Instant>,
}

impl Times {
    fn from_now(step: &StepPlan, left: Option<Duration>) -> Self {
        let now = Instant::now();
        let after = |time: Option<Duration>| time.and_then(|time| now.checked_add(time));
        Self { start_by: after(step.queue_timeout), end_by: after(left) }
    }

    /// When whatever comes before the guest's start must be over.
    fn to_start(&self) -> Option<Instant> {
        [self.start_by, self.end_by].into_iter().flatten().min()
    }

    /// Has a failure by one of these times say so in the document's words.
    fn name(&self, failure: &mut Failure, step: &StepPlan) {
        let (queued, ran) = (engine::QUEUE_TIMEOUT, engine::ATTEMPT_TIMEOUT);
        let words = |limit: Option<Duration>| limit.map(format_duration).unwrap_or_default();
        if ![queued, ran].contains(&&*failure.code) {
        } else if self.end_by.is_some_and(|by| by <= Instant::now()) {
            let limit = words(step.total_timeout);
            let message = format!("the step's attempts did not end within their total_timeout of {limit}");
            *failure = Failure::new(ErrorClass::Timeout, STEP_TIMEOUT, message);
        } else if &*failure.code == queued {
            let limit = words(step.queue_timeout);
            failure.message =
                format!("the attempt could not start within its queue_timeout of {limit}").into();
        }
    }
}

fn host_fault() -> Failure {
    Failure::new(ErrorClass::Host, "host_fault", "the host failed while it executed this; its log says more")
}

fn done(id: AttemptId, outcome: AttemptOutcome, input_digest: Option<Digest>) -> AttemptDone {
    AttemptDone {
        id,
        outcome,
        input_digest,
        usage: Usage::default(),
        logs: Vec::new(),
        logs_dropped_bytes: 0,
    }
}

/// HMAC-SHA256(run's seed, path, attempt): what an attempt's randomness is drawn from.
fn derive_seed(run_seed: &[u8; 32], path: &str, attempt: u32) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(run_seed).expect("HMAC takes a key of any length");
    mac.update(path.as_bytes());
    mac.update(&[0]);
    mac.update(&attempt.to_be_bytes());
    mac.finalize().into_bytes().into()
}

fn to_failure(failure: engine::Failure) -> Failure {
    Failure {
        class: match failure.class {
            engine::Class::Permanent => ErrorClass::Permanent,
            engine::Class::Transient => ErrorClass::Transient,
            engine::Class::Network => ErrorClass::Network,
            engine::Class::Timeout => ErrorClass::Timeout,
            engine::Class::RateLimited => ErrorClass::RateLimited,
            engine::Class::Resource => ErrorClass::Resource,
            engine::Class::Trap => ErrorClass::Trap,
            engine::Class::Denied => ErrorClass::Denied,
            engine::Class::Cancelled => ErrorClass::Cancelled,
        },
        code: failure.code.into(),
        message: failure.message.into(),
        retry_after_ms: failure.retry_after_ms,
        details: failure.details.map(Into::into),
    }
}

fn to_log_line(line: engine::LogLine) -> LogLine {
    LogLine {
        at: Timestamp(line.at_us),
        level: match line.level {
            engine::Level::Trace => LogLevel::Trace,
            engine::Level::Debug => LogLevel::Debug,
            engine::Level::Info => LogLevel::Info,
            engine::Level::Warn => LogLevel::Warn,
            engine::Level::Error => LogLevel::Error,
        },
        message: line.message.into(),
        fields: line.fields.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
    }
}

/// `REIPAZ_FAULT=abort_on_step:NAME` makes a step kill its host, to test that such a step is given up.
#[cfg(feature = "fault_points")]
fn crash_here_if_asked(start: &StartAttempt) {
    let Ok(fault) = std::env::var("REIPAZ_FAULT") else { return };
    if fault.strip_prefix("abort_on_step:") == Some(&*start.plan.steps[start.step].name) {
        std::process::abort();
    }
}

#[cfg(not(feature = "fault_points"))]
fn crash_here_if_asked(_: &StartAttempt) {}

#[cfg(test)]
mod tests {
    use reipaz_core::ids::{RunId, StepPath};

    use super::*;

    #[test]
    fn a_start_of_what_is_being_executed_interrupts_the_old_execution_and_outlives_it() {
        let id = AttemptId { run: RunId(uuid::Uuid::nil()), path: StepPath::top("a"), attempt: 1 };
        let mut running = Running::default();
        let (first, first_cancel) = running.begin(&id);
        let (second, second_cancel) = running.begin(&id);
        assert!(first_cancel.is_cancelled() && !second_cancel.is_cancelled());

        running.end(&id, first);
        assert_eq!(running.by_id.len(), 1, "the new one is still being executed");
        running.cancel(&id);
        assert!(second_cancel.is_cancelled(), "and can still be interrupted");
        running.end(&id, second);
        assert!(running.by_id.is_empty());
    }
}
