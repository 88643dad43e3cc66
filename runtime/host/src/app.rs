//! The host as the API sees it: finds the owner, asks it, and falls back to ClickHouse for runs that have left memory.
//! It decides nothing about runs.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderValue;
use rand::Rng;
use reipaz_core::{
    ids::RunId,
    partition::{Refusal, Reply, RunStatus, Submit},
};
use reipaz_engine::{BreakerId, Engine};
use reipaz_journal::{Full, Intake, SendError, Tasks};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    alerts::Alerts,
    breakers,
    catalog::{Catalog, Install},
    clock,
    facade::{
        AlertsTest, AlertsView, BreakerHand, BreakersView, Change, EventView, Facade, FacadeError,
        InstallPlugin, InstalledPlugin, LimitsView, LogQuery, LogView, PluginView, PublishedWorkflow,
        RETRY_AFTER, Readiness, RunPage, RunQuery, RunSummary, RunView, Standing, SubmitRequest, Submitted,
        ValidatedWorkflow, VersionView, WaitUntil, WorkflowView,
    },
    history::History,
    owner::{self, Command, OwnerStatus},
    peers::{self, Passed, Peers},
    submission::Submission,
    tasks,
};

/// How soon a submission that waits for its owner learns that the disk is full.
const LOOK_FOR_SPACE_EVERY: Duration = Duration::from_millis(250);

/// No more limits are listed.
const LIMITS_SHOWN: usize = 1_000;

/// An owner that has not answered by then is reported as not ready; it answers in milliseconds unless its disk hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// See the module.
pub(crate) struct App {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) engine: Engine,
    pub(crate) intake: Arc<dyn Intake<Command>>,
    pub(crate) partitions: u32,
    pub(crate) owners: Vec<Arc<OwnerStatus>>,
    pub(crate) history: History,
    pub(crate) alerts: Arc<Alerts>,
    pub(crate) breaker_changes: Arc<breakers::Changes>,
    /// Where this host is reached, for those who are told of it.
    pub(crate) url: String,
    pub(crate) draining: CancellationToken,
    pub(crate) payload_bytes: usize,
    /// Where partitions are shared with other hosts.
    pub(crate) scale: Option<Scale>,
}

/// The way to partitions that are not this host's own.
pub(crate) struct Scale {
    pub(crate) tasks: Arc<dyn Tasks>,
    pub(crate) peers: Arc<Peers>,
}

/// How long an unknown run is waited for, while tasks that were written before are taken up.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(10);

/// How long a run is waited for beside what the caller asked, when it is on its way to another host.
const FOUND_WITHIN: Duration = Duration::from_secs(10);

/// How often an id is drawn that would be at home here. A host with one partition of 64 almost always finds one.
const DRAWS: usize = 256;

impl App {
    async fn ask<T>(
        &self,
        partition: u32,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, FacadeError> {
        let answer = self.send(partition, command)?;
        match tokio::time::timeout(ANSWER_WITHIN, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(self.gone(partition)),
            Err(_) => Err(slow()),
        }
    }

    fn send<T>(
        &self,
        partition: u32,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<oneshot::Receiver<T>, FacadeError> {
        let (sender, receiver) = oneshot::channel();
        self.intake.try_send(partition, command(sender)).map_err(|full| match full {
            Full::Busy(_) => FacadeError::Overloaded {
                why: "the partition's queue of commands is full".to_owned(),
                retry_after: RETRY_AFTER,
            },
            Full::Closed(_) => self.gone(partition),
        })?;
        Ok(receiver)
    }

    /// There is no owner here (any more).
    fn gone(&self, partition: u32) -> FacadeError {
        match &self.scale {
            Some(_) => FacadeError::Moved(partition),
            None => FacadeError::stopping(),
        }
    }

    /// Until the partition's owner cannot write.
    async fn out_of_space(&self, partition: u32) {
        while !self.owners[partition as usize].no_space.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK_FOR_SPACE_EVERY).await;
        }
    }

    fn home(&self, run: RunId) -> u32 {
        run.partition(self.partitions)
    }

    async fn in_memory(&self, run: RunId) -> Result<Option<RunView>, FacadeError> {
        let partition = self.home(run);
        let found = self.ask(partition, |answer| Command::Read { run, answer }).await?;
        if found.is_some() || !self.catch_up(partition).await? {
            return Ok(found);
        }
        self.ask(partition, |answer| Command::Read { run, answer }).await
    }

    /// Waits until tasks that were written before now have been taken up: a run that was accepted is then known. False:
    /// nothing was written that the owner has not taken up yet.
    async fn catch_up(&self, partition: u32) -> Result<bool, FacadeError> {
        let Some(scale) = &self.scale else { return Ok(false) };
        let end = scale.tasks.end(partition).await.map_err(not_written)?;
        let caught_up = self.send(partition, |answer| Command::CaughtUp { tasks: end, answer })?;
        match tokio::time::timeout(CAUGHT_UP_WITHIN, caught_up).await {
            Ok(Ok(())) => Ok(true),
            Ok(Err(_)) => Err(self.gone(partition)),
            Err(_) => Err(FacadeError::NotReady {
                why: "it has tasks to take up first, which may have started this run".to_owned(),
                retry_after: RETRY_AFTER,
            }),
        }
    }

    /// An id for a run that may start anywhere: in a partition of this host, so that nothing needs to be passed on; in any if
    /// it has none.
    fn draw_run_id(&self) -> RunId {
        let is_ours = |run: &RunId| self.owners[self.home(*run) as usize].owned.load(Ordering::Relaxed);
        let drawn = (0..DRAWS).map(|_| new_run_id()).find(is_ours);
        drawn.unwrap_or_else(new_run_id)
    }

    fn submission(&self, request: SubmitRequest) -> Submission {
        Submission {
            workflow: request.workflow,
            version: request.version,
            input: request.input,
            idempotency_key: request.idempotency_key,
            run: request.run_id.unwrap_or_else(|| self.draw_run_id()),
            metadata: request.metadata,
            trigger: None,
        }
    }

    /// Checks a submission. A workflow that was published on another host a moment ago may still be on its way here.
    async fn prepare(&self, submission: &Submission) -> Result<Box<Submit>, FacadeError> {
        let prepare = || submission.prepare(&self.catalog, self.payload_bytes);
        match prepare() {
            Err(FacadeError::UnknownWorkflow { .. } | FacadeError::UnknownVersion { .. })
                if self.scale.is_some() =>
            {
                self.catalog.sync().await.map_err(|error| FacadeError::NotReady {
                    why: error.to_string(),
                    retry_after: RETRY_AFTER,
                })?;
                prepare()
            }
            prepared => prepared,
        }
    }

    /// Writes a submission for whoever owns its partition, and follows it there if the caller waits. It is accepted once it
    /// is written, whether anybody owns the partition or not.
    async fn submit_elsewhere(
        &self,
        scale: &Scale,
        submission: &Submission,
        version: u32,
        wait: Duration,
    ) -> Result<Submitted, FacadeError> {
        let run = submission.run();
        scale.tasks.send(self.home(run), tasks::write(submission, version)).await.map_err(not_written)?;
        let accepted = Submitted { run: pending(submission, version), existing: false };
        if wait.is_zero() {
            return Ok(accepted);
        }
        let mut question = Passed::get(format!("/v1/runs/{run}"));
        let prefer = format!("wait={}", wait.as_secs().max(1));
        question.headers.insert("prefer", HeaderValue::try_from(prefer).map_err(internal)?);
        let deadline = tokio::time::Instant::now() + wait + FOUND_WITHIN;
        let found = match scale.peers.pass_on(self.home(run), &question, deadline).await {
            Ok(Some(answer)) => peers::read(answer).await,
            // The partition has come here meanwhile.
            Ok(None) => {
                let _ended_or_not = self.wait(run, WaitUntil::Terminal, wait).await;
                self.run(run).await.ok()
            }
            Err(_) => None,
        };
        Ok(found.map_or(accepted, |run| Submitted { run, existing: false }))
    }

    async fn submitted(&self, answer: owner::Submitted) -> Result<Submitted, FacadeError> {
        match answer {
            owner::Submitted::Accepted { existing, run } => Ok(Submitted { run: *run, existing }),
            owner::Submitted::Elsewhere(run) => {
                Ok(Submitted { run: self.history.run(run).await?, existing: true })
            }
            owner::Submitted::Refused(refusal) => Err(refused(refusal)),
            owner::Submitted::NoSpace => Err(FacadeError::StorageFull),
        }
    }
}

#[async_trait]
impl Facade for App {
    async fn publish(&self, text: &str) -> Result<PublishedWorkflow, FacadeError> {
        self.catalog.publish(text).await
    }

    async fn validate(&self, text: &str, explain: bool) -> Result<ValidatedWorkflow, FacadeError> {
        self.catalog.validate(text, explain)
    }

    async fn workflows(&self) -> Result<Vec<WorkflowView>, FacadeError> {
        Ok(self.catalog.workflows())
    }

    async fn workflow(&self, name: &str) -> Result<WorkflowView, FacadeError> {
        self.catalog.workflow(name)
    }

    async fn workflow_version(&self, name: &str, version: u32) -> Result<VersionView, FacadeError> {
        Ok(self.catalog.version(name, Some(version))?.view())
    }

    async fn submit(&self, request: SubmitRequest) -> Result<Submitted, FacadeError> {
        if self.draining.is_cancelled() {
            return Err(FacadeError::stopping());
        }
        let wait = request.wait;
        let submission = self.submission(request);
        let submit = self.prepare(&submission).await?;
        let (run, version) = (submit.run, submit.version);
        let partition = self.home(run);
        let until_terminal = !wait.is_zero();
        let sent = self.send(partition, |answer| Command::Submit { submit, until_terminal, answer });
        let mut answer = match (sent, &self.scale) {
            (Err(FacadeError::Moved(_)), Some(scale)) => {
                return self.submit_elsewhere(scale, &submission, version, wait).await;
            }
            (sent, _) => sent?,
        };
        let patience = if until_terminal { wait } else { ANSWER_WITHIN };
        let answered = tokio::select! {
            biased;
            answered = &mut answer => Some(answered),
            () = tokio::time::sleep(patience) => None,
            () = self.draining.cancelled(), if until_terminal => None,
            // Whether this very submission still becomes durable is open: a repetition under its key finds out.
            () = self.out_of_space(partition) => return Err(FacadeError::StorageFull),
        };
        let elsewhere = self.scale.as_ref().filter(|_| !self.draining.is_cancelled());
        match (answered, elsewhere) {
            (Some(Ok(answered)), _) => self.submitted(answered).await,
            // The partition has gone while it was asked. If the run was durable by then, the task stands for that very run.
            (Some(Err(_)), Some(scale)) => self.submit_elsewhere(scale, &submission, version, wait).await,
            // An owner that drains lets its waiters go; the run may be durable all the same.
            (Some(Err(_)), None) | (None, _) if until_terminal => match self.in_memory(run).await? {
                Some(run) => Ok(Submitted { run, existing: false }),
                None => Ok(Submitted { run: self.history.run(run).await?, existing: true }),
            },
            (Some(Err(_)), None) => Err(self.gone(partition)),
            (None, _) => Err(slow()),
        }
    }

    async fn run(&self, id: RunId) -> Result<RunView, FacadeError> {
        match self.in_memory(id).await? {
            Some(run) => Ok(run),
            None => self.history.run(id).await,
        }
    }

    async fn wait(&self, id: RunId, until: WaitUntil, wait: Duration) -> Result<Standing, FacadeError> {
        let partition = self.home(id);
        let deadline = tokio::time::Instant::now() + wait;
        let mut caught_up = false;
        loop {
            let mut answer = self.send(partition, |answer| Command::Wait { run: id, until, answer })?;
            let answered = tokio::select! {
                biased;
                answered = &mut answer => Some(answered),
                () = tokio::time::sleep_until(deadline) => None,
                () = self.draining.cancelled() => None,
            };
            return match answered {
                Some(Ok(Some(standing))) => Ok(standing),
                Some(Ok(None))
                    if !std::mem::replace(&mut caught_up, true) && self.catch_up(partition).await? =>
                {
                    continue;
                }
                Some(Ok(None)) => Ok(standing(&self.history.run(id).await?)),
                Some(Err(_)) if self.scale.is_some() => Err(self.gone(partition)),
                Some(Err(_)) | None => Ok(standing(&self.run(id).await?)),
            };
        }
    }

    async fn events(&self, id: RunId, after: u32, limit: usize) -> Result<Vec<EventView>, FacadeError> {
        let partition = self.home(id);
        let mut found =
            self.ask(partition, |answer| Command::Events { run: id, after, limit, answer }).await?;
        if found.is_none() && self.catch_up(partition).await? {
            found = self.ask(partition, |answer| Command::Events { run: id, after, limit, answer }).await?;
        }
        match found {
            Some(events) => Ok(events),
            None => self.history.events(id, after, limit).await,
        }
    }

    async fn logs(&self, id: RunId, query: LogQuery) -> Result<Vec<LogView>, FacadeError> {
        let asked = query.clone();
        match self.ask(self.home(id), |answer| Command::Logs { run: id, query: asked, answer }).await? {
            Some(logs) => Ok(logs),
            None => self.history.logs(id, &query).await,
        }
    }

    async fn list_runs(&self, query: RunQuery) -> Result<RunPage, FacadeError> {
        let query = Arc::new(query);
        let mut pages = Vec::with_capacity(self.partitions as usize + 1);
        for partition in 0..self.partitions {
            let query = Arc::clone(&query);
            match self.ask(partition, |answer| Command::List { query, answer }).await {
                Ok(page) => pages.push(page),
                Err(FacadeError::Moved(_)) => {}
                Err(error) => return Err(error),
            }
        }
        if !query.only_here {
            if let Some(scale) = &self.scale {
                pages.extend(list_elsewhere(scale, &query).await);
            }
            pages.push(self.history.list(&query).await);
        }
        Ok(merge(pages, query.limit))
    }

    async fn change(&self, id: RunId, change: Change) -> Result<RunView, FacadeError> {
        let is_retry = matches!(change, Change::Retry(_));
        let reply = self.ask(self.home(id), |answer| Command::Change { run: id, change, answer }).await?;
        match reply {
            Reply::Refused(Refusal::UnknownRun(_)) => match self.history.run(id).await?.status {
                RunStatus::Failed | RunStatus::Cancelled if is_retry => Err(FacadeError::Forgotten(id)),
                status => Err(FacadeError::WrongStatus { run: id, status }),
            },
            Reply::Refused(Refusal::WrongStatus(status)) => Err(FacadeError::WrongStatus { run: id, status }),
            Reply::Refused(refusal) => Err(refused(refusal)),
            Reply::None | Reply::Done | Reply::Accepted { .. } => self.run(id).await,
        }
    }

    async fn install_plugin(&self, request: InstallPlugin) -> Result<InstalledPlugin, FacadeError> {
        let InstallPlugin { wasm, grants, replace } = request;
        let install = Install { wasm, grants, standard: false, replace };
        self.catalog.install(&self.engine, install).await
    }

    async fn plugins(&self) -> Result<Vec<PluginView>, FacadeError> {
        Ok(self.catalog.plugins(&self.engine))
    }

    async fn plugin(&self, name: &str, version: Option<&str>) -> Result<PluginView, FacadeError> {
        self.catalog.plugin(&self.engine, name, version)
    }

    async fn sql(&self, query: &str, format: &str) -> Result<Bytes, FacadeError> {
        self.history.sql(query, format).await
    }

    fn alerts(&self) -> AlertsView {
        self.alerts.view()
    }

    async fn test_alerts(&self) -> AlertsTest {
        self.alerts.test(&self.url).await
    }

    fn breakers(&self) -> BreakersView {
        breakers::view(self.engine.breakers())
    }

    fn change_breaker(&self, id: &BreakerId, hand: BreakerHand) -> BreakersView {
        breakers::by_hand(self.engine.breakers(), id, hand);
        self.breakers()
    }

    async fn limits(&self) -> Result<LimitsView, FacadeError> {
        let mut all = LimitsView::default();
        for partition in 0..self.partitions {
            match self.ask(partition, |answer| Command::Limits { most: LIMITS_SHOWN, answer }).await {
                Ok(view) => {
                    all.limits.extend(view.limits);
                    all.total += view.total;
                }
                Err(FacadeError::Moved(_)) => {}
                Err(error) => return Err(error),
            }
        }
        all.limits.sort_by_key(|limit| std::cmp::Reverse((limit.queued, limit.held)));
        all.limits.truncate(LIMITS_SHOWN);
        Ok(all)
    }

    fn readiness(&self) -> Readiness {
        let full = self.owners.iter().any(|owner| owner.no_space.load(Ordering::Relaxed));
        let draining = self.draining.is_cancelled();
        let journal = if full { "the disk is full" } else { "ready" };
        let intake = if draining { "stopping" } else { "ready" };
        Readiness {
            ready: !full && !draining,
            parts: [
                ("journal".to_owned(), journal.to_owned()),
                ("intake".to_owned(), intake.to_owned()),
                ("clickhouse".to_owned(), self.history.status()),
            ]
            .into(),
        }
    }

    fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }
}

/// Ordered by time, so that ClickHouse finds neighbours together.
fn new_run_id() -> RunId {
    let mut drawn = [0; 10];
    rand::rng().fill_bytes(&mut drawn);
    RunId(uuid::Builder::from_unix_timestamp_millis(clock::wall().as_millis(), &drawn).into_uuid())
}

/// What other hosts have in memory.
async fn list_elsewhere(scale: &Scale, query: &RunQuery) -> Vec<RunPage> {
    #[derive(serde::Deserialize)]
    struct Page {
        runs: Vec<RunSummary>,
        next: Option<String>,
        partial: bool,
    }
    let question = Passed::get(format!("/v1/runs?{}", query.text));
    let mut pages = Vec::new();
    for url in scale.peers.others() {
        let asked = tokio::time::timeout(ANSWER_WITHIN, scale.peers.ask::<Page>(&url, &question));
        pages.push(match asked.await.ok().flatten() {
            Some(page) => RunPage { more: page.next.is_some(), runs: page.runs, partial: page.partial },
            None => RunPage { partial: true, ..RunPage::default() },
        });
    }
    pages
}

/// A run that was accepted and that nobody has decided about yet.
fn pending(submission: &Submission, version: u32) -> RunView {
    RunView {
        id: submission.run(),
        workflow: submission.workflow.as_str().into(),
        version,
        status: RunStatus::Pending,
        seq: 0,
        input: Arc::clone(&submission.input),
        output: None,
        error: None,
        steps: std::collections::BTreeMap::new(),
        idempotency_key: submission.idempotency_key.clone(),
        metadata: submission.metadata.iter().cloned().collect(),
        created_at: clock::wall(),
        started_at: None,
        finished_at: None,
    }
}

fn not_written(error: SendError) -> FacadeError {
    match error {
        SendError::Busy => FacadeError::Overloaded { why: error.to_string(), retry_after: RETRY_AFTER },
        SendError::TooLarge { bytes, limit } => FacadeError::TooLarge {
            what: "the submission",
            actual_bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
            limit_bytes: usize::try_from(limit).unwrap_or(usize::MAX),
        },
        SendError::Unavailable(_) => {
            FacadeError::NotReady { why: error.to_string(), retry_after: RETRY_AFTER }
        }
        SendError::NoSuchPartition(_) => internal(error),
    }
}

fn internal(error: impl std::fmt::Display) -> FacadeError {
    FacadeError::Internal(error.to_string())
}

fn standing(run: &RunView) -> Standing {
    Standing { seq: run.seq, status: run.status }
}

/// One page out of several, newest first; of two rows of one run the first page's wins (memory before ClickHouse).
fn merge(pages: Vec<RunPage>, limit: usize) -> RunPage {
    let mut seen = std::collections::HashSet::new();
    let mut merged = RunPage::default();
    for page in pages {
        merged.more |= page.more;
        merged.partial |= page.partial;
        merged.runs.extend(page.runs.into_iter().filter(|run| seen.insert(run.id)));
    }
    merged.runs.sort_by_key(|run| std::cmp::Reverse((run.created_at, run.id)));
    merged.more |= merged.runs.len() > limit;
    merged.runs.truncate(limit);
    merged
}

fn refused(refusal: Refusal) -> FacadeError {
    match refusal {
        Refusal::KeyReused(run) => FacadeError::KeyReused(run),
        Refusal::RunExists(run) => FacadeError::RunExists(run),
        Refusal::UnknownRun(run) => FacadeError::UnknownRun(run),
        Refusal::NeverStarted(run) => FacadeError::NeverStarted(run),
        Refusal::UnknownStep(step) => FacadeError::UnknownStep(step),
        Refusal::StepRunning(step) => FacadeError::StepRunning(step),
        Refusal::BadInput(mistakes) => FacadeError::Input(mistakes),
        Refusal::WrongStatus(status) => FacadeError::Internal(format!("a run is {status} and nobody asked")),
        Refusal::TooManyRuns { limit } => FacadeError::Overloaded {
            why: format!("its partition has its {limit} live runs"),
            retry_after: RETRY_AFTER,
        },
    }
}

fn slow() -> FacadeError {
    FacadeError::NotReady {
        why: format!("the run's owner has not answered within {} s", ANSWER_WITHIN.as_secs()),
        retry_after: RETRY_AFTER,
    }
}
