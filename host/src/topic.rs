//! A topic and its configuration: the rules that it keeps, and its stored form.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use stream_storage::{Ack, Partition, ProjectName, StoreError, Timestamp, TopicId};

use crate::index::IndexKind;
use crate::name::TopicName;
use crate::partition::RoundRobin;

/// Longest description, in bytes.
const DESCRIPTION_BYTES_MAX: usize = 4_096;

/// How long records are kept if nobody says it: a week.
pub const RETENTION_HOURS_DEFAULT: u32 = 168;

/// A named stream.
#[derive(Debug)]
pub struct Topic {
    /// What stands behind the name; never used again after the topic is deleted.
    pub id: TopicId,
    /// Whose it is.
    pub project: ProjectName,
    /// Its name.
    pub name: TopicName,
    /// What its owner set.
    pub config: TopicConfig,
    /// When it was made.
    pub created_at: Timestamp,
    /// Which partition takes the next batch without keys, on this host.
    pub turn: RoundRobin,
}

impl Topic {
    /// The partitions, from 0.
    pub fn partitions(&self) -> impl Iterator<Item = Partition> + use<> {
        (0..self.config.partitions).map(Partition)
    }

    /// The topic's id, if it keeps the index.
    ///
    /// # Errors
    ///
    /// It does not.
    pub fn indexed(&self, kind: IndexKind) -> Result<TopicId, NotIndexed> {
        if self.config.index.contains(&kind) {
            Ok(self.id)
        } else {
            Err(NotIndexed { topic: self.name.clone(), kind: kind.as_str() })
        }
    }

    /// Checks a partition number that a client gave.
    ///
    /// # Errors
    ///
    /// The topic has no such partition.
    pub fn partition(&self, partition: u32) -> Result<Partition, NoSuchPartition> {
        if partition < self.config.partitions {
            Ok(Partition(partition))
        } else {
            Err(NoSuchPartition { partition, partitions: self.config.partitions })
        }
    }
}

/// A partition that the topic does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid partition `{partition}`: the topic has {partitions}, counted from 0")]
pub struct NoSuchPartition {
    /// What was asked for.
    pub partition: u32,
    /// How many there are.
    pub partitions: u32,
}

/// A lookup by what the topic keeps no index of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "topic `{topic}` keeps no index by {kind}; make a topic with `\"index\": [\"{kind}\"]`, and \
     replay this one into it if its records are to be found too"
)]
pub struct NotIndexed {
    /// The topic.
    pub topic: TopicName,
    /// The index that it would take.
    pub kind: &'static str,
}

/// What a topic's owner sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicConfig {
    /// How many partitions; never fewer than before.
    pub partitions: u32,
    /// Records older than this are trimmed, in hours; 0 keeps them for ever.
    pub retention_hours: u32,
    /// Each partition is trimmed down to this many bytes; `None` does not.
    pub retention_bytes: Option<u64>,
    /// For people; at most 4 KiB.
    pub description: Option<String>,
    /// When a publish is answered, unless the request says otherwise.
    #[serde(with = "crate::ack")]
    pub ack: Ack,
    /// What records can be looked up by; set when the topic is made, since older records have no
    /// entries.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub index: BTreeSet<IndexKind>,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            partitions: 1,
            retention_hours: RETENTION_HOURS_DEFAULT,
            retention_bytes: None,
            description: None,
            ack: Ack::Durable,
            index: BTreeSet::new(),
        }
    }
}

/// What to change in a topic; `None` leaves as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicPatch {
    /// How many partitions.
    pub partitions: Option<u32>,
    /// The owner knows that with more partitions, keys change their partition.
    pub accept_key_moves: bool,
    /// See [`TopicConfig::retention_hours`].
    pub retention_hours: Option<u32>,
    /// See [`TopicConfig::retention_bytes`].
    pub retention_bytes: Option<Option<u64>>,
    /// See [`TopicConfig::description`].
    pub description: Option<Option<String>>,
    /// See [`TopicConfig::ack`].
    pub ack: Option<Ack>,
}

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    /// A field breaks its rule.
    #[error("invalid {field} `{got}`: expected {expected}")]
    Field {
        /// The field.
        field: &'static str,
        /// What was given.
        got: String,
        /// The rule.
        expected: String,
    },
    /// More partitions, and nobody said that this is understood.
    #[error(
        "more partitions move keys to other partitions, so their order across the change is lost; \
         set `accept_key_moves` to do it all the same"
    )]
    KeyMoves,
}

impl TopicConfig {
    /// Checks what a client asks for.
    ///
    /// # Errors
    ///
    /// A field breaks its rule.
    pub fn check(&self, partitions_max: u32) -> Result<(), InvalidConfig> {
        if !(1..=partitions_max).contains(&self.partitions) {
            return Err(InvalidConfig::Field {
                field: "partitions",
                got: self.partitions.to_string(),
                expected: format!("a number from 1 to {partitions_max}"),
            });
        }
        let described = self.description.as_deref().unwrap_or_default();
        if described.len() > DESCRIPTION_BYTES_MAX {
            return Err(InvalidConfig::Field {
                field: "description",
                got: described.chars().take(64).collect(),
                expected: format!("at most {DESCRIPTION_BYTES_MAX} bytes"),
            });
        }
        Ok(())
    }

    /// The configuration after `patch`.
    ///
    /// # Errors
    ///
    /// A field breaks its rule, partitions would become fewer, or keys would move unannounced.
    pub fn patched(&self, patch: TopicPatch, partitions_max: u32) -> Result<Self, InvalidConfig> {
        let changed = Self {
            partitions: patch.partitions.unwrap_or(self.partitions),
            retention_hours: patch.retention_hours.unwrap_or(self.retention_hours),
            retention_bytes: patch.retention_bytes.unwrap_or(self.retention_bytes),
            description: patch.description.unwrap_or_else(|| self.description.clone()),
            ack: patch.ack.unwrap_or(self.ack),
            index: self.index.clone(),
        };
        changed.check(partitions_max)?;
        if changed.partitions < self.partitions {
            return Err(InvalidConfig::Field {
                field: "partitions",
                got: changed.partitions.to_string(),
                expected: format!("at least the {} that there are", self.partitions),
            });
        }
        if changed.partitions > self.partitions && !patch.accept_key_moves {
            return Err(InvalidConfig::KeyMoves);
        }
        Ok(changed)
    }
}

/// The value of a topic's state key.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredTopic {
    id: u64,
    created_at: u64,
    #[serde(flatten)]
    config: TopicConfig,
}

impl StoredTopic {
    pub(crate) fn of(topic: &Topic) -> Self {
        let config = topic.config.clone();
        Self { id: topic.id.0, created_at: topic.created_at.0, config }
    }

    pub(crate) fn into_topic(self, project: ProjectName, name: &str) -> Result<Topic, StoreError> {
        let name = TopicName::parse(name)
            .map_err(|error| StoreError::Corrupt { reason: error.to_string() })?;
        Ok(Topic {
            id: TopicId(self.id),
            project,
            name,
            config: self.config,
            created_at: Timestamp(self.created_at),
            turn: RoundRobin::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(result: Result<impl std::fmt::Debug, InvalidConfig>) -> &'static str {
        match result.unwrap_err() {
            InvalidConfig::Field { field, .. } => field,
            InvalidConfig::KeyMoves => "key moves",
        }
    }

    #[test]
    fn partitions_stay_within_the_limit() {
        for (partitions, is_valid) in [(0, false), (1, true), (1_024, true), (1_025, false)] {
            let config = TopicConfig { partitions, ..TopicConfig::default() };
            assert_eq!(config.check(1_024).is_ok(), is_valid, "{partitions}");
        }
    }

    #[test]
    fn a_description_stays_within_the_limit() {
        for (bytes, is_valid) in [(DESCRIPTION_BYTES_MAX, true), (DESCRIPTION_BYTES_MAX + 1, false)]
        {
            let description = Some("d".repeat(bytes));
            let config = TopicConfig { description, ..TopicConfig::default() };
            assert_eq!(config.check(1).is_ok(), is_valid, "{bytes}");
        }
    }

    fn stored(text: &str) -> TopicConfig {
        let stored: StoredTopic = serde_json::from_str(text).unwrap();
        stored.into_topic(ProjectName::parse("p").unwrap(), "t").unwrap().config
    }

    #[test]
    fn a_topic_that_was_stored_before_there_were_indexes_keeps_none() {
        let old = r#"{"id":7,"created_at":1,"partitions":2,"retention_hours":168,"retention_bytes":null,"description":null,"ack":"durable"}"#;
        let config = TopicConfig { partitions: 2, ..TopicConfig::default() };
        assert_eq!(stored(old), config);
        // And one without indexes is stored as it was.
        let again = StoredTopic { id: 7, created_at: 1, config };
        assert_eq!(serde_json::to_string(&again).unwrap(), old);
    }

    #[test]
    fn indexes_are_stored_by_their_names() {
        let config =
            TopicConfig { index: BTreeSet::from(IndexKind::ALL), ..TopicConfig::default() };
        let text =
            serde_json::to_string(&StoredTopic { id: 7, created_at: 1, config: config.clone() });
        let text = text.unwrap();
        assert!(text.ends_with(r#""index":["id","key"]}"#), "{text}");
        assert_eq!(stored(&text), config);
    }

    #[test]
    fn partitions_never_become_fewer() {
        let config = TopicConfig { partitions: 3, ..TopicConfig::default() };
        let patch =
            TopicPatch { partitions: Some(2), accept_key_moves: true, ..TopicPatch::default() };
        assert_eq!(field(config.patched(patch, 1_024)), "partitions");
    }

    #[test]
    fn more_partitions_need_a_word_about_keys() {
        let config = TopicConfig::default();
        let mut patch = TopicPatch { partitions: Some(2), ..TopicPatch::default() };
        assert_eq!(field(config.patched(patch.clone(), 1_024)), "key moves");
        patch.accept_key_moves = true;
        assert_eq!(config.patched(patch, 1_024).unwrap().partitions, 2);
    }

    #[test]
    fn a_patch_changes_only_what_it_names() {
        let config = TopicConfig {
            retention_bytes: Some(7),
            description: Some("old".to_owned()),
            ..TopicConfig::default()
        };
        let patch = TopicPatch { retention_bytes: Some(None), ..TopicPatch::default() };
        let expected = TopicConfig { retention_bytes: None, ..config.clone() };
        assert_eq!(config.patched(patch, 1).unwrap(), expected);
    }
}
