//! The hosts and what happens to them, at random.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use reipaz_core::{
    ids::RunId,
    partition::{PartitionConfig, RunStatus},
    plan::Plan,
    time::Timestamp,
};
use reipaz_simulation::{Random, plugin_limits};

use super::{
    PARTITIONS,
    clients::{Client, Looked},
    clock::SimulatedClock,
    host::{Host, Shared, Turn},
    journal::{Durable, SimulatedJournal},
    peer::Peer,
    truth::Truth,
    workflows::Workflows,
};
use crate::{
    clock::Clock,
    owner::{PROVE_AFTER, TaskRules},
};

pub(super) struct World {
    pub(super) runtime: tokio::runtime::Runtime,
    pub(super) random: Random,
    pub(super) shared: Shared,
    pub(super) plans: Vec<Arc<Plan>>,
    pub(super) workflows: Workflows,
    /// The newest owner stands last.
    pub(super) hosts: Vec<Host>,
    pub(super) clients: Vec<Client>,
    /// Asked so far.
    pub(super) questions: u64,
    /// Runs that there may be.
    pub(super) runs: Vec<RunId>,
    /// Those that owners were asked for, which may be asked for again.
    pub(super) asked: Vec<(RunId, Option<Arc<str>>)>,
    /// Outcomes are kind and nothing breaks.
    pub(super) calm: bool,
    peer: Peer,
}

/// What tells whether two stories were the same.
#[derive(Debug, PartialEq)]
pub(super) struct Story {
    /// Every event but for what is really random, the seeds of tasks' runs.
    history: Vec<(RunId, u32, Timestamp)>,
    random: u64,
    epoch: u64,
    wall: Timestamp,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let entered = runtime.enter();
        let mut random = Random::new(seed);
        let is_shared = random.percent(60);
        let config = PartitionConfig {
            partitions: PARTITIONS,
            plugin_limits: plugin_limits(&mut random),
            max_live_runs: random.one_of(&[3, 20, 1000]),
            due_per_tick: random.one_of(&[1, 2, 256]),
            host_losses_max: random.one_of(&[0, 1, 5]),
            max_progress_reports: 3,
            max_kept_keys: random.one_of(&[2, 1000]),
            max_terminal_runs: random.one_of(&[2, 1000]),
            max_failed_runs: random.one_of(&[2, 1000]),
            failed_min_age: Duration::from_secs(random.one_of(&[1, 600, 200_000])),
            max_unstored_runs: random.one_of(&[0, 5, 1000, 1000]),
            ..PartitionConfig::default()
        };
        let workflows = Workflows::new(&mut random);
        let plans = workflows.plans();
        let truth = Truth::new(&plans, &config, is_shared);
        let durable = Durable::new(Random::new(random.next()), truth);
        let rules = is_shared.then(|| TaskRules {
            catalog: Arc::clone(&workflows.catalog),
            partitions: PARTITIONS,
            payload_bytes: 1 << 20,
        });
        let shared = Shared {
            journal: SimulatedJournal(Arc::new(Mutex::new(durable))),
            topics: Arc::default(),
            clock: Arc::new(SimulatedClock::new()),
            config,
            checkpoint_bytes: random.one_of(&[500, 5_000, 1 << 20]),
            rules,
        };
        drop(entered);
        let peer = Peer::new(&shared.config);
        Self {
            runtime,
            random,
            shared,
            plans,
            workflows,
            hosts: Vec::new(),
            clients: Vec::new(),
            questions: 0,
            runs: Vec::new(),
            asked: Vec::new(),
            calm: false,
            peer,
        }
    }

    pub(super) fn something_happens(&mut self) {
        match self.random.below(100) {
            0..12 => self.somebody_submits(),
            12..20 => self.a_task_is_written(),
            20..43 => self.an_attempt_ends(),
            43..46 => self.an_output_is_evaluated(),
            46..51 => self.something_comes_late(),
            51..53 => self.an_attempt_reports(),
            53..64 => self.time_passes(),
            64..78 => self.shared.journal.lock().a_commit_goes_on(),
            78..86 => self.somebody_asks(),
            86..87 => self.somebody_comes_back_much_later(),
            87..90 => self.somebody_looks(),
            90..93 => self.rows_are_stored(),
            93..95 => self.a_host_stands_still(),
            95..97 => self.another_takes_over(),
            97..98 => self.a_host_crashes(),
            98..99 => self.a_host_stops(),
            _ => self.the_clock_jumps(),
        }
        self.peer.goes_on(&self.shared);
        self.hosts_go_on();
    }

    /// The faults stop; every run must end, and everybody must have an answer.
    pub(super) fn settle(&mut self) {
        self.calm = true;
        self.shared.journal.lock().calm = true;
        self.hosts.iter_mut().for_each(|host| host.stands_still = false);
        for _ in 0..20_000 {
            self.shared.journal.lock().a_commit_goes_on();
            self.an_output_is_evaluated();
            self.an_attempt_ends();
            self.peer.goes_on(&self.shared);
            self.hosts_go_on();
            if self.hosts.last().is_none_or(|host| host.epoch != self.shared.journal.lock().epoch) {
                self.hosts.push(self.entered(|world| Host::take_over(&world.shared)));
            }
            // Whoever was replaced and never noticed is told by the group.
            let [replaced @ .., _] = &self.hosts[..] else { continue };
            replaced.iter().for_each(|host| host.intake.revoke());
            if self.is_settled() {
                return;
            }
            self.nothing_more_happens_by_itself();
        }
        let owner = self.hosts.last().and_then(Host::owner);
        let left = owner.and_then(|owner| owner.core.runs().find(|run| !run.status().is_terminal()));
        let idle = owner.map(|owner| (owner.gate.is_idle(), owner.consumed, owner.core.live_runs()));
        let tasks = self.shared.topics.lock().unwrap().tasks.len();
        let (hosts, clients) = (self.hosts.len(), self.clients.len());
        panic!(
            "no rest: {left:?}, {hosts} hosts, {clients} clients, gate and cursor {idle:?} of {tasks} tasks"
        );
    }

    fn is_settled(&mut self) -> bool {
        let durable = self.shared.journal.lock();
        let tasks = self.shared.topics.lock().unwrap().tasks.len() as u64;
        let [host] = &self.hosts[..] else { return false };
        let Some(owner) = host.owner() else { return false };
        let taken = self.shared.rules.is_none() || owner.consumed.unwrap_or_default().tasks >= tasks;
        let settled = owner.gate.is_idle() && taken && owner.core.live_runs() == 0 && self.clients.is_empty();
        if settled {
            assert_eq!(durable.truth.audit.unended(), []);
            assert_eq!(durable.truth.tasks_below(tasks), None, "a task was lost");
            let left = owner.core.limits().chain(self.peer.limits()).find(|left| left.held + left.queued > 0);
            assert!(left.is_none(), "a place is never let go: {left:?}");
            assert!(owner.core == durable.truth.partition, "the fold of everything is the state");
        }
        settled
    }

    pub(super) fn story(&mut self) -> Story {
        let mut durable = self.shared.journal.lock();
        Story {
            history: durable.history(),
            random: self.random.next() ^ durable.random.next(),
            epoch: durable.epoch,
            wall: self.shared.clock.wall(),
        }
    }

    /// Whoever waits for a person is resumed; else time goes on to what is due.
    fn nothing_more_happens_by_itself(&mut self) {
        let Some(owner) = self.hosts.last().and_then(Host::owner) else { return self.pass(1) };
        let paused =
            owner.core.runs().filter(|run| run.status() == RunStatus::Paused).map(|run| run.id()).min();
        if let Some(run) = paused {
            self.ask_the_newest(|asked, epoch| {
                Client::change(asked, epoch, run, crate::facade::Change::Resume { reason: None })
            });
        } else if self.hosts.last().is_some_and(|host| host.executor.lock().executing.is_empty()) {
            let owner = self.hosts.last().and_then(Host::owner);
            let wall = self.shared.clock.wall();
            let live = owner.filter(|owner| owner.core.live_runs() > 0);
            let due = live.and_then(|owner| owner.core.next_timer());
            let due = [due, self.peer.next_timer().filter(|_| live.is_some())].into_iter().flatten().min();
            if let Some(due) = due.filter(|&due| due > wall) {
                self.shared.clock.jump(due.since(wall).as_micros() as i64);
            }
            self.pass(450);
        }
        self.pass(3);
    }

    /// Within the runtime, whose clock the owner's waits are on.
    pub(super) fn entered<T>(&self, work: impl FnOnce(&Self) -> T) -> T {
        let _entered = self.runtime.enter();
        work(self)
    }

    /// Every host does what it can, and whoever waits looks whether there is an answer.
    pub(super) fn hosts_go_on(&mut self) {
        let entered = self.runtime.enter();
        let shared = &self.shared;
        self.hosts.retain_mut(|host| host.goes_on(shared));
        drop(entered);
        let durable = self.shared.journal.lock();
        let must_be_silent = |client: &Client| {
            self.hosts.iter().any(|host| {
                host.epoch == client.epoch && host.replaced_at.is_some_and(|at| client.asked > at)
            })
        };
        self.clients.retain_mut(|client| {
            let looked = client.look(&durable.truth);
            let silent = looked != Looked::Answered || !must_be_silent(client);
            assert!(silent, "an owner that stood still while it was replaced goes on answering");
            looked == Looked::Waits
        });
    }

    fn time_passes(&mut self) {
        match self.random.below(20) {
            0..12 => self.pass(1 + self.random_below(3)),
            12..19 => self.pass(self.random_below(450)),
            _ => self.pass(70_000),
        }
    }

    fn random_below(&self, bound: usize) -> u64 {
        self.shared.journal.lock().random.below(bound) as u64
    }

    /// So many milliseconds pass, while every owner waits.
    pub(super) fn pass(&mut self, millis: u64) {
        let entered = self.runtime.enter();
        let mut turns: Vec<_> = self.hosts.iter_mut().map(Host::turn).collect();
        let mut look = || turns.iter_mut().for_each(Turn::look);
        look();
        self.runtime.block_on(tokio::time::advance(Duration::from_millis(millis)));
        look();
        let turned: Vec<_> = turns.into_iter().map(Turn::turned).collect();
        for (host, turned) in self.hosts.iter_mut().zip(turned) {
            turned.into_iter().for_each(|turned| host.has_turned(turned, &self.shared));
        }
        drop(entered);
    }

    fn the_clock_jumps(&mut self) {
        let seconds = match self.random.below(10) {
            0..3 => self.random.below(180) as i64,
            3..7 => self.random.below(30 * 3_600) as i64,
            _ => -(self.random.below(7_200) as i64),
        };
        self.shared.clock.jump(seconds * 1_000_000);
        self.pass(450);
    }

    fn rows_are_stored(&mut self) {
        let mut durable = self.shared.journal.lock();
        let end = durable.end();
        durable.stored += self.random.below((end - durable.stored) as usize + 1) as u64;
        self.hosts.iter().for_each(|host| host.store(durable.stored));
    }

    fn a_host_stands_still(&mut self) {
        let Some(host) = self.hosts.last_mut() else { return };
        host.stands_still = !host.stands_still;
        let millis = self.random.one_of(&[300, 1_500, 5_000]);
        self.pass(millis);
        self.somebody_looks();
    }

    /// With a journal of its own a host is replaced when it is dead; with a shared one also while it lives.
    fn another_takes_over(&mut self) {
        if self.shared.rules.is_none() {
            self.hosts.clear();
        }
        if self.hosts.last().is_some_and(|last| last.stands_still) && self.random.percent(50) {
            self.pass(PROVE_AFTER.as_millis() as u64 + 1);
            let questions = self.questions;
            self.hosts.iter_mut().rev().take(1).for_each(|last| last.replaced_at = Some(questions));
        }
        if let Some(host) = self.hosts.last()
            && self.random.percent(30)
        {
            host.intake.revoke();
        }
        let host = self.entered(|world| Host::take_over(&world.shared));
        self.hosts.push(host);
    }

    /// What is not durable is lost, with everything that was being executed.
    fn a_host_crashes(&mut self) {
        let dead = self.random.below(self.hosts.len());
        if dead < self.hosts.len() {
            self.hosts.remove(dead);
        }
    }

    fn a_host_stops(&mut self) {
        if let Some(host) = self.hosts.last().filter(|host| !host.is_stopping()) {
            host.stop(Duration::from_millis(self.random.one_of(&[0, 100, 1_500])));
        }
    }
}
