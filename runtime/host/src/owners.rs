//! Which partitions this host owns, as that changes: an owner is started for each that is assigned, and stopped when it goes
//! to another host or the host stops.
//!
//! Where the journal is this host's alone, an owner that fails ends the host. Where it is shared, it ends the ownership: what
//! the owner held in memory is dropped, its attempts are interrupted, whoever waited is told to look again, and the partition
//! is taken over anew, from its journal, while it is still assigned to this host.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use reipaz_core::partition::PartitionConfig;
use reipaz_journal::{Assignments, Change, Deliveries, Journal};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    alerts::Tap,
    attempts::Attempts,
    catalog::Catalog,
    clock::SystemClock,
    owner::{Command, Executor, Owner, OwnerError, OwnerParts, OwnerStatus, TaskRules},
    peers::Peers,
    secrets::SecretStore,
    sink::Lanes,
};

/// Outcomes that wait for an owner. An attempt whose outcome does not fit waits with it.
const OUTCOMES_QUEUED: usize = 4_096;

/// How long attempts may still take when their partition goes to another host, which waits for it.
const HAND_OVER_WITHIN: Duration = Duration::from_millis(1_500);

/// Between two tries to take a partition over.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What all owners of a host share.
pub(crate) struct Shared {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) engine: reipaz_engine::Engine,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) secrets: Arc<SecretStore>,
    pub(crate) config: PartitionConfig,
    pub(crate) payload_bytes: usize,
    pub(crate) checkpoint_bytes: u64,
    pub(crate) drain_timeout: Duration,
    pub(crate) statuses: Vec<Arc<OwnerStatus>>,
    pub(crate) lanes: Lanes,
    pub(crate) alerts: Tap,
    /// The other hosts; none where the journal is this host's alone.
    pub(crate) peers: Option<Arc<Peers>>,
}

/// See the module.
pub(crate) struct Owners {
    shared: Arc<Shared>,
    assignments: Box<dyn Assignments<Command>>,
    running: HashMap<u32, Running>,
    ended: JoinSet<Ended>,
}

struct Running {
    stop: watch::Sender<Option<Duration>>,
    /// Who waits for the journal to be closed.
    released: Option<oneshot::Sender<()>>,
    /// The partition was assigned again while its last owner is still ending: the next one waits for that, or both would
    /// fence one another.
    next: Option<Box<dyn Deliveries<Command>>>,
}

struct Ended {
    partition: u32,
    deliveries: Box<dyn Deliveries<Command>>,
    result: Result<(), OwnerError>,
}

impl Owners {
    /// Owns nothing yet.
    pub(crate) fn new(shared: Arc<Shared>, assignments: Box<dyn Assignments<Command>>) -> Self {
        Self { shared, assignments, running: HashMap::new(), ended: JoinSet::new() }
    }

    /// Takes over `count` partitions, which must be assigned at once, and comes back when they are recovered.
    pub(crate) async fn take(&mut self, count: u32) -> Result<(), OwnerError> {
        let mut recovered = JoinSet::new();
        for _ in 0..count {
            let Some(Change::Assigned { partition, deliveries }) = self.assignments.next().await else {
                break;
            };
            recovered.spawn(self.start(partition, deliveries, Duration::ZERO));
        }
        while let Some(ready) = recovered.join_next().await {
            if !matches!(ready, Ok(Ok(()))) {
                // It said nothing because it failed.
                if let Some(Ok(ended)) = self.ended.join_next().await {
                    ended.result?;
                }
            }
        }
        Ok(())
    }

    /// Follows the assignments until `stop`; then every owner drains and closes its journal.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), OwnerError> {
        let mut changes = true;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                change = self.assignments.next(), if changes => match change {
                    Some(change) => self.change(change),
                    // What is owned stays so.
                    None => changes = false,
                },
                Some(ended) = self.ended.join_next() => self.ended(ended)?,
            }
        }
        for running in self.running.values_mut() {
            running.next = None;
            running.stop.send_replace(Some(self.shared.drain_timeout));
        }
        while let Some(ended) = self.ended.join_next().await {
            self.ended(ended)?;
        }
        Ok(())
    }

    fn change(&mut self, change: Change<Command>) {
        let (partition, kind) = match &change {
            Change::Assigned { partition, .. } => (*partition, "assigned"),
            Change::Revoked { partition, .. } => (*partition, "revoked"),
        };
        tracing::info!(partition, "the partition is {kind}");
        metrics::counter!("reipaz_partition_changes_total", "change" => kind).increment(1);
        match change {
            Change::Assigned { partition, deliveries } => match self.running.get_mut(&partition) {
                None => drop(self.start(partition, deliveries, Duration::ZERO)),
                Some(running) => {
                    running.stop.send_replace(Some(Duration::ZERO));
                    running.next = Some(deliveries);
                }
            },
            Change::Revoked { partition, released } => match self.running.get_mut(&partition) {
                Some(running) => {
                    running.released = Some(released);
                    running.next = None;
                    running.stop.send_replace(Some(HAND_OVER_WITHIN.min(self.shared.drain_timeout)));
                }
                None => drop(released),
            },
        }
    }

    /// Starts an owner; the answer comes when its partition is recovered.
    fn start(
        &mut self,
        partition: u32,
        deliveries: Box<dyn Deliveries<Command>>,
        after: Duration,
    ) -> impl Future<Output = Result<(), oneshot::error::RecvError>> + use<> {
        let (stop, stopped) = watch::channel(None);
        self.running.insert(partition, Running { stop, released: None, next: None });
        let (ready, recovered) = oneshot::channel();
        self.ended.spawn(own(Arc::clone(&self.shared), partition, deliveries, stopped, ready, after));
        recovered
    }

    fn ended(&mut self, ended: Result<Ended, tokio::task::JoinError>) -> Result<(), OwnerError> {
        let Ended { partition, deliveries, result } = match ended {
            Ok(ended) => ended,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let running = self.running.remove(&partition);
        let stopping = running.as_ref().is_some_and(|running| running.stop.borrow().is_some());
        match result {
            Ok(()) => {}
            Err(error) if self.shared.peers.is_none() => return Err(error),
            Err(error) => {
                metrics::counter!("reipaz_ownerships_lost_total").increment(1);
                tracing::warn!(partition, %error, "the ownership has ended; what was not durable is dropped");
            }
        }
        let Some(Running { released, next, .. }) = running else { return Ok(()) };
        if let Some(released) = released {
            // Nobody may wait for it any more.
            let _ = released.send(());
        }
        match next {
            Some(next) => drop(self.start(partition, next, Duration::ZERO)),
            None if !stopping => drop(self.start(partition, deliveries, TRY_AGAIN_AFTER)),
            None => {}
        }
        Ok(())
    }
}

async fn own(
    shared: Arc<Shared>,
    partition: u32,
    mut deliveries: Box<dyn Deliveries<Command>>,
    mut stop: watch::Receiver<Option<Duration>>,
    ready: oneshot::Sender<()>,
    after: Duration,
) -> Ended {
    let goes_on = after.is_zero()
        || tokio::select! {
            () = tokio::time::sleep(after) => true,
            _ = stop.wait_for(Option::is_some) => false,
        };
    let result =
        if goes_on { own_now(&shared, partition, &mut *deliveries, stop, ready).await } else { Ok(()) };
    Ended { partition, deliveries, result }
}

async fn own_now(
    shared: &Shared,
    partition: u32,
    deliveries: &mut dyn Deliveries<Command>,
    stop: watch::Receiver<Option<Duration>>,
    ready: oneshot::Sender<()>,
) -> Result<(), OwnerError> {
    let (outcomes, received) = mpsc::channel(OUTCOMES_QUEUED);
    let attempts = Attempts::new(
        shared.engine.clone(),
        Arc::clone(&shared.catalog),
        Arc::clone(&shared.secrets),
        outcomes,
        shared.payload_bytes,
    );
    let status = Arc::clone(&shared.statuses[partition as usize]);
    let (stored, lane) = shared.lanes.open(partition);
    let parts = OwnerParts {
        partition,
        journal: Arc::clone(&shared.journal),
        attempts: attempts.clone(),
        clock: Arc::new(SystemClock),
        outcomes: received,
        stored,
        alerts: shared.alerts.clone(),
        config: PartitionConfig { partition, ..shared.config.clone() },
        checkpoint_bytes: shared.checkpoint_bytes,
        status: Arc::clone(&status),
        stop,
        tasks: shared.peers.as_ref().map(|_| TaskRules {
            catalog: Arc::clone(&shared.catalog),
            partitions: shared.statuses.len() as u32,
            payload_bytes: shared.payload_bytes,
        }),
    };
    let owner = Owner::recover(parts, deliveries).await?;
    lane.start();
    status.owned.store(true, Ordering::Release);
    if let Some(peers) = &shared.peers {
        peers.announce(partition);
    }
    let _ = ready.send(());
    let result = owner.run(deliveries).await;
    status.owned.store(false, Ordering::Release);
    // After a failure attempts may still run: nobody waits for them.
    attempts.cancel_all();
    drop(lane);
    result
}
