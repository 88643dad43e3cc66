//! The owner's desk: tasks that have arrived and wait until something is decided about them. Most are decided in the turn
//! that brings them. One waits while the partition has all its live runs (intake slows, nothing is dropped), or while its
//! workflow may have been published on another host a moment ago; those behind it wait with it, because how far tasks have
//! been consumed is one number.

use std::{collections::VecDeque, sync::Arc, sync::atomic::Ordering, time::Duration};

use reipaz_core::partition::{Input, Refusal, Reply};
use reipaz_journal::{Cursor, Deliveries, Task};
use tokio::sync::oneshot;

use super::{Command, Owner, command};
use crate::{
    catalog::Catalog,
    clock,
    facade::FacadeError,
    tasks::{self, Asked, Rejection},
};

/// A workflow that is unknown is waited for until its task is so old: other hosts' publications arrive within a second.
const WORKFLOW_ARRIVES_WITHIN: Duration = Duration::from_secs(2);

/// The API has seen the workflow of its own tasks: this host is behind.
const PROMISED_WORKFLOW_ARRIVES_WITHIN: Duration = Duration::from_secs(10);

/// A task may be from so far in the future, by its producer's clock, and still be young.
const CLOCKS_DIFFER_BY: Duration = Duration::from_secs(1);

/// Tasks decided in one turn: bounds how long commands wait behind them.
const TASKS_PER_TURN: usize = 128;

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
    /// Who is to be told when tasks below a place have taken effect.
    curious: Vec<(u64, oneshot::Sender<()>)>,
}

/// What came of a look at a task.
enum Looked {
    Decided,
    /// Not yet.
    Later(Task),
}

impl Desk {
    pub(super) fn add(&mut self, task: Task, cursor: Option<Cursor>) {
        self.waiting.push_back((task, cursor));
    }

    pub(super) fn tell_when(&mut self, tasks: u64, answer: oneshot::Sender<()>) {
        self.curious.push((tasks, answer));
    }
}

impl Owner {
    /// Decides about the tasks that wait, as far as they may be decided now.
    pub(super) fn work_at_the_desk(&mut self, deliveries: &mut dyn Deliveries<Command>) {
        let mut later = false;
        for _ in 0..TASKS_PER_TURN {
            let Some((task, cursor)) = self.desk.waiting.pop_front() else { break };
            match self.look_at(task) {
                Looked::Decided => self.consume(cursor),
                Looked::Later(task) => {
                    self.desk.waiting.push_front((task, cursor));
                    later = true;
                    break;
                }
            }
        }
        if later != self.desk.paused {
            self.desk.paused = later;
            self.parts.status.paused.store(later, Ordering::Relaxed);
            if later {
                tracing::info!(partition = self.parts.partition, "tasks are paused");
                deliveries.pause();
            } else {
                tracing::info!(partition = self.parts.partition, "tasks are resumed");
                deliveries.resume();
            }
        }
        self.tell_the_curious();
    }

    fn tell_the_curious(&mut self) {
        if self.desk.curious.is_empty() {
            return;
        }
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
        let rejection = match tasks::read(&task, rules.partitions) {
            Err(rejection) => rejection,
            Ok(asked) => {
                let home = asked.run().partition(rules.partitions);
                if home != self.parts.partition {
                    count(&self.parts.status.tasks);
                    self.gate.hold_message(home, tasks::to_message(&task));
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
                        if is_young(task, promised) =>
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

fn is_young(task: &Task, promised: bool) -> bool {
    let within = if promised { PROMISED_WORKFLOW_ARRIVES_WITHIN } else { WORKFLOW_ARRIVES_WITHIN };
    let now = i64::try_from(clock::wall().as_millis()).unwrap_or(i64::MAX);
    let age = now.saturating_sub(task.at_ms);
    (-(CLOCKS_DIFFER_BY.as_millis() as i64)..within.as_millis() as i64).contains(&age)
}
