//! The retry rule: schedules worked out by hand.

use std::time::Duration;

use proptest::prelude::*;
use reipaz_core::{
    failure::{ErrorClass, Failure},
    ids::StepPath,
    partition::{Again, Input, RunStatus, StepStatus},
    retry::{
        Case, ExplainedRetry, GiveUp, Jitter, Numbers, Pace, Reason, RetryRule, Treatment, Verdict, draw,
    },
};

use crate::{
    plans::workflow,
    support::{BEGIN, MINUTE, Owner, SECOND, failure},
};

use ErrorClass::{
    Cancelled, Denied, Host, Network, Permanent, RateLimited, Resource, Timeout, Transient, Trap,
};

fn rule() -> RetryRule {
    RetryRule { jitter: Jitter::None, attempts: 9, ..RetryRule::default() }
}

/// Lets a step fail with one class after the other, each the moment its attempt starts, and notes each delay in
/// milliseconds and its reason, or why it ended.
fn schedule(rule: &RetryRule, failures: &[Failure]) -> Vec<String> {
    let mut pace = Pace { attempts: 0, immediate: 0, backoffs: 0, first_started: BEGIN };
    let mut now = BEGIN;
    failures
        .iter()
        .map(|failure| {
            pace.attempts += 1;
            match rule.decide(pace, failure, now, u64::MAX / 2) {
                Verdict::Retry { delay, reason } => {
                    now = now.plus(delay);
                    match reason {
                        Reason::Immediate => pace.immediate += 1,
                        Reason::Backoff => pace.backoffs += 1,
                        Reason::RetryAfter => {}
                    }
                    format!("{} {reason}", delay.as_millis())
                }
                Verdict::GiveUp(why) => format!("{why:?}"),
            }
        })
        .collect()
}

fn classes(classes: &[ErrorClass]) -> Vec<Failure> {
    classes.iter().map(|&class| failure(class)).collect()
}

fn asks_for(class: ErrorClass, millis: u64) -> Failure {
    Failure { retry_after_ms: Some(millis), ..failure(class) }
}

#[test]
fn the_first_two_retries_after_network_errors_and_timeouts_are_immediate_then_it_backs_off() {
    let delays = schedule(&rule(), &classes(&[Network, Timeout, Network, Network, Network]));
    assert_eq!(delays, ["0 immediate", "0 immediate", "1000 backoff", "2000 backoff", "4000 backoff"]);
}

#[test]
fn transient_failures_back_off_from_the_first() {
    let delays = schedule(&rule(), &classes(&[Transient; 8]));
    let expected = [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000];
    assert_eq!(delays, expected.map(|millis| format!("{millis} backoff")));
}

#[test]
fn immediate_retries_and_backoffs_are_counted_apart() {
    let delays = schedule(&rule(), &classes(&[Transient, Network, RateLimited, Timeout, Network]));
    assert_eq!(delays, ["1000 backoff", "0 immediate", "2000 backoff", "0 immediate", "4000 backoff"]);
}

#[test]
fn five_attempts_by_default_and_the_first_counts() {
    let rule = RetryRule { jitter: Jitter::None, ..RetryRule::default() };
    let delays = schedule(&rule, &classes(&[Network; 5]));
    assert_eq!(delays, ["0 immediate", "0 immediate", "1000 backoff", "2000 backoff", "Attempts"]);
}

#[test]
fn one_attempt_means_no_retry() {
    let rule = RetryRule { attempts: 1, ..rule() };
    assert_eq!(schedule(&rule, &classes(&[Network])), ["Attempts"]);
}

#[test]
fn what_would_only_repeat_is_not_tried_again() {
    for class in [Permanent, Resource, Trap, Denied, Cancelled, Host] {
        assert_eq!(schedule(&rule(), &[asks_for(class, 5)]), ["Class"], "{class:?}");
    }
}

#[test]
fn retry_after_is_obeyed_even_beyond_the_longest_delay_and_below_the_shortest() {
    let failures =
        [asks_for(RateLimited, 120_000), asks_for(Transient, 10), asks_for(Network, 0), failure(Transient)];
    let delays = schedule(&rule(), &failures);
    assert_eq!(delays, ["120000 retry_after", "10 retry_after", "0 retry_after", "1000 backoff"]);
}

#[test]
fn retry_after_past_the_window_fails_at_once() {
    let fits = asks_for(RateLimited, 15 * 60 * 1000);
    let passes = asks_for(RateLimited, 15 * 60 * 1000 + 1);
    assert_eq!(schedule(&rule(), &[fits]), ["900000 retry_after"]);
    assert_eq!(schedule(&rule(), &[passes]), ["Window"]);
    assert_eq!(schedule(&rule(), &[asks_for(RateLimited, u64::MAX)]), ["Window"]);
}

#[test]
fn a_backoff_past_the_window_fails_at_once() {
    let rule = RetryRule { within: Duration::from_secs(4), ..rule() };
    assert_eq!(schedule(&rule, &classes(&[Transient; 3])), ["1000 backoff", "2000 backoff", "Window"]);
}

#[test]
fn other_factors_and_bounds() {
    let rule = RetryRule {
        base: Duration::from_millis(100),
        factor: 1.5,
        max_delay: Duration::from_millis(300),
        ..rule()
    };
    let delays = schedule(&rule, &classes(&[Transient; 5]));
    assert_eq!(delays, [100, 150, 225, 300, 300].map(|millis| format!("{millis} backoff")));
}

#[test]
fn full_jitter_reaches_from_nothing_to_the_whole_delay() {
    let rule = RetryRule { jitter: Jitter::Full, ..rule() };
    let pace = Pace { attempts: 1, immediate: 0, backoffs: 0, first_started: BEGIN };
    let delay = |draw| match rule.decide(pace, &failure(Transient), BEGIN, draw) {
        Verdict::Retry { delay, .. } => delay.as_millis(),
        Verdict::GiveUp(why) => panic!("{why:?}"),
    };
    assert_eq!((delay(0), delay(u64::MAX / 2), delay(u64::MAX)), (0, 500, 1000));
}

#[test]
fn a_draw_is_the_same_for_the_same_attempt_and_no_other() {
    let path = StepPath::top("a");
    assert_eq!(draw(&[1; 32], &path, 1), draw(&[1; 32], &path, 1));
    assert_ne!(draw(&[1; 32], &path, 1), draw(&[1; 32], &path, 2));
    assert_ne!(draw(&[1; 32], &path, 1), draw(&[2; 32], &path, 1));
    assert_ne!(draw(&[1; 32], &path, 1), draw(&[1; 32], &StepPath::top("b"), 1));
}

proptest! {
    #[test]
    fn no_retry_starts_after_the_window_or_over_the_attempts(
        attempts in 1u32..20,
        base_ms in 0u64..100_000,
        factor in 1.0f64..1000.0,
        max_ms in 0u64..1_000_000,
        within_ms in 0u64..10_000_000,
        pace in (1u32..25, 0u32..5, 0u32..200),
        after_ms in 0u64..10_000_000,
        retry_after in proptest::option::of(any::<u64>()),
        draw: u64,
        class in prop_oneof![Just(Network), Just(Timeout), Just(Transient), Just(RateLimited)],
    ) {
        let rule = RetryRule {
            attempts,
            base: Duration::from_millis(base_ms),
            factor,
            max_delay: Duration::from_millis(max_ms),
            within: Duration::from_millis(within_ms),
            jitter: Jitter::Full,
            ..RetryRule::default()
        };
        let pace = Pace { attempts: pace.0, immediate: pace.1, backoffs: pace.2, first_started: BEGIN };
        let now = BEGIN.plus(Duration::from_millis(after_ms));
        let failure = Failure { retry_after_ms: retry_after, ..failure(class) };
        match rule.decide(pace, &failure, now, draw) {
            Verdict::Retry { delay, reason } => {
                prop_assert!(pace.attempts < attempts);
                prop_assert!(now.plus(delay) <= BEGIN.plus(rule.within));
                prop_assert!(reason != Reason::Backoff || delay <= rule.max_delay);
                prop_assert_eq!(reason == Reason::RetryAfter, retry_after.is_some());
                prop_assert!(retry_after.is_none_or(|millis| delay.as_millis() == u128::from(millis)));
            }
            Verdict::GiveUp(why) => prop_assert!(why != GiveUp::Class),
        }
    }
}

#[test]
fn a_step_goes_through_its_schedule() {
    let plan = workflow("retries").step("a", &[]).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);

    owner.fail(run, "a", Network);
    owner.fail(run, "a", Timeout);
    owner.fail(run, "a", Transient);
    assert_eq!(owner.status(run), RunStatus::Waiting);
    assert_eq!(owner.step_status(run, "a"), StepStatus::Retrying);
    assert_eq!(owner.partition.next_timer(), Some(BEGIN.plus(SECOND)));
    owner.pass(SECOND);
    owner.fail_with(run, "a", asks_for(RateLimited, 70_000));
    owner.pass(70 * SECOND);
    owner.fail(run, "a", Network);

    assert_eq!(owner.status(run), RunStatus::Failed);
    assert_eq!(owner.run(run).error().unwrap().attempt, Some(5));
    assert_eq!(
        owner.story(run),
        [
            "accepted",
            "/a 1 started",
            "/a 1 failed network",
            "/a 2 due in 0 ms: immediate",
            "/a 2 started",
            "/a 2 failed timeout",
            "/a 3 due in 0 ms: immediate",
            "/a 3 started",
            "/a 3 failed transient",
            "/a 4 due in 1000 ms: backoff",
            "/a 4 started",
            "/a 4 failed rate_limited",
            "/a 5 due in 70000 ms: retry_after",
            "/a 5 started",
            "/a 5 failed network",
            "failed",
        ]
    );
}

#[test]
fn a_retried_run_has_its_attempts_and_its_window_again() {
    let plan = workflow("retries").step("a", &[]).with(|step| step.retry.attempts = 2).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    owner.fail(run, "a", Transient);
    owner.pass(SECOND);
    owner.fail(run, "a", Transient);
    owner.pass(60 * MINUTE);

    owner.give(Input::Retry(run, Again::default()));
    owner.fail(run, "a", Transient);
    owner.pass(SECOND);
    owner.complete(run, "a", "1");

    assert_eq!(owner.status(run), RunStatus::Completed);
    assert_eq!(owner.step(run, "a").attempts, 4);
}

#[test]
fn a_step_counts_its_immediate_retries_and_its_backoffs() {
    let plan = workflow("retries").step("a", &[]).with(|step| step.retry.attempts = 7).build();
    let mut owner = Owner::new();
    let run = owner.submit(&plan, 1);
    for class in [Network, Network, Network, Transient, Network, Timeout] {
        owner.fail(run, "a", class);
        owner.pass(MINUTE);
    }
    let story = owner.story(run);
    let due: Vec<_> =
        story.iter().filter_map(|fact| fact.split_once("due in ")).map(|(_, due)| due).collect();
    assert_eq!(
        due,
        [
            "0 ms: immediate",
            "0 ms: immediate",
            "1000 ms: backoff",
            "2000 ms: backoff",
            "4000 ms: backoff",
            "8000 ms: backoff",
        ]
    );
}

#[test]
fn an_explanation_is_the_schedule_that_is_followed() {
    let explained = |rule: &RetryRule, failure: &Failure| {
        let explanation = rule.explain(failure);
        let tell = |retry: &ExplainedRetry| {
            let millis = [retry.least, retry.most, retry.latest].map(|time| time.as_millis());
            let [least, most, latest] = millis;
            format!("{} {} {least}-{most} by {latest}", retry.attempt, retry.reason)
        };
        (explanation.retries.iter().map(tell).collect::<Vec<_>>(), explanation.gives_up)
    };
    let jittered = RetryRule { attempts: 6, ..RetryRule::default() };
    let (retries, end) = explained(&jittered, &failure(Network));
    assert_eq!(
        retries,
        [
            "2 immediate 0-0 by 0",
            "3 immediate 0-0 by 0",
            "4 backoff 0-1000 by 1000",
            "5 backoff 0-2000 by 3000",
            "6 backoff 0-4000 by 7000",
        ]
    );
    assert_eq!(end, GiveUp::Attempts);
    let within = RetryRule { within: Duration::from_secs(12), ..rule() };
    let (retries, end) = explained(&within, &asks_for(RateLimited, 5_000));
    assert_eq!(retries, ["2 retry_after 5000-5000 by 5000", "3 retry_after 5000-5000 by 10000"]);
    assert_eq!(end, GiveUp::Window);
    assert_eq!(explained(&rule(), &failure(Permanent)), (vec![], GiveUp::Class));
}

#[test]
fn delays_that_do_not_grow_and_bases_over_the_longest_delay() {
    let backoffs = |rule: &RetryRule| [0, 1, 2, 7].map(|earlier| rule.backoff(earlier).as_millis());
    let shrinking = RetryRule { base: SECOND, factor: 0.5, max_delay: MINUTE, ..rule() };
    assert_eq!(backoffs(&shrinking), [1_000; 4], "a factor below 1 does not shrink them");
    let large = RetryRule { base: 2 * MINUTE, factor: 3.0, max_delay: MINUTE, ..rule() };
    assert_eq!(backoffs(&large), [60_000; 4]);
    let odd = RetryRule { base: Duration::from_millis(333), factor: 1.5, max_delay: MINUTE, ..rule() };
    assert_eq!(backoffs(&odd), [333, 500, 749, 5_690]);
}

#[test]
fn what_may_never_be_repeated_is_not_even_by_a_case_of_its_own() {
    let again = Treatment::Again(Numbers { attempts: Some(5), ..Numbers::default() });
    let of = |class: ErrorClass| RetryRule { by_error: [(Case::Class(class), again)].into(), ..rule() };
    let first = Pace { attempts: 1, immediate: 0, backoffs: 0, first_started: BEGIN };
    let verdict = |class| of(class).decide(first, &failure(class), BEGIN, 0);
    assert_eq!(verdict(Cancelled), Verdict::GiveUp(GiveUp::Class));
    assert_eq!(verdict(Host), Verdict::GiveUp(GiveUp::Class));
    // Permanent failures may, if the author says so; only numbers of their own let them be retried at once.
    assert_eq!(verdict(Permanent), Verdict::Retry { delay: SECOND, reason: Reason::Backoff });
    let at_once = Treatment::Again(Numbers { immediate: Some(1), ..Numbers::default() });
    let rule = RetryRule { by_error: [(Case::Class(Permanent), at_once)].into(), ..rule() };
    let verdict = rule.decide(first, &failure(Permanent), BEGIN, 0);
    assert_eq!(verdict, Verdict::Retry { delay: Duration::ZERO, reason: Reason::Immediate });
    let verdict = of(Network).decide(first, &failure(Network), BEGIN, 0);
    assert_eq!(verdict, Verdict::Retry { delay: Duration::ZERO, reason: Reason::Immediate });
}

#[test]
fn a_case_says_what_it_says_and_the_next_case_the_rest() {
    let all = Numbers {
        attempts: Some(1),
        immediate: Some(2),
        base: Some(SECOND),
        factor: Some(4.0),
        max_delay: Some(MINUTE),
        within: Some(2 * MINUTE),
        jitter: Some(Jitter::None),
    };
    assert_eq!(all.or(Numbers::default()), all);
    assert_eq!(Numbers::default().or(all), all);
    let some = Numbers { attempts: Some(9), ..Numbers::default() };
    assert_eq!(some.or(all), Numbers { attempts: Some(9), ..all });
}

/// Hosts of different versions must draw alike.
#[test]
fn a_draw_never_changes() {
    assert_eq!(draw(&[7; 32], &StepPath::top("a"), 1), 7_433_046_565_590_108_726);
}
