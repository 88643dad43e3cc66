//! The host as the API sees it: finds the owner, asks it, and falls back to ClickHouse for runs that have left memory.
//! It decides nothing about runs.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use rand::Rng;
use reipaz_core::{
    ids::RunId,
    partition::{Refusal, Reply, Submit},
};
use reipaz_engine::Engine;
use reipaz_journal::{Full, Intake};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    catalog::{Catalog, Install},
    clock,
    facade::{
        Change, EventView, Facade, FacadeError, InstallPlugin, InstalledPlugin, LogQuery, LogView,
        PluginView, PublishedWorkflow, RETRY_AFTER, Readiness, RunPage, RunQuery, RunView, Standing,
        SubmitRequest, Submitted, ValidatedWorkflow, VersionView, WaitUntil, WorkflowView,
    },
    history::History,
    owner::{self, Command, OwnerStatus},
    submission::Submission,
};

/// How soon a submission that waits for its owner learns that the disk is full.
const LOOK_FOR_SPACE_EVERY: Duration = Duration::from_millis(250);

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
    pub(crate) draining: CancellationToken,
    pub(crate) payload_bytes: usize,
}

impl App {
    async fn ask<T>(
        &self,
        partition: u32,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, FacadeError> {
        let answer = self.send(partition, command)?;
        match tokio::time::timeout(ANSWER_WITHIN, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(FacadeError::stopping()),
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
            Full::Closed(_) => FacadeError::stopping(),
        })?;
        Ok(receiver)
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
        self.ask(self.home(run), |answer| Command::Read { run, answer }).await
    }

    fn prepare(&self, request: SubmitRequest) -> Result<Box<Submit>, FacadeError> {
        let submission = Submission {
            workflow: request.workflow,
            version: request.version,
            input: request.input,
            idempotency_key: request.idempotency_key,
            run: request.run_id.unwrap_or_else(new_run_id),
            metadata: request.metadata,
            trigger: None,
        };
        submission.prepare(&self.catalog, self.payload_bytes)
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

    async fn validate(&self, text: &str) -> Result<ValidatedWorkflow, FacadeError> {
        self.catalog.validate(text)
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
        let submit = self.prepare(request)?;
        let run = submit.run;
        let partition = self.home(run);
        let until_terminal = !wait.is_zero();
        let mut answer = self.send(partition, |answer| Command::Submit { submit, until_terminal, answer })?;
        let patience = if until_terminal { wait } else { ANSWER_WITHIN };
        let answered = tokio::select! {
            biased;
            answered = &mut answer => Some(answered),
            () = tokio::time::sleep(patience) => None,
            () = self.draining.cancelled(), if until_terminal => None,
            // Whether this very submission still becomes durable is open: a repetition under its key finds out.
            () = self.out_of_space(partition) => return Err(FacadeError::StorageFull),
        };
        match answered {
            Some(Ok(answered)) => self.submitted(answered).await,
            // An owner that drains lets its waiters go; the run may be durable all the same.
            Some(Err(_)) | None if until_terminal => match self.in_memory(run).await? {
                Some(run) => Ok(Submitted { run, existing: false }),
                None => Ok(Submitted { run: self.history.run(run).await?, existing: true }),
            },
            Some(Err(_)) => Err(FacadeError::stopping()),
            None => Err(slow()),
        }
    }

    async fn run(&self, id: RunId) -> Result<RunView, FacadeError> {
        match self.in_memory(id).await? {
            Some(run) => Ok(run),
            None => self.history.run(id).await,
        }
    }

    async fn wait(&self, id: RunId, until: WaitUntil, wait: Duration) -> Result<Standing, FacadeError> {
        let mut answer = self.send(self.home(id), |answer| Command::Wait { run: id, until, answer })?;
        let answered = tokio::select! {
            biased;
            answered = &mut answer => answered.ok(),
            () = tokio::time::sleep(wait) => None,
            () = self.draining.cancelled() => None,
        };
        match answered {
            Some(Some(standing)) => Ok(standing),
            Some(None) => Ok(standing(&self.history.run(id).await?)),
            None => Ok(standing(&self.run(id).await?)),
        }
    }

    async fn events(&self, id: RunId, after: u32, limit: usize) -> Result<Vec<EventView>, FacadeError> {
        match self.ask(self.home(id), |answer| Command::Events { run: id, after, limit, answer }).await? {
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
            pages.push(self.ask(partition, |answer| Command::List { query, answer }).await?);
        }
        pages.push(self.history.list(&query).await);
        Ok(merge(pages, query.limit))
    }

    async fn change(&self, id: RunId, change: Change) -> Result<RunView, FacadeError> {
        let reply = self.ask(self.home(id), |answer| Command::Change { run: id, change, answer }).await?;
        match reply {
            Reply::Refused(Refusal::UnknownRun(_)) => {
                let run = self.history.run(id).await?;
                Err(FacadeError::WrongStatus { run: id, status: run.status })
            }
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
        Refusal::UnknownStep(step) => FacadeError::UnknownStep(step),
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
