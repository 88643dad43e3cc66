//! Limits that runs and steps share: who has a place, who waits, and that no place is lost.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use reipaz_core::{
    codec,
    event::{AttemptResult, Event, Fact},
    failure::ErrorClass,
    ids::{AttemptId, Digest, RunId},
    limit::{Holder, LimitFact, LimitId, LimitMessage, LimitRule, Rate},
    partition::{
        Again, AttemptOutcome, Decision, Effect, Input, LimitView, Partition, PartitionConfig, Refusal,
        Reply, RunStatus, Submit, WaitingFor,
    },
    plan::{OnFailure, Plan},
    time::Timestamp,
};
use reipaz_simulation::Random;

use crate::{
    plans::workflow,
    support::{self, BEGIN, MINUTE, Owner, SECOND, done, failure, run_event, submission},
};

const NO_RULE: LimitRule = LimitRule { at_once: None, rate: None, max_queued: 1_000, version: 0 };

fn at_once(most: u32) -> LimitRule {
    LimitRule { at_once: Some(most), ..NO_RULE }
}

fn per(starts: u32, time: Duration) -> LimitRule {
    LimitRule { rate: Some(Rate { starts, per_ms: time.as_millis() as u64 }), ..NO_RULE }
}

fn with_plugin_limit(rule: LimitRule) -> Owner {
    let plugin_limits = BTreeMap::from([("test".into(), rule)]);
    Owner::with(PartitionConfig { plugin_limits, ..PartitionConfig::default() })
}

fn the_limit(owner: &Owner) -> LimitView {
    owner.partition.limits().next().unwrap()
}

#[test]
fn runs_wait_their_turn_and_say_for_what() {
    let plan = workflow("w").step("a", &[]).limited(None, at_once(1)).build();
    let mut owner = Owner::new();
    let runs: Vec<RunId> = (1..=3).map(|number| owner.submit(&plan, number)).collect();
    assert_eq!(owner.starting(), ["/a"], "one at a time");
    assert_eq!(owner.status(runs[1]), RunStatus::Pending);
    let waiting = WaitingFor::Limit { limit: "workflow w".into(), since: BEGIN };
    assert_eq!(owner.run(runs[1]).waiting_for(), Some(waiting.clone()));
    assert_eq!(owner.step(runs[1], "a").waiting_for, Some(waiting));
    let limit = the_limit(&owner);
    assert_eq!((limit.held, limit.queued, limit.waiting_since), (1, 2, Some(BEGIN)));

    // The host is lost: places stay where they are.
    owner.restart(false);
    assert_eq!(owner.starting(), ["/a"]);

    // However one ends, the next has its turn: in the order of their coming.
    owner.now = BEGIN.plus(SECOND);
    owner.fail(runs[0], "a", ErrorClass::Permanent);
    assert_eq!(owner.story(runs[1])[1..], ["waits for workflow w", "admitted after 1000 ms", "/a 1 started"]);
    owner.give(Input::Cancel(runs[1], None));
    owner.complete(runs[2], "a", "1");
    assert_eq!(owner.status(runs[2]), RunStatus::Completed);
    assert_eq!(owner.partition.limits().len(), 0, "nothing is left of it");
}

#[test]
fn each_key_counts_by_itself() {
    let plan = workflow("w").step("a", &[]).limited(Some("$input.customer"), at_once(1)).build();
    let mut owner = Owner::new();
    let inputs = [r#"{"customer":"a"}"#, r#"{"customer":"b"}"#, r#"{"customer":"a"}"#, "{}", r#"{"x":1}"#];
    for (number, input) in (1..).zip(inputs) {
        owner.offer(reipaz_core::partition::Submit { input: input.into(), ..submission(&plan, number) });
    }
    assert_eq!(owner.starting().len(), 3, "a, b and null");
    let names: Vec<_> = owner.partition.limits().map(|limit| limit.limit.to_string()).collect();
    assert_eq!(
        names,
        [r#"workflow w, key "a""#, r#"workflow w, key "b""#, "workflow w, key null"],
        "each has a name"
    );
}

#[test]
fn a_key_may_be_long() {
    let limit = LimitId::workflow(&"w".into(), Some("x".repeat(10_000).into()));
    let other = LimitId::workflow(&"w".into(), Some("x".repeat(10_001).into()));
    assert!(limit.key.as_ref().unwrap().len() < 100);
    assert_ne!(limit, other);
}

#[test]
fn no_more_start_in_any_span_of_time_than_may() {
    let plan = workflow("w").step("a", &[]).limited(None, per(2, MINUTE)).build();
    let mut owner = Owner::new();
    let first = owner.submit(&plan, 1);
    owner.pass(30 * SECOND);
    for number in 2..=5 {
        owner.submit(&plan, number);
    }
    assert_eq!(owner.starting().len(), 2);
    // To end makes no room: starts count.
    owner.complete(first, "a", "1");
    assert_eq!(owner.starting().len(), 1);
    owner.pass(29 * SECOND);
    assert_eq!(owner.starting().len(), 1);
    owner.pass(SECOND);
    assert_eq!(owner.starting().len(), 2, "a minute after the first");
    owner.pass(30 * SECOND);
    assert_eq!(owner.starting().len(), 3, "a minute after the second");
    owner.restart(true);
    owner.pass(29 * SECOND);
    assert_eq!(owner.starting().len(), 3, "what has started counts after a restart too");
    owner.pass(SECOND);
    assert_eq!(owner.starting().len(), 4);

    for number in 2..=5 {
        owner.complete(crate::support::run_id(number), "a", "1");
    }
    assert_eq!(owner.partition.limits().len(), 1, "its starts still count");
    owner.pass(MINUTE);
    assert_eq!(owner.partition.limits().len(), 0);
}

#[test]
fn one_who_may_not_wait_is_refused() {
    let plan = workflow("w").step("a", &[]).limited(None, LimitRule { max_queued: 1, ..at_once(1) }).build();
    let mut owner = Owner::new();
    let runs: Vec<RunId> = (1..=3).map(|number| owner.submit(&plan, number)).collect();
    assert_eq!(owner.status(runs[2]), RunStatus::Failed);
    let error = owner.run(runs[2]).error().unwrap();
    assert_eq!((error.class, &*error.code), (ErrorClass::RateLimited, "limit_full"));

    // It may be tried again, and waits then.
    owner.complete(runs[0], "a", "1");
    owner.give(Input::Retry(runs[2], Default::default()));
    assert_eq!(owner.status(runs[2]), RunStatus::Pending);
    owner.complete(runs[1], "a", "1");
    owner.complete(runs[2], "a", "1");
    assert_eq!(owner.status(runs[2]), RunStatus::Completed);
}

#[test]
fn the_newest_versions_rule_counts() {
    let (one, two) = (workflow("w").step("a", &[]).limited(None, at_once(1)), workflow("w").step("a", &[]));
    let (one, two) = (one.build(), two.limited(None, at_once(3)));
    let mut two = two.build();
    Arc::get_mut(&mut two).unwrap().digest = Digest::of(b"two");
    let mut owner = Owner::new();
    owner.submit(&one, 1);
    owner.submit(&one, 2);
    assert_eq!(owner.starting().len(), 1);
    owner.offer(Submit { version: 2, ..submission(&two, 3) });
    assert_eq!(owner.starting().len(), 3, "those who waited go too, and first");
    owner.submit(&one, 4);
    assert_eq!(owner.starting().len(), 3);
    assert_eq!(the_limit(&owner).rule.at_once, Some(3));
}

#[test]
fn attempts_of_a_plugin_wait_between_tries_too() {
    let plan = workflow("w").step("a", &[]).build();
    let mut owner = with_plugin_limit(at_once(1));
    let runs: Vec<RunId> = (1..=3).map(|number| owner.submit(&plan, number)).collect();
    assert_eq!(owner.starting(), ["/a"]);
    assert_eq!(owner.status(runs[1]), RunStatus::Pending);
    let waiting = WaitingFor::Limit { limit: "plugin test".into(), since: BEGIN };
    assert_eq!(owner.step(runs[1], "a").waiting_for, Some(waiting));

    // One that fails lets its place go until it is tried again.
    owner.fail(runs[0], "a", ErrorClass::Transient);
    owner.pass(MINUTE);
    assert_eq!(
        owner.story(runs[0])[1..],
        [
            "/a waits for plugin test",
            "/a 1 started",
            "/a 1 failed transient",
            "/a 2 due in 1000 ms: backoff",
            "/a waits for plugin test",
        ]
    );
    for run in [runs[1], runs[2], runs[0]] {
        owner.complete(run, "a", "1");
    }
    assert_eq!(owner.status(runs[0]), RunStatus::Completed);
    assert_eq!(owner.partition.limits().len(), 0);
}

#[test]
fn a_step_waits_no_longer_than_it_may() {
    let step = |step: &mut reipaz_core::plan::StepPlan| {
        step.queue_timeout = Some(10 * SECOND);
        step.retry.attempts = 2;
    };
    let plan = workflow("w").step("a", &[]).with(step).build();
    let mut owner = with_plugin_limit(at_once(1));
    let (first, second) = (owner.submit(&plan, 1), owner.submit(&plan, 2));
    owner.pass(10 * SECOND);
    assert_eq!(owner.story(second)[2..4], ["/a 1 started", "/a 1 failed timeout"]);
    owner.pass(MINUTE);
    let error = owner.run(second).error().unwrap();
    assert_eq!((&*error.code, error.attempt), ("queue_timeout", Some(2)));
    owner.complete(first, "a", "1");
    assert_eq!(owner.partition.limits().len(), 0);
}

#[test]
fn an_attempt_that_may_not_wait_fails_by_its_rule() {
    let plan = workflow("w").step("a", &[]).with(|step| step.retry.attempts = 2).build();
    let mut owner = with_plugin_limit(LimitRule { max_queued: 0, ..at_once(1) });
    let (first, second) = (owner.submit(&plan, 1), owner.submit(&plan, 2));
    assert_eq!(
        owner.story(second)[2..],
        ["/a 1 started", "/a 1 failed rate_limited", "/a 2 due in 1000 ms: backoff"]
    );
    owner.complete(first, "a", "1");
    owner.pass(SECOND);
    owner.complete(second, "a", "1");
    assert_eq!(owner.status(second), RunStatus::Completed);
}

#[test]
fn a_paused_run_takes_no_place_from_others() {
    let plan = workflow("w").step("a", &[]).build();
    let mut owner = with_plugin_limit(at_once(1));
    let runs: Vec<RunId> = (1..=3).map(|number| owner.submit(&plan, number)).collect();
    owner.give(Input::Pause(runs[1], None));
    owner.complete(runs[0], "a", "1");
    let start = owner.started(runs[2], "a");
    owner.give(Input::Resume(runs[1], None));
    assert!(owner.starting().is_empty(), "it waits anew");
    owner.complete_this(&start, "1");
    owner.complete(runs[1], "a", "1");
    assert_eq!(owner.status(runs[1]), RunStatus::Completed);
}

#[test]
fn a_decision_gives_a_bounded_number_of_places() {
    // Runs without an open step end as soon as they are admitted: each makes room for the next.
    let hold = workflow("w").step("a", &[]).limited(None, at_once(1)).build();
    let skipped =
        workflow("w").step("a", &[]).when(reipaz_core::plan::Condition::Failed).limited(None, at_once(1));
    let mut skipped = Arc::try_unwrap(skipped.build()).unwrap();
    skipped.digest = reipaz_core::ids::Digest::of(b"skipped");
    let skipped = Arc::new(skipped);
    let mut owner = Owner::with(PartitionConfig { due_per_tick: 4, ..PartitionConfig::default() });
    let first = owner.submit(&hold, 1);
    for number in 2..=20 {
        owner.submit(&skipped, number);
    }
    let before = owner.partition.live_runs();
    owner.complete(first, "a", "1");
    assert_eq!(before - owner.partition.live_runs(), 1 + 4);
    owner.give(Input::Tick);
    assert_eq!(before - owner.partition.live_runs(), 1 + 4 + 4);
    owner.pass(Duration::ZERO);
    assert_eq!(owner.partition.live_runs(), 0);
}

#[test]
fn a_checkpoint_holds_those_who_wait_in_their_order() {
    let plan =
        workflow("w").step("a", &[]).limited(None, LimitRule { rate: per(3, MINUTE).rate, ..at_once(2) });
    let plan = plan.build();
    let mut owner = Owner::new();
    for number in 1..=600 {
        owner.submit(&plan, number);
    }
    let records: Vec<_> = owner.partition.checkpoint().iter().map(|event| codec::encode(event)).collect();
    assert!(records.iter().all(|record| record.len() < 32 << 10), "no record is large");
    let restored = owner.fold(&records);
    assert_eq!(restored, owner.partition);
    restored.check_invariants().unwrap();
}

#[test]
fn places_and_their_memory_are_counted() {
    let plan = workflow("w").step("a", &[]).limited(None, at_once(2)).build();
    let mut owner = Owner::new();
    assert_eq!((owner.partition.places(), owner.partition.bytes()), ((0, 0), 0));
    let runs: Vec<RunId> = (1..=5).map(|number| owner.submit(&plan, number)).collect();
    assert_eq!(owner.partition.places(), (2, 3));
    owner.give(Input::Cancel(runs[4], None));
    assert_eq!(owner.partition.places(), (2, 2));
}

#[test]
fn memory_of_limits_is_that_of_each_and_of_each_who_uses_it() {
    let mut owner = Owner::new();
    let mut ask = |name: &str, asked: u32| {
        let holder = Holder { partition: 0, run: support::run_id(1), asked, at: BEGIN };
        let limit = LimitId::workflow(&name.into(), None);
        let before = owner.partition.bytes();
        owner.give(Input::Limit(LimitMessage::Asked { limit, holder, rule: at_once(1) }));
        owner.partition.bytes() - before
    };
    let (first, second, third, other) = (ask("w", 1), ask("w", 2), ask("w", 3), ask("v", 4));
    assert!(second > 0 && second == third, "one more who waits");
    assert!(first > second && first == other, "one more limit and its holder");
}

#[test]
fn only_as_many_starts_are_remembered_as_can_matter() {
    let plan = workflow("w").step("a", &[]).limited(None, per(3, SECOND)).build();
    let mut owner = Owner::new();
    for number in 1..=50 {
        let run = owner.submit(&plan, number);
        owner.pass(SECOND);
        owner.complete(run, "a", "1");
    }
    let kept = |event: &Arc<Event>| match &**event {
        Event::Limit(about) => match &about.fact {
            LimitFact::Kept(kept) => kept.starts.len(),
            _ => 0,
        },
        _ => 0,
    };
    let starts: usize = owner.partition.checkpoint().iter().map(kept).sum();
    assert!((1..=3).contains(&starts), "{starts}");
}

#[test]
fn a_newer_rule_lets_one_wait_that_the_older_refuses() {
    let mut owner = Owner::new();
    let mut status_of = |number: u128, version: u32, max_queued: u32| {
        let rule = LimitRule { max_queued, ..at_once(1) };
        let mut plan = workflow("w").step("a", &[]).limited(None, rule).build();
        Arc::get_mut(&mut plan).unwrap().digest = Digest::of(&version.to_be_bytes());
        owner.offer(Submit { version, ..submission(&plan, number) });
        owner.status(support::run_id(number))
    };
    assert_eq!(status_of(1, 1, 0), RunStatus::Running);
    assert_eq!(status_of(2, 1, 0), RunStatus::Failed);
    assert_eq!(status_of(3, 2, 5), RunStatus::Pending);
    // The older version's runs wait by the newer one's rule as well.
    assert_eq!(status_of(4, 1, 0), RunStatus::Pending);
    assert_eq!(status_of(5, 3, 0), RunStatus::Failed);
}

#[test]
fn a_run_that_was_refused_a_place_asks_again_when_it_is_retried_from_its_pause() {
    let plan = workflow("w")
        .step("a", &[])
        .handler(None, "tell", &[])
        .handler(None, "tell_more", &["tell"])
        .limited(None, LimitRule { max_queued: 0, ..at_once(1) })
        .build();
    let mut owner = Owner::new();
    let first = owner.submit(&plan, 1);
    let refused = owner.submit(&plan, 2);
    assert_eq!(owner.run(refused).error().map(|error| &*error.code), Some("limit_full"));
    owner.give(Input::Pause(refused, None));
    owner.complete(refused, "tell", "1");
    owner.complete(first, "a", "1");

    owner.give(Input::Retry(refused, Again::default()));

    owner.complete(refused, "a", "1");
    assert_eq!(owner.status(refused), RunStatus::Completed);
}

#[test]
fn a_run_whose_time_is_over_leaves_the_queue_though_it_has_something_to_do_yet() {
    let plan = workflow("w").step("a", &[]).handler(None, "tell", &[]).timeout(MINUTE);
    let plan = plan.limited(None, at_once(1)).build();
    let mut owner = Owner::new();
    let runs: Vec<RunId> = (1..=2).map(|number| owner.submit(&plan, number)).collect();
    owner.pass(MINUTE);
    assert_eq!(owner.partition.places(), (1, 0), "only the one that had it while it ran");
    for run in runs {
        owner.complete(run, "tell", "1");
    }
    assert_eq!(owner.partition.limits().len(), 0);
}

#[test]
fn a_paused_run_keeps_its_place_and_with_it_its_key() {
    let plan = workflow("w").step("a", &[]).with(|step| step.on_failure = OnFailure::Pause);
    let plan = plan.limited(Some("$input.n"), at_once(1)).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    owner.fail(run, "a", ErrorClass::Permanent);
    assert_eq!(owner.status(run), RunStatus::Paused);
    let again = |input: &str| Again { input: Some(input.into()), ..Again::default() };
    let reply = owner.give(Input::Retry(run, again(r#"{"n": 2}"#)));
    let Reply::Refused(Refusal::BadInput(mistakes)) = reply else { panic!("{reply:?}") };
    assert!(mistakes[0].message.contains("cancel the run"), "{mistakes:?}");
    assert_eq!(owner.give(Input::Retry(run, again(r#"{"m": 2, "n": 1.0}"#))), Reply::Done);
    owner.give(Input::Cancel(run, None));
    assert_eq!(owner.give(Input::Retry(run, again(r#"{"n": 2}"#))), Reply::Done, "it asks anew");
    assert_eq!(the_limit(&owner).limit.to_string(), "workflow w, key 2");
}

#[test]
fn a_run_that_is_paused_while_it_waits_leaves_the_queue_and_asks_again() {
    let plan = workflow("w").step("a", &[]).limited(None, at_once(1)).build();
    let mut owner = Owner::new();
    let runs: Vec<RunId> = (1..=3).map(|number| owner.submit(&plan, number)).collect();
    owner.give(Input::Pause(runs[1], None));
    assert_eq!(owner.partition.places(), (1, 1));
    owner.complete(runs[0], "a", "1");
    assert_eq!(owner.status(runs[2]), RunStatus::Running);
    owner.give(Input::Resume(runs[1], None));
    assert_eq!(owner.status(runs[1]), RunStatus::Pending);
    owner.complete(runs[2], "a", "1");
    owner.complete(runs[1], "a", "1");
    assert_eq!(owner.status(runs[1]), RunStatus::Completed);
}

#[test]
fn paused_attempts_use_up_no_starts_and_no_time_in_the_queue() {
    let plan = workflow("w").step("a", &[]).with(|step| step.queue_timeout = Some(5 * MINUTE)).build();
    let mut owner = with_plugin_limit(per(1, MINUTE));
    let runs: Vec<RunId> = (1..=4).map(|number| owner.submit(&plan, number)).collect();
    for &run in &runs[1..3] {
        owner.give(Input::Pause(run, None));
    }
    assert_eq!(owner.partition.places(), (1, 1));
    owner.pass(MINUTE);
    owner.complete(runs[3], "a", "1");
    owner.pass(60 * MINUTE);
    owner.give(Input::Resume(runs[1], None));
    owner.complete(runs[1], "a", "1");
    assert_eq!(owner.status(runs[1]), RunStatus::Completed);
}

#[test]
fn those_who_will_have_a_free_place_do_not_fill_the_queue() {
    let limits = BTreeMap::from([("test".into(), LimitRule { max_queued: 0, ..at_once(20) })]);
    let config = PartitionConfig { plugin_limits: limits, due_per_tick: 4, ..PartitionConfig::default() };
    let mut owner = Owner::with(config);
    let mut wide = workflow("wide");
    for number in 0..21 {
        wide = wide.step(&format!("s{number}"), &[]).with(|step| step.retry.attempts = 1);
    }
    let run = owner.submit(&wide.build(), 1);
    owner.pass(SECOND);
    let full = owner.story(run).iter().filter(|fact| fact.contains("rate_limited")).count();
    assert_eq!((owner.partition.places(), full), ((20, 0), 1));
    // So it is with a rate: of those in the last minute, none may be refused before there are three.
    let limits = BTreeMap::from([("test".into(), LimitRule { max_queued: 0, ..per(3, MINUTE) })]);
    let config = PartitionConfig { plugin_limits: limits, due_per_tick: 1, ..PartitionConfig::default() };
    let mut owner = Owner::with(config);
    let plan = workflow("narrow").step("a", &[]).with(|step| step.retry.attempts = 1).build();
    let mut outcomes = Vec::new();
    for number in 1..=5 {
        let run = owner.submit(&plan, number);
        outcomes.push(owner.status(run));
        owner.pass(if number == 4 { MINUTE } else { SECOND });
    }
    let (ran, refused) = (RunStatus::Running, RunStatus::Failed);
    assert_eq!(outcomes, [ran, ran, ran, refused, ran]);
}

#[test]
fn a_newer_rule_counts_even_if_the_one_who_brings_it_is_refused() {
    let mut owner = Owner::new();
    let mut ask = |asked: u32, rule: LimitRule| {
        let holder = Holder { partition: 0, run: support::run_id(1), asked, at: BEGIN };
        let limit = LimitId::workflow(&"w".into(), None);
        // Said twice, it counts once.
        for _ in 0..2 {
            owner.give(Input::Limit(LimitMessage::Asked { limit: limit.clone(), holder, rule }));
        }
        owner.partition.places()
    };
    let old = at_once(1);
    assert_eq!([ask(1, old), ask(2, old), ask(3, old), ask(4, old)].last(), Some(&(1, 3)));
    let newer = LimitRule { version: 1, max_queued: 0, ..at_once(2) };
    assert_eq!(ask(5, newer), (2, 2), "one more is let in, and the newcomer is refused");
    assert_eq!(ask(6, old), (2, 2), "the old rule has no say");
    assert_eq!(ask(7, LimitRule { version: 2, ..at_once(4) }), (4, 1));
}

/// Several partitions that send each other messages, with some delay, and that are lost now and then.
struct Cluster {
    random: Random,
    now: Timestamp,
    plans: Vec<Arc<Plan>>,
    members: Vec<Member>,
    /// In order, from each to each.
    on_the_way: BTreeMap<(u32, u32), VecDeque<LimitMessage>>,
    next_run: u128,
}

struct Member {
    config: PartitionConfig,
    partition: Partition,
    journal: Vec<Vec<u8>>,
    executing: Vec<AttemptId>,
}

impl Cluster {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let rule = match random.below(3) {
            0 => at_once(1 + random.below(3) as u32),
            1 => per(2, SECOND),
            _ => LimitRule { rate: per(3, SECOND).rate, ..at_once(2) },
        };
        let key = random.percent(50).then_some("$input.n");
        let plans = vec![
            workflow("limited").step("a", &[]).step("b", &["a"]).limited(key, rule).timeout(MINUTE).build(),
            workflow("free").step("a", &[]).with(|step| step.queue_timeout = Some(2 * SECOND)).build(),
        ];
        let plugin =
            LimitRule { max_queued: random.one_of(&[2, 1_000]), ..at_once(1 + random.below(3) as u32) };
        let plugin_limits = BTreeMap::from([("test".into(), plugin)]);
        let members = (0..3).map(|partition| {
            let plugin_limits = plugin_limits.clone();
            let config = PartitionConfig { partition, partitions: 3, plugin_limits, ..Default::default() };
            let (journal, executing) = (Vec::new(), Vec::new());
            Member { partition: Partition::new(config.clone()), config, journal, executing }
        });
        Self {
            members: members.collect(),
            random,
            now: BEGIN,
            plans,
            on_the_way: BTreeMap::new(),
            next_run: 1,
        }
    }

    fn give(&mut self, to: usize, input: Input) {
        let decision = self.members[to].partition.handle(input, self.now);
        self.take(to, decision);
    }

    fn take(&mut self, from: usize, decision: Decision) {
        let member = &mut self.members[from];
        member.journal.extend(decision.events.iter().map(|event| codec::encode(event)));
        member.partition.check_invariants().unwrap();
        for message in decision.messages {
            assert_ne!(message.to, from as u32, "what it says to itself does not travel");
            self.on_the_way.entry((from as u32, message.to)).or_default().push_back(message.message);
        }
        for effect in decision.effects {
            match effect {
                Effect::StartAttempt(start) => member.executing.push(start.id),
                Effect::CancelAttempt(id) => member.executing.retain(|running| *running != id),
                Effect::EvaluateOutput(_) => {}
            }
        }
        self.check();
    }

    /// Never more than may, counted where they run.
    fn check(&self) {
        let executing: usize = self.members.iter().map(|member| member.executing.len()).sum();
        let most = self.members[0].config.plugin_limits["test"].at_once.unwrap();
        assert!(executing <= most as usize, "{executing} attempts where {most} may be");
        let Some(most) = self.plans[0].concurrency.as_ref().and_then(|limit| limit.rule.at_once) else {
            return;
        };
        let mut going: HashMap<&str, u32> = HashMap::new();
        let runs = self.members.iter().flat_map(|member| member.partition.runs());
        for run in runs.filter(|run| &*run.plan().name == "limited" && !run.status().is_terminal()) {
            let admitted = run.history().iter().rev().find_map(|event| match &run_event(event)?.fact {
                Fact::RunAdmitted(_) => Some(true),
                Fact::LimitAsked(asked) if asked.path.is_none() => Some(false),
                _ => None,
            });
            let admitted = admitted.unwrap_or(false);
            let key =
                if self.plans[0].concurrency.as_ref().unwrap().key.is_some() { &**run.input() } else { "" };
            *going.entry(key).or_default() += u32::from(admitted);
        }
        assert!(going.values().all(|going| *going <= most), "{going:?} where {most} may be");
    }

    fn something_happens(&mut self) {
        let member = self.random.below(3);
        match self.random.below(100) {
            0..15 => {
                let plan = Arc::clone(&self.plans[self.random.below(2)]);
                let input = format!(r#"{{"n":{}}}"#, self.random.below(2)).into();
                let submit = reipaz_core::partition::Submit { input, ..submission(&plan, self.next_run) };
                self.next_run += 1;
                let home = submit.run.partition(3) as usize;
                self.give(home, Input::Submit(Box::new(submit)));
            }
            15..45 => self.an_attempt_ends(member),
            45..80 => self.a_message_arrives(),
            80..90 => {
                self.now = self.now.plus(Duration::from_millis(self.random.below(1_500) as u64));
                self.give(member, Input::Tick);
            }
            90..95 => {
                let run = crate::support::run_id(1 + self.random.below(self.next_run as usize) as u128);
                let home = run.partition(3) as usize;
                let input = match self.random.below(4) {
                    0 => Input::Cancel(run, None),
                    1 => Input::Pause(run, None),
                    2 => Input::Resume(run, None),
                    _ => Input::Retry(run, Default::default()),
                };
                self.give(home, input);
            }
            _ => self.crash(member),
        }
    }

    fn an_attempt_ends(&mut self, member: usize) {
        if self.members[member].executing.is_empty() {
            return;
        }
        let which = self.random.below(self.members[member].executing.len());
        let id = self.members[member].executing.swap_remove(which);
        let result = match self.random.percent(30) {
            true => AttemptResult::Error(failure(self.random.class())),
            false => AttemptResult::Output("1".into()),
        };
        self.give(member, done(id, AttemptOutcome::Result(result)));
    }

    fn a_message_arrives(&mut self) {
        let ways: Vec<(u32, u32)> =
            self.on_the_way.iter().filter(|(_, waiting)| !waiting.is_empty()).map(|(way, _)| *way).collect();
        if ways.is_empty() {
            return;
        }
        let way = self.random.one_of(&ways);
        let message = self.on_the_way.get_mut(&way).and_then(VecDeque::pop_front).unwrap();
        self.give(way.1 as usize, Input::Limit(message));
    }

    /// Its host is lost. What it told and heard was durable.
    fn crash(&mut self, member: usize) {
        let this = &mut self.members[member];
        let mut partition = Partition::new(this.config.clone());
        self.plans.iter().for_each(|plan| partition.offer_plan(Arc::clone(plan)));
        for record in &this.journal {
            partition.replay(Arc::new(codec::decode(record).unwrap())).unwrap();
        }
        assert_eq!(partition, this.partition);
        partition.set_position(this.journal.len() as u64);
        this.partition = partition;
        this.executing.clear();
        let decision = this.partition.resume(self.now, false);
        self.take(member, decision);
    }

    /// The faults stop: everything ends, and no place is left behind.
    fn settle(&mut self) {
        let live = |cluster: &Self| cluster.members.iter().any(|member| member.partition.live_runs() > 0);
        let mut turns = 0;
        while live(self) || self.on_the_way.values().any(|waiting| !waiting.is_empty()) {
            turns += 1;
            assert!(turns < 100_000, "it does not end");
            for member in 0..3 {
                let paused: Vec<RunId> = self.members[member]
                    .partition
                    .runs()
                    .filter(|run| run.status() == RunStatus::Paused)
                    .map(reipaz_core::partition::Run::id)
                    .collect();
                paused.into_iter().for_each(|run| self.give(member, Input::Resume(run, None)));
                self.an_attempt_ends(member);
                self.a_message_arrives();
                self.give(member, Input::Tick);
            }
            self.now = self.now.plus(Duration::from_millis(100));
        }
        for member in &self.members {
            let left = member.partition.limits().find(|limit| limit.held > 0 || limit.queued > 0);
            assert!(left.is_none(), "a place is never let go: {left:?}");
        }
    }
}

#[test]
fn no_place_is_lost_or_given_twice_between_partitions() {
    for seed in 0..300 {
        let mut cluster = Cluster::new(seed);
        for _ in 0..200 {
            cluster.something_happens();
        }
        cluster.settle();
    }
}
