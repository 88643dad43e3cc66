//! What is asked of owners: submissions, tasks, changes, looks.

use std::sync::Arc;

use bytes::Bytes;
use reipaz_core::{
    event::RunError,
    failure::ErrorClass,
    ids::RunId,
    partition::{Again, StartFrom, Submit},
    plan::Plan,
};
use reipaz_journal::{Source, Task};

use super::{
    PARTITIONS,
    clients::Client,
    host::Host,
    truth::{Expected, FROM_ELSEWHERE},
    world::World,
};
use crate::{
    facade::{Change, WaitUntil},
    owner::Command,
};

/// The tasks' topic.
pub(super) const TOPIC: &str = "tasks";

impl World {
    /// Asks the newest owner that runs.
    pub(super) fn ask_the_newest(&mut self, ask: impl FnOnce(u64, u64) -> (Client, Command)) {
        let Some(host) = self.hosts.iter().rev().find(|host| host.owner().is_some()) else { return };
        self.questions += 1;
        let (client, command) = ask(self.questions, host.epoch);
        host.intake.send(command);
        self.clients.push(client);
    }

    /// Asks any.
    fn ask(&mut self, ask: impl FnOnce(u64, u64) -> (Client, Command)) {
        let newest = self.random.percent(80);
        let asked = self.random.below(self.hosts.len());
        match self.hosts.get(asked) {
            Some(host) if !newest && host.owner().is_some() => {
                self.questions += 1;
                let (client, command) = ask(self.questions, host.epoch);
                host.intake.send(command);
                self.clients.push(client);
            }
            _ => self.ask_the_newest(ask),
        }
    }

    pub(super) fn somebody_submits(&mut self) {
        if self.hosts.is_empty() {
            let host = self.entered(|world| Host::take_over(&world.shared));
            self.hosts.push(host);
        }
        let plan = self.some_plan();
        let again = !self.asked.is_empty() && self.random.percent(30);
        let (run, key) = if again { self.random.one_of(&self.asked) } else { self.somebody_new(&plan.name) };
        self.submit(plan, run, key);
    }

    /// A run is cancelled, and asked for again when its key has expired; maybe before any of it is durable.
    pub(super) fn somebody_comes_back_much_later(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        let (run, key) = self.random.one_of(&self.asked);
        self.ask_the_newest(|asked, epoch| {
            Client::change(asked, epoch, run, Change::Cancel { reason: None })
        });
        self.hosts_go_on();
        self.shared.clock.jump(25 * 3_600 * 1_000_000);
        self.pass(450);
        let plan = self.some_plan();
        self.submit(plan, run, key);
    }

    fn some_plan(&mut self) -> Arc<Plan> {
        let plan = self.random.below(self.plans.len());
        Arc::clone(&self.plans[plan])
    }

    fn submit(&mut self, plan: Arc<Plan>, run: RunId, key: Option<Arc<str>>) {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.random.next().to_be_bytes());
        let refused = self.random.percent(3).then(|| {
            let (code, message) = ("unknown_workflow".into(), "there is none".into());
            RunError { class: ErrorClass::Permanent, code, message, step: None, attempt: None }
        });
        let submit = Box::new(Submit {
            run,
            pinned: self.workflows.pinned(&plan),
            plan,
            version: 1,
            input: if self.random.percent(10) { "\"other\"".into() } else { r#"{"n":1}"#.into() },
            idempotency_key: key,
            metadata: Vec::new(),
            trigger: None,
            seed,
            refused,
        });
        let until_terminal = self.random.percent(40);
        self.ask(|asked, epoch| Client::submit(asked, epoch, submit, until_terminal));
    }

    /// A run that nobody has asked for, with or without a key, at home here.
    fn somebody_new(&mut self, workflow: &str) -> (RunId, Option<Arc<str>>) {
        let key = self.random.percent(50).then(|| self.key_at_home(workflow));
        let run = match &key {
            Some(key) => RunId::from_key("", workflow, key),
            None => self.id_at_home(),
        };
        self.runs.push(run);
        self.asked.push((run, key.clone()));
        (run, key)
    }

    fn id_at_home(&mut self) -> RunId {
        loop {
            let run = RunId(uuid::Uuid::from_u64_pair(self.random.next(), self.random.next()));
            if run.partition(PARTITIONS) == 0 {
                return run;
            }
        }
    }

    fn key_at_home(&mut self, workflow: &str) -> Arc<str> {
        loop {
            let key = format!("k{}", self.random.below(1 << 20));
            if RunId::from_key("", workflow, &key).partition(PARTITIONS) == 0 {
                return key.into();
            }
        }
    }

    pub(super) fn a_task_is_written(&mut self) {
        if self.shared.rules.is_none() {
            return;
        }
        let elsewhere = self.random.percent(15);
        let offset = {
            let mut topics = self.shared.topics.lock().unwrap();
            if !elsewhere && self.random.percent(10) {
                topics.tasks.push(None);
            }
            match elsewhere {
                true => FROM_ELSEWHERE + topics.messages.len() as u64,
                false => topics.tasks.len() as u64,
            }
        };
        let (body, expected) = self.task(offset, elsewhere);
        let partition = u32::from(elsewhere);
        let source = Source { topic: TOPIC.into(), partition, offset };
        let promised = self.random.percent(10);
        let headers = if promised {
            vec![("reipaz-origin".to_owned(), Bytes::from_static(b"api"))]
        } else {
            Vec::new()
        };
        // Whoever was promised a run gets one, if it fails at once.
        let expected = match expected {
            Expected::Rejection if promised && body.contains("nowhere") => Expected::Run,
            other => other,
        };
        let task = Task { source, key: None, headers, body: Some(Bytes::from(body)), at_ms: 0 };
        self.shared.journal.lock().truth.tasks.insert(offset, expected);
        let mut topics = self.shared.topics.lock().unwrap();
        if elsewhere {
            topics.messages.push(crate::message::task(&task));
        } else {
            topics.tasks.push(Some(task));
        }
    }

    fn task(&mut self, offset: u64, elsewhere: bool) -> (String, Expected) {
        let plan = self.random.below(self.plans.len());
        let workflow = Arc::clone(&self.plans[plan].name);
        let body = |more: &str| {
            format!(r#"{{"reipaz":1,"workflow":"{workflow}","metadata":{{"task":"{offset}"}}{more}}}"#)
        };
        match self.random.below(100) {
            0..45 => {
                let run = self.id_at_home();
                self.runs.push(run);
                (body(&format!(r#","run":"{run}""#)), Expected::Run)
            }
            45..55 if !elsewhere => (body(""), Expected::Run),
            45..70 => {
                let keyed = self.asked.iter().filter(|(run, key)| {
                    key.as_ref().is_some_and(|key| RunId::from_key("", &workflow, key) == *run)
                });
                let keyed: Vec<Arc<str>> = keyed.filter_map(|(_, key)| key.clone()).collect();
                let key = match keyed.is_empty() || self.random.percent(40) {
                    true => {
                        let key = self.key_at_home(&workflow);
                        let run = RunId::from_key("", &workflow, &key);
                        self.runs.push(run);
                        self.asked.push((run, Some(Arc::clone(&key))));
                        key
                    }
                    false => self.random.one_of(&keyed),
                };
                (body(&format!(r#","idempotency_key":"{key}""#)), Expected::RunOrNothing)
            }
            70..78 => ("{".to_owned(), Expected::Rejection),
            78..84 => {
                let body = format!(
                    r#"{{"reipaz":1,"workflow":"nowhere","run":"{}","metadata":{{"task":"{offset}"}}}}"#,
                    self.id_at_home()
                );
                (body, Expected::Rejection)
            }
            84..92 => {
                let run = loop {
                    let run = RunId(uuid::Uuid::from_u64_pair(self.random.next(), self.random.next()));
                    if run.partition(PARTITIONS) != 0 {
                        break run;
                    }
                };
                (body(&format!(r#","run":"{run}""#)), Expected::Message)
            }
            _ => {
                let run = self.some_run();
                (format!(r#"{{"reipaz":1,"command":"cancel","run":"{run}"}}"#), Expected::Change)
            }
        }
    }

    fn some_run(&mut self) -> RunId {
        // Mostly one that may still be there.
        let recent = self.runs.len().saturating_sub(8);
        let from = if self.random.percent(70) { recent } else { 0 };
        let nth = from + self.random.below(self.runs.len() - from);
        self.runs.get(nth).copied().unwrap_or(RunId(uuid::Uuid::nil()))
    }

    /// A run whose output is being evaluated, and whether it has ended all the same.
    fn some_evaluation(&self) -> Option<(RunId, bool)> {
        let host = self.hosts.last()?;
        let &(run, ..) = host.executor.lock().evaluating.first()?;
        Some((run, host.owner()?.core.run(run)?.status().is_terminal()))
    }

    pub(super) fn somebody_asks(&mut self) {
        // Mostly nobody asks for what matters most: another evaluation while the first goes on.
        if self.random.percent(25)
            && let Some((run, has_ended)) = self.some_evaluation()
        {
            let change = match has_ended {
                true => Change::Retry(Again::default()),
                false => Change::Cancel { reason: None },
            };
            return self.ask(|asked, epoch| Client::change(asked, epoch, run, change));
        }
        let run = self.some_run();
        let change = match self.random.below(9) {
            0..3 => Change::Cancel { reason: None },
            3 => Change::Pause { reason: None },
            4..6 => Change::Resume { reason: None },
            _ => {
                let from = match self.random.below(10) {
                    0..5 => StartFrom::Failed,
                    5..9 => StartFrom::Step(format!("s{}", self.random.below(8)).into()),
                    _ => StartFrom::Start,
                };
                let input = self.random.percent(20).then(|| "[2]".into());
                Change::Retry(Again { from, input })
            }
        };
        self.ask(|asked, epoch| Client::change(asked, epoch, run, change));
    }

    pub(super) fn somebody_looks(&mut self) {
        let run = self.some_run();
        let beyond = self.random.below(12) as u32;
        match self.random.below(4) {
            0 => self.ask(|asked, epoch| Client::read(asked, epoch, run)),
            1 => self.ask(|asked, epoch| Client::wait(asked, epoch, run, WaitUntil::Terminal)),
            2 => self.ask(|asked, epoch| Client::wait(asked, epoch, run, WaitUntil::Beyond(beyond))),
            _ if self.shared.rules.is_some() => {
                let end = self.shared.topics.lock().unwrap().tasks.len() as u64;
                self.ask(|asked, epoch| Client::caught_up(asked, epoch, end));
            }
            _ => {}
        }
    }
}
