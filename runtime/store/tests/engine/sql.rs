//! Users' own SQL: what it answers, what it refuses, and that it harms nothing.

use reipaz_store::{Store, StoreError};

use crate::support::{History, output, sql, with_shared};

async fn refused(store: &Store, query: &str) -> String {
    match store.sql(query, "TSV").await {
        Err(StoreError::Refused(message)) => message,
        other => panic!("{query}: {:?}", other.map(|bytes| bytes.len())),
    }
}

#[test]
fn a_newcomers_query_sees_each_thing_once() {
    with_shared(|store| async move {
        // Given a run whose attempt was stored as running, then as completed.
        let mut history = History::new();
        history.accept("{}").start("a", 1);
        store.insert(&history.take()).await.unwrap();
        history.finish("a", 1, output(r#"{"total":9}"#)).complete("1");
        store.insert(&history.take()).await.unwrap();

        // When the plainest of queries is asked, in a format of the asker's.
        let query = format!(
            "SELECT step, status, JSONExtractInt(output, 'total') AS total FROM attempts WHERE run = '{}'",
            history.run
        );
        let answer = store.sql(&query, "JSONEachRow").await.unwrap();
        let own_format = store.sql(&format!("{query} FORMAT CSV;"), "JSONEachRow").await.unwrap();

        // Then there is one row.
        assert_eq!(&answer[..], b"{\"step\":\"/a\",\"status\":\"completed\",\"total\":9}\n");
        assert_eq!(&own_format[..], b"\"/a\",\"completed\",9\n");
    });
}

#[test]
fn what_does_not_read_is_refused_by_us_or_by_clickhouse() {
    with_shared(|store| async move {
        for query in [
            "DROP TABLE runs",
            "INSERT INTO runs (run) VALUES (generateUUIDv4())",
            "TRUNCATE TABLE events",
            "SET readonly = 0",
            "USE system",
            "KILL QUERY WHERE 1",
            "SYSTEM SHUTDOWN",
            "SELECT 1; DROP TABLE runs",
            "SELECT 1 INTO OUTFILE '/tmp/reipaz-must-not-exist'",
            "SELECT file('/etc/passwd')",
            "SELECT * FROM file('/etc/passwd', LineAsString)",
            "SELECT * FROM `/etc/passwd`",
            "SELECT * FROM url('http://127.0.0.1:1/', LineAsString)",
            "SELECT * FROM executable('id', TSV, 'a String')",
            "SELECT * FROM remote('127.0.0.1', system.one)",
            "SELECT 1 SETTINGS readonly = 0",
            "SELECT 1 SETTINGS max_result_rows = 0",
            "EXPLAIN SELECT 1; TRUNCATE TABLE runs",
            "WITH x AS (SELECT 1) INSERT INTO runs SELECT * FROM x",
            "CREATE TABLE t (a Int8) ENGINE = Memory",
            "",
            "-- nothing",
            "SELECT 'open",
            "SELEC 1",
        ] {
            assert_ne!(refused(&store, query).await, "", "{query}");
        }
        assert!(!std::path::Path::new("/tmp/reipaz-must-not-exist").exists());
        assert_eq!(sql(&store, "SELECT 1").await, "1");
    });
}

#[test]
fn mistakes_come_back_in_clickhouses_words() {
    with_shared(|store| async move {
        assert!(refused(&store, "SELECT * FROM nope").await.contains("UNKNOWN_TABLE"));
        assert!(refused(&store, "SELECT nope FROM runs").await.contains("nope"));
        assert!(refused(&store, "SELECT throwIf(1)").await.contains("throwIf"));
        let format = store.sql("SELECT 1", "No'Format").await.unwrap_err();
        assert_eq!(format.to_string(), "\"No'Format\" is no name of a format");
        let format = store.sql("SELECT 1", "NoFormat").await.unwrap_err();
        assert!(format.to_string().contains("NoFormat"), "{format}");
    });
}

#[test]
fn answers_are_bounded() {
    with_shared(|store| async move {
        let rows = refused(&store, "SELECT number FROM numbers(100001)").await;
        assert!(rows.contains("TOO_MANY_ROWS_OR_BYTES"), "{rows}");
        let bytes = refused(&store, "SELECT repeat('x', 1000000) FROM numbers(100)").await;
        assert!(bytes.contains("add LIMIT"), "{bytes}");
        let memory = refused(&store, "SELECT repeat('x', 1000000) FROM numbers(10000)").await;
        assert!(memory.contains("MEMORY_LIMIT_EXCEEDED"), "{memory}");
        let answer = store.sql("SELECT number FROM numbers(100000)", "TSV").await.unwrap();
        assert_eq!(answer.iter().filter(|byte| **byte == b'\n').count(), 100_000);
    });
}
