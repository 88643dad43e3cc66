//! The steps as a graph: every reference and every `needs` is an edge, and there must be no way back.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use super::{
    diagnostic::{Place, Report, code},
    draft::{Draft, StepDraft},
    hint,
    read::list,
};
use crate::plan::Handles;

/// How the steps of a draft depend on each other. Numbers count in [`Draft::steps`].
pub(crate) struct Graph {
    /// The steps that each depends on.
    pub(crate) upstream: Vec<BTreeSet<usize>>,
    /// The steps whose outputs each reads.
    pub(crate) reads: Vec<BTreeSet<usize>>,
    /// The steps that the output of each one's `on_failure` reads.
    pub(crate) handled_reads: Vec<BTreeSet<usize>>,
    /// The steps that the workflow's output reads.
    pub(crate) output_reads: BTreeSet<usize>,
    /// All steps, each after those it depends on: by the longest way to them, then by name, so that the order does
    /// not depend on how the document was written. Those of an `on_failure` come last.
    pub(crate) order: Vec<usize>,
}

/// Resolves every reference; reports those that lead nowhere, to the step itself, or in a circle.
pub(crate) fn resolve(draft: &Draft<'_>, report: &mut Report<'_>) -> Graph {
    let names: HashMap<&str, usize> =
        draft.steps.iter().enumerate().map(|(index, step)| (&*step.name, index)).collect();
    let find = |name: &str, place: &Place, report: &mut Report<'_>| {
        let found = names.get(name).copied();
        if found.is_none() && !report.is_full() {
            let mut known: Vec<&str> = names.keys().copied().collect();
            known.sort_unstable();
            let hint = match hint::nearest(name, known.iter().copied()) {
                Some(near) => Some(format!("did you mean `{near}`?")),
                None if known.len() <= 20 => Some(format!("the steps are {}", list(known.into_iter()))),
                None => None,
            };
            report.hinted(place, code::UNKNOWN_STEP, format!("there is no step `{name}`"), hint);
        }
        found
    };
    let mut upstream: Vec<BTreeSet<usize>> = Vec::new();
    let mut reads = Vec::new();
    let mut edges: Vec<BTreeMap<usize, Place>> = Vec::new();
    for (index, step) in draft.steps.iter().enumerate() {
        let mut read = BTreeSet::new();
        let mut edge = BTreeMap::new();
        for (kind, name, place) in references(step) {
            let Some(target) = find(name, place, report) else { continue };
            if target == index {
                let message = match kind {
                    Kind::Needs => format!("the step `{name}` needs itself"),
                    Kind::Reads => format!("the step `{name}` reads itself, before it has an output"),
                };
                report.mistake(place, code::SELF_REFERENCE, message);
                continue;
            }
            match relation(draft, step.handles, target, kind, &upstream) {
                Relation::Refused(message, hint) => {
                    report.hinted(place, code::UNKNOWN_STEP, message, hint);
                    continue;
                }
                Relation::Over => {}
                Relation::Edge => drop(edge.entry(target).or_insert_with(|| place.clone())),
            }
            if kind == Kind::Reads {
                read.insert(target);
            }
        }
        upstream.push(edge.keys().copied().collect::<BTreeSet<_>>());
        reads.push(read);
        edges.push(edge);
    }
    // What reads these does so when the steps in `scope` are over.
    let resolve = |names: &[(Arc<str>, Place)], scope: Option<Handles>, report: &mut Report<'_>| {
        let mut found = BTreeSet::new();
        for (name, place) in names {
            let Some(target) = find(name, place, report) else { continue };
            match relation(draft, scope, target, Kind::Reads, &upstream) {
                Relation::Refused(message, hint) => {
                    report.hinted(place, code::UNKNOWN_STEP, message, hint);
                }
                Relation::Over | Relation::Edge => drop(found.insert(target)),
            }
        }
        found
    };
    let output_reads = resolve(&draft.output_reads.steps, None, report);
    let handled = draft.steps.iter().enumerate();
    let handled_reads = handled
        .map(|(index, step)| resolve(&step.handled_reads.steps, Some(Handles::Step(index)), report))
        .collect();
    let order = order(draft, &upstream);
    if order.len() < draft.steps.len() {
        cycles(draft, &edges, &order, report);
    }
    Graph { upstream, reads, handled_reads, output_reads, order }
}

/// What a reference from one step to another means.
enum Relation {
    /// The other one comes first.
    Edge,
    /// The other one is over by then.
    Over,
    /// It cannot be: why, and what to do.
    Refused(String, Option<String>),
}

/// What it means that something which is there for the failure of `handles` (or stands among the steps of the workflow)
/// names `target`. The steps of the workflow come first in the draft: where their own references are needed, they are in
/// `upstream`.
fn relation(
    draft: &Draft<'_>,
    handles: Option<Handles>,
    target: usize,
    kind: Kind,
    upstream: &[BTreeSet<usize>],
) -> Relation {
    let name = &draft.steps[target].name;
    let of = draft.steps[target].handles;
    if of == handles {
        return Relation::Edge;
    }
    let refused = |message: String, hint: Option<&str>| Relation::Refused(message, hint.map(str::to_owned));
    if let Some(Handles::Step(failed)) = of {
        let message = format!("`{name}` runs only when `{}` has failed", draft.steps[failed].name);
        return refused(message, Some("give that `on_failure` an `output`, and read the step's own"));
    }
    if of == Some(Handles::Run) {
        return refused(format!("`{name}` runs only when the run has failed"), None);
    }
    if kind == Kind::Needs {
        let message = format!("`{name}` is over before any step of this `on_failure` runs");
        return refused(message, Some("`needs` names other steps of the same `on_failure`"));
    }
    match handles {
        Some(Handles::Step(failed)) if !is_before(target, failed, upstream) => refused(
            format!("`{name}` may still be running when `{}` has failed", draft.steps[failed].name),
            Some("only steps that the failed one depends on can be read here"),
        ),
        _ => Relation::Over,
    }
}

/// Whether a step is that one, or one that it depends on, however far up.
fn is_before(step: usize, of: usize, upstream: &[BTreeSet<usize>]) -> bool {
    let (mut seen, mut left) = (BTreeSet::from([of]), vec![of]);
    while let Some(next) = left.pop() {
        if next == step {
            return true;
        }
        left.extend(upstream.get(next).into_iter().flatten().filter(|before| seen.insert(**before)));
    }
    false
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Needs,
    Reads,
}

fn references<'s>(step: &'s StepDraft<'_>) -> impl Iterator<Item = (Kind, &'s str, &'s Place)> {
    let reads =
        step.condition_reads.steps.iter().chain(&step.with_reads.steps).chain(&step.failure_reads.steps);
    let needs = step.needs.iter().map(|(name, place)| (Kind::Needs, name.as_str(), place));
    needs.chain(reads.map(|(name, place)| (Kind::Reads, &**name, place)))
}

/// The steps in order; those in a circle, and those behind one, are missing.
fn order(draft: &Draft<'_>, upstream: &[BTreeSet<usize>]) -> Vec<usize> {
    let mut downstream = vec![Vec::new(); upstream.len()];
    let mut waiting: Vec<usize> = upstream.iter().map(BTreeSet::len).collect();
    for (step, needs) in upstream.iter().enumerate() {
        needs.iter().for_each(|need| downstream[*need].push(step));
    }
    let mut level = vec![0; upstream.len()];
    let mut ready: VecDeque<usize> = (0..upstream.len()).filter(|step| waiting[*step] == 0).collect();
    let mut order = Vec::new();
    while let Some(step) = ready.pop_front() {
        order.push(step);
        for next in &downstream[step] {
            level[*next] = level[*next].max(level[step] + 1);
            waiting[*next] -= 1;
            if waiting[*next] == 0 {
                ready.push_back(*next);
            }
        }
    }
    order.sort_by_key(|&step| {
        let StepDraft { name, handles, .. } = &draft.steps[step];
        (handles.is_some(), level[step], name)
    });
    order
}

/// Reports a shortest circle through each step that is in one and was not yet named.
fn cycles(draft: &Draft<'_>, edges: &[BTreeMap<usize, Place>], ordered: &[usize], report: &mut Report<'_>) {
    let mut done: BTreeSet<usize> = ordered.iter().copied().collect();
    for start in 0..edges.len() {
        if done.contains(&start) || report.is_full() {
            continue;
        }
        let Some(cycle) = shortest_cycle(start, edges) else { continue };
        done.extend(&cycle);
        let names: Vec<_> = cycle.iter().chain([&start]).map(|step| &*draft.steps[*step].name).collect();
        let next = cycle.get(1).copied().unwrap_or(start);
        let Some(place) = edges[start].get(&next) else { continue };
        let message = format!("these steps wait for each other: {}", names.join(" -> "));
        report.hinted(
            place,
            code::CYCLE,
            message,
            "each arrow reads \"needs\"; remove one of them".to_owned(),
        );
    }
}

/// The steps of a shortest way from `start` back to it.
fn shortest_cycle(start: usize, edges: &[BTreeMap<usize, Place>]) -> Option<Vec<usize>> {
    let mut from = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(step) = queue.pop_front() {
        for next in edges[step].keys().copied() {
            if next == start {
                let mut cycle = vec![step];
                while let Some(before) = cycle.last().and_then(|step| from.get(step)) {
                    cycle.push(*before);
                }
                cycle.reverse();
                return Some(cycle);
            }
            from.entry(next).or_insert_with(|| {
                queue.push_back(next);
                step
            });
        }
    }
    None
}
