//! The stored form and the plan of two documents, in full: stored versions outlive this code, so a change here must be
//! meant. `REIPAZ_WRITE_GOLDEN=1` writes the files anew.

use std::{fmt::Write as _, path::PathBuf};

use reipaz_core::plan::Plan;

use crate::support::accepted;

#[track_caller]
fn golden(name: &str, actual: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/document/golden").join(name);
    if std::env::var_os("REIPAZ_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, actual).expect("the file can be written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(actual, expected, "{name}");
}

fn describe(plan: &Plan) -> String {
    let mut text = String::new();
    let mut line = |text_line: String| writeln!(text, "{text_line}").expect("a String takes it");
    line(format!("{} {} timeout {:?} secrets {:?}", plan.name, plan.digest, plan.timeout, plan.secrets));
    for (index, step) in plan.steps.iter().enumerate() {
        line(format!(
            "{index} {} = {}@{} {}",
            step.path, step.plugin.name, step.plugin.version, step.plugin.digest
        ));
        line(format!("  up {:?} down {:?} reads {:?}", step.upstream, step.downstream, step.reads));
        line(format!("  timeout {:?} {:?}", step.timeout, step.retry));
        line(format!("  secrets {:?} grants {:?} if {:?}", step.secrets, step.grants, step.condition));
        line(format!("  with {:?}", step.with));
    }
    line(format!("output {:?} reads {:?}", plan.output, plan.output_reads));
    text
}

#[test]
fn the_stored_form_and_the_plan_stay_what_they_are() {
    for (name, text) in
        [("orders", include_str!("golden/orders.yaml")), ("smallest", include_str!("golden/smallest.json"))]
    {
        let checked = accepted(text);
        golden(&format!("{name}.pinned.json"), &checked.pinned.canonical());
        golden(&format!("{name}.plan.txt"), &describe(&checked.plan));
    }
}
