//! The members of a group and what they own: a state machine without a clock, a store or a network.
//!
//! It says which changes are due ([`Membership::due`]); whoever drives it stores them and then tells
//! it ([`Membership::apply`]). So what is in memory never runs ahead of what is stored.
//!
//! A partition changes its owner in one of three ways: nobody owns it; its owner is gone; or its
//! owner is to give it up and has let go, which it has once all that was handed out to it is
//! committed, when it says so, when it asks for more, or when its time is up. Meanwhile it may commit
//! as before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use stream_storage::{Partition, TopicId};
use tokio::time::Instant;

use super::assign::assign;
use super::rows::{MemberId, StoredMember, StoredOwner};
use super::session::Session;
use crate::name::TopicName;
use crate::pattern::Pattern;
use crate::slot::Slot;

/// A member, its session and what it takes.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) stored: StoredMember,
    patterns: Vec<Pattern>,
    topics: BTreeSet<TopicId>,
    pub(super) session: Arc<Session>,
}

impl Member {
    pub(super) fn new(stored: StoredMember, now: Instant) -> Self {
        // They were checked when the member joined.
        let patterns = stored.subscriptions.iter().filter_map(|text| Pattern::parse(text).ok());
        let patterns = patterns.collect();
        Self { stored, patterns, topics: BTreeSet::new(), session: Session::begin(now) }
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.stored.session_timeout_ms)
    }

    fn takes(&self, topic: &TopicName) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(topic))
    }

    fn is_silent(&self, now: Instant) -> bool {
        self.session.ends(self.timeout()).is_some_and(|ends| ends <= now)
    }
}

/// Who owns a partition, and what is in the way of a change.
#[derive(Debug, Clone, Default)]
pub(super) struct Ownership {
    pub(super) owner: Option<MemberId>,
    pub(super) generation: u64,
    /// The end of what was handed out to the owner and is not committed.
    pub(super) handed_out: Option<u64>,
    /// Since when it is to be given up.
    pub(super) revoked: Option<Instant>,
    /// The owner has said that it lets go.
    released: bool,
}

/// A change that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// The member was silent for too long.
    Expire(MemberId),
    /// The partition gets another owner, or none.
    Move {
        slot: Slot,
        /// As it is now.
        from: StoredOwner,
        /// As it is to be.
        to: StoredOwner,
    },
}

/// A topic that there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) id: TopicId,
    pub(super) name: TopicName,
    pub(super) partitions: u32,
}

/// The members of a group, the topics that any of them takes, and who owns which partition.
#[derive(Debug, Clone, Default)]
pub(super) struct Membership {
    members: BTreeMap<MemberId, Member>,
    /// All that are known, by their ids.
    topics: BTreeMap<TopicId, Known>,
    slots: BTreeMap<Slot, Ownership>,
}

impl Membership {
    pub(super) fn members(&self) -> &BTreeMap<MemberId, Member> {
        &self.members
    }

    pub(super) fn slots(&self) -> &BTreeMap<Slot, Ownership> {
        &self.slots
    }

    pub(super) fn topic(&self, id: TopicId) -> Option<&Known> {
        self.topics.get(&id)
    }

    /// The member with this name for itself.
    pub(super) fn instance(&self, instance: &str) -> Option<&MemberId> {
        let same = |member: &Member| member.stored.instance_id.as_deref() == Some(instance);
        self.members.iter().find(|(_, member)| same(member)).map(|(id, _)| id)
    }

    /// What the member owns.
    pub(super) fn owned<'a>(
        &'a self,
        member: &'a MemberId,
    ) -> impl Iterator<Item = (Slot, &'a Ownership)> {
        let is_owner = |(_, held): &(&Slot, &Ownership)| held.owner.as_ref() == Some(member);
        self.slots.iter().filter(is_owner).map(|(slot, held)| (*slot, held))
    }

    /// A member is stored now.
    pub(super) fn add(&mut self, id: MemberId, member: Member) {
        self.members.insert(id, member);
        self.resolve();
    }

    /// A member takes the place of an earlier life of itself; what that owned was stored as the new
    /// one's.
    pub(super) fn replace(&mut self, old: &MemberId, id: &MemberId, member: Member) {
        self.members.remove(old);
        for held in self.slots.values_mut().filter(|held| held.owner.as_ref() == Some(old)) {
            let generation = held.generation + 1;
            *held = Ownership { owner: Some(id.clone()), generation, ..Ownership::default() };
        }
        self.add(id.clone(), member);
    }

    /// A member is no longer stored. What it owned is moved by the next changes.
    pub(super) fn remove(&mut self, id: &MemberId) {
        self.members.remove(id);
        self.resolve();
    }

    /// The topics that there are.
    pub(super) fn set_topics(&mut self, topics: impl IntoIterator<Item = Known>) {
        self.topics = topics.into_iter().map(|topic| (topic.id, topic)).collect();
        self.slots.retain(|slot, _| self.topics.contains_key(&slot.topic));
        self.resolve();
    }

    /// A partition's stored owner, read when the group is loaded.
    pub(super) fn set_owner(&mut self, slot: Slot, stored: StoredOwner) {
        let StoredOwner { member, generation } = stored;
        let ownership = Ownership { owner: member, generation, ..Ownership::default() };
        self.slots.insert(slot, ownership);
    }

    /// Takes over what only memory knows: sessions, and what was handed out to owners that still are.
    pub(super) fn go_on_from(&mut self, before: &Self) {
        for (id, member) in &mut self.members {
            if let Some(known) = before.members.get(id) {
                member.session = Arc::clone(&known.session);
            }
        }
        for (slot, held) in &mut self.slots {
            let same = |known: &&Ownership| {
                known.owner == held.owner && known.generation == held.generation
            };
            if let Some(known) = before.slots.get(slot).filter(same) {
                *held = known.clone();
            }
        }
    }

    /// Which topics the members take, and their partitions.
    fn resolve(&mut self) {
        for member in self.members.values_mut() {
            let taken = self.topics.values().filter(|topic| member.takes(&topic.name));
            member.topics = taken.map(|topic| topic.id).collect();
        }
        for member in self.members.values() {
            for topic in member.topics.iter().filter_map(|id| self.topics.get(id)) {
                for partition in (0..topic.partitions).map(Partition) {
                    self.slots.entry(Slot::new(topic.id, partition)).or_default();
                }
            }
        }
    }

    /// The member was handed the records of a partition up to `end`, if it still owns it as
    /// `generation` and is not to give it up. `false`: it is to get nothing of it.
    pub(super) fn hand_out(&mut self, slot: Slot, generation: u64, end: u64) -> bool {
        match self.slots.get_mut(&slot) {
            Some(held) if held.generation == generation && held.revoked.is_none() => {
                held.handed_out = Some(held.handed_out.map_or(end, |before| before.max(end)));
                true
            }
            _ => false,
        }
    }

    /// The owner of that generation has committed up to `offset`.
    pub(super) fn committed(&mut self, slot: Slot, generation: u64, offset: u64) {
        if let Some(held) = self.slots.get_mut(&slot)
            && held.generation == generation
            && held.handed_out.is_some_and(|end| end <= offset)
        {
            held.handed_out = None;
        }
    }

    /// The owner of that generation lets go of a partition that it is to give up.
    pub(super) fn release(&mut self, slot: Slot, generation: u64) {
        if let Some(held) = self.slots.get_mut(&slot)
            && held.generation == generation
            && held.revoked.is_some()
        {
            held.released = true;
        }
    }

    /// The member asks for more: what it was handed before and has not committed, it will get again.
    pub(super) fn ask(&mut self, member: &MemberId) {
        for held in self.slots.values_mut().filter(|held| held.owner.as_ref() == Some(member)) {
            held.handed_out = None;
        }
    }

    /// What is to change now. Notes which partitions are to be given up.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Change> {
        let silent = |(id, member): (&MemberId, &Member)| member.is_silent(now).then(|| id.clone());
        let expired: BTreeSet<MemberId> = self.members.iter().filter_map(silent).collect();
        let target = self.target(&expired);
        let mut changes: Vec<Change> = expired.iter().cloned().map(Change::Expire).collect();
        for (&slot, held) in &mut self.slots {
            let owner = held
                .owner
                .as_ref()
                .and_then(|id| self.members.get(id).filter(|_| !expired.contains(id)));
            let wanted = target.get(&slot);
            if owner.is_some() && held.owner.as_ref() == wanted {
                (held.revoked, held.released) = (None, false);
                continue;
            }
            if let Some(owner) = owner {
                let since = *held.revoked.get_or_insert(now);
                let is_free = held.handed_out.is_none() || held.released;
                if !is_free && now < since + owner.timeout() {
                    continue;
                }
            }
            if held.owner.as_ref() != wanted {
                let from = StoredOwner { member: held.owner.clone(), generation: held.generation };
                let generation = held.generation + 1;
                let to = StoredOwner { member: wanted.cloned(), generation };
                changes.push(Change::Move { slot, from, to });
            }
        }
        changes
    }

    /// A change was stored.
    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Expire(id) => self.remove(&id),
            Change::Move { slot, to, .. } => self.set_owner(slot, to),
        }
    }

    /// When something may be due although nothing happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let sessions =
            self.members.values().filter_map(|member| member.session.ends(member.timeout()));
        let revoked = self.slots.values().filter_map(|held| {
            let owner = self.members.get(held.owner.as_ref()?)?;
            held.revoked.map(|since| since + owner.timeout())
        });
        sessions.chain(revoked).min()
    }

    /// Who is to own each partition once `expired` are gone.
    fn target(&self, expired: &BTreeSet<MemberId>) -> BTreeMap<Slot, MemberId> {
        let members = self
            .members
            .iter()
            .filter(|(id, _)| !expired.contains(id))
            .map(|(id, member)| (id, &member.topics))
            .collect();
        let owners = self.slots.iter().map(|(slot, held)| (*slot, held.owner.as_ref())).collect();
        assign(&members, &owners)
    }
}

#[cfg(test)]
mod model;
