//! The owner's desk: tasks that have arrived and wait until something is decided about them. Most are decided in the turn
//! that brings them. One waits while the partition has all its live runs (intake slows, nothing is dropped), or while its
//! workflow may have been published on another host a moment ago, until the catalogue has been read to its end; those behind
//! it wait with it, because how far tasks have been consumed is one number.

use std::{collections::VecDeque, sync::Arc, sync::atomic::Ordering, time::Duration};

use reipaz_core::partition::{Input, Refusal, Reply};
use reipaz_journal::{Cursor, Deliveries, Task};
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::{Command, Executor, INPUTS_PER_TURN, Owner, command};
use crate::{
    catalog::Catalog,
    facade::FacadeError,
    tasks::{self, Asked, Rejection},
};

/// After the catalogue could not be read.
const SYNC_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// More tasks than this do not wait on the desk, but where they come from.
const TASKS_ON_THE_DESK: usize = 1_024;

/// Tasks decided in one turn: bounds how long commands wait behind them. More than arrive in a turn, or the desk would fill.
const TASKS_PER_TURN: usize = 2 * INPUTS_PER_TURN;

/// How tasks are read.
#[derive(Clone)]
pub(crate) struct TaskRules {
    /// Where workflows are looked up.
    pub(crate) catalog: Arc<Catalog>,
    /// Of the whole deployment.
    pub(crate) partitions: u32,
    /// Largest input, bytes.
    pub(crate) payload_bytes: usize,
}

/// See the module.
#[derive(Default)]
pub(super) struct Desk {
    waiting: VecDeque<(Task, Option<Cursor>)>,
    paused: bool,
    /// Tasks that ever came here.
    arrived: u64,
    /// So many of them came before the catalogue was last read to its end: what they name is known here, or is not there.
    covered: u64,
    sync: Option<Sync>,
    /// Who is to be told when tasks below a place have taken effect.
    curious: Vec<(u64, oneshot::Sender<()>)>,
}

/// The catalogue is being read to its end.
struct Sync {
    /// So many tasks had come before it began.
    covers: u64,
    done: oneshot::Receiver<()>,
}

/// What came of a look at a task.
enum Looked {
    Decided,
    /// Not yet.
    Later(Task),
}

impl Desk {
    pub(super) fn add(&mut self, task: Task, cursor: Option<Cursor>) {
        self.arrived += 1;
        self.waiting.push_back((task, cursor));
    }

    /// Whether something is about to happen that nothing tells of.
    pub(super) fn wants_a_look(&self) -> bool {
        self.sync.is_some() || !self.curious.is_empty()
    }

    /// Whether all is known here that was published before the task arrived that was just taken off the desk. If not, that
    /// is seen to.
    fn is_informed(&mut self, catalog: &Arc<Catalog>) -> bool {
        let number = self.arrived - self.waiting.len() as u64;
        if let Some(sync) = &mut self.sync {
            match sync.done.try_recv() {
                Ok(()) => self.covered = sync.covers,
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Closed) => {}
            }
            self.sync = None;
        }
        if number <= self.covered {
            return true;
        }
        let (tell, done) = oneshot::channel();
        self.sync = Some(Sync { covers: self.arrived, done });
        let catalog = Arc::clone(catalog);
        tokio::spawn(async move {
            match catalog.sync().await {
                Ok(()) => drop(tell.send(())),
                Err(error) => {
                    tracing::warn!(%error, "a task names a workflow that is unknown here, and the catalogue cannot be read");
                    tokio::time::sleep(SYNC_AGAIN_AFTER).await;
                }
            }
        });
        false
    }

    pub(super) fn tell_when(&mut self, tasks: u64, answer: oneshot::Sender<()>) {
        self.curious.push((tasks, answer));
    }
}

impl<X: Executor> Owner<X> {
    /// Decides about the tasks that wait, as far as they may be decided now.
    pub(super) fn work_at_the_desk(&mut self, deliveries: &mut dyn Deliveries<Command>) {
        let mut full = false;
        for _ in 0..TASKS_PER_TURN {
            let Some((task, cursor)) = self.desk.waiting.pop_front() else { break };
            match self.look_at(task) {
                Looked::Decided => self.consume(cursor),
                Looked::Later(task) => {
                    self.desk.waiting.push_front((task, cursor));
                    full = self.core.live_runs() >= self.parts.config.max_live_runs;
                    break;
                }
            }
        }
        let pause = full || self.desk.waiting.len() >= TASKS_ON_THE_DESK;
        if pause != self.desk.paused {
            self.desk.paused = pause;
            self.parts.status.paused.store(pause, Ordering::Relaxed);
            if pause {
                tracing::info!(partition = self.parts.partition, "tasks are paused");
                deliveries.pause();
            } else {
                tracing::info!(partition = self.parts.partition, "tasks are resumed");
                deliveries.resume();
            }
        }
        self.tell_the_curious(deliveries);
    }

    /// Everything that was read has taken effect once the desk is empty. That may be farther than the last task: the marks
    /// of producers' transactions have places in the topic too.
    pub(super) fn pass_what_holds_nothing(&mut self, deliveries: &dyn Deliveries<Command>) {
        if self.desk.waiting.is_empty() && self.parts.tasks.is_some() {
            self.consume(deliveries.read_up_to());
        }
    }

    fn tell_the_curious(&mut self, deliveries: &dyn Deliveries<Command>) {
        if self.desk.curious.is_empty() {
            return;
        }
        self.pass_what_holds_nothing(deliveries);
        let consumed = self.consumed.unwrap_or_default().tasks;
        let (met, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.desk.curious)
            .into_iter()
            .filter(|(_, answer)| !answer.is_closed())
            .partition(|(tasks, _)| *tasks <= consumed);
        self.desk.curious = waiting;
        for (_, answer) in met {
            self.gate.say(
                None,
                Box::new(move || {
                    let _ = answer.send(());
                }),
            );
        }
    }

    fn look_at(&mut self, task: Task) -> Looked {
        let Some(rules) = self.parts.tasks.clone() else { return Looked::Decided };
        let count = |status: &std::sync::atomic::AtomicU64| status.fetch_add(1, Ordering::Relaxed);
        let task = tasks::forwarded(task);
        let rejection = match tasks::read(&task, rules.partitions) {
            Err(rejection) => rejection,
            Ok(asked) => {
                let home = asked.run().partition(rules.partitions);
                if home != self.parts.partition {
                    count(&self.parts.status.tasks);
                    self.gate.hold_task(home, tasks::forward(task));
                    return Looked::Decided;
                }
                match self.decide_about(asked, &task, &rules) {
                    Ok(true) => {
                        count(&self.parts.status.tasks);
                        return Looked::Decided;
                    }
                    Ok(false) => return Looked::Later(task),
                    Err(rejection) => rejection,
                }
            }
        };
        count(&self.parts.status.tasks);
        count(&self.parts.status.rejected);
        tracing::debug!(
            partition = self.parts.partition,
            offset = task.source.offset,
            code = rejection.code,
            "a task was rejected"
        );
        self.gate.hold_published(tasks::rejected(&task, &rejection));
        Looked::Decided
    }

    /// False: not yet.
    fn decide_about(&mut self, asked: Asked, task: &Task, rules: &TaskRules) -> Result<bool, Rejection> {
        let reply = match asked {
            Asked::Change(run, change) => self.decide_and_reply(command::input(run, change)),
            Asked::Start(submission) => {
                if self.core.live_runs() >= self.parts.config.max_live_runs {
                    return Ok(false);
                }
                let promised = tasks::is_promised(task);
                let submit = match submission.prepare(&rules.catalog, rules.payload_bytes) {
                    Ok(submit) => submit,
                    Err(FacadeError::UnknownWorkflow { .. } | FacadeError::UnknownVersion { .. })
                        if !self.desk.is_informed(&rules.catalog) =>
                    {
                        return Ok(false);
                    }
                    Err(error) => {
                        let rejection = tasks::rejection_of(&error);
                        let failed =
                            promised.then(|| submission.refused(&rules.catalog, rejection.as_error()));
                        failed.flatten().ok_or(rejection)?
                    }
                };
                self.decide_and_reply(Input::Submit(submit))
            }
        };
        match reply {
            Reply::Refused(Refusal::TooManyRuns { .. }) => Ok(false),
            Reply::Refused(refusal) => Err(tasks::rejection_by(&refusal)),
            Reply::None | Reply::Done | Reply::Accepted { .. } => Ok(true),
        }
    }
}
