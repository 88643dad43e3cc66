//! Lists of runs: filters, pages, and values that would like to be SQL.

use std::time::Duration;

use reipaz_core::{ids::RunId, partition::RunStatus, time::Timestamp};
use reipaz_store::{RunFilter, Store};

use crate::support::{History, sql, with_shared};

async fn ids(store: &Store, filter: &RunFilter, limit: usize) -> Vec<RunId> {
    store.list_runs(filter, limit).await.unwrap().into_iter().map(|head| RunId(head.run)).collect()
}

#[test]
fn pages_follow_each_other_without_gap_or_double() {
    with_shared(|store| async move {
        // Given 25 runs, of which groups of five were accepted at the same moment.
        let mut history = History::new();
        let mut expected: Vec<(Timestamp, RunId)> = Vec::new();
        for index in 0..25 {
            history.next_run();
            history.now = Timestamp(1_800_000_000_000_000 + (index / 5) * 1_000_000);
            history.accept_as("paged", "{}");
            expected.push((history.now, history.run));
            if index % 2 == 0 {
                history.complete("1");
            }
        }
        store.insert(&history.take()).await.unwrap();
        expected.sort_unstable_by(|a, b| b.cmp(a));

        // When they are read in pages of four.
        let mut filter = RunFilter { workflow: Some("paged".to_owned()), ..RunFilter::default() };
        let mut seen = Vec::new();
        loop {
            let page = store.list_runs(&filter, 4).await.unwrap();
            let Some(last) = page.last() else { break };
            filter.after = Some((last.created_at, RunId(last.run)));
            seen.extend(page.iter().map(|head| (head.created_at, RunId(head.run))));
        }

        // Then all come, once, newest first, ids in the order of their text.
        assert_eq!(seen, expected);
    });
}

#[test]
fn filters_hold_together() {
    with_shared(|store| async move {
        // Given a pending, a completed and a cancelled run, a second apart.
        let mut history = History::new();
        let mut runs = Vec::new();
        let begin = Timestamp(1_810_000_000_000_000);
        for index in 0..3 {
            history.next_run();
            history.now = begin.plus(Duration::from_secs(index));
            history.accept_as("filtered", "{}");
            runs.push(history.run);
            match index {
                1 => drop(history.complete("1")),
                2 => drop(history.end(reipaz_core::event::FinalStatus::Cancelled, "null")),
                _ => {}
            }
        }
        store.insert(&history.take()).await.unwrap();
        let of = || RunFilter { workflow: Some("filtered".to_owned()), ..RunFilter::default() };

        // When and then.
        assert_eq!(ids(&store, &of(), 10).await, [runs[2], runs[1], runs[0]]);
        let status = vec![RunStatus::Completed];
        assert_eq!(ids(&store, &RunFilter { status, ..of() }, 10).await, [runs[1]]);
        let status = vec![RunStatus::Pending, RunStatus::Cancelled];
        assert_eq!(ids(&store, &RunFilter { status, ..of() }, 10).await, [runs[2], runs[0]]);
        let created_from = Some(begin.plus(Duration::from_secs(1)));
        assert_eq!(ids(&store, &RunFilter { created_from, ..of() }, 10).await, [runs[2], runs[1]]);
        let created_before = Some(begin.plus(Duration::from_secs(1)));
        assert_eq!(ids(&store, &RunFilter { created_before, ..of() }, 10).await, [runs[0]]);
        assert_eq!(ids(&store, &RunFilter { version: Some(1), ..of() }, 10).await, []);
        assert_eq!(ids(&store, &RunFilter { version: Some(2), ..of() }, 2).await, [runs[2], runs[1]]);
    });
}

#[test]
fn a_filter_is_a_value_and_nothing_else() {
    with_shared(|store| async move {
        // Given workflows with names that would like to be SQL.
        let names = [
            "x' OR '1'='1",
            "x'; DROP TABLE runs; --",
            "x\\",
            "\\' OR 1=1 --",
            "{workflow:String}",
            "?",
            "x\n--boundary\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nDROP TABLE runs\r\n",
            "\t\\N\0",
            "NULL",
            "' UNION ALL SELECT * FROM runs --",
        ];
        let mut history = History::new();
        for name in names {
            history.next_run();
            history.accept_as(name, "{}");
        }
        store.insert(&history.take()).await.unwrap();

        // When each is asked for, and names that nobody has.
        for name in names {
            let filter = RunFilter { workflow: Some(name.to_owned()), ..RunFilter::default() };
            let found = store.list_runs(&filter, 100).await.unwrap();
            let found: Vec<_> = found.iter().map(|head| &*head.workflow).collect();

            // Then exactly it is found.
            assert_eq!(found, [name]);
        }
        let nobody = RunFilter { workflow: Some("' OR ''='".to_owned()), ..RunFilter::default() };
        assert_eq!(store.list_runs(&nobody, 100).await.unwrap(), []);
        assert_ne!(sql(&store, "SELECT count() FROM runs").await, "0");
    });
}
