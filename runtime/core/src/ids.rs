//! Names and numbers that identify things. Each is its own type, so that a run cannot stand where a step should.

use std::{fmt, str::FromStr, sync::Arc};

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A run's identity: a UUID. Version 7 (time-ordered, drawn by the host) without an idempotency key; version 8,
/// derived from (scope, workflow, key), with one, so that every host computes the same run for the same key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub uuid::Uuid);

impl RunId {
    /// The run that an idempotency key stands for. `scope` separates tenants (empty by default).
    pub fn from_key(scope: &str, workflow: &str, key: &str) -> Self {
        let mut hash = Sha256::new();
        for part in [scope, workflow, key] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let digest = hash.finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// The run that a task stands for which names neither key nor id: derived from where the task stands in its source, and
    /// such that the task's own partition is its home.
    pub fn from_source(topic: &str, partition: u32, offset: u64, partitions: u32) -> Self {
        let home = partition % partitions.max(1);
        let place = Sha256::new()
            .chain_update((topic.len() as u64).to_be_bytes())
            .chain_update(topic.as_bytes())
            .chain_update(partition.to_be_bytes())
            .chain_update(offset.to_be_bytes());
        // One in `partitions` fits, whichever the place is.
        let mut candidates = (0_u64..).map(|nonce| {
            let digest = place.clone().chain_update(nonce.to_be_bytes()).finalize();
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&digest[..16]);
            Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
        });
        candidates.find(|run| run.partition(partitions) == home).expect("there are 2^64 candidates")
    }

    /// The partition that decides for this run: a stable hash of its 128 bits, modulo `partitions` (at least 1).
    pub fn partition(self, partitions: u32) -> u32 {
        let bits = self.0.as_u128();
        let folded = (bits as u64) ^ ((bits >> 64) as u64);
        // Fibonacci hashing spreads the time-ordered high bits of a version 7 UUID.
        let mixed = folded.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        (mixed % u64::from(partitions.max(1))) as u32
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RunId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        uuid::Uuid::parse_str(text).map(Self)
    }
}

impl<C> Encode<C> for RunId {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(self.0.as_bytes())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for RunId {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        uuid::Uuid::from_slice(d.bytes()?)
            .map(Self)
            .map_err(|_| minicbor::decode::Error::message("a run id is 16 bytes"))
    }
}

/// Where a step stands inside its run: `/fetch`, later `/each[3]/parse`. Always starts with `/`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Encode, Decode)]
#[serde(transparent)]
#[cbor(transparent)]
pub struct StepPath(
    #[n(0)]
    #[cbor(with = "crate::cbor::text")]
    pub Arc<str>,
);

impl StepPath {
    /// The path of a top-level step.
    pub fn top(name: &str) -> Self {
        Self(format!("/{name}").into())
    }

    /// The path's text, with its leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StepPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StepPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One execution of one step. `attempt` counts from 1; the iteration stands inside the path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId {
    /// The run.
    pub run: RunId,
    /// The step.
    pub path: StepPath,
    /// Counts from 1.
    pub attempt: u32,
}

impl AttemptId {
    /// The key that a step sends along so that its receiver can tell a repetition: the same for every attempt of one
    /// step of one run (`<run>/fetch`).
    pub fn idempotency_key(&self) -> String {
        format!("{}{}", self.run, self.path)
    }
}

/// A SHA-256 digest, written `sha256:<64 hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is no [`Digest`].
#[derive(Debug, thiserror::Error)]
#[error("a digest reads `sha256:` and 64 hex digits, not {0:?}")]
pub struct DigestError(String);

impl FromStr for Digest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || DigestError(text.chars().take(80).collect());
        let hex = text.strip_prefix("sha256:").filter(|hex| hex.len() == 64).ok_or_else(refuse)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| refuse())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| refuse())?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl<C> Encode<C> for Digest {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Digest {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        d.bytes()?.try_into().map(Self).map_err(|_| minicbor::decode::Error::message("a digest is 32 bytes"))
    }
}
