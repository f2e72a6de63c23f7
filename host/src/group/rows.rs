//! What is stored of a group, each row under a key of its own in the project's state:
//!
//! | key | value | meaning |
//! | --- | --- | --- |
//! | `group/{topic id}/{group}/{partition}` | offset, time, what failed there | the group's commit |
//! | `owner/{topic id}/{group}/{partition}` | member or none, generation | who may commit |
//! | `member/{group}/{member}` | subscriptions, session, instance | who belongs to the group |
//! | `group-settings/{group}` | attempts | what was set for the group |
//!
//! Topic ids are never used again, so what is left behind by a deleted topic is garbage and never
//! read. A commit is conditioned on the owner row of its partition alone: a rebalance of others does
//! not disturb it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use stream_storage::{
    Expected, Partition, ProjectName, StateEntry, Store, StoreError, TopicId, Versioned,
};

use super::failure::Failure;
use crate::name::GroupName;
use crate::slot::Slot;
use crate::state::{self, PageRequest};

/// Up to this many rows of a topic are read one by one; more by a scan over all of the topic's.
const SINGLE_READS_MAX: usize = 8;

/// A member of a group: made up by the server, never used again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct MemberId(Arc<str>);

impl From<String> for MemberId {
    fn from(id: String) -> Self {
        Self(id.into())
    }
}

impl From<MemberId> for String {
    fn from(id: MemberId) -> Self {
        id.as_str().to_owned()
    }
}

impl MemberId {
    /// Takes what a client says: whether there is such a member is another question.
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }

    /// One that nobody has.
    pub(super) fn random() -> Self {
        Self(format!("m_{:016x}", rand::random::<u64>()).into())
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a group has committed in a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredCommit {
    /// The offset to read next.
    pub(super) offset: u64,
    /// Milliseconds since 1970.
    pub(super) committed_at: u64,
    /// The record that could not be processed; gone once the offset moves past it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) failed: Option<Failure>,
}

/// Who owns a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredOwner {
    /// Nobody if `None`.
    pub(super) member: Option<MemberId>,
    /// Grows with every change of the owner: it fences the ones before.
    pub(super) generation: u64,
}

/// A member as it joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredMember {
    /// Topics and patterns.
    pub(super) subscriptions: Vec<String>,
    /// How long it may be silent.
    pub(super) session_timeout_ms: u64,
    /// What it calls itself over restarts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) instance_id: Option<String>,
    /// Milliseconds since 1970.
    pub(super) joined_at: u64,
}

/// A row kind that is kept for each partition.
pub(super) trait PartitionRow: DeserializeOwned {
    /// What its keys start with.
    const PREFIX: &'static str;
}

impl PartitionRow for StoredCommit {
    const PREFIX: &'static str = "group";
}

impl PartitionRow for StoredOwner {
    const PREFIX: &'static str = "owner";
}

/// What the keys of groups' settings start with.
pub(super) const SETTINGS: &str = "group-settings/";

/// What the members' keys start with.
pub(super) const MEMBER: &str = "member/";

/// What the keys of a group's members start with.
pub(super) fn members(group: &GroupName) -> String {
    format!("{MEMBER}{group}/")
}

/// The key of a member.
pub(super) fn member(group: &GroupName, member: &MemberId) -> String {
    format!("{MEMBER}{group}/{member}")
}

/// What the keys of a topic's rows start with, of all groups.
pub(super) fn of_topic<R: PartitionRow>(topic: TopicId) -> String {
    format!("{}/{topic}/", R::PREFIX)
}

/// What the keys of a group's rows of a topic start with.
pub(super) fn of_group<R: PartitionRow>(topic: TopicId, group: &GroupName) -> String {
    format!("{}/{topic}/{group}/", R::PREFIX)
}

/// The key of a partition's row.
pub(super) fn key<R: PartitionRow>(group: &GroupName, slot: Slot) -> String {
    format!("{}{}", of_group::<R>(slot.topic, group), slot.partition)
}

/// A row and what to expect of it in a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found<R> {
    /// The row, if it is there.
    pub(super) row: Option<R>,
    /// That it is still as it was read.
    pub(super) expected: Expected,
}

/// The rows of these partitions, each of which is in the answer.
pub(super) async fn find<R: PartitionRow>(
    store: &dyn Store,
    project: &ProjectName,
    group: &GroupName,
    slots: impl IntoIterator<Item = Slot>,
) -> Result<BTreeMap<Slot, Found<R>>, StoreError> {
    let mut by_topic: BTreeMap<TopicId, Vec<Slot>> = BTreeMap::new();
    for slot in slots {
        by_topic.entry(slot.topic).or_default().push(slot);
    }
    let mut found = BTreeMap::new();
    for (topic, slots) in by_topic {
        if slots.len() <= SINGLE_READS_MAX {
            for slot in slots {
                let key = key::<R>(group, slot);
                let row = store.get(project, key.as_bytes()).await?;
                found.insert(slot, of_row(key.as_bytes(), row.as_ref())?);
            }
            continue;
        }
        let mut rows = all_of_topic::<R>(store, project, group, topic).await?;
        for slot in slots {
            let absent = Found { row: None, expected: Expected::Absent };
            found.insert(slot, rows.remove(&slot.partition).unwrap_or(absent));
        }
    }
    Ok(found)
}

/// The group's rows of a topic.
pub(super) async fn all_of_topic<R: PartitionRow>(
    store: &dyn Store,
    project: &ProjectName,
    group: &GroupName,
    topic: TopicId,
) -> Result<BTreeMap<Partition, Found<R>>, StoreError> {
    let prefix = of_group::<R>(topic, group);
    let all = PageRequest::default();
    let mut rows = BTreeMap::new();
    for StateEntry { key, versioned } in state::page(store, project, &prefix, &all).await?.items {
        if let Ok(partition) = state::name_in(&key, &prefix).parse() {
            rows.insert(Partition(partition), of_row(&key, Some(&versioned))?);
        }
    }
    Ok(rows)
}

fn of_row<R: PartitionRow>(key: &[u8], row: Option<&Versioned>) -> Result<Found<R>, StoreError> {
    match row {
        Some(row) => Ok(Found {
            row: Some(state::decode(key, row)?),
            expected: Expected::Version(row.version),
        }),
        None => Ok(Found { row: None, expected: Expected::Absent }),
    }
}
