//! Which member is to own which partition: as even as the subscriptions allow, moving as few
//! partitions as that takes. A pure function.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use stream_storage::TopicId;

use super::rows::MemberId;
use crate::slot::Slot;

/// Who is to own each partition, given the topics that each member subscribes to and who owns what
/// now. A partition that no member subscribes to is not in the answer.
///
/// Between members that subscribe to the same topics, the numbers of partitions differ by one at
/// most; where they subscribe to different ones, no partition can go, directly or through others, to
/// a member that has at least two fewer. The same input gives the same answer.
pub(super) fn assign(
    members: &BTreeMap<&MemberId, &BTreeSet<TopicId>>,
    owners: &BTreeMap<Slot, Option<&MemberId>>,
) -> BTreeMap<Slot, MemberId> {
    let mut balance = Balance::new(members);
    let mut free = Vec::new();
    for (&slot, owner) in owners {
        let kept = owner.and_then(|owner| balance.index_of(owner));
        match kept.filter(|index| balance.takes(*index, slot.topic)) {
            Some(index) => balance.give(index, slot),
            None => free.push(slot),
        }
    }
    // Those that few can take first: the others even out what is left.
    free.sort_by_key(|slot| (balance.eligible(slot.topic).len(), *slot));
    for slot in free {
        let least = balance.eligible(slot.topic).iter().copied();
        if let Some(index) = least.min_by_key(|index| balance.load(*index)) {
            balance.give(index, slot);
        }
    }
    while balance.even_out() {}
    balance.finish()
}

/// What each member has, while partitions are moved about.
struct Balance<'a> {
    ids: Vec<&'a MemberId>,
    topics: Vec<&'a BTreeSet<TopicId>>,
    eligible: BTreeMap<TopicId, Vec<usize>>,
    slots: Vec<BTreeSet<Slot>>,
}

impl<'a> Balance<'a> {
    fn new(members: &BTreeMap<&'a MemberId, &'a BTreeSet<TopicId>>) -> Self {
        let mut eligible: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
        for (index, topics) in members.values().enumerate() {
            for topic in topics.iter() {
                eligible.entry(*topic).or_default().push(index);
            }
        }
        Self {
            ids: members.keys().copied().collect(),
            topics: members.values().copied().collect(),
            eligible,
            slots: vec![BTreeSet::new(); members.len()],
        }
    }

    fn index_of(&self, member: &MemberId) -> Option<usize> {
        self.ids.binary_search(&member).ok()
    }

    fn takes(&self, index: usize, topic: TopicId) -> bool {
        self.topics.get(index).is_some_and(|topics| topics.contains(&topic))
    }

    fn eligible(&self, topic: TopicId) -> &[usize] {
        self.eligible.get(&topic).map_or(&[], Vec::as_slice)
    }

    fn load(&self, index: usize) -> usize {
        self.slots.get(index).map_or(0, BTreeSet::len)
    }

    fn give(&mut self, index: usize, slot: Slot) {
        if let Some(slots) = self.slots.get_mut(index) {
            slots.insert(slot);
        }
    }

    /// Moves a partition from a member to one that has at least two fewer, directly or by a chain of
    /// moves. `false` if there is no such move.
    fn even_out(&mut self) -> bool {
        let least = (0..self.ids.len()).map(|index| self.load(index)).min().unwrap_or(0);
        let mut froms: Vec<usize> =
            (0..self.ids.len()).filter(|index| self.load(*index) >= least + 2).collect();
        froms.sort_by_key(|index| (std::cmp::Reverse(self.load(*index)), *index));
        for from in froms {
            if let Some(path) = self.path(from) {
                for (giver, taker, topic) in path {
                    self.pass_on(giver, taker, topic);
                }
                return true;
            }
        }
        false
    }

    /// The shortest chain of moves by which `from` gets rid of a partition in favour of a member
    /// with at least two fewer; of several such members, to one with the fewest.
    fn path(&self, from: usize) -> Option<Vec<(usize, usize, TopicId)>> {
        let mut came_by: BTreeMap<usize, (usize, TopicId)> = BTreeMap::new();
        let mut layer = VecDeque::from([from]);
        while !layer.is_empty() {
            let mut next = VecDeque::new();
            for giver in layer {
                let slots = self.slots.get(giver)?;
                let topics: BTreeSet<TopicId> = slots.iter().map(|slot| slot.topic).collect();
                for topic in topics {
                    for &taker in self.eligible(topic) {
                        if taker != from && !came_by.contains_key(&taker) {
                            came_by.insert(taker, (giver, topic));
                            next.push_back(taker);
                        }
                    }
                }
            }
            let low = |taker: &&usize| self.load(**taker) + 2 <= self.load(from);
            let best = next.iter().filter(low).min_by_key(|taker| (self.load(**taker), **taker));
            if let Some(&taker) = best {
                return Some(chain(from, taker, &came_by));
            }
            layer = next;
        }
        None
    }

    fn pass_on(&mut self, giver: usize, taker: usize, topic: TopicId) {
        let slots = self.slots.get_mut(giver);
        let slot = slots
            .as_ref()
            .and_then(|slots| slots.iter().rev().find(|slot| slot.topic == topic).copied());
        if let (Some(slots), Some(slot)) = (slots, slot) {
            slots.remove(&slot);
            self.give(taker, slot);
        }
    }

    fn finish(self) -> BTreeMap<Slot, MemberId> {
        let owned = self.ids.into_iter().zip(self.slots);
        owned
            .flat_map(|(id, slots)| slots.into_iter().map(move |slot| (slot, id.clone())))
            .collect()
    }
}

fn chain(
    from: usize,
    to: usize,
    came_by: &BTreeMap<usize, (usize, TopicId)>,
) -> Vec<(usize, usize, TopicId)> {
    let mut path = Vec::new();
    let mut taker = to;
    while taker != from {
        let Some(&(giver, topic)) = came_by.get(&taker) else { break };
        path.push((giver, taker, topic));
        taker = giver;
    }
    // The last first: nobody gives what it has just been given.
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use stream_storage::Partition;

    type Owners = BTreeMap<Slot, Option<MemberId>>;

    fn id(number: usize) -> MemberId {
        MemberId::new(&format!("m{number:02}"))
    }

    fn slots(topics: &[u32]) -> Owners {
        let of_topic = |(topic, count): (u64, &u32)| {
            (0..*count).map(move |partition| Slot::new(TopicId(topic), Partition(partition)))
        };
        (1..).zip(topics).flat_map(of_topic).map(|slot| (slot, None)).collect()
    }

    fn run(members: &BTreeMap<MemberId, BTreeSet<TopicId>>, owners: &Owners) -> Owners {
        let members = members.iter().collect();
        let current = owners.iter().map(|(slot, owner)| (*slot, owner.as_ref())).collect();
        let mut assigned = assign(&members, &current);
        owners.keys().map(|slot| (*slot, assigned.remove(slot))).collect()
    }

    fn loads(members: &BTreeMap<MemberId, BTreeSet<TopicId>>, owners: &Owners) -> Vec<usize> {
        let of = |id| owners.values().filter(|owner| owner.as_ref() == Some(id)).count();
        members.keys().map(of).collect()
    }

    /// Members that all subscribe to these topics.
    fn alike(ids: &[usize], topics: &[u32]) -> BTreeMap<MemberId, BTreeSet<TopicId>> {
        let all: BTreeSet<TopicId> = (1..).zip(topics).map(|(id, _)| TopicId(id)).collect();
        ids.iter().map(|number| (id(*number), all.clone())).collect()
    }

    #[test]
    fn a_topic_that_only_one_takes_leaves_the_others_to_the_rest() {
        let owners = slots(&[3, 3]);
        let members = BTreeMap::from([
            (id(1), BTreeSet::from([TopicId(1), TopicId(2)])),
            (id(2), BTreeSet::from([TopicId(2)])),
        ]);
        assert_eq!(loads(&members, &run(&members, &owners)), [3, 3]);
    }

    #[test]
    fn a_chain_of_moves_evens_out_what_no_single_move_can() {
        // 1 takes a; 2 takes a and b; 3 takes b. All of a is with 1, all of b with 2.
        let mut owners = slots(&[4, 2]);
        for (slot, owner) in &mut owners {
            *owner = Some(if slot.topic == TopicId(1) { id(1) } else { id(2) });
        }
        let members = BTreeMap::from([
            (id(1), BTreeSet::from([TopicId(1)])),
            (id(2), BTreeSet::from([TopicId(1), TopicId(2)])),
            (id(3), BTreeSet::from([TopicId(2)])),
        ]);
        assert_eq!(loads(&members, &run(&members, &owners)), [2, 2, 2]);
    }

    #[test]
    fn what_nobody_takes_has_no_owner() {
        let members = BTreeMap::from([(id(1), BTreeSet::from([TopicId(9)]))]);
        assert!(run(&members, &slots(&[2])).values().all(Option::is_none));
    }

    proptest! {
        #[test]
        fn members_alike_share_evenly_and_the_fewest_partitions_move(
            before in proptest::collection::btree_set(0_usize..12, 0..8),
            after in proptest::collection::btree_set(0_usize..12, 1..8),
            topics in proptest::collection::vec(1_u32..9, 1..4),
        ) {
            let before: Vec<usize> = before.into_iter().collect();
            let after: Vec<usize> = after.into_iter().collect();
            let owners = run(&alike(&before, &topics), &slots(&topics));
            let members = alike(&after, &topics);
            let next = run(&members, &owners);
            prop_assert!(next.values().all(Option::is_some));
            let loads = loads(&members, &next);
            let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
            prop_assert!(most - least <= 1, "{:?}", loads);
            let moved = owners.iter().filter(|(slot, owner)| next[slot] != **owner).count();
            prop_assert_eq!(moved, fewest(&owners, &after));
            prop_assert_eq!(&run(&members, &next), &next);
        }

        #[test]
        fn no_single_move_would_make_it_more_even(
            subscriptions in proptest::collection::vec(
                proptest::collection::btree_set(1_u64..5, 0..4), 1..7),
            topics in proptest::collection::vec(1_u32..7, 4..5),
        ) {
            let members: BTreeMap<MemberId, BTreeSet<TopicId>> = subscriptions
                .into_iter()
                .enumerate()
                .map(|(number, topics)| (id(number), topics.into_iter().map(TopicId).collect()))
                .collect();
            let next = run(&members, &slots(&topics));
            let load = |id: &MemberId| next.values().flatten().filter(|owner| *owner == id).count();
            for (slot, owner) in &next {
                let takers = members.iter().filter(|(_, topics)| topics.contains(&slot.topic));
                match owner {
                    None => prop_assert_eq!(takers.count(), 0),
                    Some(owner) => {
                        prop_assert!(members[owner].contains(&slot.topic));
                        for (taker, _) in takers {
                            prop_assert!(load(owner) <= load(taker) + 1);
                        }
                    }
                }
            }
            prop_assert_eq!(&run(&members, &next), &next);
        }
    }

    /// The fewest moves to an even share: whoever stays keeps what it may.
    fn fewest(owners: &Owners, after: &[usize]) -> usize {
        let (floor, larger) = (owners.len() / after.len(), owners.len() % after.len());
        let mut kept: Vec<usize> = after
            .iter()
            .map(|number| owners.values().flatten().filter(|owner| **owner == id(*number)).count())
            .collect();
        kept.sort_unstable_by(|a, b| b.cmp(a));
        let quota = |place| if place < larger { floor + 1 } else { floor };
        let stay: usize =
            kept.iter().enumerate().map(|(place, kept)| (*kept).min(quota(place))).sum();
        owners.len() - stay
    }
}
