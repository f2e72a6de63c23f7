//! What consumer groups have committed: for each partition the offset to read next.
//!
//! A commit lives in the project's state under `group/{topic id}/{group}/{partition}`. Topic ids are
//! never used again, so what is left behind by a deleted topic is garbage and never read.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stream_storage::{
    Bounds, Clock, CommitError, Expected, Partition, ProjectName, Store, StoreError, TopicId,
    Transaction,
};

use crate::name::GroupName;
use crate::state::{self, Attempts, PageRequest};
use crate::topic::Topic;

/// State keys deleted in one transaction when a topic is gone: well below any engine's limit.
const DELETES_MAX: usize = 1_000;

/// A commit to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetCommit {
    /// The partition.
    pub partition: Partition,
    /// The offset to read next.
    pub offset: u64,
    /// Whether it may lie before the group's present commit.
    pub reset: Reset,
}

/// Whether a commit may go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// It may.
    Allowed,
    /// It may not: a commit that goes back is taken for a mistake.
    Refused,
}

/// How far a group has come in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The partition.
    pub partition: Partition,
    /// The offset to read next.
    pub offset: u64,
    /// The offset that the next record gets.
    pub log_end: u64,
}

impl Progress {
    /// How many records are still to be read.
    pub fn lag(&self) -> u64 {
        self.log_end.saturating_sub(self.offset)
    }
}

/// Why an offset was not committed.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// Nothing lies there yet.
    #[error("invalid offset `{offset}`: expected at most the log end `{log_end}`")]
    BeyondEnd {
        /// The offset.
        offset: u64,
        /// The log end.
        log_end: u64,
    },
    /// The group has come further.
    #[error(
        "offset `{offset}` is before the committed `{committed}`; set `reset` to go back on purpose"
    )]
    Backwards {
        /// The offset.
        offset: u64,
        /// The group's present commit.
        committed: u64,
    },
    /// The store refused the write.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredCommit {
    offset: u64,
    committed_at: u64,
}

/// The commits of all groups.
pub struct Groups {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
}

impl Groups {
    /// Reads nothing yet.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }

    /// Where the group reads next in each partition of the topic; where it has committed nothing,
    /// at the earliest record.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn positions(
        &self,
        topic: &Topic,
        group: &GroupName,
    ) -> Result<BTreeMap<Partition, u64>, StoreError> {
        let mut positions = self.committed(topic, group).await?;
        for partition in topic.partitions() {
            if let Entry::Vacant(vacant) = positions.entry(partition) {
                vacant.insert(self.store.bounds(topic.id, partition).await?.start);
            }
        }
        Ok(positions)
    }

    /// Where the group reads next in one partition of the topic.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn position(
        &self,
        topic: &Topic,
        group: &GroupName,
        partition: Partition,
    ) -> Result<u64, StoreError> {
        let key = key(topic.id, group, partition);
        match self.store.get(&topic.project, key.as_bytes()).await? {
            Some(row) => Ok(state::decode::<StoredCommit>(key.as_bytes(), &row)?.offset),
            None => Ok(self.store.bounds(topic.id, partition).await?.start),
        }
    }

    /// How far the group has come where it has committed something, in the order of partitions.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn progress(
        &self,
        topic: &Topic,
        group: &GroupName,
    ) -> Result<Vec<Progress>, StoreError> {
        let mut progress = Vec::new();
        for (partition, offset) in self.committed(topic, group).await? {
            let Bounds { end, .. } = self.store.bounds(topic.id, partition).await?;
            progress.push(Progress { partition, offset, log_end: end });
        }
        Ok(progress)
    }

    /// Commits where the group reads next in a partition. Durable on return.
    ///
    /// # Errors
    ///
    /// The offset lies beyond the log end, or before the present commit and `reset` is not allowed;
    /// or the store refused.
    pub async fn commit(
        &self,
        topic: &Topic,
        group: &GroupName,
        commit: OffsetCommit,
    ) -> Result<(), GroupError> {
        let OffsetCommit { partition, offset, reset } = commit;
        let log_end = self.store.bounds(topic.id, partition).await?.end;
        if offset > log_end {
            return Err(GroupError::BeyondEnd { offset, log_end });
        }
        let key = key(topic.id, group, partition);
        let mut attempts = Attempts::default();
        loop {
            let present = self.store.get(&topic.project, key.as_bytes()).await?;
            let expected = match &present {
                Some(row) => {
                    let committed = state::decode::<StoredCommit>(key.as_bytes(), row)?.offset;
                    if offset < committed && reset == Reset::Refused {
                        return Err(GroupError::Backwards { offset, committed });
                    }
                    Expected::Version(row.version)
                }
                None => Expected::Absent,
            };
            let mut transaction = Transaction::new(topic.project.clone());
            let stored = StoredCommit { offset, committed_at: self.clock.now().0 };
            transaction.expect(key.clone(), expected);
            transaction.put(key.clone(), state::encode(&stored));
            match self.store.commit(transaction).await {
                Ok(_) => return Ok(()),
                Err(error) => attempts.again(error)?,
            }
        }
    }

    /// Removes what groups have committed in a topic that is deleted.
    ///
    /// # Errors
    ///
    /// The store could not be read or written; what is left is garbage and does no harm.
    pub async fn forget_topic(
        &self,
        project: &ProjectName,
        topic: TopicId,
    ) -> Result<(), GroupError> {
        let prefix = format!("group/{topic}/");
        loop {
            let scan = self.store.scan(project, prefix.as_bytes(), None, DELETES_MAX);
            let rows = scan.await?;
            if rows.is_empty() {
                return Ok(());
            }
            let mut transaction = Transaction::new(project.clone());
            for row in rows {
                transaction.delete(row.key);
            }
            self.store.commit(transaction).await?;
        }
    }

    async fn committed(
        &self,
        topic: &Topic,
        group: &GroupName,
    ) -> Result<BTreeMap<Partition, u64>, StoreError> {
        let prefix = prefix(topic.id, group);
        let all = PageRequest::default();
        let rows = state::page(self.store.as_ref(), &topic.project, &prefix, &all).await?;
        let mut committed = BTreeMap::new();
        for row in rows.items {
            let stored: StoredCommit = state::decode(&row.key, &row.versioned)?;
            if let Ok(partition) = state::name_in(&row.key, &prefix).parse() {
                committed.insert(Partition(partition), stored.offset);
            }
        }
        Ok(committed)
    }
}

fn prefix(topic: TopicId, group: &GroupName) -> String {
    format!("group/{topic}/{group}/")
}

fn key(topic: TopicId, group: &GroupName, partition: Partition) -> String {
    format!("{}{partition}", prefix(topic, group))
}
