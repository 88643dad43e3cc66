//! Limits that runs and steps share: how many may be at something at one time, and how many may start in a span of time. A
//! limit lives in one partition, its home, whichever partitions the runs live in that ask for it: so there is one place
//! that counts, and one order in which they wait.
//!
//! Whoever needs a place asks the home ([`LimitMessage::Asked`]) and is answered once; whoever has or awaits one and needs
//! it no more lets it go. Messages from one partition to another come exactly once and in order, each in one commit with
//! what caused it, so no place is lost or given twice, whichever host is lost.

use std::{fmt, sync::Arc, time::Duration};

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{
    ids::{Digest, RunId},
    json::Json,
    time::{Timestamp, format_duration},
};

/// A key's text is at most so long, bytes; a longer one stands as its digest.
const KEY_BYTES: usize = 256;

/// So many may wait for one limit, where its rule does not say.
pub const MAX_QUEUED: u32 = 1_000_000;

/// No rate counts more starts: each is remembered.
pub const MAX_STARTS: u32 = 10_000;

/// What a limit is about.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum LimitKind {
    /// Runs of a workflow.
    #[n(0)]
    Workflow,
    /// Attempts of a plugin.
    #[n(1)]
    Plugin,
}

impl LimitKind {
    /// As it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Workflow => "workflow",
            Self::Plugin => "plugin",
        }
    }
}

/// Which limit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct LimitId {
    /// Of what.
    #[n(0)]
    pub kind: LimitKind,
    /// The workflow's or plugin's name.
    #[n(1)]
    #[cbor(with = "crate::cbor::text")]
    pub name: Arc<str>,
    /// JSON text: each value has a limit of its own. None: one for all.
    #[n(2)]
    #[cbor(with = "crate::cbor::maybe_text", has_nil)]
    pub key: Option<Json>,
}

impl LimitId {
    /// Of a workflow's runs with this key.
    pub fn workflow(name: &Arc<str>, key: Option<Json>) -> Self {
        let shorten = |key: Json| match key.len() > KEY_BYTES {
            true => Json::from(format!("\"{}\"", Digest::of(key.as_bytes()))),
            false => key,
        };
        let key = key.map(|key| shorten(canonical(key)));
        Self { kind: LimitKind::Workflow, name: Arc::clone(name), key }
    }

    /// Of a plugin's attempts, of all its versions.
    pub fn plugin(name: &str) -> Self {
        Self { kind: LimitKind::Plugin, name: name.into(), key: None }
    }

    /// The partition where it is counted.
    pub fn home(&self, partitions: u32) -> u32 {
        let mut hash = Sha256::new();
        for part in [self.kind.as_str(), &self.name, self.key.as_deref().unwrap_or_default()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let mut first = [0; 8];
        first.copy_from_slice(&hash.finalize()[..8]);
        (u64::from_be_bytes(first) % u64::from(partitions.max(1))) as u32
    }
}

/// The same text for the same value, however it was written: names in order, no needless escapes, `1` for `1.0`.
fn canonical(key: Json) -> Json {
    fn put_right(value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(put_right),
            Value::Object(fields) => fields.values_mut().for_each(put_right),
            // Whole numbers up to 2^53, where all of them are exact, read alike.
            Value::Number(number) if number.as_i64().is_none() => {
                if let Some(whole) = number.as_f64().filter(|it| it.fract() == 0.0 && it.abs() < EXACT) {
                    *number = (whole as i64).into();
                }
            }
            _ => {}
        }
    }
    let Ok(mut value) = serde_json::from_str::<Value>(&key) else { return key };
    put_right(&mut value);
    value.sort_all_objects();
    Json::from(value.to_string())
}

const EXACT: f64 = 9_007_199_254_740_992.0;

/// `workflow orders, key "c1"`.
impl fmt::Display for LimitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)?;
        match &self.key {
            Some(key) => write!(f, ", key {key}"),
            None => Ok(()),
        }
    }
}

impl Serialize for LimitId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LimitRule {
    /// At one time.
    #[n(0)]
    pub at_once: Option<u32>,
    /// In a span of time.
    #[n(1)]
    pub rate: Option<Rate>,
    /// So many may wait; one more is refused. Zero: none waits.
    #[n(2)]
    pub max_queued: u32,
    /// The workflow's version that says so: where several do, the newest counts, and of one version what was said last.
    #[n(3)]
    pub version: u32,
}

/// At most so many starts in any span of this length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Rate {
    /// At least 1, at most [`MAX_STARTS`].
    #[n(0)]
    pub starts: u32,
    /// The span, milliseconds.
    #[n(1)]
    pub per_ms: u64,
}

impl Rate {
    /// The span.
    pub fn per(self) -> Duration {
        Duration::from_millis(self.per_ms)
    }
}

/// `5 at one time, 10 starts in 1m`.
impl fmt::Display for LimitRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let comma = if self.at_once.is_some() { ", " } else { "" };
        if let Some(at_once) = self.at_once {
            write!(f, "{at_once} at one time")?;
        }
        match self.rate {
            Some(rate) => write!(f, "{comma}{} starts in {}", rate.starts, format_duration(rate.per())),
            None => Ok(()),
        }
    }
}

/// Who asked for a place: one asking of a run, or of one of its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct Holder {
    /// The run's partition.
    #[n(0)]
    pub partition: u32,
    /// The run.
    #[n(1)]
    pub run: RunId,
    /// The number of the run's event that asked.
    #[n(2)]
    pub asked: u32,
    /// That event's time. A run's id may come again after the run was forgotten, but not with the same times.
    #[n(3)]
    pub at: Timestamp,
}

/// What partitions tell each other about limits.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum LimitMessage {
    /// To the home: a place is needed.
    #[n(0)]
    Asked {
        /// Of which limit.
        #[n(0)]
        limit: LimitId,
        /// By whom.
        #[n(1)]
        holder: Holder,
        /// The limit's rule, as the asker knows it.
        #[n(2)]
        rule: LimitRule,
    },
    /// To the home: the place is needed no more, whether it was given or not.
    #[n(1)]
    LetGo {
        /// Of which limit.
        #[n(0)]
        limit: LimitId,
        /// Whose.
        #[n(1)]
        holder: Holder,
    },
    /// From the home.
    #[n(2)]
    Answered {
        /// To whom.
        #[n(0)]
        holder: Holder,
        /// Given; or refused, since too many wait.
        #[n(1)]
        granted: bool,
    },
}

/// Something happened to a limit, at its home.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct LimitEvent {
    /// Which.
    #[n(0)]
    pub limit: LimitId,
    /// Partition time of the decision.
    #[n(1)]
    pub at: Timestamp,
    /// What.
    #[n(2)]
    pub fact: LimitFact,
}

/// What can happen to a limit.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum LimitFact {
    /// Somebody waits for a place, behind all who wait already.
    #[n(0)]
    Asked {
        /// Who.
        #[n(0)]
        holder: Holder,
        /// The rule as they know it.
        #[n(1)]
        rule: LimitRule,
    },
    /// The first of those who wait has a place from here on.
    #[n(1)]
    Granted(#[n(0)] Holder),
    /// This one has or awaits a place no more.
    #[n(2)]
    LetGo(#[n(0)] Holder),
    /// Nobody has or awaits one, and no start counts any more: it is as if the limit had never been.
    #[n(3)]
    Idle,
    /// In checkpoints: some of those who have or await a place, after those of the event before.
    #[n(4)]
    Kept(#[n(0)] Box<KeptLimit>),
}

/// A part of a limit's state.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct KeptLimit {
    /// Its rule.
    #[n(0)]
    pub rule: LimitRule,
    /// Starts that may count, in order.
    #[n(1)]
    pub starts: Vec<Timestamp>,
    /// Who has a place.
    #[n(2)]
    pub held: Vec<Holder>,
    /// Who waits, in order.
    #[n(3)]
    pub queued: Vec<Holder>,
}
