//! A host that is nothing but memory.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use reipaz_core::{
    ids::{Digest, RunId},
    json,
    partition::RunStatus,
    time::Timestamp,
};
use reipaz_engine::BreakerId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::facade::*;

/// The workflow that it knows.
pub(super) const WORKFLOW: &str = "orders";

#[derive(Default)]
pub(super) struct Double {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    draining: CancellationToken,
}

#[derive(Default)]
struct State {
    runs: BTreeMap<RunId, RunView>,
    events: BTreeMap<RunId, Vec<EventView>>,
    /// What the next call is refused with.
    refusal: Option<FacadeError>,
    submitted: Vec<SubmitRequest>,
    changes: Vec<(RunId, Change)>,
    installs: Vec<InstallPlugin>,
    panics: bool,
}

impl Double {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    /// The next call is refused.
    pub(super) fn refuse(&self, error: FacadeError) {
        self.state().refusal = Some(error);
    }

    /// The next look at a run panics.
    pub(super) fn panic(&self) {
        self.state().panics = true;
    }

    pub(super) fn drain(&self) {
        self.draining.cancel();
    }

    pub(super) fn submitted(&self) -> Vec<SubmitRequest> {
        self.state().submitted.clone()
    }

    pub(super) fn changes(&self) -> Vec<(RunId, Change)> {
        self.state().changes.clone()
    }

    pub(super) fn installs(&self) -> Vec<InstallPlugin> {
        self.state().installs.clone()
    }

    /// A run that is there; `number` tells it from others and orders them.
    pub(super) fn add_run(&self, number: u32) -> RunId {
        let run = view(number);
        let id = run.id;
        self.state().runs.insert(id, run);
        self.event(id, "run_accepted");
        id
    }

    /// Something happens to a run.
    pub(super) fn event(&self, id: RunId, kind: &str) {
        let mut state = self.state();
        let run = state.runs.get_mut(&id).expect("a run");
        run.seq += 1;
        match kind {
            "attempt_started" => run.status = RunStatus::Running,
            "run_finished" => {
                run.status = RunStatus::Completed;
                run.output = Some("7".into());
            }
            _ => {}
        }
        let json =
            format!(r#"{{"run":"{id}","seq":{},"at":"2026-01-01T00:00:00Z","type":"{kind}"}}"#, run.seq);
        let event = EventView { seq: run.seq, json: json.into() };
        state.events.entry(id).or_default().push(event);
        drop(state);
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// How many wait now.
    pub(super) fn waiters(&self) -> usize {
        self.changed.receiver_count()
    }

    fn take_refusal(&self) -> Result<(), FacadeError> {
        self.state().refusal.take().map_or(Ok(()), Err)
    }

    fn find(&self, id: RunId) -> Result<RunView, FacadeError> {
        self.state().runs.get(&id).cloned().ok_or(FacadeError::UnknownRun(id))
    }
}

fn view(number: u32) -> RunView {
    RunView {
        id: RunId(uuid::Uuid::from_u128(u128::from(number) + 1)),
        workflow: WORKFLOW.into(),
        version: 1,
        status: RunStatus::Pending,
        seq: 0,
        input: json::null(),
        output: None,
        error: None,
        steps: BTreeMap::new(),
        idempotency_key: None,
        metadata: BTreeMap::new(),
        created_at: Timestamp::from_millis(1_767_225_600_000 + u64::from(number)),
        started_at: None,
        finished_at: None,
    }
}

fn plugin(name: &str) -> PluginView {
    PluginView {
        name: name.to_owned(),
        version: "1.2.0".to_owned(),
        versions: vec!["1.2.0".to_owned()],
        digest: Digest::of(name.as_bytes()),
        summary: "a plugin".to_owned(),
        input_schema: None,
        output_schema: None,
        wants: Vec::new(),
        grants: BTreeMap::new(),
        silent: true,
        standard: false,
        size_bytes: 1,
        installed_at: Timestamp::from_millis(0),
    }
}

#[async_trait]
impl Facade for Double {
    async fn publish(&self, text: &str) -> Result<PublishedWorkflow, FacadeError> {
        self.take_refusal()?;
        let (name, digest) = (WORKFLOW.to_owned(), Digest::of(text.as_bytes()));
        Ok(PublishedWorkflow {
            name,
            version: 3,
            digest,
            created: !text.contains("old"),
            warnings: Vec::new(),
        })
    }

    async fn validate(&self, text: &str, _explain: bool) -> Result<ValidatedWorkflow, FacadeError> {
        self.take_refusal()?;
        Ok(ValidatedWorkflow {
            name: WORKFLOW.to_owned(),
            digest: Digest::of(text.as_bytes()),
            steps: Vec::new(),
            plugins: BTreeMap::new(),
            warnings: Vec::new(),
            schedules: None,
        })
    }

    async fn workflows(&self) -> Result<Vec<WorkflowView>, FacadeError> {
        Ok(["a", "b", "c"]
            .map(|name| WorkflowView {
                name: name.to_owned(),
                version: 1,
                versions: vec![1],
                digest: Digest::of(b""),
                input_schema: None,
                created_at: Timestamp::from_millis(0),
            })
            .into())
    }

    async fn workflow(&self, name: &str) -> Result<WorkflowView, FacadeError> {
        Err(FacadeError::UnknownWorkflow { name: name.to_owned(), near: vec![WORKFLOW.to_owned()] })
    }

    async fn workflow_version(&self, name: &str, version: u32) -> Result<VersionView, FacadeError> {
        Err(FacadeError::UnknownVersion { name: name.to_owned(), version, newest: 3 })
    }

    async fn submit(&self, request: SubmitRequest) -> Result<Submitted, FacadeError> {
        self.take_refusal()?;
        let (wait, existing) = (request.wait, request.idempotency_key.as_deref() == Some("known"));
        self.state().submitted.push(request);
        let id = self.add_run(900);
        if !wait.is_zero() {
            self.event(id, "run_finished");
        }
        Ok(Submitted { run: self.find(id)?, existing })
    }

    async fn run(&self, id: RunId) -> Result<RunView, FacadeError> {
        self.take_refusal()?;
        assert!(!std::mem::take(&mut self.state().panics), "as the test asked for");
        self.find(id)
    }

    async fn wait(&self, id: RunId, until: WaitUntil, wait: Duration) -> Result<Standing, FacadeError> {
        let mut changes = self.changed.subscribe();
        let met = |run: &RunView| {
            run.status.is_terminal() || matches!(until, WaitUntil::Beyond(seq) if run.seq > seq)
        };
        let reached = async {
            while !met(&self.find(id)?) {
                changes.changed().await.expect("the double lives");
            }
            Ok::<_, FacadeError>(())
        };
        if let Ok(reached) = tokio::time::timeout(wait, reached).await {
            reached?;
        }
        let run = self.find(id)?;
        Ok(Standing { seq: run.seq, status: run.status })
    }

    async fn events(&self, id: RunId, after: u32, limit: usize) -> Result<Vec<EventView>, FacadeError> {
        self.find(id)?;
        let state = self.state();
        let events = state.events.get(&id).into_iter().flatten();
        Ok(events.filter(|event| event.seq > after).take(limit).cloned().collect())
    }

    async fn logs(&self, id: RunId, query: LogQuery) -> Result<Vec<LogView>, FacadeError> {
        let seq = self.find(id)?.seq;
        let line = |seq| LogView {
            position: LogPosition { seq, index: 0 },
            at: Timestamp::from_millis(0),
            step: reipaz_core::ids::StepPath::top("a"),
            attempt: 1,
            level: reipaz_core::event::LogLevel::Info,
            message: "said".into(),
            fields: BTreeMap::new(),
        };
        // Every event after the first says something.
        let after = query.after.map_or(1, |after| after.seq);
        Ok((after + 1..=seq).map(line).take(query.limit).collect())
    }

    async fn list_runs(&self, query: RunQuery) -> Result<RunPage, FacadeError> {
        let state = self.state();
        let mut runs: Vec<&RunView> = state.runs.values().collect();
        runs.sort_by_key(|run| std::cmp::Reverse((run.created_at, run.id)));
        let after = |run: &&RunView| {
            query.after.is_none_or(|after| (run.created_at, run.id) < (after.created_at, after.id))
        };
        let fits = |run: &&RunView| query.status.is_empty() || query.status.contains(&run.status);
        let mut fitting = runs.into_iter().filter(after).filter(fits).map(|run| RunSummary {
            id: run.id,
            workflow: run.workflow.clone(),
            version: run.version,
            status: run.status,
            seq: run.seq,
            error: None,
            created_at: run.created_at,
            started_at: None,
            finished_at: None,
        });
        let runs: Vec<RunSummary> = fitting.by_ref().take(query.limit).collect();
        Ok(RunPage { runs, more: fitting.next().is_some(), partial: false })
    }

    async fn change(&self, id: RunId, change: Change) -> Result<RunView, FacadeError> {
        self.take_refusal()?;
        self.state().changes.push((id, change));
        self.find(id)
    }

    async fn install_plugin(&self, request: InstallPlugin) -> Result<InstalledPlugin, FacadeError> {
        self.take_refusal()?;
        self.state().installs.push(request);
        Ok(InstalledPlugin { plugin: plugin("acme/score"), created: true })
    }

    async fn plugins(&self) -> Result<Vec<PluginView>, FacadeError> {
        Ok(vec![plugin("acme/score")])
    }

    async fn plugin(&self, name: &str, version: Option<&str>) -> Result<PluginView, FacadeError> {
        if name == "acme/score" && version.is_none_or(|version| version == "1.2.0") {
            Ok(plugin(name))
        } else {
            Err(FacadeError::UnknownPlugin { name: name.to_owned(), near: Vec::new() })
        }
    }

    async fn sql(&self, query: &str, format: &str) -> Result<Bytes, FacadeError> {
        self.take_refusal()?;
        Ok(Bytes::from(format!("{format}: {query}")))
    }

    fn alerts(&self) -> AlertsView {
        AlertsView { webhooks: 2, ..AlertsView::default() }
    }

    async fn test_alerts(&self) -> AlertsTest {
        AlertsTest::default()
    }

    fn breakers(&self) -> BreakersView {
        BreakersView::default()
    }

    fn change_breaker(&self, _: &BreakerId, _: BreakerHand) -> BreakersView {
        BreakersView::default()
    }

    async fn limits(&self) -> Result<LimitsView, FacadeError> {
        Ok(LimitsView::default())
    }

    fn readiness(&self) -> Readiness {
        let ready = !self.draining.is_cancelled();
        Readiness { ready, parts: BTreeMap::from([("journal".to_owned(), "ready".to_owned())]) }
    }

    fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }
}
