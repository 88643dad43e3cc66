//! Rows there and back.

use crate::support::{History, output, sql, with_shared};

#[test]
fn a_runs_rows_are_there_once_its_batch_is_stored() {
    with_shared(|store| async move {
        // Given a run of one step, stored.
        let mut history = History::new();
        history.accept(r#"{"n":1}"#).start("fetch", 1).finish("fetch", 1, output(r#"{"a":[1,2]}"#)).complete("\"ok\"");
        store.insert(&history.take()).await.unwrap();

        // When it is asked for, by the API and by a user.
        let run = store.run(history.run).await.unwrap().expect("stored");
        let outputs =
            sql(&store, &format!("SELECT step, output FROM attempts WHERE run = '{}'", history.run)).await;

        // Then it is complete.
        assert_eq!((&*run.workflow, &*run.status, &*run.output, run.seq), ("orders", "completed", "\"ok\"", 4));
        assert_eq!(outputs, "/fetch\t{\"a\":[1,2]}");
    });
}
