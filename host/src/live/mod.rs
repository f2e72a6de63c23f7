//! Live reading: the records of all topics that a pattern matches, in the order of their commits.
//!
//! A [`Feed`] is what one subscriber costs: an offset and a commit for each partition, and a
//! receiver for each topic. It holds no records: the log is the buffer, and who is slow is read for
//! later. While a page is made, what is in it and what waits to be take at most the page's bytes
//! each, and one read comes on top.
//!
//! The order is whole because the store shows commits in their order: a feed first looks how far the
//! commits have come, then reads, and gives out nothing beyond. A topic that is made meanwhile is
//! found by a look at the catalog between the two.

mod cursor;
mod heads;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use stream_storage::{
    CommitNumber, ProjectName, ReadStart, Segment, Store, StoreError, Timestamp, TopicId,
};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::catalog::Catalog;
use crate::consume::{Amount, ConsumeError, News, Reader};
use crate::name::TopicName;
use crate::pattern::Pattern;
use crate::slot::Slot;
use crate::state::PageRequest;
use crate::topic::Topic;

use heads::{Head, Heads};

pub use cursor::{Cursor, InvalidCursor};

/// Where a feed begins. Topics that are made later are read from their first record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// With the earliest record of each partition.
    Earliest,
    /// With what is published from here on.
    Latest,
    /// With the first record of this time or later.
    Time(Timestamp),
    /// Behind this record.
    After(Cursor),
}

/// Records of one commit in one partition.
#[derive(Debug, Clone)]
pub struct Piece {
    /// The topic.
    pub topic: Arc<TopicName>,
    /// The partition of it.
    pub slot: Slot,
    /// The records.
    pub segment: Segment,
}

impl Piece {
    /// The cursor of whoever has got the piece up to the record at `offset`.
    pub fn cursor(&self, offset: u64) -> Cursor {
        Cursor { commit: self.segment.commit(), slot: self.slot, offset }
    }
}

/// Why a feed cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// A partition cannot be read from where the feed has come to.
    #[error("topic `{topic}`: {error}")]
    Of {
        /// The topic.
        topic: TopicName,
        /// What is wrong.
        error: ConsumeError,
    },
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a feed reads with.
#[derive(Clone)]
pub struct FeedParts {
    /// The log.
    pub store: Arc<dyn Store>,
    /// Topics.
    pub catalog: Arc<Catalog>,
    /// The read path.
    pub reader: Arc<Reader>,
}

/// One subscriber's way through a project's records.
pub struct Feed {
    parts: FeedParts,
    project: ProjectName,
    pattern: Pattern,
    topics: BTreeMap<TopicId, Arc<TopicName>>,
    /// The offset to read next in each partition.
    positions: BTreeMap<Slot, u64>,
    /// What is known of the next record of a partition: its offset and its commit. That does not
    /// change: so it holds for other pages too, and for who cancels a read.
    nexts: BTreeMap<Slot, (u64, CommitNumber)>,
    news: News,
    changed: watch::Receiver<u64>,
    begun: Option<Cursor>,
}

/// What there is to read.
struct Ahead {
    /// All that was committed up to here can be read.
    reached: CommitNumber,
    /// The ends of the partitions that have something.
    ends: BTreeMap<Slot, u64>,
}

impl Feed {
    /// Looks up where each partition begins.
    ///
    /// # Errors
    ///
    /// A record behind the cursor is trimmed, the cursor lies beyond a log's end, or the store could
    /// not be read.
    pub async fn open(
        parts: FeedParts,
        project: ProjectName,
        pattern: Pattern,
        begin: Begin,
    ) -> Result<Self, FeedError> {
        let changed = parts.catalog.changed();
        let news = parts.reader.watch([]);
        let mut feed = Self {
            parts,
            project,
            pattern,
            topics: BTreeMap::new(),
            positions: BTreeMap::new(),
            nexts: BTreeMap::new(),
            news,
            changed,
            begun: None,
        };
        feed.list(begin).await?;
        if begin == Begin::Latest {
            // One place for all partitions, which can be told: whoever loses the connection before
            // the first record has to find it again.
            let present = Cursor::behind(feed.reached().await?);
            feed.positions.clear();
            feed.list(Begin::After(present)).await?;
            feed.begun = Some(present);
        }
        Ok(feed)
    }

    /// What resumes before the first record, unless that is where the feed began anyway.
    pub fn begun(&self) -> Option<Cursor> {
        self.begun
    }

    /// The next records, in order, as far as there is room in `amount`; waits for some if there are
    /// none. Empty when the wait is over or the server drains. Cancel safe.
    ///
    /// # Errors
    ///
    /// Records were trimmed before they were read, or the store could not be read.
    pub async fn read(&mut self, amount: Amount) -> Result<Vec<Piece>, FeedError> {
        let deadline = Instant::now() + amount.wait;
        loop {
            let ahead = self.look().await?;
            let is_behind = !ahead.ends.is_empty();
            let found = self.merge(ahead, amount).await?;
            // What came between the two looks may have been told of before a wait would begin.
            if !found.is_empty() || !is_behind && !self.news(deadline).await {
                return Ok(found);
            }
        }
    }

    /// Waits until there may be records, and takes none. Cancel safe.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn wait(&mut self, wait: Duration) -> Result<(), FeedError> {
        let deadline = Instant::now() + wait;
        while self.look().await?.ends.is_empty() && self.news(deadline).await {}
        Ok(())
    }

    /// `false` when the wait is over or the server drains.
    async fn news(&mut self, deadline: Instant) -> bool {
        let mut changed = self.changed.clone();
        tokio::select! {
            biased;
            is_news = self.parts.reader.news(&mut self.news, deadline) => is_news,
            // The catalog lives as long as the feed.
            _ = changed.changed() => true,
        }
    }

    /// Merges what the partitions hold.
    async fn merge(&mut self, ahead: Ahead, amount: Amount) -> Result<Vec<Piece>, FeedError> {
        let Ahead { reached, ends } = ahead;
        let parts = ends.len().max(1);
        let share = Amount {
            records_max: (amount.records_max / parts).max(1),
            bytes_max: (amount.bytes_max / parts).max(1),
            ..amount
        };
        let mut heads = self.heads(&ends, share, amount.bytes_max).await?;
        let (mut records, mut bytes) = (0, 0);
        let (mut pieces, mut positions) = (Vec::new(), BTreeMap::new());
        while let Some(((commit, slot), Head { start, mut segments })) = heads.pop(reached) {
            if segments.is_empty() {
                segments = self.fill(slot, start, share).await?;
                // Not what was known: it has its turn later. Each time its commit is a higher one.
                if segments.front().is_some_and(|first| first.commit() > commit) {
                    heads.put(slot, segments);
                    continue;
                }
            }
            let Some(segment) = segments.pop_front() else { continue };
            let next = segment.end_offset();
            records += segment.count() as usize;
            bytes += segment.byte_len();
            let is_over = records > amount.records_max || bytes > amount.bytes_max;
            if is_over && !positions.is_empty() {
                segments.push_front(segment);
                heads.put(slot, segments);
                break;
            }
            positions.insert(slot, next);
            if let Some(topic) = self.topics.get(&slot.topic).cloned() {
                pieces.push(Piece { topic, slot, segment });
            }
            let is_full = records >= amount.records_max || bytes >= amount.bytes_max;
            let is_behind = ends.get(&slot).is_some_and(|end| next < *end);
            if segments.is_empty() && is_behind && !is_full {
                segments = self.fill(slot, next, share).await?;
            }
            heads.put(slot, segments);
            if is_full {
                break;
            }
        }
        // All at once and last: who cancels a read reads the same again.
        self.positions.extend(positions);
        self.nexts.extend(heads.places());
        self.nexts.retain(|slot, (next, _)| self.positions.get(slot) == Some(&*next));
        Ok(pieces)
    }

    /// Where the partitions go on that have something. They are read only if that is not known, and
    /// what was read is kept while there is `room`.
    async fn heads(
        &mut self,
        ends: &BTreeMap<Slot, u64>,
        share: Amount,
        room: usize,
    ) -> Result<Heads, FeedError> {
        let mut heads = Heads::new(room);
        for &slot in ends.keys() {
            // Another partition's read may have shown that the topic is gone.
            let Some(&start) = self.positions.get(&slot) else { continue };
            if let Some(&next) = self.nexts.get(&slot).filter(|next| next.0 == start) {
                heads.put_place(slot, next);
                continue;
            }
            let segments = self.fill(slot, start, share).await?;
            if let Some(first) = segments.front() {
                self.nexts.insert(slot, (start, first.commit()));
            }
            heads.put(slot, segments);
        }
        Ok(heads)
    }

    /// How far the commits have come, and then what there is to read.
    async fn look(&mut self) -> Result<Ahead, FeedError> {
        self.news.seen();
        let reached = self.reached().await?;
        // After that: a topic that has records up to there is on the list by now.
        if self.changed.has_changed().unwrap_or(false) || self.parts.catalog.is_making() {
            self.list(Begin::Earliest).await?;
        }
        let mut ends = BTreeMap::new();
        for (&slot, &position) in &self.positions {
            let bounds = self.parts.store.bounds(slot.topic, slot.partition).await?;
            if position < bounds.end {
                ends.insert(slot, bounds.end);
            }
        }
        Ok(Ahead { reached, ends })
    }

    /// The last commit that can be seen.
    async fn reached(&self) -> Result<CommitNumber, StoreError> {
        let mut reached = CommitNumber::default();
        for slot in self.positions.keys() {
            let bounds = self.parts.store.bounds(slot.topic, slot.partition).await?;
            reached = reached.max(bounds.last_commit);
        }
        Ok(reached)
    }

    /// Reads on in a partition; nothing if its topic is gone.
    async fn fill(
        &mut self,
        slot: Slot,
        start: u64,
        amount: Amount,
    ) -> Result<VecDeque<Segment>, FeedError> {
        let start = ReadStart::Offset(start);
        let found = self.parts.reader.read_once(slot.topic, slot.partition, start, amount).await;
        match found {
            // A share is a small part of an entry: what is kept must not keep all of that.
            Ok(found) => Ok(found.segments.into_iter().map(Segment::detached).collect()),
            Err(error) => self.cannot_read(slot, error).map(|()| VecDeque::new()),
        }
    }

    /// A topic that is gone has nothing more to say; all else ends the feed.
    fn cannot_read(&mut self, slot: Slot, error: ConsumeError) -> Result<(), FeedError> {
        match (error, self.topics.get(&slot.topic)) {
            (ConsumeError::TopicGone, _) | (_, None) => {
                self.topics.remove(&slot.topic);
                self.positions.retain(|other, _| other.topic != slot.topic);
                Ok(())
            }
            (ConsumeError::Store(error), _) => Err(error.into()),
            (error, Some(topic)) => Err(FeedError::Of { topic: TopicName::clone(topic), error }),
        }
    }

    /// Brings the partitions up to date; new ones are read from `begin`.
    async fn list(&mut self, begin: Begin) -> Result<(), FeedError> {
        self.changed.mark_unchanged();
        let all = PageRequest::default();
        let listed = self.parts.catalog.list(&self.project, &all).await?.items;
        let matching: Vec<Topic> =
            listed.into_iter().filter(|topic| self.pattern.matches(&topic.name)).collect();
        self.topics =
            matching.iter().map(|topic| (topic.id, Arc::new(topic.name.clone()))).collect();
        self.news = self.parts.reader.watch(self.topics.keys().copied());
        let topics = &self.topics;
        self.positions.retain(|slot, _| topics.contains_key(&slot.topic));
        for topic in &matching {
            for partition in topic.partitions() {
                let slot = Slot::new(topic.id, partition);
                if !self.positions.contains_key(&slot) {
                    match self.start(slot, begin).await {
                        Ok(start) => drop(self.positions.insert(slot, start)),
                        Err(error) => self.cannot_read(slot, error)?,
                    }
                }
            }
        }
        // Built at once its nodes are full; built one by one, in order, they are half empty.
        self.positions = std::mem::take(&mut self.positions).into_iter().collect();
        Ok(())
    }

    async fn start(&self, slot: Slot, begin: Begin) -> Result<u64, ConsumeError> {
        let start = match begin {
            Begin::Earliest | Begin::Latest => {
                let bounds = self.parts.store.bounds(slot.topic, slot.partition).await?;
                return Ok(if begin == Begin::Latest { bounds.end } else { bounds.start });
            }
            Begin::Time(time) => ReadStart::Time(time),
            Begin::After(cursor) => cursor.start(slot),
        };
        let nothing = Amount { records_max: 0, bytes_max: 0, wait: Duration::ZERO };
        let found = self.parts.reader.read_once(slot.topic, slot.partition, start, nothing).await?;
        Ok(found.next_offset)
    }
}

#[cfg(test)]
mod tests {
    use stream_storage::embedded::{EmbeddedConfig, EmbeddedStore};
    use stream_storage::{Clock, ManualClock, Record, RecordBatch, Transaction, Trim};

    use super::*;
    use crate::drain::Drain;
    use crate::topic::TopicConfig;

    struct Bed {
        parts: FeedParts,
        /// Three partitions each of two topics.
        slots: Vec<Slot>,
        _folder: tempfile::TempDir,
    }

    /// Bytes of each value.
    const SIZE: usize = 300;

    fn project() -> ProjectName {
        ProjectName::parse("p").unwrap()
    }

    fn amount(records_max: usize, bytes_max: usize) -> Amount {
        Amount { records_max, bytes_max, wait: Duration::ZERO }
    }

    /// The place of each record.
    fn places(pieces: &[Piece]) -> Vec<Cursor> {
        let mut places = Vec::new();
        for piece in pieces {
            let offsets = piece.segment.base_offset()..piece.segment.end_offset();
            places.extend(offsets.map(|offset| piece.cursor(offset)));
        }
        places
    }

    impl Bed {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let config = EmbeddedConfig { reserve_bytes: 0, ..EmbeddedConfig::new(folder.path()) };
            let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Timestamp(1)));
            let store = EmbeddedStore::open(config, clock.clone()).unwrap();
            let store: Arc<dyn Store> = Arc::new(store);
            let catalog = Arc::new(Catalog::new(store.clone(), clock, 100));
            let reader = Reader::new(store.clone(), Drain::default(), rand::make_rng());
            let mut slots = Vec::new();
            for name in ["a", "b"] {
                let name = TopicName::parse(name).unwrap();
                let config = TopicConfig { partitions: 3, ..TopicConfig::default() };
                let (topic, _) = catalog.create(&project(), name, config).await.unwrap();
                slots.extend(topic.partitions().map(|partition| Slot::new(topic.id, partition)));
            }
            let parts = FeedParts { store, catalog, reader: Arc::new(reader) };
            Self { parts, slots, _folder: folder }
        }

        /// Commits so many records to each partition, and returns their places.
        async fn publish(&self, appends: &[(Slot, usize)]) -> Vec<Cursor> {
            let mut transaction = Transaction::new(project());
            for &(slot, count) in appends {
                let mut batch = RecordBatch::default();
                for _ in 0..count {
                    batch.push(&Record { value: &[7; SIZE], ..Record::default() }).unwrap();
                }
                transaction.append(slot.topic, slot.partition, batch);
            }
            let receipt = self.parts.store.commit(transaction).await.unwrap();
            let commit = receipt.commit;
            let mut places = Vec::new();
            for appended in receipt.appends {
                let slot = Slot::new(appended.topic, appended.partition);
                let end = appended.base_offset + u64::from(appended.count);
                let offsets = appended.base_offset..end;
                places.extend(offsets.map(|offset| Cursor { commit, slot, offset }));
            }
            places
        }

        /// One record in each partition, each of a commit of its own, in the order of `slots`.
        async fn publish_to_each(&self) -> Vec<Cursor> {
            let mut places = Vec::new();
            for &slot in &self.slots {
                places.extend(self.publish(&[(slot, 1)]).await);
            }
            places
        }

        async fn feed(&self) -> Feed {
            let pattern = Pattern::parse("**").unwrap();
            Feed::open(self.parts.clone(), project(), pattern, Begin::Earliest).await.unwrap()
        }
    }

    #[tokio::test]
    async fn pages_of_any_size_hold_each_record_once_in_the_order_of_commits() {
        let bed = Bed::new().await;
        let mut expected = Vec::new();
        for turn in 0..30 {
            let (first, second) = (turn * 7 % 6, (turn * 7 + 1 + turn % 5) % 6);
            let appends = [(bed.slots[first], 1 + turn % 4), (bed.slots[second], 2)];
            expected.extend(bed.publish(&appends).await);
        }
        expected.sort_unstable();
        for (records_max, bytes_max) in
            [(1_000, 1), (1_000, SIZE * 2), (1_000, SIZE * 9), (5, 1 << 20), (1_000, 1 << 20)]
        {
            let mut feed = bed.feed().await;
            let mut found = Vec::new();
            loop {
                let pieces = feed.read(amount(records_max, bytes_max)).await.unwrap();
                if pieces.is_empty() {
                    break;
                }
                let bytes: usize = pieces.iter().map(|piece| piece.segment.byte_len()).sum();
                let page = places(&pieces);
                let fits = page.len() <= records_max && bytes <= bytes_max;
                assert!(fits || pieces.len() == 1, "{} records, {bytes} bytes", page.len());
                found.extend(page);
            }
            assert_eq!(found, expected, "{records_max} records, {bytes_max} bytes");
        }
    }

    #[tokio::test]
    async fn what_a_page_leaves_is_known_to_the_next_one() {
        let bed = Bed::new().await;
        let all = bed.publish_to_each().await;
        let mut feed = bed.feed().await;
        for given in 1..=all.len() {
            let pieces = feed.read(amount(1_000, 1)).await.unwrap();
            assert_eq!(places(&pieces), all[given - 1..given]);
            let left = all[given..].iter().map(|place| (place.slot, (place.offset, place.commit)));
            let left: BTreeMap<_, _> = left.collect();
            assert_eq!(feed.nexts, left);
        }
    }

    #[tokio::test]
    async fn a_commit_that_is_not_as_it_was_known_has_its_turn_in_order() {
        let bed = Bed::new().await;
        let all = bed.publish_to_each().await;
        for bytes_max in [1, 1 << 20] {
            let mut feed = bed.feed().await;
            for place in &all[2..] {
                feed.nexts.insert(place.slot, (0, CommitNumber::default()));
            }
            let mut found = Vec::new();
            while found.len() < all.len() {
                let pieces = feed.read(amount(1_000, bytes_max)).await.unwrap();
                assert!(!pieces.is_empty());
                found.extend(places(&pieces));
            }
            assert_eq!(found, all);
        }
    }

    #[tokio::test]
    async fn what_is_known_and_then_trimmed_is_told() {
        let bed = Bed::new().await;
        let all = bed.publish_to_each().await;
        let mut feed = bed.feed().await;
        assert_eq!(places(&feed.read(amount(1_000, 1)).await.unwrap()), all[..1]);
        let slot = all[1].slot;
        bed.parts.store.trim(slot.topic, slot.partition, Trim::Before(1)).await.unwrap();
        let told = feed.read(amount(1_000, 1)).await.unwrap_err();
        assert!(matches!(told, FeedError::Of { error: ConsumeError::Trimmed { .. }, .. }));
    }
}
