//! The sink's loop: follows the journal of every partition, projects its events to rows, stores them in ClickHouse, and
//! says how far it is. It reads durable records only, so a row never comes before its event.
//!
//! With ClickHouse away it waits and loses nothing: the journal is cut only below what is stored. Rows that are stored
//! twice (the position was not kept in time) replace themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use reipaz_core::codec;
use reipaz_journal::{Journal, JournalError, Position, Reader};
use reipaz_store::{Projection, RowBatch, Store};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::catalog::Catalog;

/// Events read from one partition at a time, bytes.
const READ_BYTES: usize = 4 << 20;

/// Rows in one insert. ClickHouse likes thousands; a reader of the newest row does not like to wait.
const ROWS_PER_INSERT: usize = 20_000;

/// How long rows collect before they are stored: the price of a fresh row is an insert (some milliseconds) per table.
const COLLECT_FOR: Duration = Duration::from_millis(150);

/// How long to wait after an insert that failed.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// How long a stopping host gives the sink to store what is left.
const LAST_INSERT_WITHIN: Duration = Duration::from_secs(3);

/// The pause after a shared journal could not be read.
const READ_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// How soon a lane that could not learn where to begin tries again.
const JOIN_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Where a sink keeps how far it is.
pub(crate) enum Kept {
    /// In a file: the journal is this host's alone.
    File(PathBuf),
    /// In ClickHouse, for whichever host goes on.
    Store,
}

/// One sink for all partitions of this host.
pub(crate) struct Sink {
    store: Store,
    catalog: Arc<Catalog>,
    journal: Arc<dyn Journal>,
    kept: Kept,
    /// What the file says, if there is one.
    positions: BTreeMap<u32, u64>,
    board: Arc<Board>,
    /// Who does not know yet where to begin.
    joining: Vec<Joining>,
    lanes: Vec<Lane>,
}

struct Joining {
    partition: u32,
    id: u64,
    stored: watch::Sender<u64>,
}

struct Lane {
    partition: u32,
    id: u64,
    reader: Box<dyn Reader>,
    projection: Projection,
    read: Position,
    stored: watch::Sender<u64>,
    /// Its owner has stopped: what is left is stored, then it goes.
    leaving: bool,
}

/// What owners have said since the sink last looked: at most two notes a partition, however long it does not look.
#[derive(Default)]
struct Board {
    notes: Mutex<Notes>,
    noted: Notify,
}

#[derive(Default)]
struct Notes {
    opened: BTreeMap<u32, Joining>,
    closed: BTreeSet<u64>,
}

impl Board {
    fn open(&self, joining: Joining) {
        self.notes().opened.insert(joining.partition, joining);
        self.noted.notify_one();
    }

    fn close(&self, partition: u32, id: u64) {
        let mut notes = self.notes();
        if notes.opened.get(&partition).is_some_and(|joining| joining.id == id) {
            notes.opened.remove(&partition);
        } else {
            notes.closed.insert(id);
        }
        drop(notes);
        self.noted.notify_one();
    }

    fn take(&self) -> Notes {
        std::mem::take(&mut *self.notes())
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How owners get their lanes.
#[derive(Clone)]
pub(crate) struct Lanes {
    /// None: there is no store.
    board: Option<Arc<Board>>,
    journal: Arc<dyn Journal>,
    ids: Arc<AtomicU64>,
}

/// One owner's lane: dropped with the owner.
pub(crate) struct OpenLane {
    lanes: Lanes,
    partition: u32,
    id: u64,
    stored: Mutex<Option<watch::Sender<u64>>>,
    following: CancellationToken,
}

impl Lanes {
    /// Lanes that nobody stores: what is durable counts as stored.
    pub(crate) fn without_store(journal: Arc<dyn Journal>) -> Self {
        Self { board: None, journal, ids: Arc::default() }
    }

    /// A lane for an owner, which learns from it how far its journal is stored.
    pub(crate) fn open(&self, partition: u32) -> (watch::Receiver<u64>, OpenLane) {
        let (stored, receiver) = watch::channel(0);
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let stored = Mutex::new(Some(stored));
        let following = CancellationToken::new();
        (receiver, OpenLane { lanes: self.clone(), partition, id, stored, following })
    }
}

impl OpenLane {
    /// The partition is recovered: the sink may follow it.
    pub(crate) fn start(&self) {
        let Some(stored) = self.stored.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        match &self.lanes.board {
            Some(board) => board.open(Joining { partition: self.partition, id: self.id, stored }),
            None => {
                let reader = self.lanes.journal.reader(self.partition);
                tokio::spawn(self.following.clone().run_until_cancelled_owned(follow(reader, stored)));
            }
        }
    }
}

impl Drop for OpenLane {
    fn drop(&mut self) {
        self.following.cancel();
        if let Some(board) = &self.lanes.board {
            board.close(self.partition, self.id);
        }
    }
}

/// Follows a journal in place of a sink.
async fn follow(mut reader: Box<dyn Reader>, stored: watch::Sender<u64>) {
    let mut position = Position::START;
    loop {
        position = reader.wait_beyond(position).await;
        stored.send_replace(position.0);
        tokio::time::sleep(COLLECT_FOR).await;
    }
}

/// Why the sink cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SinkError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("partition {partition}, position {position}: {reason}")]
    Record { partition: u32, position: u64, reason: String },
}

impl Sink {
    /// A sink without lanes, and how owners open some.
    pub(crate) fn new(
        store: Store,
        catalog: Arc<Catalog>,
        journal: Arc<dyn Journal>,
        kept: Kept,
    ) -> (Self, Lanes) {
        let board = Arc::<Board>::default();
        let lanes =
            Lanes { board: Some(Arc::clone(&board)), journal: Arc::clone(&journal), ids: Arc::default() };
        let positions = match &kept {
            Kept::File(file) => read_positions(file),
            Kept::Store => BTreeMap::new(),
        };
        let sink =
            Self { store, catalog, journal, kept, positions, board, joining: Vec::new(), lanes: Vec::new() };
        (sink, lanes)
    }

    /// Follows the journal until `stop`, then stores what is left, if ClickHouse takes it.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), SinkError> {
        let mut catalog_changes = self.catalog.changes();
        catalog_changes.mark_changed();
        loop {
            let stopping = stop.is_cancelled();
            self.read_the_board();
            self.join_lanes().await?;
            if catalog_changes.has_changed().unwrap_or(false) {
                catalog_changes.mark_unchanged();
                store_catalog(&self.store, &self.catalog, &stop).await;
            }
            let (batch, more) = self.read_batch().await?;
            if !batch.is_empty() {
                if !store_batch(&self.store, batch, &stop).await {
                    return Ok(());
                }
                self.note_stored().await;
            }
            if more {
                continue;
            }
            // All lanes are at their ends: who leaves has nothing left.
            self.lanes.retain(|lane| !lane.leaving);
            if stopping {
                return Ok(());
            }
            let joining = !self.joining.is_empty();
            tokio::select! {
                () = wait_for_more(&mut self.lanes) => tokio::time::sleep(COLLECT_FOR).await,
                () = self.board.noted.notified() => {}
                () = tokio::time::sleep(JOIN_AGAIN_AFTER), if joining => {}
                _ = catalog_changes.changed() => catalog_changes.mark_changed(),
                () = stop.cancelled() => {}
            }
        }
    }

    fn read_the_board(&mut self) {
        let Notes { opened, closed } = self.board.take();
        self.joining.retain(|joining| !closed.contains(&joining.id));
        for lane in self.lanes.iter_mut().filter(|lane| closed.contains(&lane.id)) {
            lane.leaving = true;
        }
        self.joining.extend(opened.into_values());
    }

    /// Lets those begin who can be told where.
    async fn join_lanes(&mut self) -> Result<(), SinkError> {
        if self.joining.is_empty() {
            return Ok(());
        }
        let kept = match &self.kept {
            Kept::File(_) => self.positions.clone(),
            Kept::Store if !self.store.status().is_ready() => return Ok(()),
            Kept::Store => match self.store.sink_positions().await {
                Ok(kept) => kept,
                Err(error) => {
                    tracing::warn!(%error, "ClickHouse does not say how far rows are stored; trying again");
                    return Ok(());
                }
            },
        };
        for Joining { partition, id, stored } in std::mem::take(&mut self.joining) {
            let position = Position(kept.get(&partition).copied().unwrap_or(0));
            let reader = self.journal.reader(partition);
            let projection = Projection::new();
            let mut lane = Lane { partition, id, reader, projection, read: position, stored, leaving: false };
            let begun = async {
                lane.start_at_what_is_kept().await?;
                lane.learn_up_to(lane.read).await
            };
            match begun.await {
                Ok(()) => {
                    lane.stored.send_replace(lane.read.0);
                    self.lanes.push(lane);
                }
                Err(SinkError::Journal(error)) if matches!(self.kept, Kept::Store) => {
                    tracing::warn!(partition, %error, "the journal cannot be read; trying again");
                    self.joining.push(Joining { partition, id, stored: lane.stored });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// As many rows as fit one insert, and whether there are more.
    async fn read_batch(&mut self) -> Result<(RowBatch, bool), SinkError> {
        let mut batch = RowBatch::default();
        let mut more = false;
        for lane in &mut self.lanes {
            match lane.read_into(&mut batch).await {
                Ok(left) => more |= left,
                // What was read so far is in the batch. A shared journal comes back.
                Err(SinkError::Journal(error)) if matches!(self.kept, Kept::Store) => {
                    tracing::warn!(partition = lane.partition, %error, "the journal cannot be read; trying again");
                    tokio::time::sleep(READ_AGAIN_AFTER).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok((batch, more))
    }

    async fn note_stored(&mut self) {
        let positions: BTreeMap<u32, u64> =
            self.lanes.iter().map(|lane| (lane.partition, lane.read.0)).collect();
        let noted = match &self.kept {
            Kept::File(file) => {
                self.positions.extend(positions);
                write_positions(file, &self.positions).map_err(|error| format!("{}: {error}", file.display()))
            }
            Kept::Store => {
                self.store.note_sink_positions(&positions).await.map_err(|error| error.to_string())
            }
        };
        if let Err(error) = noted {
            // Rows are stored again after a restart, and replace themselves.
            tracing::warn!(error, "the sink's position was not kept");
            return;
        }
        for lane in &self.lanes {
            lane.stored.send_replace(lane.read.0);
        }
    }
}

async fn wait_for_more(lanes: &mut [Lane]) {
    let mut waits: FuturesUnordered<_> =
        lanes.iter_mut().map(|lane| lane.reader.wait_beyond(lane.read)).collect();
    if waits.next().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Until ClickHouse has it. False: the host stops and ClickHouse does not take it in time.
async fn store_batch(store: &Store, batch: RowBatch, stop: &CancellationToken) -> bool {
    let mut failing_since: Option<Instant> = None;
    let mut stopping_since: Option<Instant> = None;
    loop {
        match store.insert(&batch).await {
            Ok(()) => {
                if let Some(since) = failing_since {
                    let outage_ms = since.elapsed().as_millis() as u64;
                    tracing::info!(outage_ms, "ClickHouse takes rows again");
                }
                return true;
            }
            Err(error) if failing_since.is_none() => {
                failing_since = Some(Instant::now());
                tracing::warn!(%error, "rows are not stored; runs go on, and rows follow when ClickHouse is back");
            }
            Err(error) => tracing::debug!(%error, "rows are not stored"),
        }
        if stop.is_cancelled() {
            let since = *stopping_since.get_or_insert_with(Instant::now);
            if since.elapsed() > LAST_INSERT_WITHIN {
                return false;
            }
            tokio::time::sleep(PAUSE_AFTER_FAILURE / 4).await;
        } else {
            tokio::select! {
                () = store.ready_again(PAUSE_AFTER_FAILURE) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

/// All of it: there is little, and rows that are there already replace themselves.
async fn store_catalog(store: &Store, catalog: &Catalog, stop: &CancellationToken) {
    let mut batch = RowBatch::default();
    for version in catalog.all_versions() {
        batch.workflow(
            &version.name,
            version.version,
            &version.digest,
            &version.canonical,
            version.created_at,
        );
    }
    for plugin in catalog.all_plugins() {
        batch.plugin(
            plugin.name(),
            plugin.version(),
            &plugin.digest(),
            plugin.summary(),
            plugin.installed_at(),
        );
    }
    if !batch.is_empty() {
        store_batch(store, batch, stop).await;
    }
}

impl Lane {
    /// A lost position file means position 0, which a journal that was cut no longer has: start at its first record.
    async fn start_at_what_is_kept(&mut self) -> Result<(), SinkError> {
        match self.reader.read_after(self.read, 1).await {
            Err(JournalError::Cut { first, .. }) => {
                let position = Position(first.0.saturating_sub(1));
                tracing::warn!(
                    partition = self.partition,
                    from = self.read.0,
                    to = position.0,
                    "the sink starts at the oldest record that the journal still has"
                );
                self.read = position;
                Ok(())
            }
            other => Ok(other.map(drop)?),
        }
    }

    /// Folds what is before `position` without making rows, from the newest checkpoint at or below it.
    async fn learn_up_to(&mut self, position: Position) -> Result<(), SinkError> {
        let mut read = Position::START;
        if let Some(checkpoint) = self.reader.checkpoint_at_or_below(position).await? {
            read = checkpoint.at;
            for chunk in &checkpoint.chunks {
                let event = self.decode(read, chunk)?;
                self.projection.seed(&event);
            }
        }
        while read < position {
            let records = self.reader.read_after(read, READ_BYTES).await?;
            let Some(last) = records.last() else { break };
            let end = last.position;
            for record in records.iter().filter(|record| record.position <= position) {
                let event = self.decode(record.position, &record.bytes)?;
                self.projection.seed(&event);
            }
            read = end;
        }
        Ok(())
    }

    /// Whether there is more than fits.
    async fn read_into(&mut self, batch: &mut RowBatch) -> Result<bool, SinkError> {
        if batch.rows() >= ROWS_PER_INSERT {
            return Ok(true);
        }
        let records = self.reader.read_after(self.read, READ_BYTES).await?;
        for record in &records {
            let event = self.decode(record.position, &record.bytes)?;
            self.projection.apply(self.partition, record.position.0, &event, batch);
            self.read = record.position;
            if batch.rows() >= ROWS_PER_INSERT {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn decode(&self, position: Position, bytes: &[u8]) -> Result<reipaz_core::event::Event, SinkError> {
        codec::decode(bytes).map_err(|error| SinkError::Record {
            partition: self.partition,
            position: position.0,
            reason: error.to_string(),
        })
    }
}

fn read_positions(file: &Path) -> BTreeMap<u32, u64> {
    match std::fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::warn!(file = %file.display(), %error, "unreadable: all rows that the journal has are stored again");
            BTreeMap::new()
        }),
        Err(_) => BTreeMap::new(),
    }
}

/// Renamed into place, not made durable: an older position only costs rows that replace themselves.
fn write_positions(file: &Path, positions: &BTreeMap<u32, u64>) -> std::io::Result<()> {
    let next = file.with_extension("next");
    std::fs::write(&next, serde_json::to_vec(positions)?)?;
    std::fs::rename(next, file)
}
