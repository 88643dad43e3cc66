//! The schema: made once, kept, and the same for a second host.

use reipaz_store::Store;

use crate::support::{History, config, dir, ready, runtime, sql, with_shared};

#[test]
fn a_second_start_finds_the_schema_and_the_rows() {
    runtime().block_on(async {
        // Given a store with a run, stopped.
        let dir = dir("second-start");
        let first = Store::start(config(dir.clone())).await;
        ready(&first).await;
        let mut history = History::new();
        history.accept("{}").complete("1");
        first.insert(&history.take()).await.unwrap();
        let applied =
            sql(&first, "SELECT number, name, applied_at FROM schema_migrations ORDER BY number").await;
        first.stop().await;

        // When it is started again.
        let second = Store::start(config(dir)).await;
        ready(&second).await;

        // Then nothing was migrated anew, and the run is there.
        assert_eq!(
            sql(&second, "SELECT number, name, applied_at FROM schema_migrations ORDER BY number").await,
            applied
        );
        assert!(applied.starts_with("1\tworkflows, plugins, runs, attempts, logs, events\t"), "{applied}");
        assert_eq!(&*second.run(history.run).await.unwrap().expect("kept").status, "completed");
        second.stop().await;
    });
}

#[test]
fn how_far_the_journal_is_stored_only_grows() {
    runtime().block_on(async {
        let store = Store::start(config(dir("positions"))).await;
        ready(&store).await;
        assert!(store.sink_positions().await.unwrap().is_empty());
        store.note_sink_positions(&[(0, 7), (3, 90)].into()).await.unwrap();
        // Another host's late word.
        store.note_sink_positions(&[(0, 5), (1, 1)].into()).await.unwrap();
        assert_eq!(store.sink_positions().await.unwrap(), [(0, 7), (1, 1), (3, 90)].into());
        store.stop().await;
    });
}

#[test]
fn every_table_and_column_says_what_it_is() {
    with_shared(|store| async move {
        let silent =
            "SELECT table || '.' || name FROM system.columns WHERE database = 'reipaz' AND comment = ''";
        assert_eq!(sql(&store, silent).await, "");
        let silent = "SELECT name FROM system.tables WHERE database = 'reipaz' AND comment = ''";
        assert_eq!(sql(&store, silent).await, "");
        let tables = "SELECT groupArray(name) FROM (SELECT name FROM system.tables WHERE database = 'reipaz' ORDER BY name)";
        assert_eq!(
            sql(&store, tables).await,
            "['attempts','events','logs','plugins','runs','schema_migrations','sink_positions','workflows']"
        );
    });
}

#[test]
fn rows_are_on_disk_when_an_insert_is_answered() {
    with_shared(|store| async move {
        let careless = "SELECT name FROM system.tables WHERE database = 'reipaz' \
            AND NOT (engine_full LIKE '%fsync_after_insert = 1%' AND engine_full LIKE '%fsync_part_directory = 1%')";
        assert_eq!(sql(&store, careless).await, "");
    });
}
