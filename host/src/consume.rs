//! The one read path: records of a partition from an offset, a time or the end, and records of all
//! partitions from given offsets; at once or when there are some.

mod newest;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::select_all;
use rand::RngExt;
use rand::rngs::StdRng;
use stream_storage::{
    Bounds, Partition, ReadError, ReadRequest, ReadStart, Records, Segment, Store, StoreError,
    Timestamp, TopicId, Watch,
};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::drain::Drain;
use crate::lock::lock;
use crate::slot::Slot;

pub use newest::{Newest, Sought};

/// Where a read of one partition starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At this offset.
    Offset(u64),
    /// At the first record of this time or later.
    Time(Timestamp),
    /// This many records before the log end, or at the earliest if there are fewer.
    Tail(u64),
}

/// How much to read, and how long to wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    /// At most this many records.
    pub records_max: usize,
    /// Stop before this many bytes of encoded records, but not before the first record.
    pub bytes_max: usize,
    /// How long to wait if there is nothing yet.
    pub wait: Duration,
}

/// Records of one partition, out of those that a read of several found.
#[derive(Debug, Clone)]
pub struct PartitionRecords {
    /// The partition.
    pub slot: Slot,
    /// The records, in order; no segment is empty.
    pub segments: Vec<Segment>,
    /// The offset to read next.
    pub next_offset: u64,
}

/// What a read of several partitions has come to.
#[derive(Debug, Clone, Default)]
pub(crate) struct SlotRecords {
    /// Of the partitions that have some, their records.
    pub(crate) found: Vec<PartitionRecords>,
    /// The partitions that cannot be read from where they were to be.
    pub(crate) trimmed: Vec<TrimmedStart>,
}

/// A read would have started where records are gone: below the earliest, or in a gap that an
/// accepted loss has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TrimmedStart {
    /// The partition.
    pub(crate) slot: Slot,
    /// Where the read would have started.
    pub(crate) offset: u64,
    /// The earliest offset from there on that can be read.
    pub(crate) earliest: u64,
}

/// Why records could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConsumeError {
    /// The start lies below the earliest offset, or in a gap: what was there is gone.
    #[error("offset `{offset}` of partition {partition} is trimmed, the earliest is `{earliest}`")]
    Trimmed {
        /// The partition.
        partition: Partition,
        /// Where the read would have started.
        offset: u64,
        /// The earliest offset that can be read.
        earliest: u64,
    },
    /// The start lies beyond the log end.
    #[error("offset `{offset}` of partition {partition} is beyond the log end `{log_end}`")]
    BeyondEnd {
        /// The partition.
        partition: Partition,
        /// Where the read would have started.
        offset: u64,
        /// The log end.
        log_end: u64,
    },
    /// The topic does not live: it was deleted after it was looked up.
    #[error("the topic was deleted")]
    TopicGone,
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<TrimmedStart> for ConsumeError {
    fn from(trimmed: TrimmedStart) -> Self {
        let TrimmedStart { slot, offset, earliest } = trimmed;
        Self::Trimmed { partition: slot.partition, offset, earliest }
    }
}

/// What is new in some topics.
pub(crate) struct News(Vec<watch::Receiver<u64>>);

impl News {
    /// Waits for a change in one of the topics; `false` if one of them is gone for good. Cancel safe.
    async fn changed(&mut self) -> bool {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        let changes = self.0.iter_mut().map(|topic| Box::pin(topic.changed()));
        let (changed, ..) = select_all(changes).await;
        changed.is_ok()
    }

    /// What has happened so far is no news.
    pub(crate) fn seen(&mut self) {
        self.0.iter_mut().for_each(watch::Receiver::mark_unchanged);
    }
}

/// Reads records for clients and connectors alike.
pub struct Reader {
    store: Arc<dyn Store>,
    drain: Drain,
    /// Which partition a read of several begins with: by turns, who reads at a fixed beat with
    /// others would always meet the same one.
    random: Mutex<StdRng>,
}

impl Reader {
    /// A reader that stops waiting when `drain` begins.
    pub fn new(store: Arc<dyn Store>, drain: Drain, random: StdRng) -> Self {
        Self { store, drain, random: Mutex::new(random) }
    }

    /// Records of one partition. Cancel safe.
    ///
    /// # Errors
    ///
    /// The start is trimmed or beyond the log end, the topic is gone, or the store could not be read.
    pub async fn read(
        &self,
        topic: TopicId,
        partition: Partition,
        start: Start,
        amount: Amount,
    ) -> Result<Records, ConsumeError> {
        let mut news = self.watch([topic]);
        let deadline = Instant::now() + amount.wait;
        // A tail is fixed when it is first looked at: the records that a wait brings belong to it.
        let mut start = match start {
            Start::Offset(offset) => ReadStart::Offset(offset),
            Start::Time(timestamp) => ReadStart::Time(timestamp),
            Start::Tail(records) => {
                let Bounds { start, end, .. } = self.store.bounds(topic, partition).await?;
                ReadStart::Offset(end.saturating_sub(records).max(start))
            }
        };
        loop {
            let found = self.read_once(topic, partition, start, amount).await?;
            if !found.segments.is_empty() || !self.news(&mut news, deadline).await {
                return Ok(found);
            }
            // A time behind all records stood for the end: what comes from there on is meant.
            start = ReadStart::Offset(found.next_offset);
        }
    }

    /// The offset at which a read would start. Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub async fn place(
        &self,
        topic: TopicId,
        partition: Partition,
        start: Start,
    ) -> Result<u64, ConsumeError> {
        let nothing = Amount { records_max: 0, bytes_max: 0, wait: Duration::ZERO };
        Ok(self.read(topic, partition, start, nothing).await?.next_offset)
    }

    /// Records of several partitions, from the offset given with each; waits for some if there are
    /// none. The amount is shared evenly, and what some leave others get. Cancel safe.
    ///
    /// # Errors
    ///
    /// A start is trimmed or beyond the log end, a topic is gone, or the store could not be read.
    pub async fn read_all(
        &self,
        starts: &BTreeMap<Slot, u64>,
        amount: Amount,
    ) -> Result<Vec<PartitionRecords>, ConsumeError> {
        let mut news = self.watch(starts.keys().map(|slot| slot.topic));
        let deadline = Instant::now() + amount.wait;
        loop {
            let SlotRecords { found, trimmed } = self.read_slots(starts, amount).await?;
            if let Some(first) = trimmed.first() {
                return Err((*first).into());
            }
            if !found.is_empty() || !self.news(&mut news, deadline).await {
                return Ok(found);
            }
        }
    }

    /// What is new in these topics from here on.
    pub(crate) fn watch(&self, topics: impl IntoIterator<Item = TopicId>) -> News {
        let topics: BTreeSet<TopicId> = topics.into_iter().collect();
        News(topics.into_iter().map(|topic| self.store.watch(Watch::Topic(topic))).collect())
    }

    /// Waits until there may be something new. `false` means: answer with what there is. Cancel safe.
    pub(crate) async fn news(&self, news: &mut News, deadline: Instant) -> bool {
        tokio::select! {
            biased;
            () = self.drain.begun() => false,
            changed = tokio::time::timeout_at(deadline, news.changed()) => changed == Ok(true),
        }
    }

    /// Records of one partition, without waiting. Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub(crate) async fn read_once(
        &self,
        topic: TopicId,
        partition: Partition,
        start: ReadStart,
        amount: Amount,
    ) -> Result<Records, ConsumeError> {
        let Amount { records_max, bytes_max, .. } = amount;
        let request = ReadRequest { topic, partition, start, records_max, bytes_max };
        self.store.read(request).await.map_err(|error| match (error, start) {
            (ReadError::Trimmed { earliest }, ReadStart::Offset(offset)) => {
                ConsumeError::Trimmed { partition, offset, earliest }
            }
            // Trimmed while the place of a time was looked up.
            (ReadError::Trimmed { earliest }, _) => {
                ConsumeError::Trimmed { partition, offset: earliest, earliest }
            }
            (ReadError::BeyondEnd { end }, ReadStart::Offset(offset)) => {
                ConsumeError::BeyondEnd { partition, offset, log_end: end }
            }
            (ReadError::BeyondEnd { end }, _) => {
                ConsumeError::BeyondEnd { partition, offset: end, log_end: end }
            }
            (ReadError::TopicGone { .. }, _) => ConsumeError::TopicGone,
            (ReadError::Store(error), _) => error.into(),
        })
    }

    /// Records of several partitions, without waiting. The amount is shared: first each partition
    /// that has records gets an equal part, then what is left goes to those that have more, and each
    /// call begins with a random partition, so that a busy one starves nobody. One that is trimmed
    /// where it would start keeps no other from being read. Cancel safe.
    ///
    /// # Errors
    ///
    /// A start lies beyond the log end, a topic is gone, or the store could not be read.
    pub(crate) async fn read_slots(
        &self,
        starts: &BTreeMap<Slot, u64>,
        amount: Amount,
    ) -> Result<SlotRecords, ConsumeError> {
        let mut found = Vec::new();
        let mut trimmed: BTreeMap<Slot, TrimmedStart> = BTreeMap::new();
        for (&slot, &start) in starts {
            let bounds = self.store.bounds(slot.topic, slot.partition).await?;
            let is_outside = start < bounds.start || start > bounds.end;
            if is_outside && let Some(gone) = self.check_start(slot, start).await? {
                trimmed.insert(slot, gone);
            }
            if start < bounds.end && !trimmed.contains_key(&slot) {
                found.push(PartitionRecords { slot, segments: Vec::new(), next_offset: start });
            }
        }
        if found.is_empty() {
            // A topic that is gone has nothing new either.
            let mut last = None;
            for (&slot, &start) in starts {
                if last.replace(slot.topic) != Some(slot.topic)
                    && let Some(gone) = self.check_start(slot, start).await?
                {
                    trimmed.insert(slot, gone);
                }
            }
            return Ok(SlotRecords { found, trimmed: trimmed.into_values().collect() });
        }
        let first = lock(&self.random).random_range(0..found.len());
        found.rotate_left(first);
        let mut left = amount;
        let equal = Amount {
            records_max: (amount.records_max / found.len()).max(1),
            bytes_max: (amount.bytes_max / found.len()).max(1),
            ..amount
        };
        for share in [equal, amount] {
            for part in &mut found {
                if left.records_max == 0 || left.bytes_max == 0 {
                    break;
                }
                if !trimmed.contains_key(&part.slot)
                    && let Some(gone) = self.read_part(part, share, &mut left).await?
                {
                    trimmed.insert(part.slot, gone);
                }
            }
        }
        found.retain(|part| !part.segments.is_empty());
        Ok(SlotRecords { found, trimmed: trimmed.into_values().collect() })
    }

    /// What is trimmed where a read would start; `None` if it may start there. Bounds alone do not
    /// tell a trim from a topic that is gone.
    async fn check_start(
        &self,
        slot: Slot,
        start: u64,
    ) -> Result<Option<TrimmedStart>, ConsumeError> {
        let amount = Amount { records_max: 1, bytes_max: 1, wait: Duration::ZERO };
        Ok(self.read_from(slot, start, amount).await?.err())
    }

    /// Records of one partition, or what is trimmed where they would start.
    async fn read_from(
        &self,
        slot: Slot,
        offset: u64,
        amount: Amount,
    ) -> Result<Result<Records, TrimmedStart>, ConsumeError> {
        let start = ReadStart::Offset(offset);
        match self.read_once(slot.topic, slot.partition, start, amount).await {
            Err(ConsumeError::Trimmed { earliest, .. }) => {
                Ok(Err(TrimmedStart { slot, offset, earliest }))
            }
            found => found.map(Ok),
        }
    }

    /// Reads on in one partition: at most `share`, and at most what is `left` of the whole. What is
    /// trimmed is told only if nothing was found before it: else the next read starts there.
    async fn read_part(
        &self,
        part: &mut PartitionRecords,
        share: Amount,
        left: &mut Amount,
    ) -> Result<Option<TrimmedStart>, ConsumeError> {
        let amount = Amount {
            records_max: share.records_max.min(left.records_max),
            bytes_max: share.bytes_max.min(left.bytes_max),
            ..share
        };
        let found = match self.read_from(part.slot, part.next_offset, amount).await? {
            Ok(found) => found,
            Err(trimmed) => return Ok(part.segments.is_empty().then_some(trimmed)),
        };
        let bytes: usize = found.segments.iter().map(Segment::byte_len).sum();
        left.records_max = left.records_max.saturating_sub(found.count());
        left.bytes_max = left.bytes_max.saturating_sub(bytes);
        part.next_offset = found.next_offset;
        part.segments.extend(found.segments);
        Ok(None)
    }
}
