//! A journal that keeps what is durable through every fault: commits take time, are refused, are unclear; owners crash and are
//! replaced while they live. Whatever becomes durable is told to the [`Truth`].

use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use reipaz_core::{codec, event::Event, ids::RunId, time::Timestamp};
use reipaz_journal::{
    Batch, Checkpoint, CommitError, Committed, Cursor, Journal, JournalError, Opened, PartitionLog, Position,
    Reader, Record, Tail,
};
use reipaz_simulation::Random;
use tokio::sync::oneshot;

use super::truth::Truth;

/// What is said of no run in particular.
const NO_RUN: RunId = RunId(uuid::Uuid::nil());

/// What survives every host.
pub(super) struct Durable {
    pub(super) random: Random,
    /// All that ever became durable; those before `cut` can be read no more.
    records: Vec<Bytes>,
    cut: u64,
    checkpoints: Vec<Checkpoint>,
    pub(super) consumed: Option<Cursor>,
    clean_stop: bool,
    /// Of the newest owner.
    pub(super) epoch: u64,
    /// Owners whose commit failed for good: they may do nothing more.
    over: Vec<u64>,
    under_way: Vec<UnderWay>,
    /// How far the sink is.
    pub(super) stored: u64,
    /// Checkpoints and cuts may fail.
    pub(super) calm: bool,
    pub(super) truth: Truth,
}

/// A commit that has not been answered.
struct UnderWay {
    epoch: u64,
    batch: Batch,
    /// It is durable; only the answer is missing.
    durable: bool,
    answer: oneshot::Sender<Result<Committed, CommitError>>,
}

impl Durable {
    pub(super) fn new(random: Random, truth: Truth) -> Self {
        Self {
            random,
            records: Vec::new(),
            cut: 0,
            checkpoints: Vec::new(),
            consumed: None,
            clean_stop: true,
            epoch: 0,
            over: Vec::new(),
            under_way: Vec::new(),
            stored: 0,
            calm: false,
            truth,
        }
    }

    /// The position of the last durable record.
    pub(super) fn end(&self) -> u64 {
        self.records.len() as u64
    }

    /// What happened to which run when.
    pub(super) fn history(&self) -> Vec<(RunId, u32, Timestamp)> {
        let events = self.records.iter().map(|record| codec::decode(record).unwrap());
        let seq = |event: &Event| match event {
            Event::Run(event) => event.seq,
            _ => 0,
        };
        events.map(|event| (event.run().unwrap_or(NO_RUN), seq(&event), event.at())).collect()
    }

    /// Whether the last owner closed its log.
    pub(super) fn clean_stop(&self) -> bool {
        self.clean_stop
    }

    /// Random numbers of somebody's own.
    pub(super) fn fork(&mut self) -> Random {
        Random::new(self.random.next())
    }

    fn begin(&mut self, epoch: u64, batch: Batch) -> oneshot::Receiver<Result<Committed, CommitError>> {
        assert!(!self.over.contains(&epoch), "an owner goes on after a commit of its failed");
        assert!(!batch.is_empty(), "there is nothing to commit");
        let (answer, answered) = oneshot::channel();
        self.under_way.push(UnderWay { epoch, batch, durable: false, answer });
        answered
    }

    fn make_durable(&mut self, index: usize) {
        let batch = self.under_way[index].batch.clone();
        self.under_way[index].durable = true;
        self.truth.see(&batch, self.consumed.unwrap_or_default());
        if let Some(consumed) = batch.consumed {
            let before = self.consumed.unwrap_or_default();
            assert!(
                consumed.tasks >= before.tasks && consumed.messages >= before.messages,
                "cursors only grow"
            );
            self.consumed = Some(consumed);
        }
        self.records.extend(batch.records);
    }

    /// Something happens to a commit.
    pub(super) fn a_commit_goes_on(&mut self) {
        if self.under_way.is_empty() {
            return;
        }
        let index = self.random.below(self.under_way.len());
        let fate = if self.calm { 0 } else { self.random.below(100) };
        let UnderWay { epoch, durable, .. } = self.under_way[index];
        let result = if durable {
            match fate {
                0..90 => Ok(()),
                _ => Err(CommitError::Unclear("no answer".to_owned())),
            }
        } else if epoch != self.epoch {
            Err(CommitError::Fenced)
        } else {
            if matches!(fate, 0..84 | 88..91) {
                self.make_durable(index);
            }
            match fate {
                0..78 => Ok(()),
                78..84 => return,
                84..88 => Err(CommitError::NoSpace("full".to_owned())),
                88..94 => Err(CommitError::Unclear("no answer".to_owned())),
                94..96 => Err(CommitError::Refused("too large".to_owned())),
                _ => return,
            }
        };
        let under_way = self.under_way.remove(index);
        if matches!(result, Err(CommitError::Fenced | CommitError::Unclear(_) | CommitError::Refused(_))) {
            self.over.push(epoch);
        }
        // Its owner may be dead.
        let _ = under_way.answer.send(result.map(|()| Committed { last: Position(self.end()) }));
    }

    fn open(&mut self) -> u64 {
        // The broker has got some of what a dead or slow owner was committing, and refuses the rest.
        for index in 0..self.under_way.len() {
            let may_be = !self.under_way[index].durable && self.under_way[index].epoch == self.epoch;
            if may_be && self.random.percent(40) {
                self.make_durable(index);
            }
        }
        self.epoch += 1;
        self.epoch
    }

    fn check(&self, epoch: u64) -> Result<(), JournalError> {
        if epoch == self.epoch { Ok(()) } else { Err(JournalError::Fenced { partition: 0 }) }
    }

    fn may_fail(&mut self) -> Result<(), JournalError> {
        match !self.calm && self.random.percent(10) {
            true => Err(JournalError::NoSpace { what: "a checkpoint".to_owned() }),
            false => Ok(()),
        }
    }

    fn checkpoint_below(&self, at: Position) -> Option<&Checkpoint> {
        self.checkpoints.iter().rev().find(|checkpoint| checkpoint.at <= at)
    }
}

/// The port to it.
#[derive(Clone)]
pub(super) struct SimulatedJournal(pub(super) Arc<Mutex<Durable>>);

impl SimulatedJournal {
    pub(super) fn lock(&self) -> MutexGuard<'_, Durable> {
        self.0.lock().unwrap()
    }
}

#[async_trait]
impl Journal for SimulatedJournal {
    fn partitions(&self) -> u32 {
        super::PARTITIONS
    }

    async fn open(&self, _: u32) -> Result<Opened, JournalError> {
        let mut durable = self.lock();
        let epoch = durable.open();
        let checkpoint = durable.checkpoints.last().cloned();
        let after = checkpoint.as_ref().map_or(Position::START, |checkpoint| checkpoint.at);
        Ok(Opened {
            checkpoint,
            tail: Tail::new(self.reader(0), after, Position(durable.end())),
            consumed: durable.consumed,
            log: Box::new(SimulatedLog { journal: self.clone(), epoch }),
            clean_stop: std::mem::take(&mut durable.clean_stop),
        })
    }

    fn reader(&self, _: u32) -> Box<dyn Reader> {
        Box::new(SimulatedReader(self.clone()))
    }
}

struct SimulatedLog {
    journal: SimulatedJournal,
    epoch: u64,
}

#[async_trait]
impl PartitionLog for SimulatedLog {
    async fn commit(&mut self, batch: Batch) -> Result<Committed, CommitError> {
        let answered = self.journal.lock().begin(self.epoch, batch);
        answered.await.unwrap_or(Err(CommitError::Fenced))
    }

    async fn checkpoint(&mut self, at: Position, chunks: Vec<Bytes>) -> Result<(), JournalError> {
        let mut durable = self.journal.lock();
        durable.check(self.epoch)?;
        durable.may_fail()?;
        assert!(at.0 <= durable.end(), "a checkpoint of what is not durable");
        durable.checkpoints.push(Checkpoint { at, chunks });
        Ok(())
    }

    async fn delete_before(&mut self, at: Position) -> Result<(), JournalError> {
        let mut durable = self.journal.lock();
        durable.check(self.epoch)?;
        durable.may_fail()?;
        assert!(at.0 <= durable.stored, "what the sink has not stored is deleted");
        if let Some(checkpoint) = durable.checkpoint_below(at) {
            durable.cut = checkpoint.at.0;
        }
        Ok(())
    }

    fn bytes_since_checkpoint(&self) -> u64 {
        let durable = self.journal.lock();
        let from = durable.checkpoints.last().map_or(0, |checkpoint| checkpoint.at.0);
        durable.records[from as usize..].iter().map(|record| record.len() as u64).sum()
    }

    async fn close(self: Box<Self>) -> Result<(), JournalError> {
        let mut durable = self.journal.lock();
        durable.check(self.epoch)?;
        durable.clean_stop = true;
        Ok(())
    }
}

struct SimulatedReader(SimulatedJournal);

#[async_trait]
impl Reader for SimulatedReader {
    async fn checkpoint_at_or_below(&mut self, at: Position) -> Result<Option<Checkpoint>, JournalError> {
        Ok(self.0.lock().checkpoint_below(at).cloned())
    }

    async fn read_after(&mut self, after: Position, _: usize) -> Result<Vec<Record>, JournalError> {
        let durable = self.0.lock();
        if after.0 < durable.cut {
            return Err(JournalError::Cut { after, first: Position(durable.cut + 1) });
        }
        let records = durable.records.iter().enumerate().skip(after.0 as usize).take(7);
        Ok(records
            .map(|(index, bytes)| Record { position: Position(index as u64 + 1), bytes: bytes.clone() })
            .collect())
    }

    async fn wait_beyond(&mut self, _: Position) -> Position {
        std::future::pending().await
    }
}
