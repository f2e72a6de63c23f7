//! Commits of offsets: by members, each partition fenced by its generation, and by groups without
//! members.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::value::RawValue;
use stream_storage::{Partition, ProjectName, Store, StoreError, Transaction};

use super::rows::{self, Found, MemberId, StoredCommit, StoredOwner};
use super::{Current, GroupError, Groups};
use crate::name::{GroupName, TopicName};
use crate::publish::{Alongside, AlongsideError};
use crate::slot::Slot;
use crate::state::{self, Attempts};
use crate::topic::Topic;

/// A commit to make without a member.
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

/// Where a member wants the group to read next in a partition that it owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionCommit {
    /// The topic.
    pub topic: TopicName,
    /// The partition of it.
    pub partition: u32,
    /// The number of the ownership under which it was read.
    pub generation: u64,
    /// The offset to read next.
    pub next_offset: u64,
}

/// What a member commits, all or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberCommit {
    /// The group.
    pub group: GroupName,
    /// The member.
    pub member: MemberId,
    /// The partitions, each once.
    pub partitions: Vec<PartitionCommit>,
}

impl Groups {
    /// Commits where the group reads next in a partition, without a member. Durable on return.
    ///
    /// # Errors
    ///
    /// The group has live members; the offset lies beyond the log end, or before the present commit
    /// and `reset` is not allowed; or the store refused.
    pub async fn commit(
        &self,
        topic: &Topic,
        group: &GroupName,
        commit: OffsetCommit,
    ) -> Result<(), GroupError> {
        let OffsetCommit { partition, offset, reset } = commit;
        let live = self.live(&topic.project, group);
        let held = live.settled(&self.parts).await?;
        held.refuse_members(group)?;
        let slot = Slot::new(topic.id, partition);
        let mut attempts = Attempts::default();
        loop {
            let (owner, present) = self.rows_of(&topic.project, group, slot).await?;
            let committed = present.row.as_ref().map(|row| row.offset);
            self.check_offset(slot, offset, committed.filter(|_| reset == Reset::Refused)).await?;
            let mut transaction = Transaction::new(topic.project.clone());
            transaction.expect(rows::key::<StoredOwner>(group, slot), owner.expected);
            self.put(&mut transaction, group, slot, (offset, &present));
            match self.parts.store.commit(transaction).await {
                Ok(_) => return Ok(()),
                Err(error) => attempts.again(error)?,
            }
        }
    }

    /// Commits what a member has read, all or nothing. Durable on return.
    ///
    /// # Errors
    ///
    /// The member is unknown, does not own one of the partitions or owned it in an earlier
    /// generation; an offset lies beyond the log end or before the present commit; a topic or
    /// partition does not exist; or the store refused.
    pub async fn commit_member(
        &self,
        project: &ProjectName,
        commit: MemberCommit,
    ) -> Result<(), GroupError> {
        let offsets = self.prepare(project, commit).await?;
        let mut attempts = Attempts::default();
        loop {
            let mut transaction = Transaction::new(project.clone());
            offsets.add_to(&mut transaction).await?;
            match self.parts.store.commit(transaction).await {
                Ok(_) => {
                    offsets.done().await;
                    return Ok(());
                }
                Err(error) => attempts.again(error)?,
            }
        }
    }

    /// Checks what does not depend on the moment of the commit.
    ///
    /// # Errors
    ///
    /// The member is unknown, a topic or partition does not exist, or one is given twice.
    pub async fn prepare<'a>(
        &'a self,
        project: &'a ProjectName,
        commit: MemberCommit,
    ) -> Result<MemberOffsets<'a>, GroupError> {
        let MemberCommit { group, member, partitions } = commit;
        let mut slots = BTreeMap::new();
        for commit in partitions {
            let topic = self.parts.catalog.get(project, &commit.topic).await?;
            let slot = Slot::new(topic.id, topic.partition(commit.partition)?);
            let (name, partition) = (commit.topic.clone(), commit.partition);
            if slots.insert(slot, (topic, commit)).is_some() {
                return Err(GroupError::GivenTwice { topic: name, partition });
            }
        }
        Ok(MemberOffsets { groups: self, project, group, member, slots })
    }

    pub(super) async fn rows_of(
        &self,
        project: &ProjectName,
        group: &GroupName,
        slot: Slot,
    ) -> Result<(Found<StoredOwner>, Found<StoredCommit>), StoreError> {
        let store = self.parts.store.as_ref();
        let mut owners = rows::find(store, project, group, [slot]).await?;
        let mut commits = rows::find(store, project, group, [slot]).await?;
        match (owners.remove(&slot), commits.remove(&slot)) {
            (Some(owner), Some(commit)) => Ok((owner, commit)),
            _ => Err(StoreError::Corrupt { reason: "a row was not looked up".to_owned() }),
        }
    }

    async fn check_offset(
        &self,
        slot: Slot,
        offset: u64,
        committed: Option<u64>,
    ) -> Result<(), GroupError> {
        let log_end = self.parts.store.bounds(slot.topic, slot.partition).await?.end;
        if offset > log_end {
            return Err(GroupError::BeyondEnd { offset, log_end });
        }
        match committed.filter(|committed| offset < *committed) {
            Some(committed) => Err(GroupError::Backwards { offset, committed }),
            None => Ok(()),
        }
    }

    /// Adds the write of a commit.
    pub(super) fn put(
        &self,
        transaction: &mut Transaction,
        group: &GroupName,
        slot: Slot,
        (offset, present): (u64, &Found<StoredCommit>),
    ) {
        // What failed is forgotten once the group reads on elsewhere; a repeat changes nothing.
        let failed = present.row.as_ref().filter(|row| row.offset == offset);
        let failed = failed.and_then(|row| row.failed.clone());
        let stored = StoredCommit { offset, committed_at: self.parts.clock.now().0, failed };
        self.put_row(transaction, group, slot, (&stored, present));
    }

    /// Adds the write of a row, if it is still as it was read.
    pub(super) fn put_row(
        &self,
        transaction: &mut Transaction,
        group: &GroupName,
        slot: Slot,
        (stored, present): (&StoredCommit, &Found<StoredCommit>),
    ) {
        let key = rows::key::<StoredCommit>(group, slot);
        transaction.expect(key.clone(), present.expected).put(key, state::encode(stored));
    }
}

/// A member's offsets on their way into a transaction.
pub struct MemberOffsets<'a> {
    groups: &'a Groups,
    project: &'a ProjectName,
    group: GroupName,
    member: MemberId,
    slots: BTreeMap<Slot, (Arc<Topic>, PartitionCommit)>,
}

#[async_trait]
impl Alongside for MemberOffsets<'_> {
    async fn add(
        &self,
        transaction: &mut Transaction,
    ) -> Result<Option<Box<RawValue>>, AlongsideError> {
        self.add_to(transaction).await?;
        Ok(None)
    }

    /// The offsets are stored: what waits for them goes on.
    async fn done(&self) {
        let committed = self
            .slots
            .iter()
            .map(|(slot, (_, commit))| (*slot, commit.generation, commit.next_offset))
            .collect();
        self.groups.noted(self.project, &self.group, committed).await;
    }

    /// Whoever stored them first may not have come to say so.
    async fn repeated(&self) {
        self.done().await;
    }
}

impl MemberOffsets<'_> {
    async fn add_to(&self, transaction: &mut Transaction) -> Result<(), GroupError> {
        let store: &dyn Store = self.groups.parts.store.as_ref();
        self.groups.hear(self.project, &self.group, &self.member).await?;
        let slots = || self.slots.keys().copied();
        let owners = rows::find::<StoredOwner>(store, self.project, &self.group, slots()).await?;
        let commits = rows::find::<StoredCommit>(store, self.project, &self.group, slots()).await?;
        self.check_owner(&owners, &commits)?;
        for (slot, (_, commit)) in &self.slots {
            let (Some(owner), Some(present)) = (owners.get(slot), commits.get(slot)) else {
                continue;
            };
            let offset = commit.next_offset;
            let committed = present.row.as_ref().map(|row| row.offset);
            self.groups.check_offset(*slot, offset, committed).await?;
            // What was made of these records is stored already: this is a repeat.
            if let Some(committed) = committed.filter(|committed| offset == *committed)
                && !transaction.appends.is_empty()
            {
                return Err(GroupError::Backwards { offset, committed });
            }
            transaction.expect(rows::key::<StoredOwner>(&self.group, *slot), owner.expected);
            self.groups.put(transaction, &self.group, *slot, (commit.next_offset, present));
        }
        Ok(())
    }

    /// Refuses all if one is not the member's in the generation that it names.
    fn check_owner(
        &self,
        owners: &BTreeMap<Slot, Found<StoredOwner>>,
        commits: &BTreeMap<Slot, Found<StoredCommit>>,
    ) -> Result<(), GroupError> {
        let (mut stale, mut foreign) = (Vec::new(), Vec::new());
        for (slot, (topic, commit)) in &self.slots {
            let claim = Claim {
                member: &self.member,
                topic: &topic.name,
                slot: *slot,
                generation: commit.generation,
            };
            let owner = owners.get(slot).and_then(|found| found.row.as_ref());
            match claim.check(owner, commits.get(slot).and_then(|found| found.row.as_ref())) {
                Ok(()) => {}
                Err(Refuted::Stale(current)) => stale.push(current),
                Err(Refuted::Foreign(current)) => foreign.push(current),
            }
        }
        if !foreign.is_empty() {
            foreign.extend(stale);
            return Err(GroupError::NotOwned { current: foreign });
        }
        if stale.is_empty() { Ok(()) } else { Err(GroupError::StaleGeneration { current: stale }) }
    }
}

/// That a partition is a member's, in the generation that it names.
pub(super) struct Claim<'a> {
    pub(super) member: &'a MemberId,
    pub(super) topic: &'a TopicName,
    pub(super) slot: Slot,
    pub(super) generation: u64,
}

/// What is wrong with a claim, and how it is.
pub(super) enum Refuted {
    /// The member owned it, and owns it no more or anew.
    Stale(Current),
    /// It is not the member's.
    Foreign(Current),
}

impl Claim<'_> {
    /// Whether the stored owner is as claimed.
    pub(super) fn check(
        &self,
        owner: Option<&StoredOwner>,
        commit: Option<&StoredCommit>,
    ) -> Result<(), Refuted> {
        let generation = owner.map_or(0, |row| row.generation);
        let is_owned = owner.is_some_and(|row| row.member.as_ref() == Some(self.member));
        if is_owned && generation == self.generation {
            return Ok(());
        }
        let current = Current {
            topic: self.topic.clone(),
            partition: self.slot.partition.0,
            generation,
            is_owned,
            next_offset: commit.map(|row| row.offset),
        };
        // A generation that has been is that of a former owner, most likely this one.
        let was = self.generation < generation && self.generation > 0;
        Err(if is_owned || was { Refuted::Stale(current) } else { Refuted::Foreign(current) })
    }
}

impl From<Refuted> for GroupError {
    fn from(refuted: Refuted) -> Self {
        match refuted {
            Refuted::Stale(current) => Self::StaleGeneration { current: vec![current] },
            Refuted::Foreign(current) => Self::NotOwned { current: vec![current] },
        }
    }
}
