//! The journal on Apache Kafka: many processes share the partitions, and the broker's own transactions do the fencing.
//!
//! ```text
//! <prefix>tasks            what producers ask for; may be paused       partitions: as configured
//! <prefix>messages         what partitions tell one another            the same
//! <prefix>journal          each partition's records and checkpoints    the same
//! <prefix>results          what became of runs, for readers outside
//! <prefix>tasks.rejected   tasks that were not accepted
//! <prefix>catalog          what every host knows; compacted            1
//! ```
//!
//! # Taking over
//!
//! The owner of partition `p` writes with the transactional id of `p`. `init_transactions` fences whoever wrote with it
//! before and undoes what they left open. Then the new owner writes one message, `Opened`, and reads the journal up to it:
//! that is a definite end, where "no more came for a while" would be a guess. Every message of the journal says where the
//! partition stands and where its newest checkpoint lies (`frame`), so the last one before `Opened` is all that has to be
//! found; typically it is one fetch away. Then come the checkpoint and the records behind it. All this takes 0.1 s, or 0.6 s
//! where librdkafka's first question for a coordinator came too early: it asks again after half a second.
//!
//! # Committing
//!
//! A batch is one transaction: its frame in the journal, its messages, what it publishes. How far tasks and messages have
//! been consumed stands in the frame, so the group's offsets decide nothing. What a refused, an undone and an unclear
//! commit are is told apart in `transaction`; after the latter an owner ends.
//!
//! Measured on one broker on the same 2-core virtual machine, which was compiling besides, 300 commits one after
//! another, in milliseconds; `tests/kafka.rs` prints it anew:
//!
//! ```text
//!                                     p10    p50    p90    p99
//! a record                            2.9    3.2    5.3     28
//! a record and a message              3.8    4.2    4.8     26
//! ```
//!
//! The slow ones found the broker still busy with the commit before: librdkafka then waits for 20 ms, which nobody can
//! set. Two traps make all of them slow, a tenth of a second each: `retry.backoff.ms` (`config`), and polling the producer
//! for reports with a timeout (`transaction`).
//!
//! # Checkpoints
//!
//! A checkpoint is a frame of the journal itself, written in some transactions, and counts once a last message, `Sealed`,
//! says that it is whole: from then on every header points at it. The pointer also says where the records behind the
//! checkpoint begin (before its own messages, if records were committed between the state and its writing), so deletion
//! below that offset keeps exactly what a recovery needs.
//!
//! # Reading beside the owner
//!
//! A commit is durable when the broker has decided it, and visible a moment later. Readers of this process know what the
//! owner committed and wait for it; others go by what Kafka calls the end.
//!
//! # Who blocks
//!
//! librdkafka's transaction, metadata and search calls block. An owner has a thread of its own for them; take-overs and
//! searches run where blocking is allowed; the membership in the group has a thread, so that nothing an owner does can
//! cost it. Closing a client blocks too, and is done on a thread for that ([`Retired`]).

mod catalog;
mod complaints;
mod config;
mod context;
mod deliveries;
mod examine;
mod frame;
mod greet;
mod group;
mod owner;
mod partition;
mod reader;
mod retry;
mod scout;
mod settings;
mod tasks;
mod topics;
mod transaction;

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    admin::AdminClient,
    error::{KafkaError, RDKafkaErrorCode},
    producer::FutureProducer,
};
use tokio::sync::watch;

use self::{
    catalog::KafkaCatalog,
    context::Logged,
    deliveries::Arrivals,
    frame::Stand,
    group::Membership,
    partition::KafkaJournal,
    tasks::KafkaTasks,
    topics::{Outlets, Topics},
};
pub use self::{
    config::{KafkaConfig, MESSAGE_BYTES_DEFAULT, PARTITIONS_LIMIT, PREFIX_DEFAULT, Sasl, Security, Tls},
    examine::{Finding, Grade},
    partition::BATCH_BYTES_LIMIT,
};
use crate::{
    catalog::Catalog,
    commands::Commands,
    error::JournalError,
    intake::{Assignments, Deliveries, Ends, Intake, Tasks},
    ports::{Journal, Position},
    unblock::unblock,
};

/// A journal on Kafka with its intake, tasks and catalogue.
pub struct Kafka {
    running: Arc<Running>,
    producer: Arc<Sender>,
    catalog: Arc<KafkaCatalog>,
}

/// For tasks and the catalogue.
type Sender = Retired<FutureProducer<Logged>>;
/// For administrators' requests.
type Admin = Retired<AdminClient<Logged>>;

/// What everything obtained from a [`Kafka`] shares.
pub(crate) struct Running {
    pub(crate) client: Client,
    pub(crate) admin: Arc<Admin>,
    pub(crate) outlets: Outlets,
}

/// How Kafka is reached, and what this process knows of the partitions that it owns.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) config: Arc<KafkaConfig>,
    pub(crate) topics: Arc<Topics>,
    locals: Arc<[Local]>,
}

impl Client {
    fn new(config: KafkaConfig) -> Self {
        let topics = config.topics();
        let locals = (0..config.partitions).map(|_| Local::default()).collect();
        Self { config: Arc::new(config), topics, locals }
    }

    /// The partition, which the caller has checked to exist.
    fn local(&self, partition: u32) -> &Local {
        &self.locals[partition as usize]
    }
}

/// Where a partition stands, as far as an owner in this process says.
#[derive(Default)]
pub(crate) struct Local {
    owners: AtomicU64,
    stand: watch::Sender<Option<Stand>>,
}

impl Local {
    /// A new owner begins; gives its number.
    fn begin(&self, stand: Stand) -> u64 {
        let number = self.owners.fetch_add(1, Ordering::AcqRel) + 1;
        self.stand.send_replace(Some(stand));
        number
    }

    /// What owner `number` has reached. Nobody listens to one that was replaced.
    fn moved(&self, number: u64, stand: Stand) {
        self.set(number, Some(stand));
    }

    /// Owner `number` is none any more.
    fn end(&self, number: u64) {
        self.set(number, None);
    }

    fn set(&self, number: u64, stand: Option<Stand>) {
        self.stand.send_if_modified(|known| {
            let current = self.owners.load(Ordering::Acquire) == number;
            if current {
                *known = stand;
            }
            current
        });
    }

    fn stand(&self) -> Option<Stand> {
        *self.stand.borrow()
    }

    fn last(&self) -> Option<Position> {
        self.stand().map(|stand| Position(stand.last))
    }
}

impl Kafka {
    /// Reaches the brokers, makes the topics that are missing (or says which command does), checks their partition
    /// counts and settings, and reads the catalogue.
    pub async fn open(config: KafkaConfig) -> Result<Self, JournalError> {
        config.check()?;
        let client = Client::new(config);
        let config = &client.config;
        let greeting = Arc::clone(config);
        unblock(move || greet::greet(&greeting)).await?;
        let admin: AdminClient<Logged> =
            config.admin().create_with_context(Logged).map_err(failed("make a client"))?;
        let admin = Arc::new(Retired::new(admin));
        let outlets = topics::ensure(&admin, config).await?;
        let producer: FutureProducer<Logged> =
            config.plain_producer().create_with_context(Logged).map_err(failed("make a producer"))?;
        let producer = Arc::new(Retired::new(producer));
        let catalog = Arc::new(KafkaCatalog::open(&client, producer.clone()).await?);
        Ok(Self { running: Arc::new(Running { client, admin, outlets }), producer, catalog })
    }

    /// Looks at brokers, topics and rights as a host needs them, and changes nothing. Takes some seconds at most.
    pub async fn examine(config: KafkaConfig) -> Vec<Finding> {
        examine::examine(config).await
    }

    /// The journal.
    pub fn journal(&self) -> Arc<dyn Journal> {
        Arc::new(KafkaJournal { running: self.running.clone() })
    }

    /// The catalogue.
    pub fn catalog(&self) -> Arc<dyn Catalog> {
        self.catalog.clone()
    }

    /// The way in for tasks.
    pub fn tasks(&self) -> Arc<dyn Tasks> {
        Arc::new(KafkaTasks { client: self.running.client.clone(), producer: self.producer.clone() })
    }

    /// The way in, with room for `bound` commands a partition, and its other end for each partition, in order, whoever
    /// the group says owns it: for a process that is told its partitions otherwise.
    pub fn intake<T: Send + 'static>(&self, bound: usize) -> Ends<T> {
        let partitions = self.running.client.config.partitions;
        let commands = Commands::new(partitions, bound);
        let deliveries = (0..partitions).map(|partition| {
            let waiting = commands.own(partition);
            Box::new(Arrivals::new(self.running.clone(), partition, waiting)) as Box<dyn Deliveries<T>>
        });
        let deliveries = deliveries.collect();
        (commands, deliveries)
    }

    /// The way in, with room for `bound` commands a partition, and the partitions that the group assigns to this process.
    /// Dropping the assignments leaves the group.
    #[expect(clippy::type_complexity, reason = "two ports")]
    pub fn assignments<T: Send + 'static>(
        &self,
        bound: usize,
    ) -> Result<(Arc<dyn Intake<T>>, Box<dyn Assignments<T>>), JournalError> {
        let commands = Commands::new(self.running.client.config.partitions, bound);
        let membership = Membership::join(self.running.clone(), &commands)?;
        Ok((commands, Box::new(membership)))
    }
}

/// How long a client that is of no use any more is left alone before it is closed.
///
/// A consumer that was sent to another place stops reading at the old one first. If it is closed before it has stopped,
/// librdkafka (2.12) stops it twice, and then its own assertion ends the process (`rd_kafka_assignment_partition_stopped`).
/// It stops within milliseconds.
const CLOSED_AFTER: Duration = Duration::from_millis(500);

/// A client of librdkafka that is closed on a thread of its own: closing waits for librdkafka's threads.
pub(crate) struct Retired<C: Send + 'static>(Option<C>);

impl<C: Send + 'static> Retired<C> {
    fn new(client: C) -> Self {
        Self(Some(client))
    }
}

impl<C: Send + 'static> Deref for Retired<C> {
    type Target = C;

    fn deref(&self) -> &C {
        self.0.as_ref().expect("only dropping takes it out")
    }
}

impl<C: Send + 'static> Drop for Retired<C> {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            // Without a thread it is closed here, and somebody waits.
            let _ = std::thread::Builder::new().name("kafka-close".into()).spawn(move || {
                std::thread::sleep(CLOSED_AFTER);
                drop(client);
            });
        }
    }
}

/// Makes an error of ours from one of librdkafka's.
fn failed(what: &str) -> impl Fn(KafkaError) -> JournalError + '_ {
    move |error| JournalError::Kafka { what: what.to_owned(), why: error.to_string() }
}

/// Whether librdkafka goes on by itself after this.
fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::RequestTimedOut
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::CoordinatorNotAvailable
                | RDKafkaErrorCode::NotCoordinator
                | RDKafkaErrorCode::CoordinatorLoadInProgress
        )
    )
}
