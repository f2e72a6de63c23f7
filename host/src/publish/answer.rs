//! What a publish did, and how it is kept with the producer's receipt, so that a repeat gets the
//! whole answer again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use stream_storage::{Ack, Appended, Receipt, StoreError, TopicId};

use super::{Identity, PublishError};
use crate::name::TopicName;
use crate::stage::{Fault, PluginRef, Who};
use crate::state;

/// A note has at most 64 KiB; what is larger loses its reasons, then its indices.
const NOTE_BYTES_MAX: usize = 60 << 10;

/// What was stored.
#[derive(Debug, Clone)]
pub struct Published {
    /// The topic that was named; `None` if events went by their types.
    pub topic: Option<String>,
    /// How many of the request's events were stored, each counted once; for a repeat of long ago,
    /// how many it brought itself.
    pub count: u64,
    /// Where, by topic. Empty for a repeat of long ago.
    pub topics: Vec<TopicPlaces>,
    /// Events that were rejected, and not stored; only where the publisher asked for the rest.
    pub rejected: Vec<Refusal>,
    /// Events that were stored in the dead-letter topic instead.
    pub dead_lettered: Vec<Refusal>,
    /// Events that went to the topic for what has no topic.
    pub unrouted: u64,
    /// Events that a transform dropped everywhere.
    pub dropped: u64,
    /// What was true of the events when they were answered for.
    pub ack: Ack,
    /// What was said of what is stored alongside: by the first request, if this is a repeat.
    pub alongside: Option<Box<RawValue>>,
    /// The events had been stored by an earlier request.
    pub duplicate: bool,
}

/// Where a topic's events were stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPlaces {
    /// The topic.
    pub topic: String,
    /// The places, in the order of partitions.
    pub places: Vec<Appended>,
}

/// An event that was not stored where it was meant to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The event's place in the request, from 0.
    pub index: u32,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The topic that refused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The plugin that refused it or broke; `None` if it was the topic's schema, or a route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<NamedVersion>,
    /// Why the plugin broke; `None` if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// A plugin and its version, as they are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedVersion {
    /// The name.
    pub name: String,
    /// The version.
    pub version: u64,
}

impl From<&PluginRef> for NamedVersion {
    fn from(plugin: &PluginRef) -> Self {
        Self { name: plugin.name.to_string(), version: plugin.version }
    }
}

impl Refusal {
    /// A validator's, or the schema's.
    pub(super) fn rejected(
        index: u32,
        topic: &TopicName,
        plugin: Option<&PluginRef>,
        reason: String,
    ) -> Self {
        let (topic, plugin) = (Some(topic.to_string()), plugin.map(Into::into));
        Self { index, reason, topic, plugin, cause: None }
    }

    /// A stage's that broke.
    pub(super) fn faulted(index: u32, topic: &TopicName, fault: &Arc<Fault>) -> Self {
        let plugin = match &fault.who {
            Who::Plugin(plugin) => Some(plugin.into()),
            Who::Route(_) => None,
        };
        Self {
            index,
            reason: fault.to_string(),
            topic: Some(topic.to_string()),
            plugin,
            cause: Some(fault.cause.as_str().to_owned()),
        }
    }
}

/// What is kept with a producer's receipt.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Note {
    /// The topic that was named; the only one of all places if `topics` is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) topic: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<[u8; 32]>,
    /// If it is not the number of stored events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) count: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) topics: Vec<(u64, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) rejected: Vec<Refusal>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) dead_lettered: Vec<Refusal>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) unrouted: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) dropped: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) alongside: Option<Box<RawValue>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Note {
    /// The bytes to keep, within the store's limit.
    pub(super) fn encode(&self) -> bytes::Bytes {
        let whole = state::encode(self);
        if whole.len() <= NOTE_BYTES_MAX {
            return whole.into();
        }
        let bare = |refusals: &[Refusal]| {
            let bare = |refusal: &Refusal| Refusal {
                index: refusal.index,
                reason: String::new(),
                topic: None,
                plugin: None,
                cause: None,
            };
            refusals.iter().map(bare).take(1_000).collect()
        };
        let short = Self {
            rejected: bare(&self.rejected),
            dead_lettered: bare(&self.dead_lettered),
            ..self.clone()
        };
        state::encode(&short).into()
    }

    /// The answer that this note stands for, with the receipt that it was kept with.
    pub(super) fn answer(&self, receipt: &Receipt, brought: u64) -> Published {
        let ack = if receipt.durable { Ack::Durable } else { Ack::Memory };
        let stored = match receipt.appends.as_slice() {
            // A repeat of long ago has no places: what it brought is all that is known.
            [] => brought,
            places => places.iter().map(|place| u64::from(place.count)).sum(),
        };
        Published {
            topic: self.topic.clone(),
            count: self.count.unwrap_or(stored),
            topics: self.places(&receipt.appends),
            rejected: self.rejected.clone(),
            dead_lettered: self.dead_lettered.clone(),
            unrouted: self.unrouted,
            dropped: self.dropped,
            ack,
            alongside: self.alongside.clone(),
            duplicate: receipt.duplicate,
        }
    }

    /// The answer to a request of which nothing was to be stored.
    pub(super) fn answer_without_receipt(self) -> Published {
        Published {
            topic: self.topic,
            count: self.count.unwrap_or(0),
            topics: Vec::new(),
            rejected: self.rejected,
            dead_lettered: self.dead_lettered,
            unrouted: self.unrouted,
            dropped: self.dropped,
            ack: Ack::Durable,
            alongside: self.alongside,
            duplicate: false,
        }
    }

    fn places(&self, appends: &[Appended]) -> Vec<TopicPlaces> {
        let name = |id: TopicId| {
            let found = self.topics.iter().find(|(other, _)| *other == id.0);
            found.map(|(_, name)| name.clone()).or(self.topic.clone()).unwrap_or_default()
        };
        let mut topics: Vec<TopicPlaces> = Vec::new();
        for place in appends {
            let topic = name(place.topic);
            match topics.iter_mut().find(|places| places.topic == topic) {
                Some(places) => places.places.push(*place),
                None => topics.push(TopicPlaces { topic, places: vec![*place] }),
            }
        }
        topics
    }
}

impl Published {
    /// The answer to a repeat, of which the store keeps this receipt.
    pub(super) fn again(
        receipt: &Receipt,
        identity: Option<&Identity>,
        topic: Option<&TopicName>,
        brought: u64,
    ) -> Result<Self, PublishError> {
        let note: Note = if receipt.note.is_empty() {
            Note { topic: topic.map(ToString::to_string), ..Note::default() }
        } else {
            let corrupt = |error| StoreError::Corrupt { reason: format!("producer note: {error}") };
            serde_json::from_slice(&receipt.note).map_err(corrupt)?
        };
        if let Some(Identity::Key { key, digest }) = identity
            && note.digest.is_some_and(|first| first != *digest)
        {
            return Err(PublishError::PayloadMismatch { key: key.clone() });
        }
        Ok(note.answer(receipt, brought))
    }

    /// The answer to a repeat of so long ago that its receipt is not kept.
    pub(super) fn of_long_ago(topic: Option<&TopicName>, brought: u64) -> Self {
        Self {
            topic: topic.map(ToString::to_string),
            count: brought,
            topics: Vec::new(),
            rejected: Vec::new(),
            dead_lettered: Vec::new(),
            unrouted: 0,
            dropped: 0,
            ack: Ack::Durable,
            alongside: None,
            duplicate: true,
        }
    }

    /// The places in the topic that was named.
    pub fn places(&self) -> &[Appended] {
        let named = self.topics.iter().find(|places| Some(&places.topic) == self.topic.as_ref());
        named.map_or(&[], |places| &places.places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use stream_storage::{CommitNumber, Partition, Timestamp};

    fn receipt(topics: &[u64], note: &[u8]) -> Receipt {
        let append = |topic: &u64| Appended {
            topic: TopicId(*topic),
            partition: Partition(0),
            base_offset: 7,
            count: 2,
            timestamp: Timestamp(1),
        };
        Receipt {
            commit: CommitNumber(1),
            timestamp: Timestamp(1),
            appends: topics.iter().map(append).collect(),
            duplicate: true,
            durable: true,
            note: Bytes::copy_from_slice(note),
        }
    }

    #[test]
    fn a_note_of_the_first_release_still_answers() {
        let published =
            Published::again(&receipt(&[3], br#"{"topic":"orders"}"#), None, None, 9).unwrap();
        assert_eq!((published.topic.as_deref(), published.count), (Some("orders"), 2));
        assert_eq!(published.places().len(), 1);
    }

    #[test]
    fn a_repeat_gets_the_whole_answer_again() {
        let refusal = Refusal {
            index: 4,
            reason: "no".to_owned(),
            topic: Some("a".to_owned()),
            plugin: Some(NamedVersion { name: "p".to_owned(), version: 2 }),
            cause: None,
        };
        let note = Note {
            topic: Some("a".to_owned()),
            count: Some(2),
            topics: vec![(1, "a".to_owned()), (2, "b".to_owned())],
            rejected: vec![refusal.clone()],
            unrouted: 5,
            ..Note::default()
        };
        let again = Published::again(&receipt(&[2, 1], &note.encode()), None, None, 9).unwrap();
        assert_eq!((again.count, again.unrouted, again.rejected), (2, 5, vec![refusal]));
        let names: Vec<_> = again.topics.iter().map(|places| places.topic.as_str()).collect();
        assert_eq!(names, ["b", "a"]);
    }

    #[test]
    fn a_note_stays_within_the_stores_limit() {
        let refusal = |index| Refusal {
            index,
            reason: "r".repeat(1_024),
            topic: Some("t".repeat(249)),
            plugin: None,
            cause: None,
        };
        let note = Note {
            rejected: (0..10_000).map(refusal).collect(),
            dead_lettered: (0..10_000).map(refusal).collect(),
            ..Note::default()
        };
        assert!(note.encode().len() <= NOTE_BYTES_MAX, "{}", note.encode().len());
    }
}
