//! What must hold after every input. For tests: it walks the whole state.

use super::{
    Partition, Run,
    run::Phase,
    slots::Admission,
    timers::{Timer, retry},
};
use crate::event::Event;

impl Partition {
    /// Says what does not hold, if anything: above all, that no run is stuck. Takes time in proportion to the state.
    pub fn check_invariants(&self) -> Result<(), String> {
        let mut timers = 0;
        for run in self.runs.values() {
            timers += self.check_run(run).map_err(|broken| format!("run {}: {broken}; {run:?}", run.id))?;
        }
        let live = self.runs.values().filter(|run| run.end.is_none()).count();
        let sum = |terminal_only: bool| -> u64 {
            self.runs.values().filter(|run| !terminal_only || run.end.is_some()).map(|run| run.bytes).sum()
        };
        holds(live == self.live, "the count of live runs is right")?;
        holds(self.runs.len() == live + self.terminal_runs(), "each run is live or terminal")?;
        let ended = self.completed.bytes() + self.failed.bytes();
        holds(sum(false) == self.bytes && sum(true) == ended, "bytes are summed up")?;
        holds(timers == self.timers.len(), "no timer is left behind")?;
        holds(self.keys.len() == self.expiries.len(), "each kept key has its expiry")?;
        holds(self.keys.keys().all(|run| !self.runs.contains_key(run)), "a run in memory keeps its own key")?;
        self.limits.check()?;
        for (digest, in_use) in &self.plans {
            let users = self.runs.values().filter(|run| run.accepted.plan == *digest).count();
            holds(users == in_use.runs, "the users of a plan are counted")?;
        }
        Ok(())
    }

    /// How many timers the run has.
    fn check_run(&self, run: &Run) -> Result<usize, String> {
        let count = |is: fn(&Phase) -> bool| run.steps.iter().filter(|step| is(&step.phase)).count();
        let running = count(|phase| matches!(phase, Phase::Running { .. }));
        let retrying = count(|phase| phase.due().is_some());
        holds(count(|phase| !phase.is_over()) == run.open as usize, "open steps are counted")?;
        holds(running == run.in_flight as usize, "attempts in flight are counted")?;
        for (index, event) in run.history.iter().enumerate() {
            let Event::Run(event) = &**event else { return Err("only its own events".into()) };
            holds(event.seq as usize == index + 1 && event.run == run.id, "its events are without gaps")?;
        }
        if let Some((at, completed)) = run.end_of() {
            let nothing = run.open == 0 && run.output_due.is_none() && run.slots.is_empty();
            holds(nothing, "nothing goes on after the end")?;
            let ended = if completed { &self.completed } else { &self.failed };
            holds(ended.contains(at, run.id), "the end is indexed")?;
            return Ok(0);
        }
        let deadline = run.deadline.is_none_or(|at| self.timers.has(at, run.id, Timer::Deadline));
        holds(deadline, "the deadline has its timer")?;
        let waiting_here = usize::from(run.deadline.is_some());
        for (index, step) in run.steps.iter().enumerate() {
            let slot = run.slot(Some(index));
            let fits = match step.phase {
                Phase::Queued { .. } => slot.is_some_and(|slot| !slot.granted),
                Phase::Running { .. } => slot.is_none_or(|slot| slot.granted),
                _ => slot.is_none(),
            };
            holds(fits, "a step has or awaits a place while it runs or waits for that")?;
        }
        let queued = run.slots.iter().any(|slot| !slot.granted);
        let admitted = matches!(run.admission(), Admission::Open);
        if run.paused {
            return Ok(waiting_here);
        }
        for (index, step) in run.steps.iter().enumerate() {
            match step.phase {
                Phase::Queued { until: Some(due) } | Phase::Retrying { due } | Phase::Parked { due, .. } => {
                    holds(self.timers.has(due, run.id, retry(index)), "a retry has its timer")?;
                }
                Phase::Waiting | Phase::Handling { .. } if admitted => {
                    let open = run.awaited(index).iter().any(|&before| !run.steps[before].phase.is_over());
                    holds(open, "a step waits for a step that is not over")?;
                }
                _ => {}
            }
        }
        let goes_on = running + retrying > 0 || run.output_due.is_some() || queued;
        holds(
            goes_on,
            "a live run has an attempt, a timer, an evaluation or awaits a place: it is not stuck",
        )?;
        Ok(waiting_here + retrying)
    }
}

fn holds(condition: bool, what: &str) -> Result<(), String> {
    if condition { Ok(()) } else { Err(format!("it does not hold that {what}")) }
}
