//! The owner of a partition: the one place that decides for its runs. It joins the pure partition, the journal, the
//! intake and the attempts.
//!
//! One task, one loop: take what has arrived (commands, outcomes, due timers), let the partition decide, put the
//! decision behind the [`gate::Gate`], commit what waits there, release what the commit covers. The loop never waits
//! for anything but inputs; a commit runs beside it.
//!
//! **Early release**: a silent attempt is started at once, before its events are durable, since nobody can see what it
//! does until they are. For [`QUIET_AFTER_UNCLEAN_STOP`] after an unclean stop nothing starts early, so that an attempt
//! that kills its host leaves a trace and is given up.
//!
//! Where the journal is shared, another host may have taken the partition over while this one was not running (a paused
//! machine, a stopped process). A commit finds out; so after a pause nothing is said before one has gone through.

mod command;
mod executor;
mod gate;
mod linger;
mod log;
#[cfg(test)]
mod simulation;
mod tasks;
mod waiters;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use reipaz_core::{
    codec,
    event::{Event, Fact},
    fault,
    ids::RunId,
    limit::LimitFact,
    partition::{Decision, Effect, Input, Partition, PartitionConfig, Reply, Submit},
};
use reipaz_journal::{Arrived, Cursor, Deliveries, Journal, Opened, PartitionLog};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

pub(crate) use self::{
    command::{Command, Submitted},
    executor::Executor,
    tasks::TaskRules,
};
use self::{
    gate::Gate,
    linger::Linger,
    log::{Encoded, Encoding, InFlight, StateSize, in_flight},
    tasks::Desk,
    waiters::{Waiter, Waiters},
};
use crate::{
    alerts::Tap,
    clock::{Clock, PartitionClock},
    message::{self, PeerMessage},
    tasks as format, view,
};

/// See the module.
const QUIET_AFTER_UNCLEAN_STOP: Duration = Duration::from_secs(60);

/// Inputs taken in one turn before a commit is looked at: bounds how long a full intake can hold one up.
const INPUTS_PER_TURN: usize = 256;

/// How often a tick comes even when no timer is due (retention works by ticks, and so does the look for a pause).
const TICK_AT_LEAST: Duration = Duration::from_millis(500);

/// The same while the desk waits for something.
const TICK_WHEN_WANTED: Duration = Duration::from_millis(10);

/// An owner whose loop stood still for longer proves that it still is one. Far below any session timeout.
const PROVE_AFTER: Duration = Duration::from_secs(1);

/// Nothing more arrives at an owner whose partition goes to another host; it is told to stop within this, or its intake has
/// failed.
const TOLD_WITHIN: Duration = Duration::from_secs(2);

/// How often waiters who have gone are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// What everybody may know about an owner without asking it.
#[derive(Debug, Default)]
pub(crate) struct OwnerStatus {
    /// This host owns the partition, as far as it knows.
    pub(crate) owned: AtomicBool,
    /// Tasks wait where they lie, because the partition has its live runs.
    pub(crate) paused: AtomicBool,
    /// Tasks consumed so far by this process.
    pub(crate) tasks: AtomicU64,
    /// Of those, rejected.
    pub(crate) rejected: AtomicU64,
    /// The offset of the next task to be taken up.
    pub(crate) taken_up: AtomicU64,
    /// Tasks that wait in the topic, as of some seconds ago.
    pub(crate) lag: AtomicU64,
    /// The disk is full: nothing new is accepted.
    pub(crate) no_space: AtomicBool,
    /// Places taken under the limits whose home the partition is.
    pub(crate) limits_held: AtomicU64,
    /// Runs and attempts that wait for one.
    pub(crate) limits_queued: AtomicU64,
    /// Runs that are not terminal.
    pub(crate) live_runs: AtomicU64,
    /// Terminal runs still in memory.
    pub(crate) terminal_runs: AtomicU64,
    /// Events decided so far by this process.
    pub(crate) events: AtomicU64,
    /// Batches of decisions made durable so far by this process.
    pub(crate) commits: AtomicU64,
    /// Checkpoints taken so far by this process.
    pub(crate) checkpoints: AtomicU64,
    /// How long this process took to take the partition over, the last time: microseconds.
    pub(crate) recovery_us: AtomicU64,
    /// How many events it read for that, those of the checkpoint included.
    pub(crate) recovery_events: AtomicU64,
    /// The newest durable position.
    pub(crate) durable: AtomicU64,
    /// Up to where rows are stored.
    pub(crate) stored: AtomicU64,
    /// For how long the oldest row is missing that is not stored, milliseconds.
    pub(crate) sink_lag_ms: AtomicU64,
}

/// Everything an owner is made of.
pub(crate) struct OwnerParts<X> {
    pub(crate) partition: u32,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) attempts: X,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) outcomes: mpsc::Receiver<Input>,
    pub(crate) stored: watch::Receiver<u64>,
    pub(crate) alerts: Tap,
    pub(crate) config: PartitionConfig,
    pub(crate) checkpoint_bytes: u64,
    pub(crate) status: Arc<OwnerStatus>,
    /// Says when to stop, and how long attempts may still take: the owner drains and closes its journal.
    pub(crate) stop: watch::Receiver<Option<Duration>>,
    /// Where the journal is shared with other hosts: how tasks are read.
    pub(crate) tasks: Option<TaskRules>,
}

/// Why an owner cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// The journal cannot be opened, read or written.
    #[error(transparent)]
    Journal(#[from] reipaz_journal::JournalError),
    /// A record in it is no event of ours.
    #[error("partition {partition}, position {position}: {reason}")]
    Replay {
        /// Which partition.
        partition: u32,
        /// Which record.
        position: u64,
        /// What is wrong.
        reason: String,
    },
    /// What it takes from has ended.
    #[error("partition {partition}: its intake cannot be read any more")]
    Intake {
        /// Which partition.
        partition: u32,
    },
    /// The journal refused a commit for good, so what was decided may not be durable.
    #[error("partition {partition}: {reason}")]
    Commit {
        /// Which partition.
        partition: u32,
        /// What the journal said.
        reason: String,
    },
}

/// A recovered owner, ready to run.
pub(crate) struct Owner<X> {
    parts: OwnerParts<X>,
    core: Partition,
    clock: PartitionClock,
    gate: Gate,
    waiters: Waiters,
    log: Option<Box<dyn PartitionLog>>,
    in_flight: Option<InFlight>,
    consumed: Option<Cursor>,
    desk: Desk,
    /// When the loop last turned, on a clock that goes on while the machine sleeps.
    turned_at: Duration,
    encoding: Option<Encoding>,
    encoded: Option<Encoded>,
    last_checkpoint: StateSize,
    /// The newest checkpoint's position.
    checkpoint_at: u64,
    /// The log was cut for the checkpoint at this position.
    cut_for: u64,
    durable: u64,
    early_from: Instant,
    /// Only where the journal is shared.
    linger: Option<Linger>,
    swept_at: Instant,
    /// When its intake ended.
    over_since: Option<Instant>,
}

/// What comes after a turn of the loop.
#[derive(PartialEq, Eq)]
enum Turned {
    GoOn,
    Stop,
}

impl<X: Executor> Owner<X> {
    /// Opens the partition's journal and folds it. Nothing is re-issued before [`Owner::run`].
    pub(crate) async fn recover(
        parts: OwnerParts<X>,
        deliveries: &mut dyn Deliveries<Command>,
    ) -> Result<Self, OwnerError> {
        let began = Instant::now();
        let Opened { checkpoint, mut tail, consumed, log, clean_stop } =
            parts.journal.open(parts.partition).await?;
        deliveries.seek(consumed);
        let mut core = Partition::new(parts.config.clone());
        let mut events = 0_u64;
        let mut replay = |core: &mut Partition, position: u64, bytes: &Bytes| -> Result<(), OwnerError> {
            let refuse = |reason: String| OwnerError::Replay { partition: parts.partition, position, reason };
            let event = codec::decode(bytes).map_err(|error| refuse(error.to_string()))?;
            events += 1;
            core.replay(Arc::new(event)).map_err(|error| refuse(error.to_string()))
        };
        let (mut end, mut last_checkpoint) = (0, StateSize::default());
        if let Some(checkpoint) = &checkpoint {
            end = checkpoint.at.0;
            checkpoint.chunks.iter().try_for_each(|chunk| replay(&mut core, end, chunk))?;
            last_checkpoint = StateSize::new(&checkpoint.chunks, core.bytes());
        }
        while let Some(records) = tail.next().await? {
            for record in &records {
                end = record.position.0;
                replay(&mut core, end, &record.bytes)?;
            }
        }
        core.set_position(end);
        parts.status.taken_up.store(consumed.unwrap_or_default().tasks, Ordering::Relaxed);
        let clock = PartitionClock::new(Arc::clone(&parts.clock), core.last_time());
        let quiet = if clean_stop || fault::is_made("an early start after an unclean stop") {
            Duration::ZERO
        } else {
            QUIET_AFTER_UNCLEAN_STOP
        };
        let linger = parts.tasks.as_ref().map(|_| Linger::default());
        let turned_at = parts.clock.boot_time();
        let mut owner = Self {
            parts,
            core,
            clock,
            gate: Gate::default(),
            waiters: Waiters::default(),
            log: Some(log),
            in_flight: None,
            consumed,
            desk: Desk::default(),
            turned_at,
            encoding: None,
            encoded: None,
            last_checkpoint,
            checkpoint_at: checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.at.0),
            cut_for: 0,
            durable: end,
            early_from: began + quiet,
            linger,
            swept_at: began,
            over_since: None,
        };
        let now = owner.clock.now();
        let decision = owner.core.resume(now, clean_stop);
        owner.hold(decision);
        owner.publish_status();
        let elapsed = began.elapsed();
        owner.parts.status.recovery_us.store(elapsed.as_micros() as u64, Ordering::Relaxed);
        owner.parts.status.recovery_events.store(events, Ordering::Relaxed);
        tracing::info!(
            partition = owner.parts.partition,
            events,
            live_runs = owner.core.live_runs(),
            clean_stop,
            elapsed_ms = elapsed.as_millis() as u64,
            "partition recovered"
        );
        Ok(owner)
    }

    /// Decides until it is told to stop. Returns once the journal is closed.
    pub(crate) async fn run(mut self, deliveries: &mut dyn Deliveries<Command>) -> Result<(), OwnerError> {
        while self.turn(deliveries).await? == Turned::GoOn {}
        self.drain().await
    }

    /// Waits for an input, and decides about it and what else has arrived. Dropped while it waits it has lost nothing.
    async fn turn(&mut self, deliveries: &mut dyn Deliveries<Command>) -> Result<Turned, OwnerError> {
        self.look_for_a_pause();
        self.start_checkpoint().await;
        self.start_cut();
        self.start_commit();
        let at_least = if self.desk.wants_a_look() { TICK_WHEN_WANTED } else { TICK_AT_LEAST };
        let next_tick = self.core.next_timer().map_or(at_least, |due| self.clock.until(due)).min(at_least);
        tokio::select! {
            biased;
            (log, job) = in_flight(&mut self.in_flight) => self.log_is_free(log, job)?,
            Some(input) = self.parts.outcomes.recv() => self.decide(input),
            arrived = deliveries.recv(), if self.over_since.is_none() => match arrived {
                Some(delivery) => self.deliver(delivery),
                None => self.over_since = Some(Instant::now()),
            },
            () = until(self.over_since.map(|since| since + TOLD_WITHIN)) => {
                return Err(OwnerError::Intake { partition: self.parts.partition });
            }
            Ok(()) = self.parts.stored.changed() => {
                let position = *self.parts.stored.borrow_and_update();
                self.decide(Input::Stored(position));
            }
            () = until(self.linger.as_ref().and_then(Linger::until)), if self.log.is_some() => {}
            () = tokio::time::sleep(next_tick) => {
                self.pass_what_holds_nothing(deliveries);
                self.decide(Input::Tick);
            }
            () = told_to_stop(&mut self.parts.stop) => return Ok(Turned::Stop),
        }
        self.take_waiting(deliveries);
        Ok(Turned::GoOn)
    }

    /// See the module.
    fn look_for_a_pause(&mut self) {
        let now = self.parts.clock.boot_time();
        let gap = now.saturating_sub(std::mem::replace(&mut self.turned_at, now));
        if gap > PROVE_AFTER && self.parts.tasks.is_some() && !fault::is_made("no proof after a pause") {
            tracing::warn!(
                partition = self.parts.partition,
                pause_ms = gap.as_millis() as u64,
                "this host stood still: it proves that the partition is still its own before it says anything"
            );
            self.gate.prove();
        }
    }

    /// Takes what has arrived meanwhile without waiting, so that it shares the next commit.
    fn take_waiting(&mut self, deliveries: &mut dyn Deliveries<Command>) {
        for _ in 0..INPUTS_PER_TURN {
            if let Ok(input) = self.parts.outcomes.try_recv() {
                self.decide(input);
            } else if let Some(delivery) = deliveries.try_recv() {
                self.deliver(delivery);
            } else {
                break;
            }
        }
        if self.swept_at.elapsed() >= SWEEP_EVERY {
            self.swept_at = Instant::now();
            self.waiters.sweep();
        }
        if self.core.next_timer().is_some_and(|due| due <= self.clock.now()) {
            self.decide(Input::Tick);
        }
        self.work_at_the_desk(deliveries);
        self.publish_status();
    }

    fn deliver(&mut self, delivery: reipaz_journal::Delivery<Command>) {
        // Before anything is answered: the pause may have been in this very turn.
        self.look_for_a_pause();
        match delivery.command {
            Arrived::Command(command) => {
                self.consume(delivery.cursor);
                self.command(command);
            }
            Arrived::Message(bytes) => match message::read(&bytes) {
                Some(PeerMessage::Task(task)) => {
                    // What may have to wait waits among the tasks, or later messages could not be consumed before it.
                    self.consume(delivery.cursor);
                    self.gate.hold_task(self.parts.partition, format::forward(task));
                }
                Some(PeerMessage::Limit(message)) => {
                    self.consume(delivery.cursor);
                    self.decide(Input::Limit(message));
                }
                // One from a newer version is not ours to guess at.
                None => {
                    self.consume(delivery.cursor);
                    tracing::error!(
                        partition = self.parts.partition,
                        bytes = bytes.len(),
                        "unknown message ignored"
                    );
                }
            },
            Arrived::Task(task) => {
                if fault::is_made("a cursor ahead of its batch") {
                    self.consume(delivery.cursor);
                }
                self.desk.add(task, delivery.cursor);
            }
        }
    }

    /// What came with this cursor has taken effect.
    fn consume(&mut self, cursor: Option<Cursor>) {
        if let Some(cursor) = cursor {
            let consumed = self.consumed.get_or_insert_default();
            consumed.advance(cursor);
            self.parts.status.taken_up.store(consumed.tasks, Ordering::Relaxed);
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Submit { submit, until_terminal, answer } => self.submit(submit, until_terminal, answer),
            Command::Change { run, change, answer } => {
                let reply = self.decide_and_reply(command::input(run, change));
                self.gate.say(Some(run), Box::new(move || drop(answer.send(reply))));
            }
            Command::Read { run, answer } => {
                let found = self.core.run(run).map(view::run_view);
                self.gate.say(Some(run), Box::new(move || drop(answer.send(found))));
            }
            Command::Events { run, after, limit, answer } => {
                let found = self.core.run(run).map(|run| view::events_after(run, after, limit));
                self.gate.say(Some(run), Box::new(move || drop(answer.send(found))));
            }
            Command::Logs { run, query, answer } => {
                let found = self.core.run(run).map(|run| view::logs(run, &query));
                self.gate.say(Some(run), Box::new(move || drop(answer.send(found))));
            }
            Command::Wait { run, until, answer } => match self.core.run(run) {
                None => self.gate.say(
                    Some(run),
                    Box::new(move || {
                        let _ = answer.send(None);
                    }),
                ),
                Some(found) => {
                    let waiter = Waiter::Standing(until, answer);
                    if waiters::is_met(until, found) {
                        self.gate.say(Some(run), waiter.answer(found));
                    } else {
                        self.waiters.add(run, waiter);
                    }
                }
            },
            Command::Overdue { before, answer } => {
                let overdue = view::overdue(&self.core, before);
                self.gate.say(None, Box::new(move || drop(answer.send(overdue))));
            }
            Command::CaughtUp { tasks, answer } => self.desk.tell_when(tasks, answer),
            Command::Limits { most, answer } => {
                let limits = view::limits(&self.core, most);
                self.gate.say(None, Box::new(move || drop(answer.send(limits))));
            }
            Command::List { query, answer } => {
                let page = view::page(&self.core, &query);
                self.gate.say(None, Box::new(move || drop(answer.send(page))));
            }
        }
    }

    fn submit(&mut self, submit: Box<Submit>, until_terminal: bool, answer: oneshot::Sender<Submitted>) {
        if self.parts.status.no_space.load(Ordering::Relaxed) {
            drop(answer.send(Submitted::NoSpace));
            return;
        }
        let asked = submit.run;
        match self.decide_and_reply(Input::Submit(submit)) {
            Reply::Accepted { run, existing } => match self.core.run(run) {
                None => {
                    self.gate.say(Some(run), Box::new(move || drop(answer.send(Submitted::Elsewhere(run)))));
                }
                Some(found) => {
                    let waiter = Waiter::Submitted { existing, answer };
                    if !until_terminal || found.status().is_terminal() {
                        self.gate.say(Some(run), waiter.answer(found));
                    } else {
                        self.waiters.add(run, waiter);
                    }
                }
            },
            Reply::Refused(refusal) => {
                self.gate.say(Some(asked), Box::new(move || drop(answer.send(Submitted::Refused(refusal)))));
            }
            // The partition answers a submission with nothing else.
            Reply::None | Reply::Done => {}
        }
    }

    fn decide_and_reply(&mut self, input: Input) -> Reply {
        let now = self.clock.now();
        let mut decision = self.core.handle(input, now);
        let reply = std::mem::take(&mut decision.reply);
        self.hold(decision);
        reply
    }

    fn decide(&mut self, input: Input) {
        if let Some(linger) = &mut self.linger {
            linger.ended(&input);
        }
        let now = self.clock.now();
        let decision = self.core.handle(input, now);
        self.hold(decision);
    }

    /// Puts a decision behind the gate, starts what may start early, and readies the answers of those who wait for it.
    fn hold(&mut self, decision: Decision) {
        let mut touched: Option<RunId> = None;
        let mut changed: Vec<RunId> = Vec::new();
        let mut ended: Vec<RunId> = Vec::new();
        for event in &decision.events {
            let about = match &**event {
                Event::Run(event) => {
                    if matches!(event.fact, Fact::RunFinished(_)) {
                        ended.push(event.run);
                    }
                    Some(event.run)
                }
                Event::Limit(event) => {
                    if let LimitFact::Granted(holder) = &event.fact {
                        let waited = event.at.since(holder.at).as_secs_f64();
                        metrics::histogram!("reipaz_limit_wait_seconds", "kind" => event.limit.kind.as_str())
                            .record(waited);
                    }
                    None
                }
                _ => None,
            };
            if let Some(run) = about
                && touched != Some(run)
            {
                touched = Some(run);
                changed.push(run);
            }
            self.gate.hold_record(Bytes::from(codec::encode(event)), about);
            if let Some(tell) = self.parts.alerts.look(self.parts.partition, event, &self.core) {
                self.gate.say(about, tell);
            }
        }
        self.parts.status.events.fetch_add(decision.events.len() as u64, Ordering::Relaxed);
        for message in decision.messages {
            self.gate.hold_message(message.to, message::write(message.message));
        }
        for effect in decision.effects {
            if self.may_start_early(&effect) {
                if let Some(linger) = &mut self.linger {
                    linger.started(&effect);
                }
                self.perform(effect);
            } else if let Some(effect) = self.gate.hold_effect(effect) {
                self.perform(effect);
            }
        }
        for run in changed {
            let Some(state) = self.core.run(run) else { continue };
            // A decision may come back to a run after others; its end is told of once.
            if let Some(end) = ended.iter().position(|ended| *ended == run) {
                ended.swap_remove(end);
                if self.parts.tasks.is_some() {
                    self.gate.hold_published(format::result(state));
                }
            }
            for waiter in self.waiters.take_met(state) {
                self.gate.say(Some(run), waiter.answer(state));
            }
        }
    }

    fn may_start_early(&self, effect: &Effect) -> bool {
        match effect {
            Effect::StartAttempt(start) => {
                Instant::now() >= self.early_from
                    && !self.gate.holds_cancel_of(&start.id)
                    && self.parts.attempts.is_silent(start)
            }
            // An expression can reveal nothing; its result is an event of its own.
            Effect::EvaluateOutput(_) => Instant::now() >= self.early_from,
            Effect::CancelAttempt(_) => false,
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::StartAttempt(start) => self.parts.attempts.start(*start),
            Effect::CancelAttempt(_) if fault::is_made("a cancelled attempt not interrupted") => {}
            Effect::CancelAttempt(id) => self.parts.attempts.cancel(&id),
            Effect::EvaluateOutput(evaluate) => {
                if let Some(done) = self.parts.attempts.evaluate_output(*evaluate) {
                    self.decide(done);
                }
            }
        }
    }

    /// Running attempts get the time that [`OwnerParts::stop`] says to end, then are interrupted (and executed
    /// again by the next host); the journal is closed as cleanly stopped.
    async fn drain(&mut self) -> Result<(), OwnerError> {
        self.parts.attempts.stop_starting();
        self.linger = None;
        let patience = self.parts.stop.borrow().unwrap_or_default();
        let deadline = Instant::now() + patience;
        self.waiters.clear();
        while self.parts.attempts.running() > 0 {
            self.start_commit();
            tokio::select! {
                biased;
                (log, job) = in_flight(&mut self.in_flight) => self.log_is_free(log, job)?,
                Some(input) = self.parts.outcomes.recv() => self.decide(input),
                () = self.parts.attempts.one_ended() => {}
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        while let Ok(input) = self.parts.outcomes.try_recv() {
            self.decide(input);
        }
        let left = self.parts.attempts.running();
        if left > 0 {
            tracing::warn!(
                partition = self.parts.partition,
                attempts = left,
                "attempts did not end in time; the next host executes them again"
            );
        }
        self.decide(Input::ShutDown);
        while !self.gate.is_idle() || self.in_flight.is_some() {
            self.start_commit();
            let (log, job) = in_flight(&mut self.in_flight).await;
            self.log_is_free(log, job)?;
        }
        self.parts.attempts.cancel_all();
        if let Some(log) = self.log.take() {
            log.close().await?;
        }
        Ok(())
    }

    fn publish_status(&self) {
        let status = &self.parts.status;
        status.live_runs.store(self.core.live_runs() as u64, Ordering::Relaxed);
        status.durable.store(self.durable, Ordering::Relaxed);
        status.stored.store(*self.parts.stored.borrow(), Ordering::Relaxed);
        let (held, queued) = self.core.places();
        status.limits_held.store(held as u64, Ordering::Relaxed);
        status.limits_queued.store(queued as u64, Ordering::Relaxed);
        status.terminal_runs.store(self.core.terminal_runs() as u64, Ordering::Relaxed);
    }
}

/// That moment; never, if there is none.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Until somebody says so, or nobody can any more.
async fn told_to_stop(stop: &mut watch::Receiver<Option<Duration>>) {
    let _ = stop.wait_for(Option::is_some).await;
}
