//! Why a group did not do what it was asked.

use stream_storage::{CommitError, StoreError};

use super::rows::MemberId;
use crate::catalog::CatalogError;
use crate::consume::ConsumeError;
use crate::name::{GroupName, TopicName};
use crate::publish::DeadLetterError;
use crate::topic::NoSuchPartition;

/// What is true of a partition that a member was wrong about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    /// The topic.
    pub topic: TopicName,
    /// The partition of it.
    pub partition: u32,
    /// The number of its present ownership.
    pub generation: u64,
    /// Whether the member that asked owns it.
    pub is_owned: bool,
    /// Where the group reads next; `None` if it has committed nothing.
    pub next_offset: Option<u64>,
}

/// Why a group did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// Nothing lies there yet.
    #[error("invalid offset `{offset}`: expected at most the log end `{log_end}`")]
    BeyondEnd {
        /// The offset.
        offset: u64,
        /// The log end.
        log_end: u64,
    },
    /// The group has come further.
    #[error(
        "offset `{offset}` is not beyond the committed `{committed}`; set `reset` to go back on purpose"
    )]
    Backwards {
        /// The offset.
        offset: u64,
        /// The group's present commit.
        committed: u64,
    },
    /// A record before the group's commit cannot fail any more.
    #[error("offset `{offset}` lies before the committed `{committed}`")]
    Overtaken {
        /// The record.
        offset: u64,
        /// The group's present commit.
        committed: u64,
    },
    /// Records that a member was not handed in this generation it cannot have failed on.
    #[error("invalid offset `{offset}`: the member was not handed that record in this generation")]
    NotHandedOut {
        /// The offset.
        offset: u64,
    },
    /// It left, was silent for too long, or was replaced by a later life of itself.
    #[error("group `{group}` has no member `{member}`; join again")]
    UnknownMember {
        /// The group.
        group: GroupName,
        /// The member.
        member: MemberId,
        /// Who there is.
        members: Vec<MemberId>,
    },
    /// The member owned the partitions, and owns them no more or anew. Nothing was committed.
    #[error("the generation of {} is stale; nothing was committed", places(current))]
    StaleGeneration {
        /// How it is now.
        current: Vec<Current>,
    },
    /// The member does not own the partitions. Nothing was committed.
    #[error("the member does not own {}; nothing was committed", places(current))]
    NotOwned {
        /// How it is now.
        current: Vec<Current>,
    },
    /// The same partition is named more than once.
    #[error("partition {partition} of topic `{topic}` is given twice")]
    GivenTwice {
        /// The topic.
        topic: TopicName,
        /// The partition.
        partition: u32,
    },
    /// Members of the group are live: what they own is theirs to commit.
    #[error("group `{group}` has {} live members", members.len())]
    HasMembers {
        /// The group.
        group: GroupName,
        /// Who they are.
        members: Vec<MemberId>,
    },
    /// The group has as many members as it may.
    #[error("group `{group}` has {max} members, which is the limit")]
    Full {
        /// The group.
        group: GroupName,
        /// The limit.
        max: usize,
    },
    /// It has neither members nor commits.
    #[error("group `{group}` does not exist")]
    NotFound {
        /// The group.
        group: GroupName,
    },
    /// A topic that is named cannot be found.
    #[error(transparent)]
    Topic(#[from] CatalogError),
    /// A topic that is named has no such partition.
    #[error(transparent)]
    Partition(#[from] NoSuchPartition),
    /// A record could not be made a dead letter.
    #[error(transparent)]
    DeadLetter(#[from] DeadLetterError),
    /// Records could not be read.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// The store refused the write.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn places(current: &[Current]) -> String {
    let place = |place: &Current| format!("partition {} of `{}`", place.partition, place.topic);
    let mut places: Vec<String> = current.iter().take(3).map(place).collect();
    if current.len() > 3 {
        places.push(format!("{} more", current.len() - 3));
    }
    places.join(", ")
}
