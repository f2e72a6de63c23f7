//! How a group stands: its members, its commits, how far it lags, and for every partition with lag
//! why nothing moves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stream_storage::{
    Bounds, Partition, ProjectName, ReadError, ReadRequest, ReadStart, Segment, StoreError,
    Timestamp, TopicId,
};
use tokio::time::Instant;

use super::failure::Failure;
use super::live::Held;
use super::member::MemberView;
use super::membership::Ownership;
use super::rows::{self, MemberId, StoredCommit, StoredOwner};
use super::settings::Settings;
use super::{GroupError, Groups};
use crate::name::{GroupName, TopicName};
use crate::slot::Slot;
use crate::state::{self, Page, PageRequest};

/// A member as a group tells of it.
#[derive(Debug, Clone)]
pub struct DescribedMember {
    /// What it owns, and its session.
    pub view: MemberView,
    /// Topics and patterns.
    pub subscriptions: Vec<String>,
    /// What it calls itself.
    pub instance_id: Option<String>,
    /// When it joined.
    pub joined_at: Timestamp,
    /// How long it has been silent; nothing while it waits for records.
    pub silent_for: Duration,
}

/// How a group stands in a partition.
#[derive(Debug, Clone)]
pub struct PartitionState {
    /// The topic.
    pub topic: TopicName,
    /// The partition of it.
    pub partition: Partition,
    /// What the group has committed; `None` if nothing.
    pub committed: Option<u64>,
    /// When.
    pub committed_at: Option<Timestamp>,
    /// What the log holds.
    pub bounds: Bounds,
    /// The earliest offset that is left for the group to read.
    pub earliest: u64,
    /// Who owns it.
    pub owner: Option<MemberId>,
    /// The number of that ownership.
    pub generation: u64,
    /// How old the first record is that the group has not read.
    pub lag_age: Option<Duration>,
    /// Why the group has not read on; `None` without lag.
    pub stuck: Option<Stuck>,
    /// The record that could not be processed, until the group has moved past it.
    pub failed: Option<Failure>,
    /// Until when nothing is read, since it could not.
    pub held_until: Option<Timestamp>,
}

impl PartitionState {
    /// Where the group reads next.
    pub fn next_offset(&self) -> u64 {
        self.committed.unwrap_or(self.bounds.start)
    }

    /// Records that are still to be read.
    pub fn lag(&self) -> u64 {
        self.bounds.end.saturating_sub(self.next_offset().max(self.earliest))
    }

    /// Records that were trimmed, or lost with leave, before the group has read them.
    pub fn lost(&self) -> u64 {
        self.earliest.saturating_sub(self.next_offset())
    }
}

/// Why a group does not read on in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stuck {
    /// Records were trimmed, or lost with leave, before it has read them: it waits for a reset.
    Lost,
    /// It has no members, and nobody reads without being one.
    NoMembers,
    /// None of its members subscribes to the topic.
    NotSubscribed,
    /// The owner is to give the partition up and has not let go.
    Revoked {
        /// Since when.
        since: Duration,
    },
    /// The owner holds records of it that it has not committed.
    Uncommitted {
        /// The end of what it holds.
        handed_out: u64,
        /// How long the owner has been silent.
        silent_for: Duration,
    },
    /// The owner has not asked for records.
    NotAsked {
        /// For how long.
        silent_for: Duration,
    },
    /// A record could not be processed: the partition is held until it is read again.
    Held {
        /// What has failed.
        failed: Failure,
        /// Until when.
        until: Timestamp,
        /// How often a record may fail.
        attempts_max: u32,
    },
    /// Several records in a row became dead letters: the partition is held until the next is read.
    Pausing {
        /// The last of them.
        failed: Failure,
        /// Until when.
        until: Timestamp,
    },
    /// Records are on their way to the owner.
    Delivering,
}

/// A group.
#[derive(Debug, Clone)]
pub struct Description {
    /// Its members.
    pub members: Vec<DescribedMember>,
    /// What is set for it.
    pub settings: Settings,
    /// All partitions that it has committed in or that a member subscribes to.
    pub partitions: Vec<PartitionState>,
}

impl Groups {
    /// How the group stands.
    ///
    /// # Errors
    ///
    /// It does not exist, or the store could not be read or written.
    pub async fn describe(
        &self,
        project: &ProjectName,
        group: &GroupName,
    ) -> Result<Description, GroupError> {
        if !self.exists(project, group).await? {
            return Err(GroupError::NotFound { group: group.clone() });
        }
        let settings = self.settings(project, group).await?;
        let live = self.live(project, group);
        let held = live.settled(&self.parts).await?;
        let now = Instant::now();
        let mut members = Vec::new();
        for (id, member) in held.membership.members() {
            members.push(DescribedMember {
                view: self.view(project, group, &held, id).await?,
                subscriptions: member.stored.subscriptions.clone(),
                instance_id: member.stored.instance_id.clone(),
                joined_at: Timestamp(member.stored.joined_at),
                silent_for: member.session.silent_for(now),
            });
        }
        let mut partitions = Vec::new();
        let all = PageRequest::default();
        for topic in self.parts.catalog.list(project, &all).await?.items {
            let store = self.parts.store.as_ref();
            let mut commits =
                rows::all_of_topic::<StoredCommit>(store, project, group, topic.id).await?;
            let owned = held.membership.slots().keys().filter(|slot| slot.topic == topic.id);
            let known: BTreeSet<Partition> =
                commits.keys().copied().chain(owned.map(|slot| slot.partition)).collect();
            for partition in known {
                let row = commits.remove(&partition).and_then(|found| found.row);
                let slot = Slot::new(topic.id, partition);
                let mut state = self.partition(&held, &topic.name, slot, row).await?;
                if state.lag() > 0 || state.lost() > 0 {
                    let ownership = held.membership.slots().get(&slot);
                    state.stuck = Some(stuck(&held, ownership, &state, settings.attempts_max));
                }
                partitions.push(state);
            }
        }
        Ok(Description { members, settings, partitions })
    }

    /// The groups of a project, in the order of their names, each with how many members it has.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn list(
        &self,
        project: &ProjectName,
        request: &PageRequest,
    ) -> Result<Page<(GroupName, usize)>, StoreError> {
        let mut names: BTreeMap<String, usize> = BTreeMap::new();
        for topic in self.topics(project).await? {
            let prefix = rows::of_topic::<StoredCommit>(topic);
            for name in self.names_behind(project, &prefix).await? {
                names.entry(name).or_default();
            }
        }
        let all = PageRequest::default();
        let rows = state::page(self.parts.store.as_ref(), project, rows::MEMBER, &all).await?;
        let settings =
            state::page(self.parts.store.as_ref(), project, rows::SETTINGS, &all).await?;
        for row in settings.items {
            names.entry(state::name_in(&row.key, rows::SETTINGS)).or_default();
        }
        for row in rows.items {
            let place = state::name_in(&row.key, rows::MEMBER);
            let group = place.split_once('/').map_or(place.as_str(), |(group, _)| group);
            *names.entry(group.to_owned()).or_default() += 1;
        }
        let after = request.after.as_deref().unwrap_or_default();
        let mut items: Vec<(GroupName, usize)> = names
            .into_iter()
            .filter(|(name, _)| name.as_str() > after)
            .filter_map(|(name, members)| Some((GroupName::parse(&name).ok()?, members)))
            .collect();
        let wanted = request.limit.unwrap_or(usize::MAX);
        let has_more = items.len() > wanted;
        items.truncate(wanted);
        let next = items.last().filter(|_| has_more).map(|(name, _)| name.to_string());
        Ok(Page { items, next })
    }

    /// Whether the group has members, commits or settings.
    pub(super) async fn exists(
        &self,
        project: &ProjectName,
        group: &GroupName,
    ) -> Result<bool, StoreError> {
        let members = rows::members(group);
        let found = self.parts.store.scan(project, members.as_bytes(), None, 1).await?;
        Ok(!found.is_empty()
            || self.has_settings(project, group).await?
            || !self.topics_of(project, group).await?.is_empty())
    }

    /// The topics in which the group has rows.
    pub(super) async fn topics_of(
        &self,
        project: &ProjectName,
        group: &GroupName,
    ) -> Result<Vec<TopicId>, StoreError> {
        let mut topics = Vec::new();
        for topic in self.topics(project).await? {
            let commits = rows::of_group::<StoredCommit>(topic, group);
            let owners = rows::of_group::<StoredOwner>(topic, group);
            for prefix in [commits, owners] {
                let found = self.parts.store.scan(project, prefix.as_bytes(), None, 1).await?;
                if !found.is_empty() {
                    topics.push(topic);
                    break;
                }
            }
        }
        Ok(topics)
    }

    async fn topics(&self, project: &ProjectName) -> Result<Vec<TopicId>, StoreError> {
        let all = PageRequest::default();
        let topics = self.parts.catalog.list(project, &all).await?.items;
        Ok(topics.into_iter().map(|topic| topic.id).collect())
    }

    /// The first parts of what stands behind `prefix`, each once, without reading all.
    async fn names_behind(
        &self,
        project: &ProjectName,
        prefix: &str,
    ) -> Result<Vec<String>, StoreError> {
        let mut names = Vec::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let store = &self.parts.store;
            let found = store.scan(project, prefix.as_bytes(), after.as_deref(), 1).await?;
            let Some(row) = found.first() else { return Ok(names) };
            let place = state::name_in(&row.key, prefix);
            let name = place.split_once('/').map_or(place.as_str(), |(name, _)| name).to_owned();
            // The byte behind `/`: all keys of this name lie before it, all others behind.
            after = Some(format!("{prefix}{name}0").into_bytes());
            names.push(name);
        }
    }

    async fn partition(
        &self,
        held: &Held,
        topic: &TopicName,
        slot: Slot,
        row: Option<StoredCommit>,
    ) -> Result<PartitionState, GroupError> {
        let bounds = self.parts.store.bounds(slot.topic, slot.partition).await?;
        let ownership = held.membership.slots().get(&slot);
        let failed = row.as_ref().and_then(|row| row.failed.clone());
        let now = self.parts.clock.now();
        let mut partition = PartitionState {
            topic: topic.clone(),
            partition: slot.partition,
            committed: row.as_ref().map(|row| row.offset),
            committed_at: row.as_ref().map(|row| Timestamp(row.committed_at)),
            bounds,
            earliest: bounds.start,
            owner: ownership.and_then(|ownership| ownership.owner.clone()),
            generation: ownership.map_or(0, |ownership| ownership.generation),
            lag_age: None,
            stuck: None,
            held_until: failed.as_ref().and_then(|failed| failed.held_until(now)),
            failed,
        };
        if partition.lag() > 0 || partition.lost() > 0 {
            let next = partition.next_offset().max(bounds.start);
            let mut first = self.first(slot, next).await;
            // It stands in a gap, of which the bounds know nothing.
            if let Err(ReadError::Trimmed { earliest }) = first {
                partition.earliest = earliest;
                first = self.first(slot, earliest).await;
            }
            let age = |written: Timestamp| Duration::from_millis(now.0.saturating_sub(written.0));
            // It may be gone meanwhile.
            partition.lag_age = first.ok().flatten().map(age);
        }
        Ok(partition)
    }

    /// When the record at an offset was written, if there is one.
    async fn first(&self, slot: Slot, offset: u64) -> Result<Option<Timestamp>, ReadError> {
        let request = ReadRequest {
            topic: slot.topic,
            partition: slot.partition,
            start: ReadStart::Offset(offset),
            records_max: 1,
            bytes_max: 1,
        };
        let found = self.parts.store.read(request).await?;
        Ok(found.segments.first().map(Segment::timestamp))
    }
}

fn stuck(
    held: &Held,
    ownership: Option<&Ownership>,
    partition: &PartitionState,
    attempts_max: u32,
) -> Stuck {
    let now = Instant::now();
    if partition.lost() > 0 {
        return Stuck::Lost;
    }
    if held.membership.members().is_empty() {
        return Stuck::NoMembers;
    }
    let owner = partition.owner.as_ref().and_then(|id| held.membership.members().get(id));
    let (Some(ownership), Some(owner)) = (ownership, owner) else { return Stuck::NotSubscribed };
    if let (Some(failed), Some(until)) = (&partition.failed, partition.held_until) {
        let failed = failed.clone();
        if failed.offset < partition.next_offset() {
            return Stuck::Pausing { failed, until };
        }
        return Stuck::Held { failed, until, attempts_max };
    }
    let silent_for = owner.session.silent_for(now);
    match (ownership.revoked, ownership.handed_out) {
        (Some(since), _) => Stuck::Revoked { since: now - since.min(now) },
        (None, Some(handed_out)) => Stuck::Uncommitted { handed_out, silent_for },
        (None, None) if owner.session.is_waiting() => Stuck::Delivering,
        (None, None) => Stuck::NotAsked { silent_for },
    }
}
