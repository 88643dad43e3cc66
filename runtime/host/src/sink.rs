//! The sink's loop: follows the journal of every partition, projects its events to rows, stores them in ClickHouse, and
//! says how far it is. It reads durable records only, so a row never comes before its event.
//!
//! With ClickHouse away it waits and loses nothing: the journal is cut only below what is stored. Rows that are stored
//! twice (the position was not kept in time) replace themselves.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use reipaz_core::codec;
use reipaz_journal::{Journal, JournalError, Position, Reader};
use reipaz_store::{Projection, RowBatch, Store};
use tokio::sync::watch;
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

/// One sink for all partitions of this host.
pub(crate) struct Sink {
    store: Store,
    catalog: Arc<Catalog>,
    file: PathBuf,
    lanes: Vec<Lane>,
}

struct Lane {
    partition: u32,
    reader: Box<dyn Reader>,
    projection: Projection,
    read: Position,
    stored: watch::Sender<u64>,
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
    /// Starts where the last sink left off.
    pub(crate) async fn open(
        store: Store,
        catalog: Arc<Catalog>,
        journal: &Arc<dyn Journal>,
        stored: Vec<watch::Sender<u64>>,
        file: PathBuf,
    ) -> Result<Self, SinkError> {
        let kept = read_positions(&file);
        let mut lanes = Vec::with_capacity(stored.len());
        for (partition, stored) in (0..).zip(stored) {
            let position = Position(kept.get(&partition).copied().unwrap_or(0));
            let reader = journal.reader(partition);
            let mut lane = Lane { partition, reader, projection: Projection::new(), read: position, stored };
            lane.start_at_what_is_kept().await?;
            lane.learn_up_to(lane.read).await?;
            lane.stored.send_replace(lane.read.0);
            lanes.push(lane);
        }
        Ok(Self { store, catalog, file, lanes })
    }

    /// Follows the journal until `stop`, then stores what is left, if ClickHouse takes it.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), SinkError> {
        let mut catalog_changes = self.catalog.changes();
        catalog_changes.mark_changed();
        loop {
            let stopping = stop.is_cancelled();
            if catalog_changes.has_changed().unwrap_or(false) {
                catalog_changes.mark_unchanged();
                store_catalog(&self.store, &self.catalog, &stop).await;
            }
            let (batch, more) = self.read_batch().await?;
            if !batch.is_empty() {
                if !store_batch(&self.store, batch, &stop).await {
                    return Ok(());
                }
                self.note_stored();
            }
            if more {
                continue;
            }
            if stopping {
                return Ok(());
            }
            tokio::select! {
                () = self.wait_for_more() => tokio::time::sleep(COLLECT_FOR).await,
                _ = catalog_changes.changed() => catalog_changes.mark_changed(),
                () = stop.cancelled() => {}
            }
        }
    }

    /// As many rows as fit one insert, and whether there are more.
    async fn read_batch(&mut self) -> Result<(RowBatch, bool), SinkError> {
        let mut batch = RowBatch::default();
        let mut more = false;
        for lane in &mut self.lanes {
            more |= lane.read_into(&mut batch).await?;
        }
        Ok((batch, more))
    }

    fn note_stored(&self) {
        let positions: BTreeMap<u32, u64> =
            self.lanes.iter().map(|lane| (lane.partition, lane.read.0)).collect();
        if let Err(error) = write_positions(&self.file, &positions) {
            // Rows are stored again after a restart, and replace themselves.
            tracing::warn!(file = %self.file.display(), %error, "the sink's position was not kept");
            return;
        }
        for lane in &self.lanes {
            lane.stored.send_replace(lane.read.0);
        }
    }

    async fn wait_for_more(&mut self) {
        let mut waits: FuturesUnordered<_> =
            self.lanes.iter_mut().map(|lane| lane.reader.wait_beyond(lane.read)).collect();
        waits.next().await;
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

/// Follows the journal in place of a sink, where there is no ClickHouse: what is durable counts as stored.
pub(crate) async fn follow_without_store(
    journal: Arc<dyn Journal>,
    stored: Vec<watch::Sender<u64>>,
    stop: CancellationToken,
) {
    let mut tasks = tokio::task::JoinSet::new();
    for (partition, stored) in (0..).zip(stored) {
        let mut reader = journal.reader(partition);
        tasks.spawn(async move {
            let mut position = Position::START;
            loop {
                position = reader.wait_beyond(position).await;
                stored.send_replace(position.0);
                tokio::time::sleep(COLLECT_FOR).await;
            }
        });
    }
    stop.cancelled().await;
    tasks.shutdown().await;
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
