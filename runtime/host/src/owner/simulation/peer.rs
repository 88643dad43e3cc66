//! What becomes durable, on its way into the topics; and the other partition, whose owner never fails: the home of some of the limits. What it was told is durable, and what it
//! says comes as messages.

use reipaz_core::{
    partition::{Decision, Input, LimitView, Partition, PartitionConfig},
    time::Timestamp,
};
use reipaz_journal::{NewTask, Source, Task};

use super::{host::Shared, requests::TOPIC, truth::forwarded_from};
use crate::{clock::Clock, message};

/// See the module.
pub(super) struct Peer {
    partition: Partition,
}

impl Peer {
    pub(super) fn new(config: &PartitionConfig) -> Self {
        Self { partition: Partition::new(PartitionConfig { partition: 1, ..config.clone() }) }
    }

    /// Hears what has become durable, and answers.
    pub(super) fn goes_on(&mut self, shared: &Shared) {
        let told = std::mem::take(&mut shared.journal.lock().truth.to_peer);
        let now = shared.clock.wall();
        let mut decisions: Vec<Decision> =
            told.into_iter().map(|message| self.partition.handle(Input::Limit(message), now)).collect();
        if self.next_timer().is_some_and(|due| due <= now) {
            decisions.push(self.partition.handle(Input::Tick, now));
        }
        self.partition.check_invariants().unwrap();
        let mut durable = shared.journal.lock();
        let mut topics = shared.topics.lock().unwrap();
        for task in std::mem::take(&mut durable.truth.to_tasks) {
            let offset = topics.tasks.len() as u64;
            durable.truth.stood_first.insert(offset, forwarded_from(&task));
            let NewTask { key, headers, body } = task;
            let source = Source { topic: TOPIC.into(), partition: 0, offset };
            topics.tasks.push(Some(Task { source, key, headers, body: Some(body), at_ms: 0 }));
        }
        for said in decisions.into_iter().flat_map(|decision| decision.messages) {
            assert_eq!(said.to, 0);
            topics.messages.push(message::write(said.message));
        }
    }

    pub(super) fn next_timer(&self) -> Option<Timestamp> {
        self.partition.next_timer()
    }

    pub(super) fn limits(&self) -> impl Iterator<Item = LimitView> {
        self.partition.limits()
    }
}
