//! Searches in a partition of the journal: where it stands, where a position lies, what a checkpoint holds. Blocks; for
//! short use on a thread that may.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::Message,
};

use super::{
    Client,
    context::Logged,
    failed,
    frame::{Assembly, Foreign, Header, Kind, Pointer},
};
use crate::{
    error::JournalError,
    ports::{Checkpoint, Position},
};

/// How far before the end a search for the last frame begins: a frame and its transaction's end.
const FIRST_STEP: u64 = 2;
/// How much farther it goes each time.
const STEP_FACTOR: u64 = 8;
/// So few messages are read rather than searched.
const WALK_OFFSETS: u64 = 32;

/// See the module.
pub(crate) struct Scout {
    client: Client,
    partition: u32,
    consumer: BaseConsumer<Logged>,
}

/// What came last.
#[derive(Clone, Copy)]
pub(crate) struct Last {
    /// The last message that knows where the partition stands.
    pub(crate) frame: Option<(u64, Header)>,
    /// Whether an owner began after it.
    pub(crate) opened: bool,
}

/// How far a search reads.
#[derive(Clone, Copy)]
enum Until {
    /// To the end of what is committed now.
    End,
    /// Until it has found what it looks for, which is committed or will be.
    Told,
}

impl Scout {
    pub(crate) fn new(client: &Client, partition: u32) -> Result<Self, JournalError> {
        let consumer =
            client.config.scout().create_with_context(Logged).map_err(failed("make a consumer"))?;
        Ok(Self { client: client.clone(), partition, consumer })
    }

    /// The oldest kept offset, and the offset after the last that is decided.
    pub(crate) fn watermarks(&self, topic: &str) -> Result<(u64, u64), JournalError> {
        let within = self.client.config.request_timeout;
        let (low, high) = self
            .consumer
            .fetch_watermarks(topic, self.partition as i32, within)
            .map_err(failed("ask for a partition's ends"))?;
        Ok((low.max(0) as u64, high.max(0) as u64))
    }

    /// What came last before the message at `mark`.
    pub(crate) fn last_before(&self, mark: u64) -> Result<Last, JournalError> {
        let (low, _) = self.watermarks(&self.client.topics.journal)?;
        self.last(low, mark, Until::Told)
    }

    fn last(&self, low: u64, end: u64, until: Until) -> Result<Last, JournalError> {
        let mut step = FIRST_STEP;
        loop {
            let from = end.saturating_sub(step).max(low);
            let mut last = Last { frame: None, opened: false };
            self.walk(from, until, |offset, header, _| {
                if offset < end {
                    last = match header.kind {
                        Kind::Opened => Last { opened: true, ..last },
                        _ => Last { frame: Some((offset, header)), opened: false },
                    };
                }
                Ok(offset + 1 < end)
            })?;
            if last.frame.is_some() || from == low {
                return Ok(last);
            }
            step = step.saturating_mul(STEP_FACTOR);
        }
    }

    /// Where the record at `position` lies. Begins at the end, where most of what is looked for is.
    pub(crate) fn find(&self, position: u64) -> Result<Place, JournalError> {
        let (low, end) = self.watermarks(&self.client.topics.journal)?;
        let Some((last, header)) = self.last(low, end, Until::End)?.frame else {
            return Ok(Place::NotYet(Spot { offset: low, bytes: 0 }));
        };
        let next = header.after().map_or(1, |stand| stand.last + 1);
        if next <= position {
            return Ok(Place::NotYet(Spot { offset: last, bytes: header.stand.bytes }));
        }
        // The record's frame begins in `from..high`, or at `last`.
        let (mut from, mut high, mut step) = (low, last, WALK_OFFSETS);
        while step < high - low {
            let earlier = high - step;
            match self.first_from(earlier, high)? {
                Some((offset, header)) if header.is_before(position) => {
                    from = offset;
                    break;
                }
                _ => high = earlier,
            }
            step = step.saturating_mul(STEP_FACTOR);
        }
        while high - from > WALK_OFFSETS {
            let middle = from + (high - from) / 2;
            match self.first_from(middle, high)? {
                Some((offset, header)) if header.is_before(position) => from = offset,
                _ => high = middle,
            }
        }
        let (mut place, mut first) = (None, None);
        self.walk(from, Until::Told, |offset, header, _| {
            if header.kind == Kind::Batch && header.records > 0 && header.piece == 0 {
                first.get_or_insert(header.stand.last + 1);
                if header.holds(position) {
                    place = Some(Spot { offset, bytes: header.stand.bytes });
                }
            }
            Ok(first.is_none_or(|first| first <= position) && place.is_none() && offset < last)
        })?;
        Ok(place.map_or(Place::Cut(first.unwrap_or(next)), Place::At))
    }

    /// The first header at or after `from`, and before `end`, that knows where the partition stands.
    fn first_from(&self, from: u64, end: u64) -> Result<Option<(u64, Header)>, JournalError> {
        let mut first = None;
        self.walk(from, Until::Told, |offset, header, _| {
            if offset < end && header.after().is_some() {
                first = Some((offset, header));
            }
            Ok(first.is_none() && offset < end)
        })?;
        Ok(first)
    }

    /// The newest checkpoint at or below `at`, from `newest` on backwards; those whose tail was deleted are gone.
    pub(crate) fn checkpoint(
        &self,
        newest: Option<Pointer>,
        at: u64,
    ) -> Result<Option<(Pointer, Header)>, JournalError> {
        let (low, _) = self.watermarks(&self.client.topics.journal)?;
        let mut next = newest;
        while let Some(pointer) = next.filter(|pointer| pointer.tail >= low) {
            let Some((_, header)) = self.first_from(pointer.offset, pointer.offset + 1)? else {
                return Err(self.damaged(pointer.offset, "a checkpoint should begin here".into()));
            };
            if pointer.at <= at {
                return Ok(Some((pointer, header)));
            }
            next = header.stand.checkpoint;
        }
        Ok(None)
    }

    /// The newest checkpoint that the partition's last header knows.
    pub(crate) fn newest(&self) -> Result<Option<Pointer>, JournalError> {
        let (low, end) = self.watermarks(&self.client.topics.journal)?;
        let last = self.last(low, end, Until::End)?;
        Ok(last.frame.and_then(|(_, header)| header.after()).and_then(|stand| stand.checkpoint))
    }

    /// Reads a checkpoint.
    pub(crate) fn read(&self, pointer: Pointer) -> Result<Checkpoint, JournalError> {
        let mut assembly = Assembly::default();
        let mut whole = None;
        self.walk(pointer.offset, Until::Told, |offset, header, piece| {
            let ours = header.kind == Kind::State && header.at == pointer.at;
            match assembly.add(header, piece) {
                Ok(found) if ours => whole = found,
                _ => return Err(self.damaged(offset, "a checkpoint is not whole".into())),
            }
            Ok(whole.is_none())
        })?;
        let chunks = whole.map(|(_, chunks)| chunks).unwrap_or_default();
        Ok(Checkpoint { at: Position(pointer.at), chunks })
    }

    /// Hands every committed message from `from` on to `visit` until that says false, or `until`.
    fn walk(
        &self,
        from: u64,
        until: Until,
        mut visit: impl FnMut(u64, Header, Bytes) -> Result<bool, JournalError>,
    ) -> Result<(), JournalError> {
        let journal = &self.client.topics.journal;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(journal, self.partition as i32, Offset::Offset(from as i64))
            .and_then(|()| self.consumer.assign(&list))
            .map_err(failed("read the journal"))?;
        let within = self.client.config.request_timeout;
        let mut deadline = Instant::now() + within;
        loop {
            match self.consumer.poll(Duration::from_millis(100)) {
                None => {}
                Some(Ok(message)) => {
                    let offset = message.offset() as u64;
                    let message = Bytes::copy_from_slice(message.payload().unwrap_or_default());
                    let (header, piece) = self.client.decode(self.partition, offset, message)?;
                    deadline = Instant::now() + within;
                    if !visit(offset, header, piece)? {
                        return Ok(());
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) if matches!(until, Until::End) => return Ok(()),
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) if super::is_passing(&error) => {}
                Some(Err(error)) => return Err(failed("read the journal")(error)),
            }
            if Instant::now() > deadline {
                let why = format!("offset {from} and what follows did not come within {within:?}");
                return Err(JournalError::Kafka { what: "read the journal".into(), why });
            }
        }
    }

    fn damaged(&self, offset: u64, why: String) -> JournalError {
        self.client.damaged(self.partition, offset, why)
    }
}

/// A place in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) offset: u64,
    /// How much log stands before it, bytes.
    pub(crate) bytes: u64,
}

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Its frame's first message.
    At(Spot),
    /// It cannot be seen yet; it will stand here or later.
    NotYet(Spot),
    /// It was deleted; this is the first kept position.
    Cut(u64),
}

impl Client {
    /// A journal message's header and content.
    pub(crate) fn decode(
        &self,
        partition: u32,
        offset: u64,
        message: Bytes,
    ) -> Result<(Header, Bytes), JournalError> {
        Header::decode(&message).map_err(|foreign| {
            let why = match foreign {
                Foreign::Damaged => {
                    "it is not what a journal's owner writes, or its checksum is wrong".into()
                }
                Foreign::Version(version) => format!(
                    "it has format version {version}, but this program reads version {}",
                    super::frame::VERSION
                ),
            };
            self.damaged(partition, offset, why)
        })
    }

    /// An error about a message of the journal.
    pub(crate) fn damaged(&self, partition: u32, offset: u64, why: String) -> JournalError {
        JournalError::DamagedTopic {
            topic: self.topics.journal.to_string(),
            partition,
            offset,
            why,
            remedy: "Use the version of this program that wrote it, restore the topic, or start with another prefix"
                .into(),
        }
    }
}
