//! Where a group reads next, and how far that is from the end.

use std::collections::BTreeMap;

use stream_storage::{Bounds, Partition, ProjectName, StoreError, TopicId, Transaction};

use super::failure::Failure;
use super::rows::{self, StoredCommit, StoredOwner};
use super::{GroupError, Groups};
use crate::name::GroupName;
use crate::slot::Slot;
use crate::topic::Topic;

/// State keys deleted in one transaction when a topic is gone: well below any engine's limit.
pub(super) const DELETES_MAX: usize = 1_000;

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

/// Where a group reads next in a partition, and what could not be processed there.
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) failed: Option<Failure>,
}

impl Groups {
    /// Where the group reads next in these partitions; where it has committed nothing, at the
    /// earliest record.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn positions(
        &self,
        project: &ProjectName,
        group: &GroupName,
        slots: impl IntoIterator<Item = Slot>,
    ) -> Result<BTreeMap<Slot, u64>, StoreError> {
        let places = self.places(project, group, slots).await?;
        Ok(places.into_iter().map(|(slot, place)| (slot, place.offset)).collect())
    }

    /// The same with what failed there.
    pub(super) async fn places(
        &self,
        project: &ProjectName,
        group: &GroupName,
        slots: impl IntoIterator<Item = Slot>,
    ) -> Result<BTreeMap<Slot, Place>, StoreError> {
        let store = self.parts.store.as_ref();
        let found = rows::find::<StoredCommit>(store, project, group, slots).await?;
        let mut places = BTreeMap::new();
        for (slot, found) in found {
            let place = match found.row {
                Some(StoredCommit { offset, failed, .. }) => Place { offset, failed },
                None => {
                    let offset = store.bounds(slot.topic, slot.partition).await?.start;
                    Place { offset, failed: None }
                }
            };
            places.insert(slot, place);
        }
        Ok(places)
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
        let store = self.parts.store.as_ref();
        let found =
            rows::all_of_topic::<StoredCommit>(store, &topic.project, group, topic.id).await?;
        let mut progress = Vec::new();
        for (partition, found) in found {
            let Some(row) = found.row else { continue };
            let Bounds { end, .. } = store.bounds(topic.id, partition).await?;
            progress.push(Progress { partition, offset: row.offset, log_end: end });
        }
        Ok(progress)
    }

    /// Removes what groups have kept about a topic that is deleted.
    ///
    /// # Errors
    ///
    /// The store could not be read or written; what is left is garbage and does no harm.
    pub async fn forget_topic(
        &self,
        project: &ProjectName,
        topic: TopicId,
    ) -> Result<(), GroupError> {
        for prefix in [rows::of_topic::<StoredCommit>(topic), rows::of_topic::<StoredOwner>(topic)]
        {
            self.delete_rows(project, &prefix).await?;
        }
        Ok(())
    }

    /// Deletes all rows whose keys start with `prefix`.
    pub(super) async fn delete_rows(
        &self,
        project: &ProjectName,
        prefix: &str,
    ) -> Result<(), GroupError> {
        loop {
            let scan = self.parts.store.scan(project, prefix.as_bytes(), None, DELETES_MAX);
            let rows = scan.await?;
            if rows.is_empty() {
                return Ok(());
            }
            let mut transaction = Transaction::new(project.clone());
            for row in rows {
                transaction.delete(row.key);
            }
            self.parts.store.commit(transaction).await?;
        }
    }
}
