//! What becomes of the work that owners have had started.

use std::time::Duration;

use reipaz_core::{
    event::{AttemptResult, Progress},
    failure::Failure,
    ids::AttemptId,
    partition::{AttemptDone, AttemptOutcome, AttemptReport, Input},
};

use super::{executor::Execution, truth::is_in_flight, world::World};

impl World {
    pub(super) fn an_attempt_ends(&mut self) {
        let Some((host, id, execution)) = self.some_execution() else { return };
        self.hosts[host].executor.end(&id);
        let outcome = self.outcome(&id, execution.conditional);
        // A run of the same id may have taken the place of the one that this was for: its host's death tells them apart.
        let core = self.hosts[host].owner().map(|owner| &owner.core);
        let other = core
            .and_then(|core| core.run(id.run))
            .is_some_and(|run| run.accepted().seed != execution.run_seed);
        if !other {
            self.hosts[host].give(done(id, outcome));
        }
    }

    fn some_execution(&mut self) -> Option<(usize, AttemptId, Execution)> {
        let moving: Vec<usize> =
            (0..self.hosts.len()).filter(|&host| !self.hosts[host].stands_still).collect();
        if moving.is_empty() {
            return None;
        }
        let host = self.random.one_of(&moving);
        let executor = self.hosts[host].executor.lock();
        let nth = self.random.below(executor.executing.len());
        let (id, execution) = executor.executing.iter().nth(nth)?;
        Some((host, id.clone(), execution.clone()))
    }

    fn outcome(&mut self, id: &AttemptId, conditional: bool) -> AttemptOutcome {
        if conditional && self.random.percent(30) {
            return AttemptOutcome::ConditionFalse;
        }
        if self.random.percent(8) {
            let recheck = Duration::from_millis(self.random.below(20_000) as u64);
            return AttemptOutcome::Parked { breaker: "plugin a@1.0.0".into(), recheck };
        }
        let token = self.shared.journal.lock().truth.token_for_attempt(id).to_string();
        let fails = self.random.percent(if self.calm { 10 } else { 35 });
        AttemptOutcome::Result(if fails {
            let retry_after_ms = self.random.percent(20).then(|| self.random.below(2_000_000) as u64);
            AttemptResult::Error(Failure {
                retry_after_ms,
                ..Failure::new(self.random.class(), "it_failed", token)
            })
        } else {
            AttemptResult::Output(token.into())
        })
    }

    pub(super) fn an_output_is_evaluated(&mut self) {
        let failed = self.random.percent(20);
        let nth = self.random.below(3);
        for host in self.hosts.iter().filter(|host| !host.stands_still) {
            let mut executor = host.executor.lock();
            let nth = nth.min(executor.evaluating.len().saturating_sub(1));
            let Some(&(run, seq, seed)) = executor.evaluating.iter().nth(nth) else { continue };
            let core = host.owner().map(|owner| &owner.core);
            let same = core.and_then(|core| core.run(run)).is_some_and(|run| run.accepted().seed == seed);
            executor.evaluating.remove(&(run, seq, seed));
            drop(executor);
            if same {
                host.give(host.executor.evaluated(run, seq, failed));
            }
        }
    }

    /// An outcome comes again, or of an attempt that nobody waits for any more.
    pub(super) fn something_comes_late(&mut self) {
        let Some(host) = self.hosts.iter().rposition(|host| !host.stands_still) else { return };
        let past = self.hosts[host].executor.lock().past.clone();
        if past.is_empty() {
            return;
        }
        let id = self.random.one_of(&past);
        let is_waited_for = self.hosts[host]
            .owner()
            .is_none_or(|owner| is_in_flight(&owner.core, id.run, &id.path, id.attempt));
        if !is_waited_for {
            let outcome = self.outcome(&id, true);
            self.hosts[host].give(done(id, outcome));
        }
    }

    pub(super) fn an_attempt_reports(&mut self) {
        let Some((host, id, _)) = self.some_execution() else { return };
        let progress = Some(Progress { done: 1, total: None, note: "on".into() });
        self.hosts[host].give(Input::AttemptReport(AttemptReport { id, progress, logs: Vec::new() }));
    }
}

fn done(id: AttemptId, outcome: AttemptOutcome) -> Input {
    Input::AttemptDone(Box::new(AttemptDone {
        id,
        outcome,
        input_digest: None,
        usage: Default::default(),
        logs: Vec::new(),
        logs_dropped_bytes: 0,
    }))
}
