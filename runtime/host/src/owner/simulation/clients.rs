//! Those who ask an owner. Whatever they are told must be durable when they are told it.

use reipaz_core::{
    event::Fact,
    ids::RunId,
    partition::{Refusal, Reply},
};
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::truth::Truth;
use crate::{
    facade::{Change, RunView, Standing, WaitUntil},
    owner::{Command, Submitted},
};

/// Somebody who waits for an answer.
pub(super) struct Client {
    /// Which owner was asked.
    pub(super) epoch: u64,
    /// When, counted in questions.
    pub(super) asked: u64,
    question: Question,
}

enum Question {
    Submit { until_terminal: bool, answer: oneshot::Receiver<Submitted> },
    Change { run: RunId, is_it: fn(&Fact) -> bool, answer: oneshot::Receiver<Reply> },
    Read { run: RunId, answer: oneshot::Receiver<Option<RunView>> },
    Wait { run: RunId, until: WaitUntil, answer: oneshot::Receiver<Option<Standing>> },
    CaughtUp { tasks: u64, answer: oneshot::Receiver<()> },
}

/// Whether somebody got an answer.
#[derive(PartialEq, Eq)]
pub(super) enum Looked {
    Waits,
    Answered,
    /// The owner is gone: look elsewhere.
    Dropped,
}

impl Client {
    pub(super) fn submit(
        asked: u64,
        epoch: u64,
        submit: Box<reipaz_core::partition::Submit>,
        until_terminal: bool,
    ) -> (Self, Command) {
        let (answer, answered) = oneshot::channel();
        let question = Question::Submit { until_terminal, answer: answered };
        (Self { epoch, asked, question }, Command::Submit { submit, until_terminal, answer })
    }

    pub(super) fn change(asked: u64, epoch: u64, run: RunId, change: Change) -> (Self, Command) {
        let (answer, answered) = oneshot::channel();
        let is_it: fn(&Fact) -> bool = match &change {
            Change::Cancel { .. } => |fact| matches!(fact, Fact::RunFinished(_)),
            Change::Pause { .. } => |fact| matches!(fact, Fact::RunPaused(_)),
            // One that was not paused has nothing to tell.
            Change::Resume { .. } => |_| true,
            Change::Retry(_) => |fact| matches!(fact, Fact::RunRetried(_)),
        };
        let question = Question::Change { run, is_it, answer: answered };
        (Self { epoch, asked, question }, Command::Change { run, change, answer })
    }

    pub(super) fn read(asked: u64, epoch: u64, run: RunId) -> (Self, Command) {
        let (answer, answered) = oneshot::channel();
        (
            Self { epoch, asked, question: Question::Read { run, answer: answered } },
            Command::Read { run, answer },
        )
    }

    pub(super) fn wait(asked: u64, epoch: u64, run: RunId, until: WaitUntil) -> (Self, Command) {
        let (answer, answered) = oneshot::channel();
        let question = Question::Wait { run, until, answer: answered };
        (Self { epoch, asked, question }, Command::Wait { run, until, answer })
    }

    pub(super) fn caught_up(asked: u64, epoch: u64, tasks: u64) -> (Self, Command) {
        let (answer, answered) = oneshot::channel();
        let question = Question::CaughtUp { tasks, answer: answered };
        (Self { epoch, asked, question }, Command::CaughtUp { tasks, answer })
    }

    /// Holds an answer, if there is one, against what is durable.
    pub(super) fn look(&mut self, truth: &Truth) -> Looked {
        let too_early = |run: RunId| format!("{run} was told of before that was durable");
        match &mut self.question {
            Question::Submit { until_terminal, answer } => match took(answer) {
                Err(looked) => return looked,
                Ok(Submitted::Accepted { run, .. }) => {
                    assert!(truth.has(run.id, run.seq), "{}: {run:?}", too_early(run.id));
                    assert!(!*until_terminal || run.status.is_terminal(), "{run:?} was to be terminal");
                }
                Ok(
                    Submitted::Elsewhere(run)
                    | Submitted::Refused(Refusal::KeyReused(run) | Refusal::RunExists(run)),
                ) => assert!(truth.has(run, 1), "{}", too_early(run)),
                Ok(Submitted::Refused(_)) => {}
                // Which says nothing of any run.
                Ok(Submitted::NoSpace) => return Looked::Dropped,
            },
            Question::Change { run, is_it, answer } => match took(answer) {
                Err(looked) => return looked,
                Ok(Reply::Done) => assert!(truth.told(*run, *is_it), "{}", too_early(*run)),
                Ok(Reply::Refused(Refusal::WrongStatus(status))) if status.is_terminal() => {
                    let told = truth.told(*run, |fact| matches!(fact, Fact::RunFinished(_)));
                    assert!(told, "{}", too_early(*run));
                }
                Ok(Reply::None | Reply::Accepted { .. } | Reply::Refused(_)) => {}
            },
            Question::Read { run, answer } => match took(answer) {
                Err(looked) => return looked,
                Ok(Some(view)) => assert!(truth.has(*run, view.seq), "{}: {view:?}", too_early(*run)),
                // The state is compared with what is durable elsewhere.
                Ok(None) => {}
            },
            Question::Wait { run, until, answer } => match took(answer) {
                Err(looked) => return looked,
                Ok(Some(Standing { seq, status })) => {
                    assert!(truth.has(*run, seq), "{}: event {seq}", too_early(*run));
                    let met = match until {
                        WaitUntil::Terminal => status.is_terminal(),
                        WaitUntil::Beyond(than) => seq > *than || status.is_terminal(),
                    };
                    assert!(met, "{run} is {status} at {seq}, which nobody waits for");
                }
                Ok(None) => {}
            },
            Question::CaughtUp { tasks, answer } => match took(answer) {
                Err(looked) => return looked,
                Ok(()) => {
                    let missing = truth.tasks_below(*tasks);
                    assert_eq!(missing, None, "not all tasks below {tasks} have taken effect");
                }
            },
        }
        Looked::Answered
    }
}

fn took<T>(answer: &mut oneshot::Receiver<T>) -> Result<T, Looked> {
    answer.try_recv().map_err(|error| match error {
        TryRecvError::Empty => Looked::Waits,
        TryRecvError::Closed => Looked::Dropped,
    })
}
