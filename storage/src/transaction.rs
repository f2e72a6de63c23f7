//! The unit of atomicity: what goes in, what comes back, and what can be refused.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::{ProjectName, RecordBatch, StoreError};

/// What stands behind a topic's name; never used again after the topic is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(pub u64);

/// A partition's number within its topic, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(pub u32);

/// The number of a transaction, increasing within a project. Not dense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct CommitNumber(pub u64);

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(pub u64);

/// A state key's version: opaque, compared for equality only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version(pub(crate) u64);

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for CommitNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// When a transaction is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ack {
    /// After it was synced to disk.
    #[default]
    Durable,
    /// Once it is in the operating system's buffers: it may be lost when the machine stops. A
    /// transaction with conditions, state, a producer or topic changes is synced all the same.
    Memory,
}

/// Changes that happen together or not at all.
///
/// Each partition and each state key appears at most once.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// Whose commit numbers, producers and state these are.
    pub project: ProjectName,
    /// The producer's sequence, checked and recorded with this transaction's receipt.
    pub producer: Option<ProducerStep>,
    /// What must hold, seen after all earlier transactions.
    pub conditions: Vec<Condition>,
    /// Record batches; offsets are assigned at commit.
    pub appends: Vec<Append>,
    /// State to put or to delete.
    pub state: Vec<StateWrite>,
    /// Topics to create or to drop.
    pub topics: Vec<TopicChange>,
    /// When to answer.
    pub ack: Ack,
}

impl Transaction {
    /// A transaction that changes nothing yet.
    pub fn new(project: ProjectName) -> Self {
        Self {
            project,
            producer: None,
            conditions: Vec::new(),
            appends: Vec::new(),
            state: Vec::new(),
            topics: Vec::new(),
            ack: Ack::Durable,
        }
    }

    /// Adds a condition on `key`.
    pub fn expect(&mut self, key: impl Into<Bytes>, expected: Expected) -> &mut Self {
        self.conditions.push(Condition { key: key.into(), expected });
        self
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> &mut Self {
        self.state.push(StateWrite { key: key.into(), value: Some(value.into()) });
        self
    }

    /// Deletes `key`; deleting what is absent is no error.
    pub fn delete(&mut self, key: impl Into<Bytes>) -> &mut Self {
        self.state.push(StateWrite { key: key.into(), value: None });
        self
    }

    /// Appends a batch without index entries.
    pub fn append(
        &mut self,
        topic: TopicId,
        partition: Partition,
        batch: RecordBatch,
    ) -> &mut Self {
        self.appends.push(Append { topic, partition, batch, index: Vec::new() });
        self
    }
}

/// A producer's claim on a sequence number.
#[derive(Debug, Clone)]
pub struct ProducerStep {
    /// The producer's name, unique within the project.
    pub id: String,
    /// Which life of the producer: a higher one fences the lower ones.
    pub epoch: u64,
    /// Counts this producer's transactions, from 0 in each epoch.
    pub sequence: u64,
    /// If given, a repeat with another digest is refused.
    pub payload_digest: Option<[u8; 32]>,
    /// If given, the producer is forgotten after this time.
    pub expires: Option<Timestamp>,
    /// Kept with the receipt and returned with it; at most 64 KiB.
    pub note: Bytes,
}

/// What a state key must be for the transaction to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The state key, within the transaction's project.
    pub key: Bytes,
    /// What is expected there.
    pub expected: Expected,
}

/// The expectation of a [`Condition`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The key does not exist.
    Absent,
    /// The key was last written as this version.
    Version(Version),
}

/// One batch for one partition.
#[derive(Debug, Clone)]
pub struct Append {
    /// The topic.
    pub topic: TopicId,
    /// The partition of it.
    pub partition: Partition,
    /// The records, at least one.
    pub batch: RecordBatch,
    /// Index entries that point at records of this batch.
    pub index: Vec<IndexEntry>,
}

/// An entry of a topic's index: many records may share a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// Which index: the meaning is the caller's (`id`, `key`, …).
    pub kind: u8,
    /// What is looked up; at most 1 KiB.
    pub key: Bytes,
    /// The record's place in the batch, from 0.
    pub record: u32,
}

/// A write of one state key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateWrite {
    /// The state key, within the transaction's project; 1 byte to 1 KiB.
    pub key: Bytes,
    /// The new value; `None` deletes.
    pub value: Option<Bytes>,
}

/// A topic that begins or ends with this transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicChange {
    /// Appends to this id are accepted from here on.
    Create(TopicId),
    /// The topic's records are gone when this returns, and their disk space soon after. Its id is
    /// never accepted again.
    Drop(TopicId),
}

/// What a commit did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The transaction's number. A repeat older than the kept receipts has number 0.
    pub commit: CommitNumber,
    /// The time given to its records, unless their partition was ahead of it.
    pub timestamp: Timestamp,
    /// Where each append went, in the order of the transaction.
    pub appends: Vec<Appended>,
    /// The sequence had been committed before, and this is that commit's receipt. Without
    /// `appends` if it is older than the 64 that are kept.
    pub duplicate: bool,
    /// Whether it was synced before this receipt was given.
    pub durable: bool,
    /// The producer's note of the transaction that did commit.
    pub note: Bytes,
}

/// Where one batch went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The topic.
    pub topic: TopicId,
    /// The partition of it.
    pub partition: Partition,
    /// The first record's offset.
    pub base_offset: u64,
    /// How many records: the offsets are `base_offset..base_offset + count`.
    pub count: u32,
    /// The records' timestamp.
    pub timestamp: Timestamp,
}

/// Why a transaction was not committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A condition did not hold. May be spurious: read again and retry.
    #[error("state key `{}` is not as expected", String::from_utf8_lossy(key))]
    Conflict {
        /// The key of the condition.
        key: Bytes,
    },
    /// The project's queue is full.
    #[error("the project's write queue is full, try again in {retry_after:?}")]
    Busy {
        /// When a retry has a chance.
        retry_after: Duration,
    },
    /// A limit of the engine was passed.
    #[error("`{limit}` is {got}, at most {max} allowed")]
    TooLarge {
        /// The limit's name.
        limit: &'static str,
        /// What was asked for.
        got: u64,
        /// What is allowed.
        max: u64,
    },
    /// The transaction breaks a rule of [`Transaction`].
    #[error("invalid transaction: {reason}")]
    Invalid {
        /// Which rule.
        reason: &'static str,
    },
    /// The topic was dropped, or never created.
    #[error("topic id `{topic}` does not exist")]
    TopicGone {
        /// The topic.
        topic: TopicId,
    },
    /// A later life of the producer has begun.
    #[error("producer epoch is stale, the current one is {current}")]
    Fenced {
        /// The producer's epoch.
        current: u64,
    },
    /// The sequence is ahead of the producer's next one, and that did not arrive in time.
    #[error("producer sequence out of order: expected {expected}, got {received}")]
    SequenceGap {
        /// The next sequence of the epoch.
        expected: u64,
        /// The sequence given.
        received: u64,
    },
    /// The sequence was committed with another payload.
    #[error("the payload differs from the one committed under this sequence")]
    PayloadMismatch,
    /// Free space is below the reserve.
    #[error("{free} bytes free on disk, {reserve} are kept in reserve")]
    DiskFull {
        /// Free bytes.
        free: u64,
        /// The reserve, in bytes.
        reserve: u64,
    },
    /// The store met an I/O error and takes no more writes.
    #[error("the store has failed and is read-only: {reason}")]
    Poisoned {
        /// What happened.
        reason: String,
    },
    /// What the transaction depends on cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store is closing.
    #[error("the store is shutting down")]
    ShuttingDown,
    /// The transaction may or may not be stored. Ask by the producer's sequence, or read.
    #[error("the outcome of the commit is unknown: {reason}")]
    Unknown {
        /// What happened.
        reason: String,
    },
}
