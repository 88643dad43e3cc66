//! Rows there and back, for each table, and what replaces what.

use std::{sync::Arc, time::Duration};

use reipaz_core::{
    event::{
        Asked, AttemptInterrupted, AttemptReported, AttemptResult, Event, Fact, FinalStatus, InterruptCause,
        LogLevel, RetryScheduled, RunError, RunFinished, RunForgotten, RunRetried, SkipReason, StepContinued,
        StepSkipped,
    },
    failure::{ErrorClass, Failure},
    ids::{Digest, StepPath},
    json::Json,
};
use reipaz_store::{LogFilter, RowBatch};

use crate::support::{BEGIN, History, line, output, sql, with_shared};

fn failure() -> Failure {
    Failure {
        class: ErrorClass::Transient,
        code: "http_503".into(),
        message: "the shop is \"closed\"\n\ttoday".into(),
        retry_after_ms: Some(1500),
        details: Some(Json::from(r#"{"body":"x"}"#)),
    }
}

#[test]
fn a_completed_runs_rows_are_complete() {
    with_shared(|store| async move {
        // Given a run of one step, stored.
        let mut history = History::new();
        let accepted_at = history.now.plus(Duration::from_micros(123));
        history.accept(r#"{"n":1}"#).start("fetch", 1);
        let started_at = history.now;
        history.finish("fetch", 1, output(r#"{"a":[1,2]}"#)).complete("\"ok\"");
        store.insert(&history.take()).await.unwrap();

        // When it is read back.
        let run = store.run(history.run).await.unwrap().expect("stored");
        let attempts = store.attempts(history.run).await.unwrap();
        let seen =
            sql(&store, &format!("SELECT step, output FROM attempts WHERE run = '{}'", history.run)).await;

        // Then everything is there.
        assert_eq!(run.run, history.run.0);
        assert_eq!((&*run.workflow, run.workflow_version), ("orders", 2));
        assert_eq!(&*run.workflow_digest, &Digest::of(b"plan").to_string());
        assert_eq!((&*run.status, run.seq), ("completed", 4));
        assert_eq!((&*run.input, &*run.output), (r#"{"n":1}"#, "\"ok\""));
        assert_eq!((&*run.error_class, &*run.error_step, run.error_attempt), ("", "", 0));
        assert_eq!((&*run.idempotency_key, &*run.trigger), ("k-1", ""));
        assert_eq!(run.metadata, [("order".into(), "42".into())]);
        assert_eq!((run.created_at, run.started_at), (accepted_at, Some(BEGIN)));
        assert_eq!(
            (run.finished_at, run.deadline),
            (Some(history.now), Some(BEGIN.plus(Duration::from_secs(3600))))
        );
        assert_eq!((run.partition, run.version), (3, 4));

        let [attempt] = &attempts[..] else { panic!("{attempts:?}") };
        assert_eq!((&*attempt.step, attempt.attempt, &*attempt.status), ("/fetch", 1, "completed"));
        assert_eq!((&*attempt.output, &*attempt.error_class), (r#"{"a":[1,2]}"#, ""));
        assert_eq!(
            (attempt.cpu_us, attempt.wall_us, attempt.memory_peak_bytes, attempt.queued_us),
            (11, 22, 33, 44)
        );
        assert_eq!((attempt.logs_dropped_bytes, attempt.interruptions), (5, 0));
        assert_eq!(attempt.input_digest, Digest::of(b"with").to_string());
        assert_eq!((attempt.started_at, attempt.run_created_at), (Some(started_at), accepted_at));
        assert_eq!(seen, "/fetch\t{\"a\":[1,2]}");
    });
}

#[test]
fn a_failed_run_says_why_and_keeps_each_attempt() {
    with_shared(|store| async move {
        // Given a run whose step failed, was scheduled again, failed again, and whose other step was skipped.
        let mut history = History::new();
        history.accept("{}").start("pay", 1).finish("pay", 1, AttemptResult::Error(failure()));
        let due = history.now.plus(Duration::from_secs(2));
        history.push(Fact::RetryScheduled(Box::new(RetryScheduled {
            path: StepPath::top("pay"),
            attempt: 2,
            due,
            delay_ms: 2000,
            class: ErrorClass::Transient,
            code: "http_503".into(),
            reason: "retry_after".into(),
        })));
        store.insert(&history.take()).await.unwrap();
        let waiting = store.attempts(history.run).await.unwrap();

        history.start("pay", 2);
        history.push(Fact::AttemptInterrupted(AttemptInterrupted {
            path: StepPath::top("pay"),
            attempt: 2,
            cause: InterruptCause::HostLost,
            times_lost: 1,
        }));
        history.finish("pay", 2, AttemptResult::Error(failure()));
        history.push(Fact::StepSkipped(StepSkipped {
            path: StepPath::top("ship"),
            reason: SkipReason::UpstreamFailed(StepPath::top("pay")),
        }));
        history.push(Fact::RunFinished(Box::new(RunFinished {
            status: FinalStatus::Failed,
            output: "null".into(),
            error: Some(RunError {
                class: ErrorClass::Transient,
                code: "http_503".into(),
                message: "closed".into(),
                step: Some(StepPath::top("pay")),
                attempt: Some(2),
            }),
            started_at: Some(BEGIN),
        })));
        store.insert(&history.take()).await.unwrap();

        // When it is read back.
        let run = store.run(history.run).await.unwrap().expect("stored");
        let attempts = store.attempts(history.run).await.unwrap();

        // Then the second attempt was visible while it was scheduled, and all are there in the end.
        assert_eq!(
            (&*waiting[1].status, waiting[1].due_at, &*waiting[1].reason),
            ("scheduled", Some(due), "retry_after")
        );
        assert_eq!((&*run.status, &*run.error_class, &*run.error_code), ("failed", "transient", "http_503"));
        assert_eq!((&*run.error_message, &*run.error_step, run.error_attempt), ("closed", "/pay", 2));
        let seen: Vec<_> = attempts.iter().map(|row| (&*row.step, row.attempt, &*row.status)).collect();
        assert_eq!(seen, [("/pay", 1, "failed"), ("/pay", 2, "failed"), ("/ship", 0, "skipped")]);
        assert_eq!(attempts[0].error_message, failure().message);
        assert_eq!(
            (&*attempts[0].error_details, attempts[0].retry_after_ms),
            (r#"{"body":"x"}"#, Some(1500))
        );
        assert_eq!((attempts[1].interruptions, attempts[1].due_at), (1, None));
        assert_eq!(&*attempts[2].reason, "upstream_failed /pay");
    });
}

#[test]
fn a_run_that_goes_on_after_its_end_is_replaced_as_a_whole() {
    with_shared(|store| async move {
        // Given a run that was cancelled with an attempt in flight, and paused before.
        let mut history = History::new();
        history.accept("{}").push(Fact::RunPaused(Asked { reason: None }));
        store.insert(&history.take()).await.unwrap();
        let paused = store.run(history.run).await.unwrap().unwrap();
        history.push(Fact::RunResumed(Asked { reason: None })).start("slow", 1);
        store.insert(&history.take()).await.unwrap();
        let running = store.run(history.run).await.unwrap().unwrap();
        history.end(FinalStatus::Cancelled, "null");
        store.insert(&history.take()).await.unwrap();
        let cancelled = store.run(history.run).await.unwrap().unwrap();
        let attempts = store.attempts(history.run).await.unwrap();

        // When somebody retries it and it completes.
        let input = Some("[7]".into());
        history.push(Fact::RunRetried(RunRetried {
            steps: vec![StepPath::top("slow")],
            deadline: None,
            input,
        }));
        store.insert(&history.take()).await.unwrap();
        let retried = store.run(history.run).await.unwrap().unwrap();
        history.start("slow", 2).finish("slow", 2, output("7")).complete("7");
        store.insert(&history.take()).await.unwrap();

        // Then each row told where it stood, input and all.
        assert_eq!(
            (&*paused.status, &*running.status, &*cancelled.status),
            ("paused", "running", "cancelled")
        );
        assert_eq!((&*attempts[0].status, attempts[0].finished_at), ("cancelled", cancelled.finished_at));
        assert_eq!((&*retried.status, retried.finished_at, retried.deadline), ("running", None, None));
        let run = store.run(history.run).await.unwrap().unwrap();
        assert_eq!((&*cancelled.input, &*retried.input), ("{}", "[7]"));
        assert_eq!((&*run.status, &*run.output, &*run.input), ("completed", "7", "[7]"));
        assert_eq!(
            sql(&store, &format!("SELECT count() FROM runs WHERE run = '{}'", history.run)).await,
            "1"
        );
    });
}

#[test]
fn a_failure_that_no_longer_counts_is_kept_with_what_stands_in_for_it() {
    with_shared(|store| async move {
        let mut history = History::new();
        history.accept("{}").start("pay", 1).finish("pay", 1, AttemptResult::Error(failure()));
        history.push(Fact::StepContinued(StepContinued { path: StepPath::top("pay"), output: "[]".into() }));
        history.complete("[]");
        store.insert(&history.take()).await.unwrap();

        let attempts = store.attempts(history.run).await.unwrap();
        let [attempt] = &attempts[..] else { panic!("one attempt, not {attempts:?}") };
        assert_eq!((&*attempt.status, &*attempt.output), ("continued", "[]"));
        assert_eq!(attempt.error_message, failure().message);
    });
}

#[test]
fn rows_that_are_stored_again_replace_themselves() {
    with_shared(|store| async move {
        // Given a batch whose position was lost.
        let mut history = History::new();
        history.accept("{}").start("a", 1);
        let lines = vec![line("one", LogLevel::Info), line("two", LogLevel::Warn)];
        history.finish_with_logs("a", 1, output("1"), lines).complete("1");
        let batch = history.take();

        // When it is stored three times.
        for _ in 0..3 {
            store.insert(&batch).await.unwrap();
        }

        // Then every row is there once.
        for (table, expected) in [("runs", 1), ("attempts", 1), ("logs", 2), ("events", 4)] {
            let count =
                sql(&store, &format!("SELECT count() FROM {table} WHERE run = '{}'", history.run)).await;
            assert_eq!(count, expected.to_string(), "{table}");
        }
    });
}

#[test]
fn an_older_row_does_not_replace_a_newer_one() {
    with_shared(|store| async move {
        // Given the row of a completed run.
        let mut history = History::new();
        history.accept("{}");
        let old = history.take();
        history.complete("1");
        store.insert(&history.take()).await.unwrap();

        // When the accepted run's row is stored after it.
        store.insert(&old).await.unwrap();

        // Then the run is still completed.
        assert_eq!(&*store.run(history.run).await.unwrap().unwrap().status, "completed");
    });
}

#[test]
fn a_seeded_projection_goes_on_where_another_left_off() {
    with_shared(|store| async move {
        // Given a projection that learnt a run's beginning from a checkpoint.
        let mut first = History::new();
        let accepted = first.event(Fact::RunAccepted(Arc::new(accepted())));
        let mut history = History { run: first.run, seq: 1, position: 1, now: first.now, ..History::new() };
        history.projection.seed(&accepted);

        // When the rest comes as events.
        history.start("a", 1).finish("a", 1, output("1")).complete("1");
        let stored = history.batch.rows();
        store.insert(&history.take()).await.unwrap();

        // Then the run's row is complete, though nothing was stored for the beginning.
        let run = store.run(history.run).await.unwrap().unwrap();
        assert_eq!((&*run.workflow, &*run.input, stored), ("seeded", "[1]", 1 + 1 + 3));

        // And a forgotten run costs nothing any more.
        let forgotten = Event::RunForgotten(RunForgotten { run: history.run, at: history.now, key: None });
        history.projection.apply(3, 9, &forgotten, &mut history.batch);
        assert_eq!((history.projection.runs(), history.batch.rows()), (0, 0));
    });
}

fn accepted() -> reipaz_core::event::RunAccepted {
    reipaz_core::event::RunAccepted {
        workflow: "seeded".into(),
        version: 1,
        plan: Digest::of(b""),
        input: "[1]".into(),
        input_digest: Digest::of(b"[1]"),
        idempotency_key: None,
        metadata: Vec::new(),
        trigger: Some("{\"cron\":1}".into()),
        seed: [0; 32],
        deadline: None,
        refused: None,
    }
}

#[test]
fn logs_and_events_come_in_order_and_in_part() {
    with_shared(|store| async move {
        // Given a run that logged in two events.
        let mut history = History::new();
        history.accept("{}").start("a", 1);
        history.push(Fact::AttemptReported(Box::new(AttemptReported {
            path: StepPath::top("a"),
            attempt: 1,
            progress: None,
            logs: vec![line("zero", LogLevel::Trace), line("one", LogLevel::Error)],
        })));
        history.finish_with_logs("a", 1, output("1"), vec![line("two", LogLevel::Warn)]);
        history.start("b", 1).finish_with_logs("b", 1, output("1"), vec![line("three", LogLevel::Info)]);
        store.insert(&history.take()).await.unwrap();
        let run = history.run;
        let logs = async |filter: LogFilter, limit| {
            let rows = store.logs(run, &filter, limit).await.unwrap();
            rows.into_iter().map(|row| (row.seq, row.line, row.message.to_string())).collect::<Vec<_>>()
        };
        let line_of = |seq, line, message: &str| (seq, line, message.to_owned());

        // When and then: all of it, from a line on, of a step, of a level, a page.
        let all = logs(LogFilter::default(), 100).await;
        assert_eq!(
            all,
            [line_of(3, 0, "zero"), line_of(3, 1, "one"), line_of(4, 0, "two"), line_of(6, 0, "three")]
        );
        assert_eq!(logs(LogFilter { after: Some((3, 0)), ..LogFilter::default() }, 2).await, all[1..3]);
        let step = Some(StepPath::top("b"));
        assert_eq!(logs(LogFilter { step, ..LogFilter::default() }, 100).await, all[3..]);
        let level = Some(LogLevel::Warn);
        assert_eq!(logs(LogFilter { level, ..LogFilter::default() }, 100).await, all[1..3]);

        let events = store.events(run, 2, 3).await.unwrap();
        let kinds: Vec<_> = events.iter().map(|row| (row.seq, &*row.kind)).collect();
        assert_eq!(kinds, [(3, "attempt_reported"), (4, "attempt_finished"), (5, "attempt_started")]);
        let event: serde_json::Value = serde_json::from_str(&events[1].event).unwrap();
        assert_eq!(
            (&event["type"], &event["step"], &event["output"]),
            (&"attempt_finished".into(), &"/a".into(), &1.into())
        );
        assert_eq!(store.events(run, 6, 10).await.unwrap(), []);
    });
}

#[test]
fn workflows_and_plugins_are_listed() {
    with_shared(|store| async move {
        // Given a batch from the catalogue, stored twice.
        let mut batch = RowBatch::default();
        batch.workflow("nightly", 3, &Digest::of(b"w"), &Json::from(r#"{"document":{}}"#), BEGIN);
        batch.plugin("acme/score", "1.2.0", &Digest::of(b"p"), "scores it", BEGIN);
        store.insert(&batch).await.unwrap();
        store.insert(&batch).await.unwrap();

        // Then each is there once, in the words of the documentation.
        let workflows = "SELECT name, version, pinned, created_at FROM workflows WHERE name = 'nightly'";
        assert_eq!(sql(&store, workflows).await, "nightly\t3\t{\"document\":{}}\t2026-11-18 11:06:40.000000");
        let plugins = "SELECT version, summary FROM plugins WHERE name = 'acme/score'";
        assert_eq!(sql(&store, plugins).await, "1.2.0\tscores it");
    });
}

#[test]
fn texts_come_back_as_they_are() {
    with_shared(|store| async move {
        // Given texts that a text protocol would mangle: control characters, quotes, line breaks first and last, what
        // looks like SQL, like an error of ClickHouse, like a parameter, or like nothing at all.
        let odd = "\n\n\0\u{1}\u{7f}\r\n\\N'\"`;--/* {x:String} ? ?fields SETTINGS x=1 Code: 1. DB::Exception: no))\n\n";
        let wide = "\u{feff}ñ日本🦀\u{202e}\u{10ffff}";
        let mut history = History::new();
        let json = serde_json::to_string(&format!("{odd}{wide}")).unwrap();
        history.accept_as(odd, &json).start(wide, 1);
        let lines = vec![line(odd, LogLevel::Info), line("", LogLevel::Info), line(wide, LogLevel::Info)];
        history.finish_with_logs(wide, 1, output(&json), lines).complete(&json);
        store.insert(&history.take()).await.unwrap();

        // Then they come back.
        let run = store.run(history.run).await.unwrap().unwrap();
        assert_eq!((&*run.workflow, &*run.input, &*run.output), (odd, &*json, &*json));
        let logs = store.logs(history.run, &LogFilter::default(), 10).await.unwrap();
        let messages: Vec<_> = logs.iter().map(|row| &*row.message).collect();
        assert_eq!(messages, [odd, "", wide]);
        assert_eq!(*store.attempts(history.run).await.unwrap()[0].step, *StepPath::top(wide).0);
    });
}
