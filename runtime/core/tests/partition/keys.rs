//! One idempotency key starts one run.

use reipaz_core::partition::{Refusal, Reply, RunStatus, Submit};

use crate::{
    plans::workflow,
    support::{Owner, run_id, submission},
};

fn keyed(plan: &std::sync::Arc<reipaz_core::plan::Plan>, number: u128) -> Submit {
    Submit { idempotency_key: Some("order-7".into()), ..submission(plan, number) }
}

#[test]
fn the_same_key_and_input_give_the_same_run() {
    let plan = workflow("keys").step("a", &[]).build();
    let mut owner = Owner::new();

    assert_eq!(owner.offer(keyed(&plan, 1)), Reply::Accepted { run: run_id(1), existing: false });
    let records = owner.journal.len();
    assert_eq!(owner.offer(keyed(&plan, 1)), Reply::Accepted { run: run_id(1), existing: true });

    assert_eq!(owner.journal.len(), records);
}

#[test]
fn the_same_key_with_other_input_is_refused() {
    let plan = workflow("keys").step("a", &[]).build();
    let mut owner = Owner::new();
    owner.offer(keyed(&plan, 1));

    let other = Submit { input: "2".into(), ..keyed(&plan, 1) };

    assert_eq!(owner.offer(other), Reply::Refused(Refusal::KeyReused(run_id(1))));
}

#[test]
fn an_id_that_is_taken_is_refused_to_other_input_without_a_key() {
    let plan = workflow("keys").step("a", &[]).build();
    let mut owner = Owner::new();
    owner.submit(&plan, 1);

    assert_eq!(owner.offer(submission(&plan, 1)), Reply::Accepted { run: run_id(1), existing: true });
    let other = Submit { input: "2".into(), ..submission(&plan, 1) };

    assert_eq!(owner.offer(other), Reply::Refused(Refusal::RunExists(run_id(1))));
    assert_eq!(owner.status(run_id(1)), RunStatus::Running);
}
