//! Workflows at random, as the documents that hosts pin.

use std::{collections::BTreeMap, sync::Arc};

use reipaz_core::{
    ids::Digest,
    limit::{LimitRule, Rate},
    plan::{PinnedWorkflow, Plan, PluginPin},
};
use serde_json::{Value, json};

use crate::Random;

/// The plugin that is silent, where the world makes a difference.
pub const QUIET: &str = "quiet";
/// The one that is not.
pub const LOUD: &str = "loud";

/// Any graph of up to seven steps.
pub fn workflow(random: &mut Random, number: usize) -> PinnedWorkflow {
    let names: Vec<String> = (0..random.below(8)).map(|index| format!("s{index}")).collect();
    let mut steps = serde_json::Map::new();
    for (index, name) in names.iter().enumerate() {
        steps.insert(name.clone(), step(random, name, &names[..index]));
    }
    let mut document = json!({ "reipaz": 1, "name": format!("workflow_{number}"), "steps": steps });
    if random.percent(25) {
        let retry = json!({ "attempts": 2, "jitter": "none" });
        let steps = json!({
            "page": { "uses": random.one_of(&[QUIET, LOUD]), "retry": retry },
            "clean": { "uses": QUIET, "needs": ["page"] },
        });
        document["on_failure"] = json!({ "steps": steps, "timeout": random.one_of(&["1s", "10m"]) });
    }
    if random.percent(20) {
        document["concurrency"] = concurrency(random);
    }
    if random.percent(30) {
        document["timeout"] = random.one_of(&["1s", "60s", "48h"]).into();
    }
    let output = match random.below(5) {
        0 => None,
        1 => Some(json!({ "fixed": true })),
        2 => Some(json!("${ $input }")),
        3 if !names.is_empty() => Some(json!(format!("${{ $steps.{}.output }}", random.one_of(&names)))),
        _ => Some(json!("length: ${ $input | length }")),
    };
    if let Some(output) = output {
        document["output"] = output;
    }
    PinnedWorkflow { document, plugins: [QUIET, LOUD].into_iter().map(pin).collect::<BTreeMap<_, _>>() }
}

/// How many of its runs there may be.
fn concurrency(random: &mut Random) -> Value {
    let mut concurrency = match random.below(3) {
        0 => json!({ "limit": 1 + random.below(3) }),
        1 => json!({ "rate": rate(random) }),
        _ => json!({ "limit": 1 + random.below(3), "rate": rate(random) }),
    };
    if random.percent(50) {
        concurrency["key"] = "$input".into();
    }
    match random.below(10) {
        0..6 => {}
        6..9 => concurrency["max_queued"] = (1 + random.below(4)).into(),
        _ => concurrency["when_full"] = "reject".into(),
    }
    concurrency
}

fn rate(random: &mut Random) -> Value {
    json!({ "starts": 1 + random.below(3), "per": random.one_of(&["10ms", "2s", "5m"]) })
}

/// Limits of the plugins, or none.
pub fn plugin_limits(random: &mut Random) -> BTreeMap<Arc<str>, LimitRule> {
    let mut limits = BTreeMap::new();
    for plugin in [QUIET, LOUD] {
        if random.percent(25) {
            let at_once = random.percent(70).then(|| 1 + random.below(3) as u32);
            let rate = (at_once.is_none() || random.percent(30))
                .then(|| Rate { starts: 1 + random.below(3) as u32, per_ms: random.one_of(&[10, 2_000]) });
            let max_queued = random.one_of(&[0, 2, 1000, 1000, 1000]);
            limits.insert(plugin.into(), LimitRule { at_once, rate, max_queued, version: 0 });
        }
    }
    limits
}

/// The same, compiled.
pub fn plan(random: &mut Random, number: usize) -> Arc<Plan> {
    Arc::new(workflow(random, number).compile().unwrap())
}

fn step(random: &mut Random, name: &str, before: &[String]) -> Value {
    let needs: Vec<&String> = before.iter().filter(|_| random.percent(40)).collect();
    let mut step = json!({
        "uses": random.one_of(&[QUIET, LOUD]),
        "needs": needs,
        "retry": {
            "attempts": 1 + random.below(5),
            "base": format!("{}ms", 1 + random.below(3000)),
            "within": random.one_of(&["5s", "15m"]),
            "jitter": random.one_of(&["full", "none"]),
        },
    });
    match random.below(100) {
        0..60 => {}
        60..75 => step["if"] = "$input | length > 0".into(),
        75..88 => step["if"] = "always".into(),
        _ => step["if"] = "failed".into(),
    }
    if random.percent(10) {
        step["queue_timeout"] = random.one_of(&["1s", "10m"]).into();
    }
    if random.percent(20) {
        step["total_timeout"] = random.one_of(&["1s", "30s"]).into();
    }
    match random.below(100) {
        0..45 => {}
        45..60 => step["on_failure"] = handled(random, name),
        60..80 => step["on_failure"] = "pause".into(),
        80..90 => step["on_failure"] = json!({ "continue_with": 0 }),
        _ => step["on_failure"] = json!({ "continue_with": "${ $input }" }),
    }
    step
}

/// Steps for a step's failure, which may put it right.
fn handled(random: &mut Random, failed: &str) -> Value {
    let mend = format!("{failed}_mend");
    let mut steps = serde_json::Map::new();
    let retry = json!({ "attempts": 2, "base": "1s", "jitter": "none" });
    steps.insert(mend.clone(), json!({ "uses": random.one_of(&[QUIET, LOUD]), "retry": retry }));
    if random.percent(50) {
        let needs = if random.percent(50) { vec![mend.clone()] } else { Vec::new() };
        let mut tell = json!({ "uses": LOUD, "needs": needs });
        if random.percent(30) {
            tell["if"] = "failed".into();
        }
        steps.insert(format!("{failed}_tell"), tell);
    }
    let mut handled = json!({ "steps": steps });
    if random.percent(60) {
        handled["output"] = format!("${{ $steps.{mend}.output }}").into();
    }
    handled
}

fn pin(name: &str) -> (String, PluginPin) {
    let (version, digest) = ("1.0.0".to_owned(), Digest::of(name.as_bytes()));
    (name.to_owned(), PluginPin { name: name.to_owned(), version, digest, retry: None })
}
