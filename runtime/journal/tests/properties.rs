//! Random histories against a model: whatever is committed, checkpointed, deleted, sent and consumed, and however the
//! last write is torn by a crash, what comes back is what was acknowledged, each batch whole or not at all.
#![expect(clippy::unwrap_used, reason = "a test's failure is its panic")]

mod support;

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use proptest::prelude::*;
use reipaz_journal::{
    Arrived, Batch, Cursor, Deliveries, Embedded, Intake, JournalError, Opened, Outgoing, PartitionLog,
    Position,
};
use support::{Data, PARTITIONS, Snapshot};

/// What may be torn out of a write: disks persist sectors, in any order.
const SECTOR_BYTES: usize = 512;

#[derive(Clone, Debug)]
struct Sent {
    /// Sizes of the records.
    records: Vec<usize>,
    /// Destinations of the messages.
    messages: Vec<u32>,
}

#[derive(Clone, Debug)]
enum Step {
    /// Both partitions commit at once, if there is something for them.
    Commit([Option<Sent>; 2]),
    /// The same, but the host dies before the sync comes back: only those sectors of the write are there whose number's
    /// bit is set (modulo 64).
    TornCommit([Option<Sent>; 2], u64),
    /// A partition handles at most so many messages and commits an effect of each with the cursor.
    Receive(u32, usize),
    /// A checkpoint at a share of 255 of the partition's records.
    Checkpoint(u32, u8),
    /// The sink is at a share of 255 of the partition's records.
    Delete(u32, u8),
    Crash,
    Stop,
    TakeOver(u32),
}

/// What a partition must hold.
#[derive(Clone, Debug, Default)]
struct Partition {
    records: Vec<Bytes>,
    checkpoints: BTreeSet<u64>,
    /// Records up to here may be gone.
    cut: u64,
    /// All messages ever sent to it, and how many have been consumed.
    messages: Vec<Bytes>,
    consumed: usize,
    clean: bool,
}

type Model = [Partition; 2];

fn sent() -> impl Strategy<Value = Sent> {
    let records = prop::collection::vec(prop_oneof![4 => 0..200_usize, 1 => 2000..9000_usize], 0..4);
    let messages = prop::collection::vec(0..PARTITIONS, 0..3);
    (records, messages).prop_map(|(records, messages)| Sent { records, messages })
}

fn step() -> impl Strategy<Value = Step> {
    let both = || prop::array::uniform2(prop::option::weighted(0.7, sent()));
    prop_oneof![
        8 => both().prop_map(Step::Commit),
        2 => (both(), any::<u64>()).prop_map(|(sent, sectors)| Step::TornCommit(sent, sectors)),
        // Torn as most often: a beginning of the write is there.
        1 => (both(), 0..20_u32).prop_map(|(sent, end)| Step::TornCommit(sent, (1 << end) - 1)),
        3 => (0..PARTITIONS, 1..5_usize).prop_map(|(partition, count)| Step::Receive(partition, count)),
        2 => (0..PARTITIONS, any::<u8>()).prop_map(|(partition, share)| Step::Checkpoint(partition, share)),
        2 => (0..PARTITIONS, any::<u8>()).prop_map(|(partition, share)| Step::Delete(partition, share)),
        1 => Just(Step::Crash),
        1 => Just(Step::Stop),
        1 => (0..PARTITIONS).prop_map(Step::TakeOver),
    ]
}

/// A running host on the data, and what it must hold.
struct Host {
    embedded: Option<Embedded>,
    logs: Vec<Box<dyn PartitionLog>>,
    intake: Option<Arc<dyn Intake<()>>>,
    deliveries: Vec<Box<dyn Deliveries<()>>>,
    model: Model,
    /// Makes every record and message different.
    number: u64,
    /// Last, so that the directory outlives whoever works in it.
    data: Data,
}

impl Host {
    async fn new() -> Self {
        let mut host = Self {
            data: Data::new(),
            embedded: None,
            logs: Vec::new(),
            intake: None,
            deliveries: Vec::new(),
            model: Model::default(),
            number: 0,
        };
        host.model.iter_mut().for_each(|partition| partition.clean = true);
        host.start(&[]).await;
        host
    }

    fn stop(&mut self) {
        self.logs.clear();
        self.deliveries.clear();
        self.embedded = None;
    }

    /// Starts; what is found must be the model, or the model with some of `unclear` (partition and what it would be).
    async fn start(&mut self, unclear: &[(usize, Partition)]) {
        let embedded = self.data.start().await;
        let (intake, deliveries) = embedded.intake(1);
        self.intake = Some(intake);
        self.deliveries = deliveries;
        for partition in 0..PARTITIONS {
            let opened = embedded.journal().open(partition).await.unwrap();
            let last = opened.tail.end().0 as usize;
            let now = &mut self.model[partition as usize];
            let maybe =
                unclear.iter().find(|(of, maybe)| *of == partition as usize && maybe.records.len() == last);
            if let Some((_, maybe)) = maybe
                && last != now.records.len()
            {
                *now = Partition { messages: std::mem::take(&mut now.messages), ..maybe.clone() };
            }
            let log = self.check(partition, opened).await;
            self.logs.push(log);
        }
        self.embedded = Some(embedded);
    }

    /// What a new owner gets is what the model says.
    async fn check(&mut self, partition: u32, mut opened: Opened) -> Box<dyn PartitionLog> {
        let expected = &mut self.model[partition as usize];
        assert_eq!(opened.clean_stop, expected.clean);
        expected.clean = false;
        let at = opened.checkpoint.as_ref().map(|checkpoint| checkpoint.at.0);
        assert_eq!(at, expected.checkpoints.last().copied(), "the newest checkpoint");
        if let Some(checkpoint) = opened.checkpoint {
            assert_eq!(checkpoint.chunks, state_at(expected, checkpoint.at.0));
        }
        let mut found = Vec::new();
        while let Some(chunk) = opened.tail.next().await.unwrap() {
            found.extend(chunk.into_iter().map(|record| record.bytes));
        }
        assert!(found == expected.records[at.unwrap_or(0) as usize..], "the records after it");
        opened.log
    }

    fn batch(&mut self, sent: &Sent) -> Batch {
        let mut content = |size: usize| {
            self.number += 1;
            let mut bytes = self.number.to_le_bytes().to_vec();
            bytes.resize(8 + size, self.number as u8);
            Bytes::from(bytes)
        };
        let records = sent.records.iter().map(|size| content(*size)).collect();
        let messages = sent.messages.iter().map(|to| Outgoing { to: *to, bytes: content(0) }).collect();
        Batch { records, messages, ..Batch::default() }
    }

    fn groups(&self) -> u64 {
        self.embedded.as_ref().unwrap().stats().groups
    }

    /// Commits for both partitions at once.
    async fn commit(&mut self, batches: [Batch; 2]) {
        let [left, right] = batches;
        let [left_log, right_log] = &mut self.logs[..] else { panic!("two partitions") };
        let (left, right) = tokio::join!(left_log.commit(left), right_log.commit(right));
        left.unwrap();
        right.unwrap();
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Commit(sent) => self.whole_commit(sent).await,
            Step::TornCommit(sent, sectors) => self.torn_commit(sent, sectors).await,
            Step::Receive(partition, count) => self.receive(partition, count).await,
            Step::Checkpoint(partition, share) => self.checkpoint(partition, share).await,
            Step::Delete(partition, share) => self.delete(partition, share).await,
            Step::Crash => {
                self.stop();
                self.start(&[]).await;
            }
            Step::Stop => {
                for log in self.logs.drain(..) {
                    log.close().await.unwrap();
                }
                self.model.iter_mut().for_each(|partition| partition.clean = true);
                self.stop();
                self.start(&[]).await;
            }
            Step::TakeOver(partition) => {
                let opened = self.embedded.as_ref().unwrap().journal().open(partition).await.unwrap();
                let log = self.check(partition, opened).await;
                let mut fenced = std::mem::replace(&mut self.logs[partition as usize], log);
                let batch = Batch { records: vec![Bytes::new()], ..Batch::default() };
                assert!(fenced.commit(batch).await.is_err());
            }
        }
    }

    async fn whole_commit(&mut self, sent: [Option<Sent>; 2]) {
        let batches = sent.map(|sent| sent.map(|sent| self.batch(&sent)).unwrap_or_default());
        let several_sources = batches.iter().filter(|batch| !batch.messages.is_empty()).count() > 1;
        if several_sources {
            // One after the other: which one is first is open otherwise.
            for (index, batch) in batches.into_iter().enumerate() {
                apply(&mut self.model, index, &batch);
                self.logs[index].commit(batch).await.unwrap();
            }
        } else {
            for (index, batch) in batches.iter().enumerate() {
                apply(&mut self.model, index, batch);
            }
            self.commit(batches).await;
        }
    }

    async fn torn_commit(&mut self, sent: [Option<Sent>; 2], sectors: u64) {
        let mut batches = sent.map(|sent| sent.map(|sent| self.batch(&sent)).unwrap_or_default());
        // Only records: whether they are there tells whether the batch is.
        batches.iter_mut().for_each(|batch| batch.messages.clear());
        let before = Snapshot::of(self.data.dir());
        let mut unclear = Vec::new();
        for (index, batch) in batches.iter().enumerate() {
            let mut model = self.model.clone();
            apply(&mut model, index, batch);
            unclear.push((index, model[index].clone()));
        }
        let groups = self.groups();
        self.commit(batches).await;
        let written_at_once = self.groups() - groups <= 1;
        self.stop();
        if written_at_once {
            tear(&self.data, &before, sectors);
        } else {
            // The first of two groups was durable before the second was written: nothing tears both.
            for (index, partition) in unclear.drain(..) {
                self.model[index] = partition;
            }
        }
        self.start(&unclear).await;
    }

    async fn receive(&mut self, partition: u32, count: usize) {
        let index = partition as usize;
        let mut consumed = Cursor::default();
        let mut effects = Vec::new();
        let pending = &self.model[index].messages[self.model[index].consumed..];
        for expected in pending.iter().take(count) {
            let delivery = self.deliveries[index].recv().await.unwrap();
            assert_eq!(delivery.command, Arrived::Message(expected.clone()));
            consumed.advance(delivery.cursor.unwrap());
            effects.push(expected.clone());
        }
        if effects.is_empty() {
            assert_eq!(self.deliveries[index].try_recv(), None);
            return;
        }
        self.model[index].consumed += effects.len();
        self.model[index].records.extend(effects.iter().cloned());
        let batch = Batch { records: effects, consumed: Some(consumed), ..Batch::default() };
        self.logs[index].commit(batch).await.unwrap();
    }

    async fn checkpoint(&mut self, partition: u32, share: u8) {
        let expected = &mut self.model[partition as usize];
        let at = expected.records.len() as u64 * u64::from(share) / 255;
        if at < expected.checkpoints.last().copied().unwrap_or(0) {
            return;
        }
        let chunks = state_at(expected, at);
        expected.checkpoints.insert(at);
        self.logs[partition as usize].checkpoint(Position(at), chunks).await.unwrap();
    }

    async fn delete(&mut self, partition: u32, share: u8) {
        let expected = &mut self.model[partition as usize];
        let at = expected.records.len() as u64 * u64::from(share) / 255;
        self.logs[partition as usize].delete_before(Position(at)).await.unwrap();
        let Some(kept) = expected.checkpoints.range(..=at).next_back().copied() else { return };
        let newest = expected.checkpoints.last().copied();
        expected.checkpoints.retain(|at| *at == kept || Some(*at) == newest);
        expected.cut = expected.cut.max(kept);
        // A sink restarts from the kept checkpoint.
        let mut reader = self.embedded.as_ref().unwrap().journal().reader(partition);
        let found = reader.checkpoint_at_or_below(Position(at)).await.unwrap().unwrap();
        assert_eq!(found.at, Position(kept));
        let next = reader.read_after(found.at, 1).await.unwrap();
        assert_eq!(next.first().map(|record| &record.bytes), expected.records.get(kept as usize));
        match reader.read_after(Position::START, usize::MAX).await {
            Ok(all) => {
                assert_eq!(all.len(), expected.records.len(), "the log still reaches back to the start")
            }
            Err(JournalError::Cut { first, .. }) => assert!(first.0 <= expected.cut + 1),
            Err(other) => panic!("{other}"),
        }
    }
}

/// A checkpoint's content, different for every state.
fn state_at(partition: &Partition, at: u64) -> Vec<Bytes> {
    let records = &partition.records[..at as usize];
    let total: usize = records.iter().map(Bytes::len).sum();
    vec![Bytes::from(format!("{at} records")), Bytes::from(vec![b's'; total % 5000])]
}

fn apply(model: &mut Model, partition: usize, batch: &Batch) {
    model[partition].records.extend(batch.records.iter().cloned());
    for message in &batch.messages {
        model[message.to as usize].messages.push(message.bytes.clone());
    }
}

/// Undoes the log's last write but for the chosen sectors, and takes the mark back to before it.
fn tear(data: &Data, before: &Snapshot, sectors: u64) {
    let after = Snapshot::of(data.dir());
    let mut torn = after.clone();
    let mut number = 0;
    for name in before.differences(&after) {
        if !name.starts_with("log") {
            torn.0.insert(name.clone(), before.0[&name].clone());
            continue;
        }
        let now = torn.0.get_mut(&name).unwrap();
        let earlier = before.0.get(&name).cloned().unwrap_or_default();
        for start in (0..now.len()).step_by(SECTOR_BYTES) {
            let sector = start..(start + SECTOR_BYTES).min(now.len());
            let old = match earlier.get(sector.clone()) {
                Some(old) => old.to_vec(),
                None => vec![0; sector.len()],
            };
            if now[sector.clone()] != old {
                if sectors & (1 << (number % 64)) == 0 {
                    now[sector].copy_from_slice(&old);
                }
                number += 1;
            }
        }
    }
    torn.write_to(data.dir());
}

/// How many histories are tried: some seconds' worth, or what `PROPTEST_CASES` says.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(32)
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 400, failure_persistence: None, ..ProptestConfig::with_cases(cases()) })]

    #[test]
    fn what_was_acknowledged_is_what_comes_back(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut host = Host::new().await;
            for step in steps {
                host.step(step).await;
            }
            host.step(Step::Crash).await;
            for partition in 0..PARTITIONS {
                host.step(Step::Receive(partition, usize::MAX)).await;
            }
        });
    }
}
