//! The limits whose home this partition is: who has a place, who waits for one, and when the next may be given. Places are
//! given in the order in which they were asked for, whoever asks, so nobody waits for ever.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use rustc_hash::FxHashMap;

use super::{Message, Partition, ReplayError, decide::Deciding};
use crate::{
    event::Event,
    fault,
    limit::{Holder, KeptLimit, LimitEvent, LimitFact, LimitId, LimitMessage, LimitRule, Rate},
    time::Timestamp,
};

/// What a limit, and one who has or awaits a place, take in memory, about.
const LIMIT_BYTES: u64 = 400;
const HOLDER_BYTES: u64 = 200;

/// So many holders stand in one event of a checkpoint.
const KEPT_AT_ONCE: usize = 256;

/// All limits of a partition.
#[derive(Debug, Default)]
pub(super) struct Limits {
    all: BTreeMap<LimitId, Limit>,
    /// When each is to be looked at, if that comes by itself.
    due: BTreeSet<(Timestamp, LimitId)>,
    /// Who has or awaits a place, over all limits.
    holders: usize,
    /// Of those, who await one.
    queued: usize,
    /// Starts that are remembered, over all limits.
    starts: usize,
}

/// One limit.
#[derive(Debug)]
pub(super) struct Limit {
    rule: LimitRule,
    places: FxHashMap<Holder, Place>,
    /// In order; numbers have gaps where somebody gave up.
    queue: BTreeMap<u64, Holder>,
    next: u64,
    held: u32,
    /// The last starts, as many as the rate counts.
    starts: VecDeque<Timestamp>,
    due: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Held,
    Queued(u64),
}

/// One limit as others may see it.
#[derive(Clone, Debug)]
pub struct LimitView {
    /// Which.
    pub limit: LimitId,
    /// How many it lets through.
    pub rule: LimitRule,
    /// Places taken.
    pub held: u32,
    /// Who waits.
    pub queued: u32,
    /// Since when the first of them does.
    pub waiting_since: Option<Timestamp>,
}

impl Limit {
    fn new(rule: LimitRule) -> Self {
        let (places, queue, starts) = Default::default();
        Self { rule, places, queue, next: 0, held: 0, starts, due: None }
    }

    /// When the next place may be given by `rule`, were somebody waiting; none: not before one is let go.
    fn free_at(&self, rule: &LimitRule) -> Option<Timestamp> {
        if rule.at_once.is_some_and(|most| self.held >= most) && !fault::is_made("a place beyond the limit") {
            return None;
        }
        let counted = rule.rate.and_then(|Rate { starts, .. }| {
            let before = self.starts.len().checked_sub(starts as usize)?;
            self.starts.get(before)
        });
        let per = rule.rate.map(Rate::per).unwrap_or_default();
        Some(counted.map_or(Timestamp::default(), |start| start.plus(per)))
    }

    /// Whether one more may not even wait. Those who have asked and will have the places that are free do not count.
    fn is_full(&self, rule: &LimitRule, at: Timestamp) -> bool {
        let at_once = rule.at_once.map_or(usize::MAX, |most| most.saturating_sub(self.held) as usize);
        let in_time = rule.rate.map_or(usize::MAX, |rate| {
            let outside = self.starts.partition_point(|start| start.plus(rate.per()) <= at);
            (rate.starts as usize).saturating_sub(self.starts.len() - outside)
        });
        self.queue.len() >= at_once.min(in_time).saturating_add(rule.max_queued as usize)
    }

    /// When something is to be done about it, if that comes by itself.
    fn next_look(&self) -> Option<Timestamp> {
        if !self.queue.is_empty() {
            self.free_at(&self.rule)
        } else if self.held == 0 {
            let last = self.starts.back();
            let per = self.rule.rate.map(Rate::per).unwrap_or_default();
            Some(last.map_or(Timestamp::default(), |start| start.plus(per)))
        } else {
            None
        }
    }

    fn grant(&mut self, holder: Holder, at: Timestamp) -> bool {
        let Some(Place::Queued(number)) = self.places.insert(holder, Place::Held) else { return false };
        self.queue.remove(&number);
        self.held += 1;
        if self.rule.rate.is_some() {
            self.starts.push_back(at);
        }
        self.count_starts();
        true
    }

    /// Forgets starts that cannot matter.
    fn count_starts(&mut self) {
        let most = self.rule.rate.map_or(0, |rate| rate.starts as usize);
        while self.starts.len() > most {
            self.starts.pop_front();
        }
    }

    fn wait(&mut self, holder: Holder) {
        self.queue.insert(self.next, holder);
        self.places.insert(holder, Place::Queued(self.next));
        self.next += 1;
    }

    fn let_go(&mut self, holder: Holder) {
        match self.places.remove(&holder) {
            Some(Place::Queued(number)) => drop(self.queue.remove(&number)),
            Some(Place::Held) => self.held -= 1,
            None => {}
        }
    }

    fn say(&mut self, rule: LimitRule) {
        if rule.version >= self.rule.version {
            self.rule = rule;
            self.count_starts();
        }
    }
}

/// Equal when a journal would say the same: not by the numbers in the queue, which a checkpoint gives anew.
impl PartialEq for Limit {
    fn eq(&self, other: &Self) -> bool {
        let held = |limit: &Self| -> BTreeSet<Holder> {
            limit
                .places
                .iter()
                .filter(|(_, place)| **place == Place::Held)
                .map(|(holder, _)| *holder)
                .collect()
        };
        (self.rule, self.due, &self.starts) == (other.rule, other.due, &other.starts)
            && self.queue.values().eq(other.queue.values())
            && held(self) == held(other)
    }
}

impl PartialEq for Limits {
    fn eq(&self, other: &Self) -> bool {
        (&self.all, &self.due, self.holders) == (&other.all, &other.due, other.holders)
    }
}

impl Limits {
    /// When the next is to be looked at.
    pub(super) fn next_look(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Estimated memory.
    pub(super) fn bytes(&self) -> u64 {
        self.all.len() as u64 * LIMIT_BYTES
            + self.holders as u64 * HOLDER_BYTES
            + (self.starts * size_of::<Timestamp>()) as u64
    }

    fn apply(&mut self, event: &LimitEvent) -> Result<(), ReplayError> {
        let impossible = |reason| ReplayError::Limit { limit: event.limit.clone(), reason };
        let unknown = || impossible("nobody ever asked for it");
        let limit = match &event.fact {
            LimitFact::Asked { rule, .. } => {
                self.all.entry(event.limit.clone()).or_insert_with(|| Limit::new(*rule))
            }
            LimitFact::Kept(kept) => {
                self.all.entry(event.limit.clone()).or_insert_with(|| Limit::new(kept.rule))
            }
            _ => self.all.get_mut(&event.limit).ok_or_else(unknown)?,
        };
        let before = (limit.places.len(), limit.queue.len(), limit.starts.len());
        match &event.fact {
            LimitFact::Asked { holder, rule } => {
                if limit.places.contains_key(holder) {
                    return Err(impossible("it was asked for before"));
                }
                limit.say(*rule);
                limit.wait(*holder);
            }
            LimitFact::Granted(holder) => {
                if !limit.grant(*holder, event.at) {
                    return Err(impossible("a place is given to one who does not wait"));
                }
            }
            LimitFact::LetGo(holder) => limit.let_go(*holder),
            LimitFact::Idle if limit.places.is_empty() => limit.starts.clear(),
            LimitFact::Idle => return Err(impossible("somebody has or awaits a place")),
            LimitFact::Kept(kept) => {
                limit.starts.extend(&kept.starts);
                kept.queued.iter().for_each(|&holder| limit.wait(holder));
                for holder in &kept.held {
                    limit.places.insert(*holder, Place::Held);
                    limit.held += 1;
                }
            }
        }
        self.holders = self.holders + limit.places.len() - before.0;
        self.queued = self.queued + limit.queue.len() - before.1;
        self.starts = self.starts + limit.starts.len() - before.2;
        let look = limit.next_look();
        if let Some(due) = std::mem::replace(&mut limit.due, look) {
            self.due.remove(&(due, event.limit.clone()));
        }
        if limit.places.is_empty() && limit.starts.is_empty() {
            self.all.remove(&event.limit);
        } else if let Some(look) = look {
            self.due.insert((look, event.limit.clone()));
        }
        Ok(())
    }

    /// The state as events.
    pub(super) fn checkpoint(&self, at: Timestamp) -> impl Iterator<Item = Arc<Event>> {
        self.all.iter().flat_map(move |(id, limit)| {
            let mut held: Vec<Holder> = Vec::new();
            held.extend(limit.places.iter().filter(|(_, place)| **place == Place::Held).map(|(one, _)| *one));
            held.sort_unstable();
            let part = |starts: &[Timestamp], held: &[Holder], queued: &[Holder]| KeptLimit {
                rule: limit.rule,
                starts: starts.to_vec(),
                held: held.to_vec(),
                queued: queued.to_vec(),
            };
            let starts: Vec<Timestamp> = limit.starts.iter().copied().collect();
            let queued: Vec<Holder> = limit.queue.values().copied().collect();
            let mut parts = Vec::new();
            parts.extend(starts.chunks(KEPT_AT_ONCE).map(|starts| part(starts, &[], &[])));
            parts.extend(held.chunks(KEPT_AT_ONCE).map(|held| part(&[], held, &[])));
            parts.extend(queued.chunks(KEPT_AT_ONCE).map(|queued| part(&[], &[], queued)));
            parts.into_iter().map(move |kept| {
                let fact = LimitFact::Kept(Box::new(kept));
                Arc::new(Event::Limit(Box::new(LimitEvent { limit: id.clone(), at, fact })))
            })
        })
    }

    /// Says what does not hold, if anything.
    pub(super) fn check(&self) -> Result<(), String> {
        let (mut holders, mut queued, mut starts) = (0, 0, 0);
        for (id, limit) in &self.all {
            let places = limit.places.len();
            holders += places;
            queued += limit.queue.len();
            starts += limit.starts.len();
            if limit.held as usize + limit.queue.len() != places {
                return Err(format!("{id}: places are not counted right"));
            }
            let look = limit.next_look().is_some();
            let indexed = limit.due.is_some_and(|due| self.due.contains(&(due, id.clone())));
            if look != indexed {
                return Err(format!("{id}: it is not looked at when a place may be given: {limit:?}"));
            }
        }
        if (holders, queued, starts) != (self.holders, self.queued, self.starts)
            || self.due.len() > self.all.len()
        {
            return Err("the holders of limits are not counted right".to_owned());
        }
        Ok(())
    }
}

impl Partition {
    pub(super) fn limit(&mut self, event: &LimitEvent) -> Result<(), ReplayError> {
        self.limits.apply(event)
    }

    /// Under all limits whose home this is: places taken, and those who wait for one.
    pub fn places(&self) -> (usize, usize) {
        (self.limits.holders - self.limits.queued, self.limits.queued)
    }

    /// The limits whose home this is and that somebody uses.
    pub fn limits(&self) -> impl ExactSizeIterator<Item = LimitView> {
        self.limits.all.iter().map(|(id, limit)| LimitView {
            limit: id.clone(),
            rule: limit.rule,
            held: limit.held,
            queued: u32::try_from(limit.queue.len()).unwrap_or(u32::MAX),
            waiting_since: limit.queue.first_key_value().map(|(_, holder)| holder.at),
        })
    }
}

impl Deciding<'_> {
    /// What a partition, maybe this one, has to say about a limit.
    pub(super) fn limit_message(&mut self, message: LimitMessage) {
        match message {
            LimitMessage::Asked { limit, holder, rule } => self.place_asked(limit, holder, rule),
            LimitMessage::LetGo { limit, holder } => self.place_let_go(limit, holder),
            LimitMessage::Answered { holder, granted } => self.place_answered(holder, granted),
        }
    }

    /// Says something to a partition; to this one at the end of the decision.
    pub(super) fn tell_partition(&mut self, to: u32, message: LimitMessage) {
        if to == self.partition.config.partition {
            self.to_ourselves.push_back(message);
        } else {
            self.decision.messages.push(Message { to, message });
        }
    }

    fn place_asked(&mut self, limit: LimitId, holder: Holder, rule: LimitRule) {
        if holder.partition >= self.partition.config.partitions.max(1) {
            return;
        }
        let Some(known) = self.partition.limits.all.get(&limit) else {
            self.emit_limit(&limit, LimitFact::Asked { holder, rule });
            return self.give_places(&limit);
        };
        // Who has asked before has been answered, or will be.
        if known.places.contains_key(&holder) {
            return;
        }
        let newer = rule.version >= known.rule.version;
        let (full, other) =
            (known.is_full(if newer { &rule } else { &known.rule }, self.at), rule != known.rule);
        if !full || (newer && other) {
            self.emit_limit(&limit, LimitFact::Asked { holder, rule });
        }
        if full {
            // It does not wait, but its rule counts from now on.
            if newer && other {
                self.emit_limit(&limit, LimitFact::LetGo(holder));
            }
            self.tell_partition(holder.partition, LimitMessage::Answered { holder, granted: false });
        }
        self.give_places(&limit);
    }

    fn place_let_go(&mut self, limit: LimitId, holder: Holder) {
        let known = self.partition.limits.all.get(&limit);
        if known.is_some_and(|limit| limit.places.contains_key(&holder)) {
            self.emit_limit(&limit, LimitFact::LetGo(holder));
            self.give_places(&limit);
        }
    }

    /// Gives what can be given now: to those who asked first. What is over a decision's bound follows in the next tick.
    fn give_places(&mut self, id: &LimitId) {
        while self.places_to_give > 0 {
            let Some(limit) = self.partition.limits.all.get(id) else { return };
            let Some((_, &holder)) = limit.queue.first_key_value() else { return };
            if limit.free_at(&limit.rule).is_none_or(|free| free > self.at) {
                return;
            }
            self.places_to_give -= 1;
            self.emit_limit(id, LimitFact::Granted(holder));
            self.tell_partition(holder.partition, LimitMessage::Answered { holder, granted: true });
        }
    }

    /// Looks at the limits whose time has come.
    pub(super) fn look_at_limits(&mut self) {
        for _ in 0..self.partition.config.due_per_tick {
            let Some((due, id)) = self.partition.limits.due.first() else { return };
            if *due > self.at || self.places_to_give == 0 {
                return;
            }
            let id = id.clone();
            if self.partition.limits.all.get(&id).is_some_and(|limit| limit.places.is_empty()) {
                self.emit_limit(&id, LimitFact::Idle);
            } else {
                self.give_places(&id);
            }
        }
    }

    fn emit_limit(&mut self, limit: &LimitId, fact: LimitFact) {
        self.emit(Event::Limit(Box::new(LimitEvent { limit: limit.clone(), at: self.at, fact })));
    }
}
