//! What was looked up and not given out yet, by commit and partition, in bounded memory.
//!
//! Of what there is no room for, the place alone is kept: it is read again when its turn comes.

use std::collections::{BTreeMap, VecDeque};

use stream_storage::{CommitNumber, Segment};

use crate::slot::Slot;

/// The next records of some partitions, the lowest commit first and in it the lowest partition.
#[derive(Debug)]
pub(super) struct Heads {
    heads: BTreeMap<(CommitNumber, Slot), Head>,
    /// Bytes of the segments that are held; never more than `room`.
    bytes: usize,
    room: usize,
}

/// The next records of one partition.
#[derive(Debug)]
pub(super) struct Head {
    /// The offset of the first.
    pub(super) start: u64,
    /// In order; none if only the commit of the first is known.
    pub(super) segments: VecDeque<Segment>,
}

impl Heads {
    /// Nothing yet, and room for so many bytes of records, but at least one.
    pub(super) fn new(room: usize) -> Self {
        Self { heads: BTreeMap::new(), bytes: 0, room: room.max(1) }
    }

    /// Puts in what was read of a partition, if that is anything; its place alone if there is no
    /// room for more.
    pub(super) fn put(&mut self, slot: Slot, mut segments: VecDeque<Segment>) {
        let Some(first) = segments.front() else { return };
        let (commit, start) = (first.commit(), first.base_offset());
        let bytes = byte_len(&segments);
        if self.bytes + bytes > self.room {
            segments = VecDeque::new();
        } else {
            self.bytes += bytes;
        }
        self.heads.insert((commit, slot), Head { start, segments });
    }

    /// Puts in where a partition goes on: the offset and the commit of its next record.
    pub(super) fn put_place(&mut self, slot: Slot, (start, commit): (u64, CommitNumber)) {
        self.heads.insert((commit, slot), Head { start, segments: VecDeque::new() });
    }

    /// Takes out the lowest, unless it is of a commit after `reached`.
    pub(super) fn pop(&mut self, reached: CommitNumber) -> Option<((CommitNumber, Slot), Head)> {
        let lowest = self.heads.first_entry().filter(|lowest| lowest.key().0 <= reached)?;
        let (key, head) = lowest.remove_entry();
        self.bytes -= byte_len(&head.segments);
        Some((key, head))
    }

    /// Where each partition goes on: the offset and the commit of its next record.
    pub(super) fn places(&self) -> impl Iterator<Item = (Slot, (u64, CommitNumber))> {
        self.heads.iter().map(|(&(commit, slot), head)| (slot, (head.start, commit)))
    }
}

fn byte_len(segments: &VecDeque<Segment>) -> usize {
    segments.iter().map(Segment::byte_len).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stream_storage::embedded::{EmbeddedConfig, EmbeddedStore};
    use stream_storage::{
        ManualClock, Partition, ProjectName, ReadRequest, ReadStart, Record, RecordBatch, Store,
        Timestamp, TopicChange, TopicId, Transaction,
    };

    use super::*;

    const TOPIC: TopicId = TopicId(1);
    const LAST: CommitNumber = CommitNumber(u64::MAX);

    fn slot(partition: u32) -> Slot {
        Slot::new(TOPIC, Partition(partition))
    }

    /// A segment of one record with a value of each size, at the offsets from 0; each of a later
    /// commit than the one before.
    async fn segments(sizes: &[usize]) -> Vec<Segment> {
        let folder = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig { reserve_bytes: 0, ..EmbeddedConfig::new(folder.path()) };
        let clock = Arc::new(ManualClock::new(Timestamp(1)));
        let store = EmbeddedStore::open(config, clock).unwrap();
        let project = ProjectName::parse("p").unwrap();
        let mut create = Transaction::new(project.clone());
        create.topics.push(TopicChange::Create(TOPIC));
        store.commit(create).await.unwrap();
        for &size in sizes {
            let value = vec![0; size];
            let mut batch = RecordBatch::default();
            batch.push(&Record { value: &value, ..Record::default() }).unwrap();
            let mut transaction = Transaction::new(project.clone());
            transaction.append(TOPIC, Partition(0), batch);
            store.commit(transaction).await.unwrap();
        }
        let request = ReadRequest {
            topic: TOPIC,
            partition: Partition(0),
            start: ReadStart::Offset(0),
            records_max: 1_000,
            bytes_max: 1 << 20,
        };
        let segments = store.read(request).await.unwrap().segments;
        assert_eq!(segments.len(), sizes.len());
        segments
    }

    #[tokio::test]
    async fn the_lowest_commit_comes_first_and_in_it_the_lowest_partition() {
        let segments = segments(&[1, 1, 1]).await;
        let [first, second, third] = &segments[..] else { panic!("{segments:?}") };
        let mut heads = Heads::new(1_000);
        heads.put(slot(2), [first.clone()].into());
        heads.put(slot(0), [third.clone()].into());
        heads.put_place(slot(1), (7, first.commit()));
        heads.put(slot(3), [second.clone()].into());
        heads.put(slot(4), VecDeque::new());
        let mut order = Vec::new();
        while let Some((key, _)) = heads.pop(second.commit()) {
            order.push(key);
        }
        let (one, two, three) = (first.commit(), second.commit(), third.commit());
        assert_eq!(order, [(one, slot(1)), (one, slot(2)), (two, slot(3))]);
        assert_eq!(heads.pop(LAST).map(|(key, _)| key), Some((three, slot(0))));
        assert!(heads.pop(LAST).is_none());
    }

    #[tokio::test]
    async fn what_is_held_never_passes_the_bound() {
        let segments = segments(&[10, 50, 20, 90, 1, 60, 0, 30]).await;
        for room in [0, 5, 60, 120, 1_000] {
            let mut heads = Heads::new(room);
            for (partition, segment) in (0..).zip(&segments) {
                heads.put(slot(partition), [segment.clone()].into());
                let held: usize = heads.heads.values().map(|head| byte_len(&head.segments)).sum();
                assert_eq!(heads.bytes, held);
                assert!(held <= room, "{held} of {room}");
            }
            assert_eq!(heads.places().count(), segments.len());
            while heads.pop(LAST).is_some() {}
            assert_eq!(heads.bytes, 0);
        }
    }

    #[tokio::test]
    async fn a_head_without_room_keeps_its_commit_and_its_offset() {
        let segments = segments(&[1, 100]).await;
        let [_, large] = &segments[..] else { panic!("{segments:?}") };
        let mut heads = Heads::new(large.byte_len() - 1);
        heads.put(slot(3), [large.clone()].into());
        assert!(heads.places().eq([(slot(3), (1, large.commit()))]));
        let (key, head) = heads.pop(LAST).unwrap();
        assert_eq!((key, head.start), ((large.commit(), slot(3)), 1));
        assert!(head.segments.is_empty());
        heads = Heads::new(large.byte_len());
        heads.put(slot(3), [large.clone()].into());
        assert_eq!(heads.pop(LAST).unwrap().1.segments.len(), 1);
    }
}
