//! Random lives of a group against what must always hold.
//!
//! The world keeps what the store would keep, and what each member has in hand. The state machine is
//! driven as its driver does: what is due is stored, then applied. A restart keeps what is stored and
//! forgets the rest.

use proptest::prelude::*;

use super::*;

const TIMEOUT: Duration = Duration::from_millis(100);
const PATTERNS: &[&str] = &["**", "a.*", "b.*", "a.0"];
const TOPICS: &[&str] = &["a.0", "a.1", "b.0"];

/// Something happens. Members are meant by a number that counts those who are there, around.
#[derive(Debug, Clone)]
enum Step {
    Join {
        pattern: usize,
    },
    /// A member that calls itself something joins, for the first time or again.
    JoinAs {
        instance: usize,
    },
    Leave(usize),
    /// It is never heard of again, or not until it wakes up.
    Fall(usize),
    /// It goes on with what it remembers.
    Wake(usize),
    /// It reads a record of all that it owns, as it believes.
    Read(usize),
    Commit(usize),
    Release(usize),
    /// It cannot process what it has read: it owns that anew, and has nothing in hand.
    Nack(usize),
    /// So many milliseconds pass; members that are awake are heard of every ten.
    Pass(u64),
    Restart,
    Make(usize),
    Widen(usize),
    Drop(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let any = 0_usize..16;
    prop_oneof![
        3 => (0..PATTERNS.len()).prop_map(|pattern| Step::Join { pattern }),
        2 => (0_usize..3).prop_map(|instance| Step::JoinAs { instance }),
        2 => any.clone().prop_map(Step::Leave),
        2 => any.clone().prop_map(Step::Fall),
        2 => any.clone().prop_map(Step::Wake),
        5 => any.clone().prop_map(Step::Read),
        4 => any.clone().prop_map(Step::Commit),
        1 => any.clone().prop_map(Step::Release),
        2 => any.prop_map(Step::Nack),
        4 => (1_u64..150).prop_map(Step::Pass),
        1 => Just(Step::Restart),
        1 => (0..TOPICS.len()).prop_map(Step::Make),
        1 => (0..TOPICS.len()).prop_map(Step::Widen),
        1 => (0..TOPICS.len()).prop_map(Step::Drop),
    ]
}

/// A member as it sees itself.
#[derive(Debug, Clone, Default)]
struct Life {
    is_asleep: bool,
    /// When the server last heard of it.
    heard: Option<Instant>,
    /// What it has read and not committed, by the generation in which it did.
    in_hand: BTreeMap<Slot, u64>,
}

struct World {
    now: Instant,
    machine: Membership,
    /// What the store keeps.
    members: BTreeMap<MemberId, StoredMember>,
    owners: BTreeMap<Slot, StoredOwner>,
    topics: Vec<Known>,
    lives: BTreeMap<MemberId, Life>,
    /// Everybody who ever owned a partition.
    history: BTreeMap<(Slot, u64), Option<MemberId>>,
    /// Since when an owner is known to be asked to give up.
    revoked: BTreeMap<Slot, (u64, Instant)>,
    /// Partitions that were released, and in which generation.
    released: BTreeSet<(Slot, u64)>,
    count: u64,
    /// Members or topics have changed: then partitions may have to move.
    is_stirred: bool,
    /// When the driver looks after the group though nothing happens.
    deadline: Option<Instant>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            now: Instant::now(),
            machine: Membership::default(),
            members: BTreeMap::new(),
            owners: BTreeMap::new(),
            topics: Vec::new(),
            lives: BTreeMap::new(),
            history: BTreeMap::new(),
            revoked: BTreeMap::new(),
            released: BTreeSet::new(),
            count: 0,
            is_stirred: false,
            deadline: None,
        };
        world.make(0);
        world.make(2);
        world
    }

    fn id(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    fn nth(&self, number: usize) -> Option<MemberId> {
        let number = number.checked_rem(self.lives.len())?;
        self.lives.keys().nth(number).cloned()
    }

    fn make(&mut self, topic: usize) {
        let name = TopicName::parse(TOPICS[topic]).unwrap();
        if self.topics.iter().all(|known| known.name != name) {
            let id = TopicId(self.id());
            self.topics.push(Known { id, name, partitions: 4 });
            self.machine.set_topics(self.topics.clone());
        }
    }

    fn take(&mut self, step: &Step) {
        let changes_nothing = matches!(
            step,
            Step::Fall(_)
                | Step::Wake(_)
                | Step::Read(_)
                | Step::Commit(_)
                | Step::Release(_)
                | Step::Nack(_)
                | Step::Pass(_)
        );
        self.is_stirred = !changes_nothing;
        let before: BTreeSet<Slot> = self.revoked.keys().copied().collect();
        match *step {
            Step::Join { pattern } => self.join(PATTERNS[pattern], None),
            Step::JoinAs { instance } => self.join("**", Some(format!("i{instance}"))),
            Step::Leave(number) => {
                if let Some(id) = self.nth(number) {
                    self.lives.remove(&id);
                    self.members.remove(&id);
                    self.machine.remove(&id);
                }
            }
            Step::Fall(number) => self.live(number, |life| life.is_asleep = true),
            Step::Wake(number) => self.live(number, |life| life.is_asleep = false),
            Step::Read(number) => self.read(number),
            Step::Commit(number) => self.commit(number),
            Step::Release(number) => self.release(number),
            Step::Nack(number) => self.nack(number),
            Step::Pass(millis) => {
                for _ in 0..millis.div_ceil(10) {
                    self.now += Duration::from_millis(10);
                    self.hear();
                    self.look_after();
                }
            }
            Step::Restart => self.restart(),
            Step::Make(topic) => self.make(topic),
            Step::Widen(topic) => {
                if let Some(known) =
                    self.topics.iter_mut().find(|known| known.name.as_str() == TOPICS[topic])
                {
                    known.partitions = (known.partitions + 2).min(8);
                    self.machine.set_topics(self.topics.clone());
                }
            }
            Step::Drop(topic) => {
                self.topics.retain(|known| known.name.as_str() != TOPICS[topic]);
                let ids: BTreeSet<_> = self.topics.iter().map(|known| known.id).collect();
                self.owners.retain(|slot, _| ids.contains(&slot.topic));
                self.machine.set_topics(self.topics.clone());
            }
        }
        self.settle();
        self.check();
        let is_more = self.revoked.keys().any(|slot| !before.contains(slot));
        assert!(self.is_stirred || !is_more, "{before:?} were to move, now {:?}", self.revoked);
    }

    /// As the driver does when nobody calls.
    fn look_after(&mut self) {
        if self.deadline.is_some_and(|at| at <= self.now) {
            self.settle();
        }
    }

    fn live(&mut self, number: usize, change: impl FnOnce(&mut Life)) {
        if let Some(life) = self.nth(number).and_then(|id| self.lives.get_mut(&id)) {
            change(life);
        }
    }

    fn join(&mut self, pattern: &str, instance_id: Option<String>) {
        let id = MemberId::new(&format!("m{:04}", self.id()));
        let timeout = u64::try_from(TIMEOUT.as_millis()).unwrap();
        let stored = StoredMember {
            subscriptions: vec![pattern.to_owned()],
            session_timeout_ms: timeout,
            instance_id: instance_id.clone(),
            joined_at: 0,
        };
        let member = Member::new(stored.clone(), self.now);
        let old = instance_id.and_then(|instance| self.machine.instance(&instance).cloned());
        if let Some(old) = old {
            // With no rebalance: what the earlier life owned is the new one's, and fenced from it.
            let owned: Vec<Slot> = self.machine.owned(&old).map(|(slot, _)| slot).collect();
            self.members.remove(&old);
            self.lives.remove(&old);
            self.machine.replace(&old, &id, member);
            for slot in owned {
                let generation = self.owners[&slot].generation + 1;
                let to = StoredOwner { member: Some(id.clone()), generation };
                self.note(slot, &to);
            }
        } else {
            self.machine.add(id.clone(), member);
        }
        self.members.insert(id.clone(), stored);
        self.lives.insert(id, Life { heard: Some(self.now), ..Life::default() });
    }

    /// Members that are awake are heard of; one that is not there any more learns it.
    fn hear(&mut self) {
        let now = self.now;
        for (id, life) in self.lives.iter_mut().filter(|(_, life)| !life.is_asleep) {
            if let Some(member) = self.machine.members().get(id) {
                member.session.touch(now);
                life.heard = Some(now);
            }
        }
    }

    fn read(&mut self, number: usize) {
        let Some(id) = self.nth(number) else { return };
        // What it had and has not committed it gets again.
        self.machine.ask(&id);
        self.live(number, |life| life.in_hand.clear());
        self.settle();
        let owned: Vec<_> =
            self.machine.owned(&id).map(|(slot, held)| (slot, held.generation)).collect();
        for (slot, generation) in owned {
            if self.machine.hand_out(slot, generation, 1)
                && let Some(life) = self.lives.get_mut(&id)
            {
                life.in_hand.insert(slot, generation);
            }
        }
    }

    /// Commits what it has in hand: taken if and only if it is stored as the owner.
    fn commit(&mut self, number: usize) {
        let Some(id) = self.nth(number) else { return };
        let in_hand = std::mem::take(&mut self.lives.get_mut(&id).unwrap().in_hand);
        for (slot, generation) in in_hand {
            let is_stored = self.owners.get(&slot).is_some_and(|stored| {
                stored.member.as_ref() == Some(&id) && stored.generation == generation
            });
            if is_stored {
                self.machine.committed(slot, generation, 1);
            }
        }
    }

    /// Nacks what it has in hand: taken if and only if it is stored as the owner. Whoever has read
    /// before that hands nothing out after it.
    fn nack(&mut self, number: usize) {
        let Some(id) = self.nth(number) else { return };
        let in_hand = std::mem::take(&mut self.lives.get_mut(&id).unwrap().in_hand);
        for (slot, generation) in in_hand {
            let to = StoredOwner { member: Some(id.clone()), generation: generation + 1 };
            let is_stored = self.owners.get(&slot).is_some_and(|stored| {
                stored.member == to.member && stored.generation == generation
            });
            if is_stored {
                assert!(self.machine.slots()[&slot].has_reached(0), "it is in hand");
                self.note(slot, &to);
                self.machine.set_owner(slot, to);
                assert!(!self.machine.hand_out(slot, generation, 1), "{slot:?} was nacked");
                assert!(!self.machine.slots()[&slot].has_reached(0), "it has nothing in hand");
            }
        }
    }

    fn release(&mut self, number: usize) {
        let Some(id) = self.nth(number) else { return };
        let owned: Vec<_> =
            self.machine.owned(&id).map(|(slot, held)| (slot, held.generation)).collect();
        for (slot, generation) in owned {
            self.machine.release(slot, generation);
            self.released.insert((slot, generation));
            self.lives.get_mut(&id).unwrap().in_hand.remove(&slot);
        }
    }

    fn restart(&mut self) {
        let mut machine = Membership::default();
        machine.set_topics(self.topics.clone());
        for (&slot, stored) in &self.owners {
            machine.restore_owner(slot, stored.clone());
        }
        for (id, stored) in &self.members {
            machine.add(id.clone(), Member::new(stored.clone(), self.now));
            // One fresh session.
            if let Some(life) = self.lives.get_mut(id) {
                life.heard = Some(self.now);
            }
        }
        self.machine = machine;
        // The members know nothing of it: they still hold what they were handed.
        self.revoked.clear();
        self.is_stirred = true;
    }

    /// An ownership is stored: the only one of its generation, and a later one than all before.
    fn note(&mut self, slot: Slot, to: &StoredOwner) {
        let other = self.history.insert((slot, to.generation), to.member.clone());
        assert_eq!(other, None, "two ownerships of {slot:?} in generation {}", to.generation);
        self.owners.insert(slot, to.clone());
    }

    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 100, "it never settles");
            let due = self.machine.due(self.now);
            for (slot, held) in self.machine.slots() {
                let since = held.revoked.map(|_| (held.generation, self.now));
                match (since, self.revoked.get(slot)) {
                    (None, _) => drop(self.revoked.remove(slot)),
                    (Some(since), Some(known)) if known.0 == since.0 => {}
                    (Some(since), _) => drop(self.revoked.insert(*slot, since)),
                }
            }
            if due.is_empty() {
                self.deadline = self.machine.deadline(self.now);
                return;
            }
            for change in due {
                self.store(&change);
                self.machine.apply(change);
            }
        }
    }

    fn store(&mut self, change: &Change) {
        match change {
            Change::Expire(id) => {
                let heard = self.lives[id].heard.unwrap();
                assert!(self.now >= heard + TIMEOUT, "{id} is within its session");
                self.members.remove(id);
                self.lives.remove(id);
                self.is_stirred = true;
            }
            Change::Move { slot, from, to } => {
                let stored = self.owners.get(slot).cloned();
                let stored = stored.unwrap_or(StoredOwner { member: None, generation: 0 });
                assert_eq!(stored, *from, "what is in memory is what is stored");
                assert_eq!(to.generation, from.generation + 1);
                assert_ne!(to.member, from.member, "nothing moves to where it is");
                if let Some(owner) =
                    from.member.as_ref().filter(|id| self.members.contains_key(*id))
                {
                    self.check_free(*slot, owner, from.generation);
                }
                self.note(*slot, to);
            }
        }
    }

    /// An owner that is there loses a partition only after it has let go or was given its time.
    fn check_free(&self, slot: Slot, owner: &MemberId, generation: u64) {
        let in_hand = self.lives[owner].in_hand.get(&slot) == Some(&generation);
        let is_released = self.released.contains(&(slot, generation));
        let had_time = self
            .revoked
            .get(&slot)
            .is_some_and(|(of, since)| *of == generation && self.now >= *since + TIMEOUT);
        assert!(!in_hand || is_released || had_time, "{slot:?} is taken out of {owner}'s hands");
    }

    fn check(&self) {
        for (slot, stored) in &self.owners {
            let held = &self.machine.slots()[slot];
            assert_eq!((&held.owner, held.generation), (&stored.member, stored.generation));
            if let Some(owner) = &stored.member {
                assert!(self.members.contains_key(owner), "{owner} is gone and owns {slot:?}");
            }
        }
    }

    /// Whoever is awake goes on: everything ends up with an owner, evenly.
    fn end(&mut self) {
        self.settle();
        for _ in 0..40 {
            self.now += Duration::from_millis(10);
            self.hear();
            for number in 0..self.lives.len() {
                self.commit(number);
            }
            self.look_after();
            self.check();
        }
        assert!(self.lives.values().all(|life| !life.is_asleep), "the silent are gone");
        let takers = |name: &TopicName| {
            self.machine.members().values().filter(|member| member.takes(name)).count()
        };
        for topic in &self.topics {
            for partition in (0..topic.partitions).map(Partition) {
                let slot = Slot::new(topic.id, partition);
                let owner = self.owners.get(&slot).and_then(|stored| stored.member.as_ref());
                assert_eq!(owner.is_some(), takers(&topic.name) > 0, "{topic:?} {partition}");
                if let Some(owner) = owner {
                    assert!(self.machine.members()[owner].takes(&topic.name));
                }
            }
        }
        for (one, of_one) in self.machine.members() {
            for (other, of_other) in self.machine.members() {
                if of_one.topics == of_other.topics {
                    let count = |id| self.machine.owned(id).count();
                    assert!(count(one).abs_diff(count(other)) <= 1, "{one} and {other}");
                }
            }
        }
    }

    fn partitions(&self) -> usize {
        self.owners.values().filter(|stored| stored.member.is_some()).count()
    }

    /// How many partitions changed their owner since.
    fn moved_since(&self, before: &BTreeMap<Slot, StoredOwner>) -> usize {
        self.owners.iter().filter(|(slot, stored)| before.get(slot) != Some(stored)).count()
    }
}

proptest! {
    #[test]
    fn every_partition_has_one_owner_a_generation_and_an_owner_in_the_end(
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
        }
        world.end();
    }

    #[test]
    fn a_join_and_a_leave_move_no_more_than_they_must(count in 1_usize..12, leaver in 0_usize..12) {
        let mut world = World::new();
        for _ in 0..count {
            world.join("**", None);
        }
        world.end();
        let before = world.owners.clone();
        world.join("**", None);
        world.end();
        let (partitions, members) = (world.partitions(), count + 1);
        prop_assert_eq!(world.moved_since(&before), partitions / members);
        let before = world.owners.clone();
        let id = world.nth(leaver).unwrap();
        let owned = world.machine.owned(&id).count();
        world.take(&Step::Leave(leaver));
        world.end();
        prop_assert_eq!(world.moved_since(&before), owned);
    }
}
