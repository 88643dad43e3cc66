//! Large values, many rows, many askers.

use std::time::Instant;

use crate::support::{History, output, sql, with_shared};

#[test]
fn a_payload_of_a_mebibyte_comes_back() {
    with_shared(|store| async move {
        // Given a run whose input and outputs are as large as may be.
        let large = serde_json::to_string(&"é\n\"x".repeat(160_000)).unwrap();
        assert!(large.len() > 1 << 20);
        let mut history = History::new();
        history.accept(&large).start("a", 1).finish("a", 1, output(&large)).complete(&large);
        store.insert(&history.take()).await.unwrap();

        // Then they are there, byte for byte.
        let run = store.run(history.run).await.unwrap().unwrap();
        assert!(*run.input == *large && *run.output == *large);
        assert!(*store.attempts(history.run).await.unwrap()[0].output == *large);
        let events = store.events(history.run, 0, 10).await.unwrap();
        assert!(events[0].event.contains(&large[1..1000]));
    });
}

#[test]
fn ten_thousand_runs_are_stored_in_one_batch() {
    with_shared(|store| async move {
        // Given 10,000 runs of one step.
        let mut history = History::new();
        for index in 0..10_000 {
            history.next_run();
            let input = format!(
                r#"{{"order":{index},"customer":"c-{}","note":"some text of a usual length"}}"#,
                index % 97
            );
            history.accept_as("bulk", &input).start("a", 1).finish("a", 1, output(&input)).complete(&input);
        }
        let batch = history.take();
        let rows = batch.rows();

        // When they are stored.
        let began = Instant::now();
        store.insert(&batch).await.unwrap();
        let elapsed = began.elapsed();

        // Then all are there, and it took less than a second on any machine that can build this.
        println!("{rows} rows in {elapsed:?}: {:.0} rows/s", rows as f64 / elapsed.as_secs_f64());
        assert_eq!(rows, 10_000 * 6);
        assert_eq!(
            sql(&store, "SELECT count(), countIf(status = 'completed') FROM runs WHERE workflow = 'bulk'")
                .await,
            "10000\t10000"
        );
        assert_eq!(sql(&store, "SELECT count() FROM events WHERE workflow = 'bulk'").await, "40000");
        assert!(elapsed.as_secs() < 10, "{elapsed:?}");
    });
}

#[test]
fn reads_go_on_while_rows_come_in() {
    with_shared(|store| async move {
        // Given somebody who stores batch after batch.
        let writer = store.clone();
        let writing = tokio::spawn(async move {
            let mut history = History::new();
            for _ in 0..20 {
                for _ in 0..200 {
                    history.next_run();
                    history.accept_as("mixed", "{}").complete("1");
                }
                writer.insert(&history.take()).await.unwrap();
            }
        });

        // When others count meanwhile.
        let counts = async |store: &reipaz_store::Store| {
            sql(store, "SELECT count(), countIf(status != 'completed') FROM runs WHERE workflow = 'mixed'")
                .await
        };
        let mut last = 0;
        while !writing.is_finished() {
            let seen = counts(&store).await;
            let (count, unfinished) = seen.split_once('\t').unwrap();

            // Then the number only grows, and no half of a batch's run is seen.
            let count: u64 = count.parse().unwrap();
            assert!(count >= last && unfinished == "0", "{seen} after {last}");
            last = count;
        }
        writing.await.unwrap();
        assert_eq!(counts(&store).await, "4000\t0");
    });
}
