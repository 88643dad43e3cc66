//! Events as bytes: what goes in comes out, and what cannot be read says why.

use std::sync::Arc;

use reipaz_core::{
    codec::{DecodeError, decode, encode},
    event::*,
    failure::{ErrorClass, Failure},
    ids::{Digest, StepPath},
    partition::Input,
    time::Timestamp,
};

use crate::{
    plans::workflow,
    support::{BEGIN, Owner, failure, run_id},
};

fn every_kind() -> Vec<Event> {
    let path = StepPath::top("a");
    let lines = vec![LogLine {
        at: BEGIN,
        level: LogLevel::Warn,
        message: "ünïcode".into(),
        fields: vec![("k".into(), "v".into())],
    }];
    let finished = |result| {
        Fact::AttemptFinished(Box::new(AttemptFinished {
            path: path.clone(),
            attempt: 3,
            started_at: BEGIN,
            result,
            input_digest: Some(Digest::of(b"x")),
            usage: Usage { cpu_us: 1, wall_us: 2, memory_peak_bytes: 3, queued_us: 4 },
            logs: lines.clone(),
            logs_dropped_bytes: 9,
        }))
    };
    let full_failure = Failure {
        retry_after_ms: Some(5),
        details: Some(r#"{"body":"no"}"#.into()),
        ..failure(ErrorClass::RateLimited)
    };
    let accepted = |bare: bool| {
        Fact::RunAccepted(Arc::new(RunAccepted {
            workflow: "w".into(),
            version: 2,
            plan: Digest::of(b"plan"),
            input: "[1]".into(),
            input_digest: Digest::of(b"[1]"),
            idempotency_key: (!bare).then(|| "key".into()),
            metadata: if bare { Vec::new() } else { vec![("a".into(), "b".into())] },
            trigger: (!bare).then(|| "{}".into()),
            seed: [200; 32],
            deadline: (!bare).then_some(BEGIN),
            refused: None,
        }))
    };
    let error = RunError {
        class: ErrorClass::Host,
        code: "c".into(),
        message: "m".into(),
        step: Some(path.clone()),
        attempt: Some(1),
    };
    let progress = Progress { done: 1, total: None, note: "n".into() };
    let failing = error.clone();
    let facts = vec![
        accepted(true),
        accepted(false),
        Fact::AttemptStarted(AttemptStarted { path: path.clone(), attempt: 1 }),
        Fact::AttemptInterrupted(AttemptInterrupted {
            path: path.clone(),
            attempt: 1,
            cause: InterruptCause::Shutdown,
            times_lost: 2,
        }),
        finished(AttemptResult::Output("{}".into())),
        finished(AttemptResult::Error(failure(ErrorClass::Trap))),
        finished(AttemptResult::Error(full_failure)),
        Fact::AttemptReported(Box::new(AttemptReported {
            path: path.clone(),
            attempt: 1,
            progress: Some(progress),
            logs: lines.clone(),
        })),
        Fact::AttemptReported(Box::new(AttemptReported {
            path: path.clone(),
            attempt: 1,
            progress: None,
            logs: vec![],
        })),
        Fact::RetryScheduled(Box::new(RetryScheduled {
            path: path.clone(),
            attempt: 2,
            due: Timestamp(u64::MAX),
            delay_ms: u64::MAX,
            class: ErrorClass::Network,
            code: "c".into(),
            reason: "backoff".into(),
        })),
        Fact::StepSkipped(StepSkipped { path: path.clone(), reason: SkipReason::ConditionFalse }),
        Fact::StepSkipped(StepSkipped {
            path: path.clone(),
            reason: SkipReason::UpstreamSkipped(path.clone()),
        }),
        Fact::StepSkipped(StepSkipped {
            path: path.clone(),
            reason: SkipReason::UpstreamFailed(path.clone()),
        }),
        Fact::StepSkipped(StepSkipped { path: path.clone(), reason: SkipReason::NothingFailed }),
        Fact::RunPaused(Asked { reason: None }),
        Fact::RunResumed(Asked { reason: Some("go".into()) }),
        Fact::RunFinished(Box::new(RunFinished {
            status: FinalStatus::Failed,
            output: "null".into(),
            error: Some(error),
            started_at: Some(BEGIN),
        })),
        Fact::RunRetried(RunRetried { steps: vec![path.clone(); 2], deadline: None, input: None }),
        Fact::RunRetried(RunRetried { steps: vec![], deadline: Some(BEGIN), input: Some("[1]".into()) }),
        Fact::StepContinued(StepContinued { path: path.clone(), output: "null".into() }),
        Fact::HandlingStarted(Box::new(HandlingStarted {
            path: Some(path.clone()),
            error: None,
            deadline: None,
        })),
        Fact::HandlingStarted(Box::new(HandlingStarted {
            path: None,
            error: Some(failing),
            deadline: Some(BEGIN),
        })),
        Fact::AttemptParked(Box::new(AttemptParked {
            path: path.clone(),
            attempt: 1,
            breaker: "plugin a@1.0.0".into(),
            due: BEGIN,
        })),
        Fact::HandlingEnded(HandlingEnded { path }),
    ];
    let (run, at) = (run_id(u128::MAX), BEGIN);
    let mut events: Vec<Event> =
        facts.into_iter().map(|fact| Event::Run(RunEvent { run, seq: 7, at, fact })).collect();
    events.push(Event::WorkflowPinned(WorkflowPinned { digest: Digest::of(b"w"), pinned: "{}".into(), at }));
    let key = KeptKey { input: Digest::of(b"i"), expires: BEGIN };
    events.push(Event::RunForgotten(RunForgotten { run, at, key: Some(key) }));
    events.push(Event::RunForgotten(RunForgotten { run, at, key: None }));
    events.push(Event::KeyExpired(KeyExpired { run, at }));
    events
}

#[test]
fn every_event_comes_back_as_it_was() {
    for event in every_kind() {
        assert_eq!(decode(&encode(&event)).unwrap(), event);
    }
}

#[test]
fn every_prefix_and_every_changed_byte_is_an_error_or_another_event_but_no_panic() {
    for event in every_kind() {
        let bytes = encode(&event);
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_err(), "{event:?} cut at {end}");
        }
        for index in 0..bytes.len() {
            for value in [0x00, 0x7f, 0x9b, 0xbf, 0xff] {
                let mut changed = bytes.clone();
                changed[index] = value;
                let _ = decode(&changed);
            }
        }
    }
}

#[test]
fn errors_say_what_to_do() {
    let bytes = encode(&every_kind()[2]);
    assert_eq!(decode(&[]), Err(DecodeError::Empty));
    let newer = [&[9], &bytes[1..]].concat();
    assert_eq!(decode(&newer), Err(DecodeError::Format { found: 9 }));
    assert!(decode(&newer).unwrap_err().to_string().contains("start a release that reads it"));
    let longer = [&bytes[..], &[0]].concat();
    assert!(matches!(decode(&longer), Err(DecodeError::Content(_))));
}

#[test]
fn the_encoding_of_a_short_run_is_short() {
    // Journal bytes are fsyncs' bytes: a three-step run without payload stays well under a kilobyte.
    let plan = workflow("w").step("a", &[]).step("b", &["a"]).step("c", &["b"]).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    ["a", "b", "c"].iter().for_each(|step| owner.complete(run, step, "{}"));
    owner.give(Input::Tick);
    let bytes: usize = owner.journal.iter().skip(1).map(Vec::len).sum();
    assert!(bytes < 800, "{bytes} bytes");
}

/// What releases before wrote has no field for another input; without one the same bytes are written.
#[test]
fn a_retry_without_another_input_is_written_as_it_always_was() {
    let retried = RunRetried { steps: vec![StepPath::top("a")], deadline: Some(BEGIN), input: None };
    let fact = Fact::RunRetried(retried);
    let event = Event::Run(RunEvent { run: run_id(1), seq: 2, at: BEGIN, fact });
    let bytes = encode(&event);
    // An array of two: the steps and the deadline.
    let steps = [&[0x82, 0x81, 0x62][..], b"/a"].concat();
    assert!(bytes.windows(steps.len()).any(|window| window == steps), "{bytes:02x?}");
    assert_eq!(decode(&bytes).unwrap(), event);
}
