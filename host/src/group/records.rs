//! What a member reads: records of all that it owns, from what the group has committed.

use std::collections::BTreeMap;
use std::time::Duration;

use stream_storage::{Partition, ProjectName, Timestamp, TopicId};
use tokio::time::Instant;

use super::live::LiveGroup;
use super::member::{Assigned, MemberView};
use super::rows::MemberId;
use super::{GroupError, Groups};
use crate::consume::{Amount, ConsumeError, PartitionRecords, SlotRecords, TrimmedStart};
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

/// How far one member has read on without commits, while it follows what it owns.
#[derive(Debug, Default)]
pub struct Followed {
    /// The generation in which a partition was read, and the offset to read next.
    places: BTreeMap<Slot, (u64, u64)>,
    /// What the member was told.
    told: Option<Standing>,
}

/// What a follower has to hear of: what it owns (partition, generation, whether it is to be given up),
/// and how many partitions it cannot read on in.
type Standing = (Vec<(Slot, u64, bool)>, usize);

impl Followed {
    /// Where to read on in what is owned.
    fn start(&self, assigned: &Assigned) -> u64 {
        match self.places.get(&assigned.slot) {
            Some((generation, next)) if *generation == assigned.generation => {
                assigned.next_offset.max(*next)
            }
            _ => assigned.next_offset,
        }
    }

    /// Whether the member has to be told how it stands.
    fn note(&mut self, read: &MemberRecords) -> bool {
        let owned = |slot: &Slot| read.view.assignment.iter().find(|held| held.slot == *slot);
        for part in &read.found {
            if let Some(held) = owned(&part.slot) {
                self.places.insert(part.slot, (held.generation, part.next_offset));
            }
        }
        self.places.retain(|slot, _| owned(slot).is_some());
        let now = Some(standing(&read.view, &read.lost));
        let is_news = self.told != now;
        self.told = now;
        is_news
    }
}

fn standing(view: &MemberView, lost: &[Lost]) -> Standing {
    let of = |held: &Assigned| (held.slot, held.generation, held.is_revoked);
    (view.assignment.iter().map(of).collect(), lost.len())
}

/// Who asks for what.
struct Ask<'a> {
    member: &'a MemberId,
    scope: Scope,
    /// `None` to read from what is committed.
    followed: Option<&'a Followed>,
}

impl Ask<'_> {
    /// Whether a follower has to hear of this though it brings no records.
    fn is_news(&self, view: &MemberView, lost: &[Lost]) -> bool {
        self.followed.is_some_and(|followed| followed.told != Some(standing(view, lost)))
    }
}

/// Records that were trimmed, or lost with leave, before the group has read them. It reads on in
/// that partition only after a reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The topic.
    pub topic: TopicName,
    /// The partition of it.
    pub partition: Partition,
    /// What the group has committed; of a gap, how far a member that follows has read on.
    pub committed: u64,
    /// The earliest offset that is left from there on.
    pub earliest: u64,
}

impl Lost {
    fn of(view: &MemberView, trimmed: &TrimmedStart) -> Option<Self> {
        let held = view.assignment.iter().find(|held| held.slot == trimmed.slot)?;
        Some(Self {
            topic: held.topic.clone(),
            partition: trimmed.slot.partition,
            committed: trimmed.offset,
            earliest: trimmed.earliest,
        })
    }

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
    /// When the first partition that is held may be read.
    held_until: Option<Timestamp>,
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
        let ask = Ask { member, scope, followed: None };
        self.read_as(&self.live(project, group), ask, amount).await
    }

    /// The next records of what a member owns, behind what it has got before, committed or not; waits
    /// for some if there are none, which counts as being heard of. Returns at once, and with `true`,
    /// when something else is owned or lost than before. Nothing is let go of: a partition that is to be given up moves when
    /// all that was read of it is committed, or when it is released. Cancel safe.
    ///
    /// # Errors
    ///
    /// The member is unknown, or the store could not be read or written.
    pub async fn follow(
        &self,
        place: (&ProjectName, &GroupName),
        member: &MemberId,
        followed: &mut Followed,
        amount: Amount,
    ) -> Result<(MemberRecords, bool), GroupError> {
        let ask = Ask { member, scope: Scope::All, followed: Some(followed) };
        let read = self.read_as(&self.live(place.0, place.1), ask, amount).await?;
        let is_news = followed.note(&read);
        Ok((read, is_news))
    }

    async fn read_as(
        &self,
        live: &LiveGroup,
        ask: Ask<'_>,
        amount: Amount,
    ) -> Result<MemberRecords, GroupError> {
        let deadline = Instant::now() + amount.wait;
        let (_, group) = live.place();
        let mut changed = live.changed();
        loop {
            changed.mark_unchanged();
            let readable = self.readable(live, &ask).await?;
            let Readable { starts, generations, mut lost, held_until, view } = readable;
            let topics = starts.keys().map(|slot| slot.topic);
            let mut news = self.parts.reader.watch(topics);
            let read = self.parts.reader.read_slots(&starts, amount).await;
            let SlotRecords { found, trimmed } = match read {
                // Deleted a moment ago: what is left is seen at the next look.
                Err(ConsumeError::TopicGone) => {
                    LiveGroup::forget_topics(&mut *live.settled(&self.parts).await?);
                    continue;
                }
                read => read?,
            };
            // In a gap, of which the bounds know nothing, or trimmed a moment ago.
            lost.extend(trimmed.iter().filter_map(|trimmed| Lost::of(&view, trimmed)));
            let found = Self::hand_out(live, found, &generations, self).await?;
            if !found.is_empty() || ask.is_news(&view, &lost) {
                return Ok(MemberRecords { found, lost, view });
            }
            let session = {
                let held = live.settled(&self.parts).await?;
                held.member(group, ask.member)?.session.clone()
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
                () = self.reached(held_until) => {}
            }
        }
    }

    /// Waits until a time of day is there; without end if there is none. Cancel safe.
    async fn reached(&self, time: Option<Timestamp>) {
        match time {
            Some(time) => {
                let millis = time.0.saturating_sub(self.parts.clock.now().0);
                tokio::time::sleep(Duration::from_millis(millis)).await;
            }
            None => std::future::pending().await,
        }
    }

    async fn readable(&self, live: &LiveGroup, ask: &Ask<'_>) -> Result<Readable, GroupError> {
        let (project, group) = live.place();
        let member = ask.member;
        let mut held = live.settled(&self.parts).await?;
        held.member(group, member)?.session.touch(Instant::now());
        // Who begins to follow reads again from what is committed, as whoever asks does.
        if ask.followed.is_none_or(|followed| followed.told.is_none()) {
            held.membership.ask(member);
        }
        live.settle(&self.parts, &mut held).await?;
        let view = self.view(project, group, &held, member).await?;
        drop(held);
        let (mut starts, mut generations) = (BTreeMap::new(), BTreeMap::new());
        let mut lost = Vec::new();
        let mut held_until: Option<Timestamp> = None;
        for assigned in view.assignment.iter().filter(|assigned| ask.scope.holds(assigned.slot)) {
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
            if let Some(until) = assigned.held_until {
                held_until = Some(held_until.map_or(until, |first| first.min(until)));
                continue;
            }
            let start = ask.followed.map(|followed| followed.start(assigned));
            starts.insert(slot, start.unwrap_or(assigned.next_offset));
            generations.insert(slot, assigned.generation);
        }
        Ok(Readable { starts, generations, lost, held_until, view })
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
