//! Setting a group to another place on purpose, and deleting it.

use stream_storage::{Partition, ProjectName, ReadRequest, ReadStart, Timestamp, Transaction};

use super::live::LiveGroup;
use super::rows::{self, Found, StoredCommit, StoredOwner};
use super::{GroupError, Groups};
use crate::consume::ConsumeError;
use crate::name::GroupName;
use crate::slot::Slot;
use crate::state::{self, Attempts};
use crate::topic::Topic;

/// Where a group is to read next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetTo {
    /// At this offset.
    Offset(u64),
    /// At the first record of this time or later.
    Time(Timestamp),
    /// At the earliest record.
    Earliest,
    /// At the log end.
    Latest,
}

/// What is done about live members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// Nothing: the call is refused.
    No,
    /// They are fenced: what they hold of these partitions they cannot commit.
    Yes,
}

impl Groups {
    /// Sets where the group reads next in these partitions of a topic, all in one transaction, and
    /// returns it. Durable on return.
    ///
    /// # Errors
    ///
    /// The group has live members and this is not forced; the offset is trimmed or beyond the log
    /// end; or the store refused.
    pub async fn reset(
        &self,
        topic: &Topic,
        group: &GroupName,
        partitions: &[Partition],
        to: ResetTo,
        force: Force,
    ) -> Result<Vec<(Partition, u64)>, GroupError> {
        let live = self.live(&topic.project, group);
        let mut held = live.settled(&self.parts).await?;
        if force == Force::No {
            held.refuse_members(group)?;
        }
        let (project, store) = (&topic.project, self.parts.store.as_ref());
        let mut places = Vec::with_capacity(partitions.len());
        for partition in partitions {
            places.push((*partition, self.place(topic, *partition, to).await?));
        }
        let slots = || partitions.iter().map(|partition| Slot::new(topic.id, *partition));
        let mut attempts = Attempts::default();
        loop {
            let owners = rows::find::<StoredOwner>(store, project, group, slots()).await?;
            let commits = rows::find::<StoredCommit>(store, project, group, slots()).await?;
            let mut transaction = Transaction::new(project.clone());
            for (partition, offset) in &places {
                let slot = Slot::new(topic.id, *partition);
                if let Some(commit) = commits.get(&slot) {
                    // Also to where it is: then what failed there is read again at once.
                    let committed_at = self.parts.clock.now().0;
                    let row = StoredCommit { offset: *offset, committed_at, failed: None };
                    self.put_row(&mut transaction, group, slot, (&row, commit));
                }
                if let Some(Found { row: Some(owner), expected }) = owners.get(&slot) {
                    // The same owner anew: what it read before it cannot commit.
                    let anew = StoredOwner { generation: owner.generation + 1, ..owner.clone() };
                    let key = rows::key::<StoredOwner>(group, slot);
                    transaction.expect(key.clone(), *expected).put(key, state::encode(&anew));
                }
            }
            match self.parts.store.commit(transaction).await {
                Ok(_) => break,
                Err(error) => attempts.again(error)?,
            }
        }
        for (slot, found) in rows::find::<StoredOwner>(store, project, group, slots()).await? {
            if let Some(owner) = found.row {
                held.membership.set_owner(slot, owner);
            }
        }
        live.settle(&self.parts, &mut held).await?;
        live.wake();
        Ok(places)
    }

    /// Deletes a group: its members, what they own, what it has committed and what is set for it.
    ///
    /// # Errors
    ///
    /// It does not exist, it has live members and this is not forced, or the store refused.
    pub async fn delete(
        &self,
        project: &ProjectName,
        group: &GroupName,
        force: Force,
    ) -> Result<(), GroupError> {
        let live = self.live(project, group);
        let mut held = live.settled(&self.parts).await?;
        if force == Force::No {
            held.refuse_members(group)?;
        }
        if !self.exists(project, group).await? {
            return Err(GroupError::NotFound { group: group.clone() });
        }
        // Members first: who is none cannot commit what is deleted behind it.
        self.delete_rows(project, &rows::members(group)).await?;
        self.forget_settings(project, group).await?;
        for topic in self.topics_of(project, group).await? {
            self.delete_rows(project, &rows::of_group::<StoredOwner>(topic, group)).await?;
            self.delete_rows(project, &rows::of_group::<StoredCommit>(topic, group)).await?;
        }
        LiveGroup::forget(&mut held);
        live.settle(&self.parts, &mut held).await?;
        live.wake();
        Ok(())
    }

    async fn place(
        &self,
        topic: &Topic,
        partition: Partition,
        to: ResetTo,
    ) -> Result<u64, GroupError> {
        let bounds = self.parts.store.bounds(topic.id, partition).await?;
        match to {
            ResetTo::Earliest => Ok(bounds.start),
            ResetTo::Latest => Ok(bounds.end),
            ResetTo::Offset(offset) if offset < bounds.start => {
                let earliest = bounds.start;
                Err(ConsumeError::Trimmed { partition, offset, earliest }.into())
            }
            ResetTo::Offset(offset) if offset > bounds.end => {
                let log_end = bounds.end;
                Err(ConsumeError::BeyondEnd { partition, offset, log_end }.into())
            }
            ResetTo::Offset(offset) => Ok(offset),
            ResetTo::Time(time) => {
                let request = ReadRequest {
                    topic: topic.id,
                    partition,
                    start: ReadStart::Time(time),
                    records_max: 1,
                    bytes_max: 1,
                };
                let found = self.parts.store.read(request).await;
                let found = found.map_err(|_| ConsumeError::TopicGone)?;
                let first = found.segments.first().map(|segment| segment.base_offset());
                Ok(first.unwrap_or(found.next_offset))
            }
        }
    }
}
