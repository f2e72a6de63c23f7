//! The newest entries of all partitions, in memory: who reads along is answered without a look at the
//! disk, and without a thread that may wait for one.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;

use super::keys::PartitionKey;

/// Durable entries only: what is not synced may not be read.
#[derive(Debug)]
pub(super) struct Tail {
    /// Bytes of entries that are kept, of all partitions together. Until they are flushed, they are in
    /// memory anyway.
    bytes_max: usize,
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Of each partition without a gap, in order.
    partitions: HashMap<PartitionKey, VecDeque<TailEntry>>,
    /// Which partition has the oldest entry, the next, …
    order: VecDeque<PartitionKey>,
    bytes: usize,
}

/// An entry as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TailEntry {
    /// The offset of its first record.
    pub(super) start: u64,
    /// Behind its last.
    pub(super) end: u64,
    /// Bytes of its records.
    pub(super) record_bytes: usize,
    pub(super) bytes: Bytes,
}

impl Tail {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, inner: RwLock::default() }
    }

    /// Adds what has become durable, in order.
    pub(super) fn extend(&self, entries: impl IntoIterator<Item = (PartitionKey, TailEntry)>) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        for (partition, entry) in entries {
            inner.bytes += entry.bytes.len();
            inner.order.push_back(partition);
            inner.partitions.entry(partition).or_default().push_back(entry);
        }
        while inner.bytes > self.bytes_max {
            inner.drop_oldest();
        }
    }

    /// The entries of a partition from the one on that holds the first of `offsets`, up to the other
    /// end or until they hold more than `bytes_max` of records; `None` if that is not kept.
    pub(super) fn read(
        &self,
        partition: PartitionKey,
        offsets: Range<u64>,
        bytes_max: usize,
    ) -> Option<Vec<Bytes>> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let entries = inner.partitions.get(&partition)?;
        if offsets.start < entries.front()?.start || offsets.start >= entries.back()?.end {
            return None;
        }
        let first = entries.partition_point(|entry| entry.end <= offsets.start);
        let mut found = Vec::new();
        let mut bytes = 0;
        for entry in entries.range(first..) {
            if entry.start >= offsets.end || bytes > bytes_max {
                break;
            }
            if entry.start >= offsets.start {
                bytes += entry.record_bytes;
            }
            found.push(entry.bytes.clone());
        }
        Some(found)
    }

    /// Forgets all: what is on the disk may be something else.
    pub(super) fn clear(&self) {
        *self.inner.write().unwrap_or_else(PoisonError::into_inner) = Inner::default();
    }
}

impl Inner {
    fn drop_oldest(&mut self) {
        let Some(partition) = self.order.pop_front() else { return };
        let Some(entries) = self.partitions.get_mut(&partition) else { return };
        self.bytes -= entries.pop_front().map_or(0, |entry| entry.bytes.len());
        if entries.is_empty() {
            self.partitions.remove(&partition);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Partition, TopicId};

    const P0: PartitionKey = (TopicId(1), Partition(0));
    const P1: PartitionKey = (TopicId(1), Partition(1));

    fn entry(start: u64, end: u64, size: usize) -> TailEntry {
        let bytes = vec![u8::try_from(start).unwrap(); size].into();
        TailEntry { start, end, record_bytes: 10 * size, bytes }
    }

    /// Where the entries start that are read from `offset` on.
    fn starts(tail: &Tail, partition: PartitionKey, offset: u64) -> Option<Vec<u64>> {
        starts_within(tail, partition, offset..u64::MAX, usize::MAX)
    }

    fn starts_within(
        tail: &Tail,
        partition: PartitionKey,
        offsets: Range<u64>,
        bytes_max: usize,
    ) -> Option<Vec<u64>> {
        let entries = tail.read(partition, offsets, bytes_max)?;
        Some(entries.iter().map(|bytes| u64::from(bytes[0])).collect())
    }

    #[test]
    fn reading_begins_with_the_entry_that_holds_the_offset() {
        let tail = Tail::new(100);
        tail.extend([(P0, entry(5, 7, 1)), (P1, entry(0, 1, 1)), (P0, entry(7, 10, 1))]);
        assert_eq!(starts(&tail, P0, 4), None);
        assert_eq!(starts(&tail, P0, 5), Some(vec![5, 7]));
        assert_eq!(starts(&tail, P0, 6), Some(vec![5, 7]));
        assert_eq!(starts(&tail, P0, 7), Some(vec![7]));
        assert_eq!(starts(&tail, P0, 10), None);
        assert_eq!(starts(&tail, P1, 0), Some(vec![0]));
        tail.clear();
        assert_eq!(starts(&tail, P0, 5), None);
    }

    #[test]
    fn no_more_is_taken_than_an_answer_has_room_for() {
        let tail = Tail::new(100);
        tail.extend((0..5).map(|at| (P0, entry(at * 10, at * 10 + 10, 4))));
        assert_eq!(starts_within(&tail, P0, 5..20, 100), Some(vec![0, 10]));
        assert_eq!(starts_within(&tail, P0, 5..21, 100), Some(vec![0, 10, 20]));
        // What is before the offset in the first entry takes no room, and the one that passes the
        // bound is the last.
        assert_eq!(starts_within(&tail, P0, 5..50, 0), Some(vec![0, 10]));
        assert_eq!(starts_within(&tail, P0, 10..50, 79), Some(vec![10, 20]));
        assert_eq!(starts_within(&tail, P0, 10..50, 80), Some(vec![10, 20, 30]));
    }

    #[test]
    fn the_oldest_of_all_partitions_go_first() {
        let tail = Tail::new(100);
        let half = 50;
        tail.extend([(P0, entry(0, 1, half)), (P1, entry(0, 1, half))]);
        tail.extend([(P0, entry(1, 2, half))]);
        assert_eq!(starts(&tail, P0, 0), None);
        assert_eq!(starts(&tail, P0, 1), Some(vec![1]));
        assert_eq!(starts(&tail, P1, 0), Some(vec![0]));
        tail.extend([(P1, entry(1, 2, 100))]);
        assert_eq!((starts(&tail, P0, 1), starts(&tail, P1, 1)), (None, Some(vec![1])));
        tail.extend([(P1, entry(2, 3, 101))]);
        assert_eq!(starts(&tail, P1, 2), None, "what is too large is not kept");
        assert!(tail.inner.read().unwrap().partitions.is_empty());
    }
}
