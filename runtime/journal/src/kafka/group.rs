//! Who owns what: a consumer group over the tasks topic, by the classic protocol with cooperative-sticky assignment.
//!
//! The member reads nothing; it only learns which partitions are its own (`deliveries.rs` says why). It has a thread,
//! which polls and so keeps the membership, whatever the owners do. When partitions are revoked, that thread waits a
//! bounded time for the owners to stop, so that a planned hand-over finds a closed journal; whoever takes longer is fenced
//! by the next owner. Partitions that were lost (the session is over) belong to somebody else already: nobody waits.
//!
//! The group's offsets are for lag tools only; what counts stands in the journal.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance},
    error::KafkaError,
};
use tokio::sync::{Notify, oneshot};

use super::{Client, Running, context, deliveries::Arrivals, failed, is_passing};
use crate::{
    commands::Commands,
    error::JournalError,
    intake::{Assignments, Change},
};

/// How long one poll lasts; a shutdown waits for it at most.
const POLL: Duration = Duration::from_millis(100);
/// A broker that does not answer keeps nobody from stopping for longer.
const LEAVE_WITHIN: Duration = Duration::from_secs(3);
/// Between two looks at whether an owner has let go.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How often the lag tools are told how far we are.
const OFFSETS_EVERY: Duration = Duration::from_secs(5);

/// What happened, until somebody asks.
enum Event {
    Assigned(u32),
    Revoked(u32, oneshot::Sender<()>),
}

/// What the member's thread and the port's end share.
struct Shared {
    events: Mutex<VecDeque<Event>>,
    happened: Notify,
    /// Nobody asks any more: the thread is to leave the group.
    closing: AtomicBool,
}

impl Shared {
    fn events(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    fn assigned(&self, partition: u32) {
        self.events().push_back(Event::Assigned(partition));
        self.happened.notify_one();
    }

    /// Says that the partition goes; gives what to wait for. If nobody has heard yet that it came, nobody hears at all:
    /// so at most two events a partition wait.
    fn revoked(&self, partition: u32) -> Option<oneshot::Receiver<()>> {
        let mut events = self.events();
        let unheard = events.iter().position(|event| matches!(event, Event::Assigned(p) if *p == partition));
        if let Some(place) = unheard {
            events.remove(place);
            return None;
        }
        let (released, wait) = oneshot::channel();
        events.push_back(Event::Revoked(partition, released));
        drop(events);
        self.happened.notify_one();
        Some(wait)
    }
}

/// The rebalances' end: called on the member's thread.
struct Member {
    shared: Arc<Shared>,
    owned: Mutex<BTreeSet<u32>>,
    revoke_timeout: Duration,
}

impl Member {
    fn owned(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn assign(&self, partitions: Vec<u32>) {
        tracing::info!(?partitions, "partitions were assigned to this host");
        for partition in partitions {
            if self.owned().insert(partition) {
                self.shared.assigned(partition);
            }
        }
    }

    /// Tells the owners, and waits for them unless that is of no use.
    fn revoke(&self, partitions: Vec<u32>, lost: bool) {
        let begin = Instant::now();
        let owned = |partition: &u32| self.owned().remove(partition);
        let revoked: Vec<u32> = partitions.into_iter().filter(owned).collect();
        let waits = revoked.iter().filter_map(|partition| self.shared.revoked(*partition));
        let mut waits: Vec<_> = waits.collect();
        if lost {
            tracing::warn!(partitions = ?revoked, "partitions were lost: the session is over");
            return;
        }
        while !waits.is_empty() && begin.elapsed() < self.revoke_timeout && !self.shared.is_closing() {
            // Used or dropped: either way the owner has stopped.
            waits.retain_mut(|wait| matches!(wait.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
            thread::sleep(LOOK_EVERY);
        }
        let (waited_ms, late) = (begin.elapsed().as_millis() as u64, waits.len());
        tracing::info!(partitions = ?revoked, waited_ms, late, "partitions go to another host");
    }
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        context::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        context::note(&error, reason);
    }
}

impl ConsumerContext for Member {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            self.revoke(partitions_of(list), consumer.assignment_lost());
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                if let Err(error) = consumer.pause(list) {
                    // It would read what nobody takes: a waste, no harm.
                    tracing::warn!(%error, "cannot pause what the group assigned");
                }
                self.assign(partitions_of(list));
            }
            Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => tracing::warn!(%error, "a rebalance failed; the group tries again"),
        }
    }
}

fn partitions_of(list: &TopicPartitionList) -> Vec<u32> {
    list.elements().iter().map(|element| element.partition() as u32).collect()
}

/// This process's membership.
pub(crate) struct Membership<T> {
    running: Arc<Running>,
    commands: Weak<Commands<T>>,
    shared: Arc<Shared>,
    member: Option<thread::JoinHandle<()>>,
}

impl<T: Send + 'static> Membership<T> {
    /// Joins the group.
    pub(crate) fn join(running: Arc<Running>, commands: &Arc<Commands<T>>) -> Result<Self, JournalError> {
        let client = running.client.clone();
        let shared = Arc::new(Shared {
            events: Mutex::default(),
            happened: Notify::new(),
            closing: AtomicBool::new(false),
        });
        let member = Member {
            shared: shared.clone(),
            owned: Mutex::default(),
            revoke_timeout: client.config.revoke_timeout,
        };
        let consumer: BaseConsumer<Member> =
            client.config.member().create_with_context(member).map_err(failed("join the group"))?;
        consumer.subscribe(&[&client.topics.tasks]).map_err(failed("join the group"))?;
        let theirs = shared.clone();
        let member = thread::Builder::new()
            .name("kafka-group".into())
            .spawn(move || keep(&client, &consumer, &theirs))
            .map_err(|source| JournalError::Io {
                what: "start a thread for",
                path: "the group".into(),
                source,
            })?;
        Ok(Self { running, commands: Arc::downgrade(commands), shared, member: Some(member) })
    }
}

/// Keeps the membership until nobody wants it.
fn keep(client: &Client, consumer: &BaseConsumer<Member>, shared: &Shared) {
    let mut told = BTreeMap::new();
    let mut telling = Instant::now();
    while !shared.is_closing() {
        if let Some(Err(error)) = consumer.poll(POLL)
            && !is_passing(&error)
        {
            tracing::warn!(%error, "the group's member goes on after an error");
        }
        if telling.elapsed() > OFFSETS_EVERY {
            telling = Instant::now();
            tell_offsets(client, consumer, &mut told);
        }
    }
    // Dropping the consumer leaves the group, so that the others need not wait for the session to end.
}

/// Commits how far the owners are, where that has changed.
fn tell_offsets(client: &Client, consumer: &BaseConsumer<Member>, told: &mut BTreeMap<u32, u64>) {
    let mut list = TopicPartitionList::new();
    let owned = consumer.context().owned().clone();
    for partition in owned {
        let consumed = client.local(partition).stand().and_then(|stand| stand.consumed);
        let Some(tasks) = consumed.map(|cursor| cursor.tasks) else { continue };
        if told.insert(partition, tasks) != Some(tasks) {
            let offset = Offset::Offset(tasks as i64);
            // A name that was taken for a topic before cannot be wrong now.
            let _ = list.add_partition_offset(&client.topics.tasks, partition as i32, offset);
        }
    }
    if list.count() > 0
        && let Err(error) = consumer.commit(&list, CommitMode::Async)
    {
        tracing::debug!(%error, "lag tools are not told how far we are");
    }
}

#[async_trait]
impl<T: Send + 'static> Assignments<T> for Membership<T> {
    async fn next(&mut self) -> Option<Change<T>> {
        loop {
            let commands = self.commands.upgrade()?;
            let event = self.shared.events().pop_front();
            match event {
                Some(Event::Assigned(partition)) => {
                    let waiting = commands.own(partition);
                    let deliveries = Box::new(Arrivals::new(self.running.clone(), partition, waiting));
                    return Some(Change::Assigned { partition, deliveries });
                }
                Some(Event::Revoked(partition, released)) => {
                    commands.disown(partition);
                    return Some(Change::Revoked { partition, released });
                }
                None => {}
            }
            drop(commands);
            self.shared.happened.notified().await;
        }
    }
}

impl<T> Drop for Membership<T> {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        // A process that ends before its member has left would be waited for until its session is over.
        let begin = Instant::now();
        while self.member.as_ref().is_some_and(|member| !member.is_finished())
            && begin.elapsed() < LEAVE_WITHIN
        {
            thread::sleep(LOOK_EVERY);
        }
    }
}
