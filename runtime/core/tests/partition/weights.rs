//! The estimate of what a partition takes in memory: whatever text a run brings along is counted.

use reipaz_core::{
    event::{AttemptResult, Event, LogLevel, LogLine, Progress, Usage},
    expression::Template,
    failure::{ErrorClass, Failure},
    limit::LimitRule,
    partition::{Again, AttemptDone, AttemptOutcome, AttemptReport, Input, RunStatus, Submit},
    plan::OnFailure,
};

use crate::{
    plans::{evaluated, output_of, workflow},
    support::{BEGIN, MINUTE, Owner, run_id, submission},
};

/// A little text of this name, or a long one if it is the one that is made long.
struct Texts(&'static str);

const LONG: usize = 1_000;

impl Texts {
    fn text(&self, name: &str) -> String {
        let more = if self.0 == name { LONG } else { 0 };
        format!("{name:x<width$}", width = name.len() + more)
    }

    fn json(&self, name: &str) -> String {
        format!("{:?}", self.text(name))
    }

    fn line(&self, of: &str) -> LogLine {
        let part = |what: &str| self.text(&format!("{of} {what}"));
        let fields = vec![(part("field").into(), part("value").into())];
        LogLine { at: BEGIN, level: LogLevel::Info, message: part("message").into(), fields }
    }

    fn failure(&self) -> Failure {
        Failure {
            details: Some(self.json("details").into()),
            ..Failure::new(ErrorClass::Permanent, self.text("code"), self.text("message"))
        }
    }

    fn submit(&self, owner: &mut Owner, plan: &std::sync::Arc<reipaz_core::plan::Plan>) {
        owner.offer(Submit {
            input: format!(r#"{{"n": {}}}"#, self.json("input")).into(),
            metadata: vec![(self.text("name").into(), self.text("value").into())],
            trigger: Some(self.json("trigger").into()),
            ..submission(plan, 1)
        });
    }
}

/// What the partition takes after one run's story.
fn bytes(texts: &Texts, tell: fn(&mut Owner, &Texts)) -> u64 {
    let mut owner = Owner::new();
    tell(&mut owner, texts);
    owner.partition.bytes()
}

#[track_caller]
fn counts(names: &[(&'static str, u64)], tell: fn(&mut Owner, &Texts)) {
    let short = bytes(&Texts(""), tell);
    for &(name, times) in names {
        let more = bytes(&Texts(name), tell) - short;
        assert_eq!(more, times * LONG as u64, "{name}");
    }
}

#[test]
fn what_a_submission_brings() {
    counts(&[("input", 1), ("name", 1), ("value", 1), ("trigger", 1)], |owner, texts| {
        texts.submit(owner, &workflow("w").step("a", &[]).build());
    });
}

#[test]
fn what_an_attempt_says_and_gives() {
    let names = [
        ("reported message", 1),
        ("reported field", 1),
        ("reported value", 1),
        ("note", 1),
        ("finished message", 1),
        ("finished field", 1),
        ("finished value", 1),
        ("output", 1),
    ];
    counts(&names, |owner, texts| {
        let plan = workflow("w").step("a", &[]).step("b", &["a"]).build();
        let run = owner.submit(&plan, 1);
        let id = owner.started(run, "a").id;
        let progress = Progress { done: 1, total: Some(2), note: texts.text("note").into() };
        let logs = vec![texts.line("reported")];
        owner.give(Input::AttemptReport(AttemptReport { id: id.clone(), progress: Some(progress), logs }));
        owner.give(Input::AttemptDone(Box::new(AttemptDone {
            id,
            outcome: AttemptOutcome::Result(AttemptResult::Output(texts.json("output").into())),
            input_digest: None,
            usage: Usage::default(),
            logs: vec![texts.line("finished")],
            logs_dropped_bytes: 0,
        })));
    });
}

#[test]
fn a_failure_stands_in_its_attempt_and_its_message_where_the_run_begins_to_fail_and_ends() {
    counts(&[("code", 1), ("message", 3), ("details", 1)], |owner, texts| {
        let plan = workflow("w").step("a", &[]).handler(None, "tell", &[]).build();
        let run = owner.submit(&plan, 1);
        owner.fail_with(run, "a", texts.failure());
        owner.complete(run, "tell", "1");
        assert_eq!(owner.status(run), RunStatus::Failed);
    });
}

#[test]
fn the_value_that_a_step_goes_on_with() {
    counts(&[("given", 1)], |owner, texts| {
        let given = OnFailure::ContinueWith(Template::Literal(texts.text("given").into()));
        let plan =
            workflow("w").step("a", &[]).with(|step| step.on_failure = given).step("b", &["a"]).build();
        let run = owner.submit(&plan, 1);
        owner.fail(run, "a", ErrorClass::Permanent);
        assert_eq!(owner.starting(), ["/b"]);
    });
}

#[test]
fn a_runs_output_and_the_input_of_its_retry() {
    counts(&[("output", 1)], |owner, texts| {
        let plan = workflow("w").step("a", &[]).output(evaluated()).build();
        let run = owner.submit(&plan, 1);
        owner.complete(run, "a", "1");
        let seq = owner.run(run).history().len() as u32;
        owner.output_done(run, seq, &texts.json("output"));
        assert_eq!(owner.status(run), RunStatus::Completed);
    });
    counts(&[("again", 1)], |owner, texts| {
        let plan = workflow("w").step("a", &[]).output(output_of("a")).build();
        let run = owner.submit(&plan, 1);
        owner.fail(run, "a", ErrorClass::Permanent);
        let input = Some(texts.json("again").into());
        owner.give(Input::Retry(run, Again { input, ..Again::default() }));
        assert_eq!(owner.starting(), ["/a"]);
    });
}

#[test]
fn the_breaker_and_the_limit_that_are_waited_for() {
    counts(&[("breaker", 1)], |owner, texts| {
        let run = owner.submit(&workflow("w").step("a", &[]).build(), 1);
        let id = owner.started(run, "a").id;
        let outcome = AttemptOutcome::Parked { breaker: texts.text("breaker").into(), recheck: MINUTE };
        owner.give(crate::support::done(id, outcome));
    });
    // The workflow's name stands in the limit; the key (a short one) is a part of the input.
    let named = |name: &str, key: &str| {
        let rule = LimitRule { at_once: Some(1), rate: None, max_queued: 9, version: 0 };
        let plan = workflow(name).step("a", &[]).limited(Some("$input.n"), rule).build();
        let mut owner = Owner::new();
        owner.offer(Submit { input: format!(r#"{{"n": {key:?}}}"#).into(), ..submission(&plan, 1) });
        assert_eq!(owner.status(run_id(1)), RunStatus::Running);
        owner.partition.bytes()
    };
    assert_eq!(named("wwwwww", "k") - named("w", "k"), 5);
    assert_eq!(named("w", "kkkkkk") - named("w", "k"), 10, "in the input and in the limit");
}

#[test]
fn each_event_takes_more_than_its_own_size() {
    let mut owner = Owner::new();
    let run = owner.submit(&workflow("w").step("a", &[]).build(), 1);
    let before = owner.partition.bytes();
    owner.give(Input::Pause(run, None));
    let event = size_of::<Event>() as u64;
    let more = owner.partition.bytes() - before;
    assert!((event + 1..event + 64).contains(&more), "{more}, of which the event has {event}");
}
