//! What the journal must say of limits: those who asked first have their place first, never more have one than may, and no
//! more runs and attempts go on than have one.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use reipaz_core::{
    event::{Event, Fact, RunEvent},
    ids::{RunId, StepPath},
    limit::{Holder, LimitEvent, LimitFact, LimitId, LimitRule},
    partition::PartitionConfig,
    time::Timestamp,
};

use super::Seen;

/// Of a partition that is the home of all its limits.
#[derive(Default)]
pub(super) struct Places {
    plugins: BTreeMap<String, LimitRule>,
    limits: HashMap<LimitId, Known>,
    /// Attempts of plugins that have a limit.
    running: HashMap<String, HashSet<(RunId, StepPath)>>,
    /// An attempt that has just started: over in the very next event, if it never had a place.
    started: Option<(RunId, StepPath)>,
    /// Runs that were admitted and have not ended.
    admitted: HashMap<LimitId, HashSet<RunId>>,
}

#[derive(Default)]
struct Known {
    rule: Option<LimitRule>,
    held: HashSet<Holder>,
    queue: VecDeque<Holder>,
    starts: Vec<Timestamp>,
}

impl Known {
    /// Places that those who wait will have in the next decisions.
    fn free(&self, rule: LimitRule, at: Timestamp) -> usize {
        let at_once = rule.at_once.map_or(usize::MAX, |most| (most as usize).saturating_sub(self.held.len()));
        let in_time = rule.rate.map_or(usize::MAX, |rate| {
            let counted = self.starts.iter().rev().take_while(|start| start.plus(rate.per()) > at).count();
            (rate.starts as usize).saturating_sub(counted)
        });
        at_once.min(in_time)
    }
}

impl Places {
    pub(super) fn new(config: &PartitionConfig) -> Self {
        let plugins = config.plugin_limits.iter().map(|(name, rule)| (name.to_string(), *rule)).collect();
        Self { plugins, ..Self::default() }
    }

    pub(super) fn check_before(&mut self, event: &Event) {
        let Some((run, path)) = self.started.take() else { return };
        let ended = matches!(event, Event::Run(event) if event.run == run
            && matches!(&event.fact, Fact::AttemptFinished(it) if it.path == path));
        if ended {
            return;
        }
        for (plugin, running) in &self.running {
            let most = self.plugins[plugin].at_once.unwrap_or(u32::MAX);
            assert!(running.len() <= most as usize, "{running:?} go on of {plugin}, where {most} may");
        }
    }

    pub(super) fn see(&mut self, event: &LimitEvent) {
        let known = self.limits.entry(event.limit.clone()).or_default();
        match &event.fact {
            LimitFact::Asked { holder, rule } => {
                // One who brings another rule may leave in the next event.
                let brings = known.rule.replace(*rule).is_some_and(|before| before != *rule);
                known.queue.push_back(*holder);
                let wait = known.queue.len().saturating_sub(known.free(*rule, event.at));
                let may = rule.max_queued as usize + usize::from(brings);
                assert!(wait <= may, "{wait} wait for {} where {may} may", event.limit);
            }
            LimitFact::Granted(holder) => {
                assert_eq!(known.queue.pop_front(), Some(*holder), "who asked first is first");
                known.held.insert(*holder);
                known.starts.push(event.at);
                let rule = known.rule.expect("somebody asked");
                let most = rule.at_once.unwrap_or(u32::MAX);
                assert!(known.held.len() <= most as usize, "more have a place than may");
                if let Some(rate) = rule.rate {
                    let since = |start: &&Timestamp| start.plus(rate.per()) > event.at;
                    let counted = known.starts.iter().rev().take_while(since).count();
                    assert!(counted <= rate.starts as usize, "{counted} starts in {:?}", rate.per());
                }
            }
            LimitFact::LetGo(holder) => {
                known.queue.retain(|waiting| waiting != holder);
                known.held.remove(holder);
            }
            LimitFact::Idle => assert!(known.queue.is_empty() && known.held.is_empty()),
            LimitFact::Kept(_) => panic!("{event:?} outside a checkpoint"),
        }
    }

    pub(super) fn see_run(&mut self, event: &RunEvent, seen: &Seen) {
        let run = event.run;
        match &event.fact {
            Fact::AttemptStarted(it) => {
                let step = seen.plan.iter().flat_map(|plan| &plan.steps).find(|step| step.path == it.path);
                let plugin =
                    step.map(|step| &step.plugin.name).filter(|name| self.plugins.contains_key(*name));
                if let Some(plugin) = plugin {
                    self.running.entry(plugin.clone()).or_default().insert((run, it.path.clone()));
                    self.started = Some((run, it.path.clone()));
                }
            }
            Fact::AttemptFinished(it) => self.ended(run, &it.path),
            Fact::AttemptParked(it) => self.ended(run, &it.path),
            Fact::StepSkipped(it) => self.ended(run, &it.path),
            Fact::HandlingStarted(it) if it.path.is_none() => self.run_ended(run),
            Fact::RunAdmitted(_) => {
                let Some((limit, _)) = &seen.limit else { return };
                let admitted = self.admitted.entry(limit.clone()).or_default();
                admitted.insert(run);
                // Elsewhere, if its home is another partition.
                let rule = self.limits.get(limit).and_then(|known| known.rule);
                let most = rule.and_then(|rule| rule.at_once).unwrap_or(u32::MAX);
                assert!(admitted.len() <= most as usize, "more runs go on than may under {limit}");
            }
            Fact::RunFinished(_) => {
                self.run_ended(run);
                if let Some(admitted) =
                    seen.limit.as_ref().and_then(|(limit, _)| self.admitted.get_mut(limit))
                {
                    admitted.remove(&run);
                }
            }
            _ => {}
        }
    }

    fn ended(&mut self, run: RunId, path: &StepPath) {
        for running in self.running.values_mut() {
            running.remove(&(run, path.clone()));
        }
    }

    fn run_ended(&mut self, run: RunId) {
        self.running.values_mut().for_each(|running| running.retain(|(of, _)| *of != run));
    }
}
