//! Live reading: the records of all topics that a pattern matches, in the order of their commits.
//!
//! A [`Feed`] is what one subscriber costs: an offset for each partition, and a receiver for each
//! topic. It holds no records: the log is the buffer, and who is slow is read for later.
//!
//! The order is whole because the store shows commits in their order: a feed first looks how far the
//! commits have come, then reads, and gives out nothing beyond. A topic that is made meanwhile is
//! found by a look at the catalog between the two.

mod cursor;

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

/// What was read and not given out yet, by commit and partition.
type Heads = BTreeMap<(CommitNumber, Slot), VecDeque<Segment>>;

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
        let (topics, positions) = (BTreeMap::new(), BTreeMap::new());
        let mut feed =
            Self { parts, project, pattern, topics, positions, news, changed, begun: None };
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
        let mut heads = Heads::new();
        for &slot in ends.keys() {
            let start = self.positions.get(&slot).copied().unwrap_or_default();
            self.fill(slot, start, share, &mut heads).await?;
        }
        let (mut records, mut bytes) = (0, 0);
        let (mut pieces, mut positions) = (Vec::new(), BTreeMap::new());
        while let Some(((commit, slot), mut segments)) = heads.pop_first() {
            let Some(segment) = segments.pop_front() else { continue };
            let next = segment.end_offset();
            records += segment.count() as usize;
            bytes += segment.byte_len();
            let is_full = records > amount.records_max || bytes > amount.bytes_max;
            if commit > reached || is_full && !positions.is_empty() {
                break;
            }
            positions.insert(slot, next);
            if let Some(topic) = self.topics.get(&slot.topic).cloned() {
                pieces.push(Piece { topic, slot, segment });
            }
            match segments.front().map(Segment::commit) {
                Some(commit) => drop(heads.insert((commit, slot), segments)),
                None if ends.get(&slot).is_some_and(|end| next < *end) => {
                    self.fill(slot, next, share, &mut heads).await?;
                }
                None => {}
            }
        }
        // All at once and last: who cancels a read reads the same again.
        self.positions.extend(positions);
        Ok(pieces)
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

    /// Reads on in a partition.
    async fn fill(
        &mut self,
        slot: Slot,
        start: u64,
        amount: Amount,
        heads: &mut Heads,
    ) -> Result<(), FeedError> {
        let start = ReadStart::Offset(start);
        let found = self.parts.reader.read_once(slot.topic, slot.partition, start, amount).await;
        let segments = match found {
            Ok(found) => VecDeque::from(found.segments),
            Err(error) => return self.cannot_read(slot, error),
        };
        if let Some(first) = segments.front() {
            heads.insert((first.commit(), slot), segments);
        }
        Ok(())
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
