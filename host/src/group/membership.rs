//! The members of a group and what they own: a state machine without a clock, a store or a network.
//!
//! It says which changes are due ([`Membership::due`]); whoever drives it stores them and then tells
//! it ([`Membership::apply`]). So what is in memory never runs ahead of what is stored.
//!
//! A partition changes its owner in one of three ways: nobody owns it; its owner is gone; or its
//! owner is to give it up and has let go, which it has once all that was handed out to it is
//! committed, when it says so, when it asks for more, or when its time is up. Meanwhile it may commit
//! as before. After a restart nobody knows what was handed out: then it has to ask or say so.

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
    /// It was read from the store: what the owner holds is not known until it asks for records.
    is_unsure: bool,
    /// Records before it may have been handed out to the owner in this generation.
    reached: u64,
}

impl Ownership {
    /// Whether the record may have been handed out to the owner.
    pub(super) fn has_reached(&self, offset: u64) -> bool {
        offset < self.reached
    }
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
    /// Who is to own each partition: settled anew when members or topics change and not before, since
    /// halfway there another way may look as short.
    target: Option<BTreeMap<Slot, MemberId>>,
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
        let topics = topics.into_iter().map(|topic| (topic.id, topic)).collect();
        if self.topics == topics {
            return;
        }
        self.topics = topics;
        self.slots.retain(|slot, _| self.topics.contains_key(&slot.topic));
        self.resolve();
    }

    /// A partition has this owner now, which was handed nothing of it.
    pub(super) fn set_owner(&mut self, slot: Slot, stored: StoredOwner) {
        let StoredOwner { member, generation } = stored;
        let ownership = Ownership { owner: member, generation, ..Ownership::default() };
        self.slots.insert(slot, ownership);
    }

    /// A partition's owner, read when the group is loaded: it may hold records from before.
    pub(super) fn restore_owner(&mut self, slot: Slot, stored: StoredOwner) {
        let StoredOwner { member, generation } = stored;
        let ownership = Ownership {
            owner: member,
            generation,
            is_unsure: true,
            reached: u64::MAX,
            ..Ownership::default()
        };
        self.slots.insert(slot, ownership);
        self.target = None;
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
        self.target = None;
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
                held.reached = held.reached.max(end);
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
            (held.handed_out, held.is_unsure) = (None, false);
        }
    }

    /// What is to change now. Notes which partitions are to be given up.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Change> {
        let silent = |(id, member): (&MemberId, &Member)| member.is_silent(now).then(|| id.clone());
        let expired: BTreeSet<MemberId> = self.members.iter().filter_map(silent).collect();
        let target = self.target.take().filter(|_| expired.is_empty());
        let target = target.unwrap_or_else(|| self.assign(&expired));
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
                let is_free = held.handed_out.is_none() && !held.is_unsure || held.released;
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
        self.target = Some(target).filter(|_| expired.is_empty());
        changes
    }

    /// A change was stored.
    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Expire(id) => self.remove(&id),
            Change::Move { slot, to, .. } => self.set_owner(slot, to),
        }
    }

    /// When something may be due although nothing happens. A member that waits may be cut off at any
    /// moment, which nobody is told: its session then ends no sooner than if that were now.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let sessions = self.members.values().map(|member| {
            let timeout = member.timeout();
            member.session.ends(timeout).unwrap_or(now + timeout)
        });
        let revoked = self.slots.values().filter_map(|held| {
            let owner = self.members.get(held.owner.as_ref()?)?;
            held.revoked.map(|since| since + owner.timeout())
        });
        sessions.chain(revoked).min()
    }

    /// Who is to own each partition once `expired` are gone.
    fn assign(&self, expired: &BTreeSet<MemberId>) -> BTreeMap<Slot, MemberId> {
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
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(1);

    fn member(now: Instant, pattern: &str) -> Member {
        let stored = StoredMember {
            subscriptions: vec![pattern.to_owned()],
            session_timeout_ms: 1_000,
            instance_id: None,
            joined_at: 0,
        };
        Member::new(stored, now)
    }

    /// A group with a topic of two partitions and no member.
    fn membership() -> Membership {
        let mut membership = Membership::default();
        let name = TopicName::parse("t").unwrap();
        membership.set_topics([Known { id: TopicId(1), name, partitions: 2 }]);
        membership
    }

    fn settle(membership: &mut Membership, now: Instant) {
        for change in membership.due(now) {
            membership.apply(change);
        }
    }

    #[test]
    fn an_owner_read_from_the_store_keeps_what_it_may_hold_until_it_asks_or_its_time_is_up() {
        let now = Instant::now();
        let restored = || {
            let mut membership = membership();
            for partition in [0, 1].map(Partition) {
                let owner = StoredOwner { member: Some(MemberId::new("a")), generation: 1 };
                membership.restore_owner(Slot::new(TopicId(1), partition), owner);
            }
            membership.add(MemberId::new("a"), member(now, "t"));
            membership.add(MemberId::new("b"), member(now, "t"));
            settle(&mut membership, now);
            membership
        };
        let owned = |membership: &Membership, id| membership.owned(&MemberId::new(id)).count();
        let mut asks = restored();
        assert_eq!((owned(&asks, "a"), owned(&asks, "b")), (2, 0));
        asks.ask(&MemberId::new("a"));
        settle(&mut asks, now);
        assert_eq!((owned(&asks, "a"), owned(&asks, "b")), (1, 1));
        let mut is_silent_about_it = restored();
        for id in ["a", "b"] {
            is_silent_about_it.members()[&MemberId::new(id)].session.touch(now + TIMEOUT);
        }
        settle(&mut is_silent_about_it, now + TIMEOUT);
        assert_eq!((owned(&is_silent_about_it, "a"), owned(&is_silent_about_it, "b")), (1, 1));
    }

    #[test]
    fn a_member_that_waits_is_looked_after_in_case_its_connection_is_cut() {
        let now = Instant::now();
        let mut membership = membership();
        membership.add(MemberId::new("a"), member(now, "t"));
        settle(&mut membership, now);
        let waiting = membership.members()[&MemberId::new("a")].session.wait();
        let later = now + 5 * TIMEOUT;
        assert_eq!(membership.due(later), []);
        assert_eq!(membership.deadline(later), Some(later + TIMEOUT));
        drop(waiting);
        assert!(!membership.due(later + TIMEOUT).is_empty());
    }

    #[test]
    fn a_move_halfway_done_takes_no_further_partition_from_anyone() {
        let now = Instant::now();
        let [a, b, c] = ["b", "a", "c"].map(MemberId::new);
        let mut membership = Membership::default();
        let topic = |id, name: &str, partitions| {
            let name = TopicName::parse(name).unwrap();
            Known { id: TopicId(id), name, partitions }
        };
        membership.set_topics([topic(1, "x.all", 8), topic(2, "x.two", 7)]);
        let first = Slot::new(TopicId(1), Partition(0));
        for (id, count) in [(1, 8), (2, 7)] {
            for slot in (0..count).map(|number| Slot::new(TopicId(id), Partition(number))) {
                let owner = if id == 2 || slot == first { &a } else { &b };
                membership
                    .set_owner(slot, StoredOwner { member: Some(owner.clone()), generation: 1 });
            }
        }
        membership.add(a.clone(), member(now, "x.*"));
        membership.add(b.clone(), member(now, "x.*"));
        for slot in membership.slots().keys().copied().collect::<Vec<_>>() {
            membership.hand_out(slot, 1, 1);
        }
        // It can get of one topic alone: the first passes on to the second what that gives up.
        membership.add(c.clone(), member(now, "x.all"));
        assert_eq!(membership.due(now), []);
        let revoked = |membership: &Membership| {
            let held = membership.slots().iter().filter(|(_, held)| held.revoked.is_some());
            held.map(|(slot, _)| *slot).collect::<BTreeSet<_>>()
        };
        let before = revoked(&membership);
        membership.ask(&b);
        settle(&mut membership, now);
        assert_eq!(membership.owned(&c).count(), 4);
        assert_eq!(membership.due(now), []);
        let after = revoked(&membership);
        assert!(after.is_subset(&before), "{after:?} of {before:?}");
    }
}

#[cfg(test)]
mod model;
