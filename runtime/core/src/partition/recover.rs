//! What a new owner takes up again, and what a stopping one writes down.

use std::{collections::VecDeque, sync::Arc};

use super::{Run, decide::Deciding, run::Phase};
use crate::{
    event::{AttemptFinished, AttemptInterrupted, AttemptResult, Fact, InterruptCause, RunAccepted, Usage},
    failure::{ErrorClass, Failure},
    ids::{AttemptId, RunId},
    plan::StepIndex,
};

/// What was under way when the last owner stopped and has not been taken up yet.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    clean_stop: bool,
    /// With how its run came to be: the id alone may come again, after the run was forgotten.
    left: VecDeque<(RunId, Arc<RunAccepted>, UnderWay)>,
}

#[derive(Clone, Copy, Debug)]
enum UnderWay {
    Attempt { step: StepIndex, attempt: u32 },
    Output { seq: u32 },
}

impl Recovery {
    pub(super) fn of<'r>(runs: impl Iterator<Item = &'r Run>, clean_stop: bool) -> Self {
        let mut busy: Vec<&Run> = runs.filter(|run| run.in_flight > 0 || run.output_due.is_some()).collect();
        // The oldest first; the order of the map is nobody's order.
        busy.sort_unstable_by_key(|run| (run.accepted_at, run.id));
        let left = busy
            .into_iter()
            .flat_map(|run| under_way(run).map(|what| (run.id, Arc::clone(&run.accepted), what)));
        let left = left.collect();
        Self { clean_stop, left }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }
}

fn under_way(run: &Run) -> impl Iterator<Item = UnderWay> {
    let attempts = run.steps.iter().enumerate().filter_map(|(step, state)| match state.phase {
        Phase::Running { .. } => Some(UnderWay::Attempt { step, attempt: state.attempts }),
        _ => None,
    });
    attempts.chain(run.output_due.map(|seq| UnderWay::Output { seq }))
}

impl Deciding<'_> {
    /// Takes up the next of what was under way.
    pub(super) fn recover(&mut self) {
        for _ in 0..self.partition.config.due_per_tick {
            let Some((id, accepted, what)) = self.partition.recovery.left.pop_front() else { return };
            let clean_stop = self.partition.recovery.clean_stop;
            // What has ended meanwhile (cancelled, say) is not taken up.
            let is_it = |run: &&Run| Arc::ptr_eq(&run.accepted, &accepted);
            let Some(run) = self.partition.run(id).filter(is_it) else { continue };
            match what {
                UnderWay::Output { seq } if run.output_due == Some(seq) => self.evaluate_output(id),
                UnderWay::Attempt { step, attempt } if !is_running(run, step, attempt) => {}
                UnderWay::Attempt { step, .. } if clean_stop => self.execute(id, step),
                UnderWay::Attempt { step, .. } => self.take_up(id, step),
                UnderWay::Output { .. } => {}
            }
        }
    }

    /// Writes down that the host was lost under a step's attempt, and has it executed again; after too many losses
    /// the step has failed.
    fn take_up(&mut self, id: RunId, index: StepIndex) {
        let Some(run) = self.partition.run(id) else { return };
        if run.deadline.is_some_and(|deadline| deadline <= self.at) {
            return self.advance(id);
        }
        let (step, path) = (&run.steps[index], run.plan().steps[index].path.clone());
        let Phase::Running { since } = step.phase else { return };
        let (attempt, times_lost) = (step.attempts, step.lost + 1);
        let cause = InterruptCause::HostLost;
        let interrupted = AttemptInterrupted { path: path.clone(), attempt, cause, times_lost };
        self.tell(id, Fact::AttemptInterrupted(interrupted));
        if times_lost <= self.partition.config.host_losses_max {
            return self.execute(id, index);
        }
        let message =
            format!("the host stopped without warning {times_lost} times while this step was running");
        let failure = Failure::new(ErrorClass::Host, "host_lost", message);
        let finished = AttemptFinished {
            path,
            attempt,
            started_at: since,
            result: AttemptResult::Error(failure.clone()),
            input_digest: None,
            usage: Usage::default(),
            logs: Vec::new(),
            logs_dropped_bytes: 0,
        };
        self.tell(id, Fact::AttemptFinished(Box::new(finished)));
        self.used_up(id, index, &failure);
        self.advance(id);
    }

    /// Writes down which attempts a stopping host leaves without an outcome: at most one small event each.
    pub(super) fn shut_down(&mut self) {
        let mut left: Vec<(AttemptId, u32)> = Vec::new();
        for run in self.partition.runs.values().filter(|run| run.in_flight > 0) {
            left.extend(run.attempts_in_flight().map(|id| {
                let lost = run.pinned.index(&id.path).map_or(0, |index| run.steps[index].lost);
                (id, lost)
            }));
        }
        left.sort_unstable();
        for (AttemptId { run, path, attempt }, times_lost) in left {
            let cause = InterruptCause::Shutdown;
            let interrupted = AttemptInterrupted { path, attempt, cause, times_lost };
            self.tell(run, Fact::AttemptInterrupted(interrupted));
        }
        self.partition.recovery = Recovery::default();
    }
}

fn is_running(run: &Run, step: StepIndex, attempt: u32) -> bool {
    let state = &run.steps[step];
    matches!(state.phase, Phase::Running { .. }) && state.attempts == attempt
}
