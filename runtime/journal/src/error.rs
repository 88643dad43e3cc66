//! What can go wrong, each with what to do about it.

use std::path::PathBuf;

use crate::ports::Position;

/// Why the journal cannot be opened, read or kept.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process has the data directory.
    #[error(
        "the data directory {} is in use by {}; stop it or choose another data directory",
        dir.display(),
        match pid { Some(pid) => format!("process {pid}"), None => "another process".into() }
    )]
    Locked {
        /// The data directory.
        dir: PathBuf,
        /// Who holds it, when that can be read.
        pid: Option<u32>,
    },
    /// The data directory was made with another partition count.
    #[error(
        "the data directory {} was made for {found} partitions, but {asked} are configured; the count is fixed for the \
         life of the data: configure {found}",
        dir.display()
    )]
    Partitions {
        /// The data directory.
        dir: PathBuf,
        /// The count that it was made with.
        found: u32,
        /// The count that was asked for.
        asked: u32,
    },
    /// The data directory was written by another format version.
    #[error(
        "{} has format version {found}, but this program reads version {known}; use the program that wrote it",
        file.display()
    )]
    Version {
        /// The file that says so.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// The version that this program reads.
        known: u32,
    },
    /// The configuration makes no sense.
    #[error("the journal's configuration is wrong: {0}")]
    Config(String),
    /// Something durable is damaged or missing. Nothing was changed.
    #[error("{} is damaged at byte {offset}: {why}. {remedy}", file.display())]
    Damaged {
        /// The damaged file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        why: String,
        /// What the operator can do.
        remedy: String,
    },
    /// There is no such partition.
    #[error("there is no partition {partition}: they are numbered 0 to {}", partitions.saturating_sub(1))]
    NoSuchPartition {
        /// What was asked for.
        partition: u32,
        /// How many there are.
        partitions: u32,
    },
    /// Records that were asked for have been deleted.
    #[error(
        "records after position {after} are gone: the oldest kept one is {first}; start from a checkpoint"
    )]
    Cut {
        /// The position that was asked for.
        after: Position,
        /// The oldest kept record.
        first: Position,
    },
    /// A read ended before the durable end.
    #[error(
        "the journal ends after position {read}, but {end} is durable; restart the host so that it is checked"
    )]
    Gap {
        /// The last record that could be read.
        read: Position,
        /// The durable end.
        end: Position,
    },
    /// A checkpoint was asked for beyond what is durable.
    #[error("a checkpoint at position {at} lies beyond the durable end {end}")]
    Beyond {
        /// Where the checkpoint was to be.
        at: Position,
        /// The durable end.
        end: Position,
    },
    /// A value exceeds its bound.
    #[error("{what} of {bytes} bytes is over its limit of {limit} bytes")]
    TooLarge {
        /// What was too large.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The bound.
        limit: u64,
    },
    /// The disk is full. Nothing was written; it may be tried again.
    #[error("no space for {what}: free some space; nothing was written, and it may be tried again")]
    NoSpace {
        /// What was to be written.
        what: String,
    },
    /// Another owner has opened the partition, or the journal is closed.
    #[error("this owner of partition {partition} has been replaced, or the journal is closed")]
    Fenced {
        /// The partition.
        partition: u32,
    },
    /// A topic was made with another partition count.
    #[error(
        "topic {topic} has {found} partitions, but {asked} are needed; the count is fixed for the life of the data: \
         configure {found}, or choose another prefix for new topics"
    )]
    TopicPartitions {
        /// The topic.
        topic: String,
        /// How many it has.
        found: u32,
        /// How many are needed.
        asked: u32,
    },
    /// A topic is missing and may not be created by us.
    #[error("topic {topic} is missing and could not be created ({why}); create it with:\n  {command}")]
    MissingTopic {
        /// The topic.
        topic: String,
        /// Why it was not created.
        why: String,
        /// What creates it.
        command: String,
    },
    /// A topic is set so that Kafka deletes what we need.
    #[error("topic {topic} has {setting} = {found}: {why}; mend it with:\n  {command}")]
    TopicSetting {
        /// The topic.
        topic: String,
        /// The setting's name.
        setting: &'static str,
        /// Its value.
        found: String,
        /// What that does.
        why: &'static str,
        /// What mends it.
        command: String,
    },
    /// What a topic holds is not what was written there. Nothing was changed.
    #[error("topic {topic}, partition {partition}, offset {offset} cannot be read: {why}. {remedy}")]
    DamagedTopic {
        /// The topic.
        topic: String,
        /// Its partition.
        partition: u32,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        why: String,
        /// What the operator can do.
        remedy: String,
    },
    /// What is to be consumed next is not in the topic: something was lost.
    #[error(
        "partition {partition} of topic {topic} is to be consumed from offset {cursor}, but holds offsets {first} to \
         {end}: records were deleted that nobody has consumed, or the topic was made anew. Restore the topic, or start \
         with another prefix"
    )]
    CursorOutside {
        /// The topic.
        topic: String,
        /// Its partition.
        partition: u32,
        /// What the journal says is next.
        cursor: u64,
        /// The oldest kept offset.
        first: u64,
        /// The offset after the newest.
        end: u64,
    },
    /// Kafka did not do something in time, or refuses to.
    #[error("Kafka: cannot {what}: {why}; check the brokers, their addresses and the credentials")]
    Kafka {
        /// What was tried.
        what: String,
        /// What was said, or how long it took.
        why: String,
    },
    /// The process is ending.
    #[error("the journal is closed: the process is ending")]
    Closed,
    /// The operating system refused.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Why a batch was not committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Another owner has opened the partition, or the journal is closed: nothing was written; drop the state.
    #[error("this owner has been replaced: nothing was written")]
    Fenced,
    /// Nobody knows whether the batch is durable: drop the state and open the partition anew.
    #[error("it is unclear whether the batch is durable ({0}); open the partition anew")]
    Unclear(String),
    /// There is no room. Nothing was written; the same batch may be tried again.
    #[error("no space for the batch ({0}); nothing was written, and it may be tried again")]
    NoSpace(String),
    /// The batch exceeds the bound of one batch, or names a partition that does not exist. Nothing was written.
    #[error("the batch cannot be written ({0}); nothing was written")]
    Refused(String),
}
