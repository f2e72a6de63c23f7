//! Joining a group, being heard of, and leaving.

use std::time::Duration;

use stream_storage::{Expected, ProjectName, Timestamp, Transaction};
use tokio::time::Instant;

use super::failure::Failure;
use super::live::{Held, LiveGroup};
use super::membership::Member;
use super::position::Place;
use super::rows::{self, MemberId, StoredMember, StoredOwner};
use super::{GroupError, Groups};
use crate::name::{GroupName, TopicName};
use crate::pattern::Pattern;
use crate::slot::Slot;
use crate::state;

/// Members of one group.
const MEMBERS_MAX: usize = 1_000;

/// Who joins, and for what.
#[derive(Debug, Clone)]
pub struct Join {
    /// Topics and patterns, at least one.
    pub subscriptions: Vec<Pattern>,
    /// How long it may be silent before others get its partitions.
    pub session_timeout: Duration,
    /// What it calls itself: if it comes back as the same within its session, it has its partitions
    /// at once, and nobody else notices.
    pub instance_id: Option<String>,
}

/// A partition that a member owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// The topic.
    pub topic: TopicName,
    /// The partition of it.
    pub slot: Slot,
    /// The number of this ownership: commits have to name it.
    pub generation: u64,
    /// Where to read next.
    pub next_offset: u64,
    /// Whether it is to be given up: no more of it is handed out.
    pub is_revoked: bool,
    /// The record that could not be processed, until the group has moved past it.
    pub failed: Option<Failure>,
    /// Until when nothing of it is handed out, since a record could not be processed.
    pub held_until: Option<Timestamp>,
}

impl Assigned {
    /// The record that has failed before, and which attempt it is to read it now.
    pub fn tried(&self) -> Option<(u64, u32)> {
        let failed = self.failed.as_ref().filter(|failed| failed.offset == self.next_offset)?;
        Some((failed.offset, failed.attempts.saturating_add(1)))
    }
}

/// A member as it is told of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    /// The member.
    pub member: MemberId,
    /// How long it may be silent.
    pub session_timeout: Duration,
    /// What it owns, in the order of topic ids and partitions.
    pub assignment: Vec<Assigned>,
}

/// A partition that a member lets go of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The topic.
    pub topic: TopicName,
    /// The partition of it.
    pub partition: u32,
    /// The number of the ownership.
    pub generation: u64,
}

impl Groups {
    /// Adds a member, or puts it in the place of an earlier life of itself. Durable on return.
    ///
    /// # Errors
    ///
    /// The group is full, or the store refused.
    pub async fn join(
        &self,
        project: &ProjectName,
        group: &GroupName,
        join: Join,
    ) -> Result<MemberView, GroupError> {
        let live = self.live(project, group);
        let mut held = live.settled(&self.parts).await?;
        let before = join.instance_id.as_deref().and_then(|id| held.membership.instance(id));
        let before = before.cloned();
        if before.is_none() && held.membership.members().len() >= MEMBERS_MAX {
            return Err(GroupError::Full { group: group.clone(), max: MEMBERS_MAX });
        }
        let millis = u64::try_from(join.session_timeout.as_millis()).unwrap_or(u64::MAX);
        let stored = StoredMember {
            subscriptions: join.subscriptions.iter().map(ToString::to_string).collect(),
            session_timeout_ms: millis,
            instance_id: join.instance_id,
            joined_at: self.parts.clock.now().0,
        };
        let id = MemberId::random();
        match before {
            None => {
                let mut transaction = Transaction::new(project.clone());
                let key = rows::member(group, &id);
                transaction.expect(key.clone(), Expected::Absent).put(key, state::encode(&stored));
                self.parts.store.commit(transaction).await?;
                held.membership.add(id.clone(), Member::new(stored, Instant::now()));
            }
            Some(before) => {
                self.take_over(&live, &mut held, (before, id.clone()), stored).await?;
            }
        }
        // A group that had no member knows no topics.
        LiveGroup::forget_topics(&mut held);
        live.settle(&self.parts, &mut held).await?;
        self.view(project, group, &held, &id).await
    }

    /// A member is there; it may let go of partitions that it is to give up.
    ///
    /// # Errors
    ///
    /// The member is unknown, or the store could not be read or written.
    pub async fn heartbeat(
        &self,
        project: &ProjectName,
        group: &GroupName,
        member: &MemberId,
        releases: &[Release],
    ) -> Result<MemberView, GroupError> {
        let live = self.live(project, group);
        let mut held = live.settled(&self.parts).await?;
        held.member(group, member)?.session.touch(Instant::now());
        for release in releases {
            let topic = self.parts.catalog.get(project, &release.topic).await?;
            let slot = Slot::new(topic.id, topic.partition(release.partition)?);
            if held.membership.owned(member).any(|(owned, _)| owned == slot) {
                held.membership.release(slot, release.generation);
            }
        }
        live.settle(&self.parts, &mut held).await?;
        self.view(project, group, &held, member).await
    }

    /// Removes a member; others get its partitions at once. Durable on return.
    ///
    /// # Errors
    ///
    /// The member is unknown, or the store refused.
    pub async fn leave(
        &self,
        project: &ProjectName,
        group: &GroupName,
        member: &MemberId,
    ) -> Result<(), GroupError> {
        let live = self.live(project, group);
        let mut held = live.settled(&self.parts).await?;
        held.member(group, member)?;
        let mut transaction = Transaction::new(project.clone());
        transaction.delete(rows::member(group, member));
        self.parts.store.commit(transaction).await?;
        held.membership.remove(member);
        live.settle(&self.parts, &mut held).await
    }

    /// Notes that a member was heard of.
    pub(super) async fn hear(
        &self,
        project: &ProjectName,
        group: &GroupName,
        member: &MemberId,
    ) -> Result<(), GroupError> {
        let held = self.live(project, group);
        let held = held.settled(&self.parts).await?;
        held.member(group, member)?.session.touch(Instant::now());
        Ok(())
    }

    /// Notes commits that are stored: partitions that were waited for may move on.
    pub(super) async fn noted(
        &self,
        project: &ProjectName,
        group: &GroupName,
        committed: Vec<(Slot, u64, u64)>,
    ) {
        let live = self.live(project, group);
        let settled = async {
            let mut held = live.settled(&self.parts).await?;
            for (slot, generation, offset) in committed {
                held.membership.committed(slot, generation, offset);
            }
            live.settle(&self.parts, &mut held).await
        };
        // The commit itself is stored: the next call or the next beat moves what is left.
        if let Err(error) = settled.await {
            tracing::warn!(%error, %group, "a group could not be settled after a commit");
        }
    }

    /// Puts a member in the place of an earlier life of itself, which is fenced.
    async fn take_over(
        &self,
        live: &LiveGroup,
        held: &mut Held,
        (before, id): (MemberId, MemberId),
        stored: StoredMember,
    ) -> Result<(), GroupError> {
        let (project, group) = live.place();
        let mut transaction = Transaction::new(project.clone());
        transaction.delete(rows::member(group, &before));
        transaction.put(rows::member(group, &id), state::encode(&stored));
        let slots = held.membership.owned(&before).map(|(slot, _)| slot);
        let slots: Vec<Slot> = slots.collect();
        let store = self.parts.store.as_ref();
        for (slot, found) in rows::find::<StoredOwner>(store, project, group, slots).await? {
            let generation = found.row.map_or(0, |row| row.generation) + 1;
            let owner = StoredOwner { member: Some(id.clone()), generation };
            let key = rows::key::<StoredOwner>(group, slot);
            transaction.expect(key.clone(), found.expected).put(key, state::encode(&owner));
        }
        self.parts.store.commit(transaction).await?;
        held.membership.replace(&before, &id, Member::new(stored, Instant::now()));
        live.wake();
        Ok(())
    }

    /// What the member is told of itself.
    pub(super) async fn view(
        &self,
        project: &ProjectName,
        group: &GroupName,
        held: &Held,
        member: &MemberId,
    ) -> Result<MemberView, GroupError> {
        let session_timeout = held.member(group, member)?.timeout();
        let slots = held.membership.owned(member).map(|(slot, _)| slot);
        let mut places = self.places(project, group, slots).await?;
        let now = self.parts.clock.now();
        let assigned = held.membership.owned(member).filter_map(|(slot, ownership)| {
            let Place { offset, failed } = places.remove(&slot)?;
            Some(Assigned {
                topic: held.membership.topic(slot.topic)?.name.clone(),
                slot,
                generation: ownership.generation,
                next_offset: offset,
                is_revoked: ownership.revoked.is_some(),
                held_until: failed.as_ref().and_then(|failed| failed.held_until(now)),
                failed,
            })
        });
        let assignment = assigned.collect();
        Ok(MemberView { member: member.clone(), session_timeout, assignment })
    }
}
