//! The embedded journal passes the suite.
#![expect(clippy::unwrap_used, reason = "a test's failure is its panic")]

mod suite;

use reipaz_journal::{Embedded, EmbeddedConfig, embedded::SEGMENT_BYTES_MIN};
use suite::{Backend, Host, INTAKE_BOUND, PARTITIONS, scenarios};

struct Directory(tempfile::TempDir);

impl Backend for Directory {
    async fn start(&mut self) -> Host {
        // Small segments, so that scenarios with some data pass from one to the next.
        let config = EmbeddedConfig {
            segment_bytes: SEGMENT_BYTES_MIN,
            ..EmbeddedConfig::new(self.0.path(), PARTITIONS)
        };
        let embedded = Embedded::open(config).await.unwrap();
        let (intake, deliveries) = embedded.intake(INTAKE_BOUND);
        Host { journal: embedded.journal(), intake, deliveries }
    }
}

scenarios!(Directory(tempfile::tempdir().unwrap()));
