//! One group in memory: brought up to date with the store, the topics and the time, and its changes
//! stored.

use std::collections::BTreeMap;
use std::sync::Mutex as StdMutex;

use stream_storage::{CommitError, Expected, ProjectName, StateEntry, Transaction};
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::time::Instant;

use super::membership::{Change, Known, Member, Membership};
use super::rows::{self, Found, MemberId, StoredCommit, StoredMember, StoredOwner};
use super::{GroupError, GroupsParts};
use crate::lock::lock;
use crate::name::GroupName;
use crate::slot::Slot;
use crate::state::{self, Attempts, PageRequest};

/// Changes stored in one transaction: each is two writes at most, far below any engine's limit.
const CHANGES_MAX: usize = 1_000;

/// One group.
pub(super) struct LiveGroup {
    project: ProjectName,
    name: GroupName,
    /// Changes of one group are made one after the other.
    held: Mutex<Held>,
    /// Changes whenever a partition has another owner or is to be given up.
    changed: watch::Sender<u64>,
    /// When to look after the group though nobody asks.
    deadline: StdMutex<Deadline>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Deadline {
    at: Option<Instant>,
    /// The change of topics that was taken into account.
    topics: u64,
    has_members: bool,
}

/// What is known of a group; nothing until it is loaded.
#[derive(Default)]
pub(super) struct Held {
    pub(super) membership: Membership,
    is_loaded: bool,
    topics_seen: u64,
}

impl Held {
    pub(super) fn member(
        &self,
        group: &GroupName,
        member: &MemberId,
    ) -> Result<&Member, GroupError> {
        self.membership.members().get(member).ok_or_else(|| GroupError::UnknownMember {
            group: group.clone(),
            member: member.clone(),
            members: self.ids(),
        })
    }

    pub(super) fn refuse_members(&self, group: &GroupName) -> Result<(), GroupError> {
        if self.membership.members().is_empty() {
            return Ok(());
        }
        Err(GroupError::HasMembers { group: group.clone(), members: self.ids() })
    }

    /// Members, as an error tells them.
    fn ids(&self) -> Vec<MemberId> {
        const TOLD_MAX: usize = 100;
        self.membership.members().keys().take(TOLD_MAX).cloned().collect()
    }
}

impl LiveGroup {
    pub(super) fn new(project: ProjectName, name: GroupName) -> Self {
        Self {
            project,
            name,
            held: Mutex::default(),
            changed: watch::Sender::new(0),
            deadline: StdMutex::default(),
        }
    }

    pub(super) fn name(&self) -> &GroupName {
        &self.name
    }

    /// Whose group it is, and its name.
    pub(super) fn place(&self) -> (&ProjectName, &GroupName) {
        (&self.project, &self.name)
    }

    /// Changes whenever the assignment does.
    pub(super) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(super) fn is_idle(&self) -> bool {
        !lock(&self.deadline).has_members
    }

    /// The group, with all that is due done and stored.
    pub(super) async fn settled(
        &self,
        parts: &GroupsParts,
    ) -> Result<MutexGuard<'_, Held>, GroupError> {
        let mut held = self.held.lock().await;
        self.settle(parts, &mut held).await?;
        Ok(held)
    }

    /// Settles the group if its time has come or the topics have changed.
    pub(super) async fn look_after(&self, parts: &GroupsParts) -> Result<(), GroupError> {
        let Deadline { at, topics, has_members } = *lock(&self.deadline);
        let is_time = at.is_some_and(|at| at <= Instant::now());
        if has_members && (is_time || topics != parts.catalog.changes()) {
            drop(self.settled(parts).await?);
        }
        Ok(())
    }

    /// Forgets what is in memory, so that it is read again.
    pub(super) fn forget(held: &mut Held) {
        *held = Held::default();
    }

    /// Reads the topics again, whatever is known of their changes.
    pub(super) fn forget_topics(held: &mut Held) {
        held.topics_seen = u64::MAX;
    }

    /// Does and stores all that is due.
    pub(super) async fn settle(
        &self,
        parts: &GroupsParts,
        held: &mut Held,
    ) -> Result<(), GroupError> {
        let mut attempts = Attempts::default();
        loop {
            if !held.is_loaded {
                self.load(parts, held).await?;
            }
            // Before the topics are read: a change meanwhile is seen next time.
            let changes = parts.catalog.changes();
            if held.topics_seen != changes && !held.membership.members().is_empty() {
                let topics = self.topics(parts).await?;
                held.membership.set_topics(topics);
                held.topics_seen = changes;
            }
            let due = held.membership.due(Instant::now());
            if due.is_empty() {
                break;
            }
            match self.store(parts, held, due).await {
                Ok(()) => self.wake(),
                // Another host was here: what it has stored is what counts.
                Err(GroupError::Commit(error @ CommitError::Conflict { .. })) => {
                    attempts.again(error)?;
                    self.load(parts, held).await?;
                }
                Err(error) => return Err(error),
            }
        }
        *lock(&self.deadline) = Deadline {
            at: held.membership.deadline(Instant::now()),
            topics: held.topics_seen,
            has_members: !held.membership.members().is_empty(),
        };
        Ok(())
    }

    /// Wakes whoever waits as a member: what it owns may have changed.
    pub(super) fn wake(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    async fn store(
        &self,
        parts: &GroupsParts,
        held: &mut Held,
        due: Vec<Change>,
    ) -> Result<(), GroupError> {
        for changes in due.chunks(CHANGES_MAX) {
            let mut transaction = Transaction::new(self.project.clone());
            let moved = changes.iter().filter_map(|change| match change {
                Change::Move { slot, .. } => Some(*slot),
                Change::Expire(_) => None,
            });
            let (store, name) = (parts.store.as_ref(), &self.name);
            let slots: Vec<Slot> = moved.collect();
            let owners =
                rows::find::<StoredOwner>(store, &self.project, name, slots.clone()).await?;
            let commits = rows::find::<StoredCommit>(store, &self.project, name, slots).await?;
            for change in changes {
                match change {
                    Change::Expire(id) => {
                        tracing::info!(group = %name, member = %id, "a member was silent too long");
                        transaction.delete(rows::member(name, id));
                    }
                    Change::Move { slot, from, to } => {
                        let owner = owners.get(slot);
                        let expected =
                            expected(owner, from, rows::key::<StoredOwner>(name, *slot))?;
                        let key = rows::key::<StoredOwner>(name, *slot);
                        transaction.expect(key.clone(), expected).put(key, state::encode(to));
                        let is_new = commits.get(slot).is_some_and(|found| found.row.is_none());
                        if is_new && to.member.is_some() {
                            self.start(parts, &mut transaction, *slot).await?;
                        }
                    }
                }
            }
            parts.store.commit(transaction).await?;
            for change in changes {
                held.membership.apply(change.clone());
            }
        }
        Ok(())
    }

    /// Notes where the group begins in a partition: what is trimmed before the first commit is then
    /// known to be lost.
    async fn start(
        &self,
        parts: &GroupsParts,
        transaction: &mut Transaction,
        slot: Slot,
    ) -> Result<(), GroupError> {
        let offset = parts.store.bounds(slot.topic, slot.partition).await?.start;
        let stored = StoredCommit { offset, committed_at: parts.clock.now().0, failed: None };
        let key = rows::key::<StoredCommit>(&self.name, slot);
        transaction.expect(key.clone(), Expected::Absent).put(key, state::encode(&stored));
        Ok(())
    }

    async fn topics(&self, parts: &GroupsParts) -> Result<Vec<Known>, GroupError> {
        let all = PageRequest::default();
        let topics = parts.catalog.list(&self.project, &all).await?.items;
        let known = topics.into_iter().map(|topic| Known {
            id: topic.id,
            name: topic.name,
            partitions: topic.config.partitions,
        });
        Ok(known.collect())
    }

    /// Reads the group from the store. Sessions of members that are known already go on.
    async fn load(&self, parts: &GroupsParts, held: &mut Held) -> Result<(), GroupError> {
        let (store, now) = (parts.store.as_ref(), Instant::now());
        let prefix = rows::members(&self.name);
        let all = PageRequest::default();
        let mut members = BTreeMap::new();
        for StateEntry { key, versioned } in
            state::page(store, &self.project, &prefix, &all).await?.items
        {
            let stored: StoredMember = state::decode(&key, &versioned)?;
            let id = MemberId::new(&state::name_in(&key, &prefix));
            members.insert(id, Member::new(stored, now));
        }
        let changes = parts.catalog.changes();
        let mut membership = Membership::default();
        if !members.is_empty() {
            let topics = self.topics(parts).await?;
            let ids: Vec<_> = topics.iter().map(|topic| topic.id).collect();
            membership.set_topics(topics);
            for topic in ids {
                let rows =
                    rows::all_of_topic::<StoredOwner>(store, &self.project, &self.name, topic);
                for (partition, found) in rows.await? {
                    if let Some(row) = found.row {
                        membership.restore_owner(Slot::new(topic, partition), row);
                    }
                }
            }
        }
        for (id, member) in members {
            membership.add(id, member);
        }
        membership.go_on_from(&held.membership);
        *held = Held { membership, is_loaded: true, topics_seen: changes };
        Ok(())
    }
}

/// What to expect of an owner's row that is known as `from`.
fn expected(
    found: Option<&Found<StoredOwner>>,
    from: &StoredOwner,
    key: String,
) -> Result<Expected, GroupError> {
    match found {
        Some(Found { row: Some(row), expected }) if row == from => Ok(*expected),
        Some(Found { row: None, expected }) if from.generation == 0 => Ok(*expected),
        _ => Err(CommitError::Conflict { key: key.into() }.into()),
    }
}
