//! The one seam to an engine: [`Store`], and what it reads.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    CommitError, CommitNumber, Partition, ProjectName, Receipt, Segment, Timestamp, TopicId,
    Transaction, Version,
};

/// A durable, partitioned log with small versioned state beside it.
///
/// Several hosts may share one store: an implementation must not assume that all calls come
/// through the same value. Every method is cancel safe, except that a cancelled
/// [`commit`](Store::commit) has an unknown outcome.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Commits the whole transaction or nothing of it. See the crate's page for what is durable
    /// when this returns. Transactions of one project are committed in the order of their calls.
    ///
    /// # Errors
    ///
    /// See [`CommitError`]; nothing is stored, except after [`CommitError::Unknown`].
    async fn commit(&self, transaction: Transaction) -> Result<Receipt, CommitError>;

    /// Reads records of one partition in the order of their offsets, below the durable end.
    ///
    /// Commits of a project become visible in their order: who has seen one, by its records or in
    /// [`Bounds::last_commit`], sees all that the project's earlier commits wrote, in any partition.
    ///
    /// Returns at least one record if there is one at the start, whatever `max_bytes` says.
    ///
    /// # Errors
    ///
    /// The start is trimmed or beyond the end, the topic does not live, or the store cannot be read.
    async fn read(&self, request: ReadRequest) -> Result<Records, ReadError>;

    /// What a partition holds. One that was never written is empty from 0.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    async fn bounds(&self, topic: TopicId, partition: Partition) -> Result<Bounds, StoreError>;

    /// Waits for nothing: returns a receiver that changes when there may be something new. A change
    /// is a prompt to read again; several may come as one.
    fn watch(&self, watch: Watch) -> tokio::sync::watch::Receiver<u64>;

    /// Removes records from the start of a partition, and returns what is left. When this returns,
    /// the records cannot be read and the trim is durable; their disk space comes back later.
    ///
    /// # Errors
    ///
    /// The point lies beyond the durable end, or the store cannot be read or written.
    async fn trim(
        &self,
        topic: TopicId,
        partition: Partition,
        trim: Trim,
    ) -> Result<Bounds, TrimError>;

    /// One state key.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    async fn get(&self, project: &ProjectName, key: &[u8])
    -> Result<Option<Versioned>, StoreError>;

    /// Several state keys, in the order given: each as [`get`](Store::get) finds it, not all of one
    /// moment.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    async fn get_many(
        &self,
        project: &ProjectName,
        keys: &[Bytes],
    ) -> Result<Vec<Option<Versioned>>, StoreError> {
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            found.push(self.get(project, key).await?);
        }
        Ok(found)
    }

    /// State keys that start with `prefix` and lie after `after`, in the order of their bytes, at
    /// most `limit`.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    async fn scan(
        &self,
        project: &ProjectName,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<StateEntry>, StoreError>;

    /// The state of a producer, or `None` if it has committed nothing or has expired.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    async fn producer(
        &self,
        project: &ProjectName,
        id: &str,
    ) -> Result<Option<ProducerState>, StoreError>;

    /// The receipt of a producer's sequence, marked as a duplicate, if it was committed in the
    /// producer's current epoch and is among the last 64.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    async fn receipt(
        &self,
        project: &ProjectName,
        id: &str,
        epoch: u64,
        sequence: u64,
    ) -> Result<Option<Receipt>, StoreError>;

    /// Where the records lie that were given with this index key, in the order of partition and
    /// offset, after `after`, at most `limit`. Trimmed records are left out.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    async fn lookup(
        &self,
        topic: TopicId,
        kind: u8,
        key: &[u8],
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Position>, StoreError>;

    /// As [`lookup`](Store::lookup), from the other end: in the descending order of partition and
    /// offset, before `before`, at most `limit`. Trimmed records are left out.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    async fn lookup_back(
        &self,
        topic: TopicId,
        kind: u8,
        key: &[u8],
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Position>, StoreError>;

    /// The limits of a [`Transaction`] on this engine.
    fn limits(&self) -> Limits;

    /// Whether the store takes writes, and why not.
    fn health(&self) -> Health;

    /// Counters since the store was opened.
    fn metrics(&self) -> Metrics;

    /// Answers what waits with [`CommitError::ShuttingDown`], commits and syncs what is under way,
    /// and closes. Reads may fail from here on.
    async fn close(&self);
}

/// What to read.
#[derive(Debug, Clone, Copy)]
pub struct ReadRequest {
    /// The topic.
    pub topic: TopicId,
    /// The partition of it.
    pub partition: Partition,
    /// Where to start.
    pub start: ReadStart,
    /// At most this many records.
    pub records_max: usize,
    /// Stop before this many bytes of encoded records, but not before the first record.
    pub bytes_max: usize,
}

/// Where a read starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadStart {
    /// At this offset.
    Offset(u64),
    /// At the first record whose timestamp is this or later; at the durable end if there is none.
    Time(Timestamp),
    /// At the first record after this commit. Trimmed if a later commit was trimmed away.
    AfterCommit(CommitNumber),
}

/// Records of one partition, in order.
#[derive(Debug, Clone, Default)]
pub struct Records {
    /// The records, grouped by the transaction that wrote them; no segment is empty.
    pub segments: Vec<Segment>,
    /// The offset to read next: the start if nothing was there.
    pub next_offset: u64,
    /// The durable end when the read happened.
    pub end_offset: u64,
}

impl Records {
    /// How many records there are.
    pub fn count(&self) -> usize {
        self.segments.iter().map(|segment| segment.count() as usize).sum()
    }
}

/// What a partition holds: `start..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// The earliest offset that can be read.
    pub start: u64,
    /// The durable end.
    pub end: u64,
    /// Bytes of encoded records in `start..end`.
    pub bytes: u64,
    /// The last record's timestamp; of a trimmed one if all are.
    pub last_timestamp: Option<Timestamp>,
    /// The last record's commit.
    pub last_commit: CommitNumber,
}

impl Bounds {
    /// The offsets that can be read.
    pub fn range(&self) -> Range<u64> {
        self.start..self.end
    }
}

/// What to watch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Watch {
    /// Any partition of a topic: new durable records, a trim, or its drop.
    Topic(TopicId),
    /// Any state key of a project.
    State(ProjectName),
}

/// How far to trim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trim {
    /// All below this offset. An offset below the start changes nothing.
    Before(u64),
    /// Whole transactions older than this time.
    OlderThan(Timestamp),
    /// Whole stored batches from the start, while what is left holds at least this many bytes.
    KeepBytes(u64),
}

/// A state value and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The value.
    pub value: Bytes,
    /// For [`Expected::Version`](crate::Expected::Version).
    pub version: Version,
}

/// One row of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateEntry {
    /// The state key.
    pub key: Bytes,
    /// Its value and version.
    pub versioned: Versioned,
}

/// How far a producer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerState {
    /// Its current life.
    pub epoch: u64,
    /// The last sequence that it committed in it.
    pub last_sequence: u64,
}

/// A record's place in a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The partition.
    pub partition: Partition,
    /// The offset in it.
    pub offset: u64,
}

impl Position {
    /// Behind every record.
    pub const LAST: Self = Self { partition: Partition(u32::MAX), offset: u64::MAX };
}

/// What a transaction may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Appends and state writes together.
    pub writes_max: usize,
    /// Bytes of batches, state, notes and index entries together.
    pub bytes_max: usize,
    /// Bytes of a producer's note.
    pub note_bytes_max: usize,
    /// Bytes of a state key or an index key.
    pub key_bytes_max: usize,
}

/// Whether the store takes writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Ok,
    /// Not until there is room on the disk.
    DiskFull {
        /// Free bytes.
        free: u64,
        /// The bytes kept in reserve.
        reserve: u64,
    },
    /// Not until it is opened again.
    Poisoned {
        /// What happened.
        reason: String,
    },
    /// It is closing.
    ShuttingDown,
}

/// Counters since the store was opened, and gauges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Metrics {
    /// Transactions committed.
    pub commits: u64,
    /// Lots synced: how many commits shared one is the quotient.
    pub syncs: u64,
    /// Nanoseconds spent in syncing lots.
    pub sync_nanos: u64,
    /// Records appended.
    pub records: u64,
    /// Bytes of encoded records appended.
    pub record_bytes: u64,
    /// Transactions refused because a queue was full.
    pub refused_busy: u64,
    /// Bytes that wait in the queues now.
    pub queued_bytes: u64,
    /// Bytes free on the store's disk when last looked at.
    pub free_bytes: u64,
}

/// The store could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// An I/O error.
    #[error("the store cannot be read: {reason}")]
    Io {
        /// What happened.
        reason: String,
    },
    /// Stored bytes do not decode: damage, or a format of a later version.
    #[error("stored bytes are damaged: {reason}")]
    Corrupt {
        /// What and where.
        reason: String,
    },
}

/// Why records could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The start lies below the earliest offset, or in a gap that an accepted loss has left: what
    /// was there is gone.
    #[error("the start is trimmed, the earliest offset is {earliest}")]
    Trimmed {
        /// The earliest offset that can be read; of a gap, from there on.
        earliest: u64,
    },
    /// The start lies beyond the log end.
    #[error("the start is beyond the log end {end}")]
    BeyondEnd {
        /// The durable end.
        end: u64,
    },
    /// The topic was dropped, or never created.
    #[error("topic id `{topic}` does not exist")]
    TopicGone {
        /// The topic.
        topic: TopicId,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a partition was not trimmed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrimError {
    /// The point lies beyond the durable end.
    #[error("the trim point is beyond the log end {end}")]
    BeyondEnd {
        /// The durable end.
        end: u64,
    },
    /// The trim could not be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The point could not be found.
    #[error(transparent)]
    Store(#[from] StoreError),
}
