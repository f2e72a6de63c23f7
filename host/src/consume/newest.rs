//! Records of a topic that have an id or a key, the newest first over all partitions.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use stream_storage::{CommitNumber, Partition, Position, ReadStart, Segment, TopicId};

use super::{Amount, ConsumeError, Reader};
use crate::index::{self, IndexKind};
use crate::live::Cursor;
use crate::slot::Slot;

/// Entries of a partition that are looked up at a time.
const ENTRIES: usize = 100;

/// What is looked up.
#[derive(Debug, Clone, Copy)]
pub struct Sought<'a> {
    /// In which topic; it has to keep the index.
    pub topic: TopicId,
    /// What `text` is.
    pub kind: IndexKind,
    /// The id or the key.
    pub text: &'a str,
}

/// Finds records one after the other, in the descending order of their cursors: of commit, partition
/// and offset. Holds entries, and no record.
pub struct Newest<'a> {
    reader: &'a Reader,
    topic: TopicId,
    kind: u8,
    key: Bytes,
    /// The partitions that have entries left.
    lanes: Vec<Lane>,
}

/// What is left of one partition.
struct Lane {
    partition: Partition,
    /// In descending order, never empty; there may be more behind them.
    offsets: VecDeque<u64>,
    /// The commit of the first, once it was needed.
    commit: Option<CommitNumber>,
}

impl Reader {
    /// Looks records up; those that come `before` a record that was found earlier, if it is given.
    ///
    /// # Errors
    ///
    /// The topic is gone, or the store could not be read.
    pub async fn newest(
        &self,
        sought: Sought<'_>,
        before: Option<Cursor>,
    ) -> Result<Newest<'_>, ConsumeError> {
        let Sought { topic, kind, text } = sought;
        let (kind, key) = (kind.number(), index::entry_key(text));
        let mut newest = Newest { reader: self, topic, kind, key, lanes: Vec::new() };
        let mut below = Position::LAST;
        while let Some(last) = newest.entries(below, 1).await?.first() {
            let partition = last.partition;
            let end = match before {
                None => u64::MAX,
                Some(cursor) => newest.end(partition, cursor).await?,
            };
            let lane = Lane { partition, offsets: VecDeque::new(), commit: None };
            newest.lanes.extend(newest.filled(lane, end).await?);
            below = Position { partition, offset: 0 };
        }
        Ok(newest)
    }
}

impl Newest<'_> {
    /// The next older record, as a segment of its own. What is trimmed is left out. When cancelled,
    /// a record may be left out.
    ///
    /// # Errors
    ///
    /// The topic is gone, or the store could not be read.
    pub async fn next(&mut self) -> Result<Option<(Cursor, Segment)>, ConsumeError> {
        while let Some(at) = self.newest_lane().await? {
            let (partition, offset) = self.take(at).await?;
            if let Some(segment) = self.record(partition, offset).await? {
                let slot = Slot::new(self.topic, partition);
                return Ok(Some((Cursor { commit: segment.commit(), slot, offset }, segment)));
            }
        }
        Ok(None)
    }

    /// Whether there is nothing left. If not, there may be something.
    pub fn is_done(&self) -> bool {
        self.lanes.is_empty()
    }

    /// The partition of the next record. Of several, the first record of each has to be looked at.
    async fn newest_lane(&mut self) -> Result<Option<usize>, ConsumeError> {
        let mut at = 0;
        while self.lanes.len() > 1
            && let Some(lane) = self.lanes.get(at)
        {
            let (partition, offset) = (lane.partition, lane.offsets.front().copied());
            if let (None, Some(offset)) = (lane.commit, offset) {
                match self.record(partition, offset).await? {
                    Some(segment) => {
                        if let Some(lane) = self.lanes.get_mut(at) {
                            lane.commit = Some(segment.commit());
                        }
                    }
                    // Trimmed meanwhile: the next one is looked at in its place.
                    None => {
                        self.take(at).await?;
                        continue;
                    }
                }
            }
            at += 1;
        }
        let lanes = self.lanes.iter().enumerate();
        Ok(lanes.max_by_key(|(_, lane)| (lane.commit, lane.partition)).map(|(at, _)| at))
    }

    /// Takes the first entry of a lane, which goes when it has no more.
    async fn take(&mut self, at: usize) -> Result<(Partition, u64), ConsumeError> {
        let mut lane = self.lanes.swap_remove(at);
        let partition = lane.partition;
        let offset = lane.offsets.pop_front().unwrap_or_default();
        lane.commit = None;
        if lane.offsets.is_empty() {
            let lane = self.filled(lane, offset).await?;
            self.lanes.extend(lane);
        } else {
            self.lanes.push(lane);
        }
        Ok((partition, offset))
    }

    /// The lane with entries before `end`; `None` if there are none.
    async fn filled(&self, mut lane: Lane, end: u64) -> Result<Option<Lane>, ConsumeError> {
        let before = Position { partition: lane.partition, offset: end };
        let entries = self.entries(before, ENTRIES).await?;
        let own = entries.into_iter().take_while(|entry| entry.partition == lane.partition);
        lane.offsets.extend(own.map(|entry| entry.offset));
        Ok(Some(lane).filter(|lane| !lane.offsets.is_empty()))
    }

    async fn entries(&self, before: Position, limit: usize) -> Result<Vec<Position>, ConsumeError> {
        let Self { reader, topic, kind, key, .. } = self;
        Ok(reader.store.lookup_back(*topic, *kind, key, Some(before), limit).await?)
    }

    /// The offset below which records of a partition come before the cursor.
    async fn end(&self, partition: Partition, cursor: Cursor) -> Result<u64, ConsumeError> {
        if cursor.slot.partition == partition {
            return Ok(cursor.offset);
        }
        let start = cursor.start(Slot::new(self.topic, partition));
        let nothing = Amount { records_max: 0, bytes_max: 0, wait: Duration::ZERO };
        match self.reader.read_once(self.topic, partition, start, nothing).await {
            Ok(found) => Ok(found.next_offset),
            // All that came before it is trimmed.
            Err(ConsumeError::Trimmed { .. }) => Ok(0),
            Err(error) => Err(error),
        }
    }

    async fn record(
        &self,
        partition: Partition,
        offset: u64,
    ) -> Result<Option<Segment>, ConsumeError> {
        let one = Amount { records_max: 1, bytes_max: 1, wait: Duration::ZERO };
        let start = ReadStart::Offset(offset);
        match self.reader.read_once(self.topic, partition, start, one).await {
            Ok(found) => Ok(found.segments.into_iter().next()),
            Err(ConsumeError::Trimmed { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
