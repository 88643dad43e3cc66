//! Storing a batch: one INSERT a table, all tables at once. An insert that came back is on disk. One that failed may
//! have stored some of its rows: storing the same batch again replaces them.

use std::collections::BTreeMap;

use clickhouse::{Client, Row, RowOwned, RowWrite};

use crate::{
    batch::RowBatch,
    error::StoreError,
    rows::{AttemptRow, EventRow, LogRow, PluginRow, RunRow, SinkPositionRow, WorkflowRow},
    store::Store,
};

/// Text in one INSERT; a batch with more is stored in several. Both sides hold it in memory as a whole.
const INSERT_BYTES_MAX: usize = 32 << 20;

/// A row that knows its table.
trait Stored: Row + RowOwned + RowWrite + Sync + for<'r> Row<Value<'r> = Self> {
    const TABLE: &'static str;
    /// About how many bytes of text it has.
    fn text_bytes(&self) -> usize;
}

impl Store {
    /// Stores all rows. Safe to repeat.
    pub async fn insert(&self, batch: &RowBatch) -> Result<(), StoreError> {
        let client = self.client()?;
        let all = async {
            tokio::try_join!(
                insert(&client, &batch.workflows),
                insert(&client, &batch.plugins),
                insert(&client, &batch.runs),
                insert(&client, &batch.attempts),
                insert(&client, &batch.logs),
                insert(&client, &batch.events),
            )
        };
        self.timely(Box::pin(all)).await.map(|_| ())
    }

    /// Notes how far each partition's journal has been stored, for whoever goes on with it. Call it after
    /// [`Store::insert`] of what is up to there.
    pub async fn note_sink_positions(&self, positions: &BTreeMap<u32, u64>) -> Result<(), StoreError> {
        let client = self.client()?;
        let rows: Vec<SinkPositionRow> =
            positions.iter().map(|(&partition, &position)| SinkPositionRow { partition, position }).collect();
        self.timely(Box::pin(insert(&client, &rows))).await
    }
}

async fn insert<T: Stored>(client: &Client, rows: &[T]) -> clickhouse::error::Result<()> {
    let mut rest = rows;
    while !rest.is_empty() {
        let mut insert = client.insert::<T>(T::TABLE).await?;
        let (mut written, mut bytes) = (0, 0);
        for row in rest {
            insert.write(row).await?;
            written += 1;
            bytes += row.text_bytes();
            if bytes > INSERT_BYTES_MAX {
                break;
            }
        }
        insert.end().await?;
        rest = &rest[written..];
    }
    Ok(())
}

impl Stored for SinkPositionRow {
    const TABLE: &'static str = "sink_positions";
    fn text_bytes(&self) -> usize {
        0
    }
}

impl Stored for WorkflowRow {
    const TABLE: &'static str = "workflows";
    fn text_bytes(&self) -> usize {
        self.pinned.len()
    }
}

impl Stored for PluginRow {
    const TABLE: &'static str = "plugins";
    fn text_bytes(&self) -> usize {
        self.summary.len()
    }
}

impl Stored for RunRow {
    const TABLE: &'static str = "runs";
    fn text_bytes(&self) -> usize {
        self.input.len() + self.output.len() + self.trigger.len() + self.error_message.len()
    }
}

impl Stored for AttemptRow {
    const TABLE: &'static str = "attempts";
    fn text_bytes(&self) -> usize {
        self.output.len() + self.error_message.len() + self.error_details.len()
    }
}

impl Stored for LogRow {
    const TABLE: &'static str = "logs";
    fn text_bytes(&self) -> usize {
        self.message.len() + self.fields.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
    }
}

impl Stored for EventRow {
    const TABLE: &'static str = "events";
    fn text_bytes(&self) -> usize {
        self.event.len()
    }
}
