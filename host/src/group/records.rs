//! What a member reads: records of all that it owns, from what the group has committed.

use std::collections::BTreeMap;

use stream_storage::{Partition, ProjectName, TopicId};
use tokio::time::Instant;

use super::live::LiveGroup;
use super::member::MemberView;
use super::rows::MemberId;
use super::{GroupError, Groups};
use crate::consume::{Amount, ConsumeError, PartitionRecords};
use crate::name::{GroupName, TopicName};
use crate::slot::Slot;

/// Of what a member wants records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All that it owns.
    All,
    /// What it owns of this topic.
    Topic(TopicId),
    /// This partition, if it owns it.
    Partition(Slot),
}

impl Scope {
    fn holds(self, slot: Slot) -> bool {
        match self {
            Self::All => true,
            Self::Topic(topic) => slot.topic == topic,
            Self::Partition(one) => slot == one,
        }
    }
}

/// Records that were trimmed before the group has read them. It reads on in that partition only
/// after a reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The topic.
    pub topic: TopicName,
    /// The partition of it.
    pub partition: Partition,
    /// What the group has committed.
    pub committed: u64,
    /// The earliest offset that is left.
    pub earliest: u64,
}

impl Lost {
    /// How many records were lost.
    pub fn records(&self) -> u64 {
        self.earliest.saturating_sub(self.committed)
    }
}

/// What a member has read.
#[derive(Debug, Clone)]
pub struct MemberRecords {
    /// The records.
    pub found: Vec<PartitionRecords>,
    /// Partitions whose records were trimmed before the group has read them.
    pub lost: Vec<Lost>,
    /// What it owns.
    pub view: MemberView,
}

/// What a member may read now.
struct Readable {
    starts: BTreeMap<Slot, u64>,
    generations: BTreeMap<Slot, u64>,
    lost: Vec<Lost>,
    view: MemberView,
}

impl Groups {
    /// Records of what a member owns, from what is committed; waits for some if there are none, which
    /// counts as being heard of. Whoever asks has let go of all that it is to give up. Cancel safe.
    ///
    /// # Errors
    ///
    /// The member is unknown, or the store could not be read or written.
    pub async fn records(
        &self,
        project: &ProjectName,
        group: &GroupName,
        member: &MemberId,
        scope: Scope,
        amount: Amount,
    ) -> Result<MemberRecords, GroupError> {
        let deadline = Instant::now() + amount.wait;
        let live = self.live(project, group);
        let mut changed = live.changed();
        loop {
            changed.mark_unchanged();
            let readable = self.readable(&live, member, scope).await?;
            let Readable { starts, generations, lost, view } = readable;
            let topics = starts.keys().map(|slot| slot.topic);
            let mut news = self.parts.reader.watch(topics);
            let found = match self.parts.reader.read_slots(&starts, amount).await {
                Ok(found) => found,
                // Trimmed or deleted a moment ago: what is left is seen at the next look.
                Err(ConsumeError::Trimmed { .. } | ConsumeError::TopicGone) => {
                    LiveGroup::forget_topics(&mut *live.settled(&self.parts).await?);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let found = Self::hand_out(&live, found, &generations, self).await?;
            if !found.is_empty() {
                return Ok(MemberRecords { found, lost, view });
            }
            let session = {
                let held = live.settled(&self.parts).await?;
                held.member(group, member)?.session.clone()
            };
            let _waiting = session.wait();
            tokio::select! {
                biased;
                is_news = self.parts.reader.news(&mut news, deadline) => {
                    if !is_news {
                        return Ok(MemberRecords { found, lost, view });
                    }
                }
                _ = changed.changed() => {}
            }
        }
    }

    async fn readable(
        &self,
        live: &LiveGroup,
        member: &MemberId,
        scope: Scope,
    ) -> Result<Readable, GroupError> {
        let (project, group) = live.place();
        let mut held = live.settled(&self.parts).await?;
        held.member(group, member)?.session.touch(Instant::now());
        held.membership.ask(member);
        live.settle(&self.parts, &mut held).await?;
        let view = self.view(project, group, &held, member).await?;
        drop(held);
        let (mut starts, mut generations) = (BTreeMap::new(), BTreeMap::new());
        let mut lost = Vec::new();
        for assigned in view.assignment.iter().filter(|assigned| scope.holds(assigned.slot)) {
            if assigned.is_revoked {
                continue;
            }
            let slot = assigned.slot;
            let bounds = self.parts.store.bounds(slot.topic, slot.partition).await?;
            if assigned.next_offset < bounds.start {
                lost.push(Lost {
                    topic: assigned.topic.clone(),
                    partition: slot.partition,
                    committed: assigned.next_offset,
                    earliest: bounds.start,
                });
                continue;
            }
            starts.insert(slot, assigned.next_offset);
            generations.insert(slot, assigned.generation);
        }
        Ok(Readable { starts, generations, lost, view })
    }

    /// Notes what the member gets; what it has lost meanwhile it does not get.
    async fn hand_out(
        live: &LiveGroup,
        mut found: Vec<PartitionRecords>,
        generations: &BTreeMap<Slot, u64>,
        groups: &Self,
    ) -> Result<Vec<PartitionRecords>, GroupError> {
        if found.is_empty() {
            return Ok(found);
        }
        let mut held = live.settled(&groups.parts).await?;
        found.retain(|part| {
            let generation = generations.get(&part.slot).copied().unwrap_or_default();
            held.membership.hand_out(part.slot, generation, part.next_offset)
        });
        Ok(found)
    }
}
