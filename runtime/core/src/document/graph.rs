//! The steps as a graph: every reference and every `needs` is an edge, and there must be no way back.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::{
    diagnostic::{Place, Report, code},
    draft::{Draft, StepDraft},
    hint,
    read::list,
};

/// How the steps of a draft depend on each other. Numbers count in [`Draft::steps`].
pub(crate) struct Graph {
    /// The steps that each depends on.
    pub(crate) upstream: Vec<BTreeSet<usize>>,
    /// The steps whose outputs each reads.
    pub(crate) reads: Vec<BTreeSet<usize>>,
    /// The steps that the workflow's output reads.
    pub(crate) output_reads: BTreeSet<usize>,
    /// All steps, each after those it depends on: by the longest way to them, then by name, so that the order does
    /// not depend on how the document was written.
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
    let mut upstream = Vec::new();
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
            if kind == Kind::Reads {
                read.insert(target);
            }
            edge.entry(target).or_insert_with(|| place.clone());
        }
        upstream.push(edge.keys().copied().collect::<BTreeSet<_>>());
        reads.push(read);
        edges.push(edge);
    }
    let output = draft.output_reads.steps.iter();
    let output_reads = output.filter_map(|(name, place)| find(name, place, report)).collect();
    let order = order(draft, &upstream);
    if order.len() < draft.steps.len() {
        cycles(draft, &edges, &order, report);
    }
    Graph { upstream, reads, output_reads, order }
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
    order.sort_by_key(|step| (level[*step], &draft.steps[*step].name));
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
