//! Looks into a stopped host's journal, for the promises that are about it.

use std::{collections::BTreeMap, path::Path};

use reipaz_core::{
    codec,
    event::{Event, Fact, RunEvent},
};
use reipaz_journal::{Embedded, EmbeddedConfig, Journal, Position};

/// How many partitions a host has unless it is told otherwise.
const PARTITIONS: u32 = 4;
/// How much is read at a time, bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// All that happened to runs, as the journal in a stopped host's data directory has it.
pub async fn events_in(data_dir: &Path) -> Vec<Recorded> {
    let config = EmbeddedConfig::new(data_dir.join("journal"), PARTITIONS);
    let embedded = Embedded::open(config).await.expect("a stopped host's journal opens");
    run_events(&*embedded.journal()).await
}

/// How often each run ended, by run id.
pub async fn terminal_events(data_dir: &Path) -> BTreeMap<String, usize> {
    let mut ends = BTreeMap::new();
    for Recorded { event, .. } in events_in(data_dir).await {
        if let Fact::RunFinished(_) = event.fact {
            *ends.entry(event.run.to_string()).or_default() += 1;
        }
    }
    ends
}

/// What happened to a run, and where the journal says so.
#[derive(Debug)]
pub struct Recorded {
    /// Whose journal.
    pub partition: u32,
    /// Where in it.
    pub position: u64,
    /// What.
    pub event: RunEvent,
}

/// All that happened to runs, of a journal that was never cut.
pub async fn run_events(journal: &dyn Journal) -> Vec<Recorded> {
    let mut events = Vec::new();
    for partition in 0..journal.partitions() {
        let mut reader = journal.reader(partition);
        let mut after = Position::START;
        loop {
            let records = reader.read_after(after, CHUNK_BYTES).await.expect("the journal can be read");
            let Some(last) = records.last() else { break };
            after = last.position;
            for record in &records {
                let position = record.position.0;
                if let Event::Run(event) = codec::decode(&record.bytes).expect("every record is an event") {
                    events.push(Recorded { partition, position, event });
                }
            }
        }
    }
    events
}
