//! Events that were given up, as records of the dead-letter topic: the event whole, where it was going
//! or lay, who gave it up, and why.
//!
//! Those on which a plugin or a route broke come from a publish; those that a group or a queue could
//! not process are added to the transaction that moves it on.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;
use stream_storage::{
    Append, Partition, ProjectName, Receipt, RecordBatch, RecordTooLarge, StoreError, Transaction,
};

use super::answer::NamedVersion;
use crate::catalog::{Catalog, CatalogError};
use crate::decode;
use crate::event::Event;
use crate::index;
use crate::name::{GroupName, RouteName, TopicName};
use crate::partition::{self, PartitionNotFound};
use crate::stage::{Fault, PluginRef, Who};
use crate::state;
use crate::stats::Rates;
use crate::topic::{Topic, TopicConfig};

/// The dead-letter topic of every project.
pub const DEAD_LETTER: &str = "_dead-letter";

/// The topic of events whose type has neither a topic nor a route.
pub const UNROUTED: &str = "_unrouted";

/// Retention of both, in hours: a month, since people look at them.
const RETENTION_HOURS: u32 = 30 * 24;

/// A longer value of a record that is stored elsewhere is left there: as base64 it would not fit into
/// a transaction, and what cannot be given up would stop a partition for good.
const VALUE_BYTES_MAX: usize = 32 << 20;

/// Who gave an event up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenUpBy<'a> {
    /// A plugin broke on it.
    Plugin(&'a PluginRef),
    /// A route broke on it.
    Route(&'a RouteName),
    /// The members of a group could not process it.
    Group(&'a GroupName),
    /// A job of this queue failed too often.
    Queue(&'a str),
}

impl GivenUpBy<'_> {
    fn kind(self) -> &'static str {
        match self {
            Self::Plugin(_) => "plugin",
            Self::Route(_) => "route",
            Self::Group(_) => "group",
            Self::Queue(_) => "queue",
        }
    }
}

/// An event that was given up.
#[derive(Debug, Clone, Copy)]
pub struct DeadLetter<'a> {
    /// Who gave it up.
    pub by: GivenUpBy<'a>,
    /// The topic that it was going to or lies in, if there is one.
    pub topic: Option<&'a TopicName>,
    /// Where it lies there; `None` if it was never stored.
    pub place: Option<(Partition, u64)>,
    /// Why, as a word.
    pub cause: &'a str,
    /// Why, for people.
    pub reason: &'a str,
    /// How often it was tried.
    pub attempts: u32,
    /// The event.
    pub event: &'a Event<'a>,
}

impl<'a> DeadLetter<'a> {
    /// An event on which a stage broke.
    pub(super) fn faulted(event: &'a Event<'a>, topic: &'a TopicName, fault: &'a Fault) -> Self {
        let by = match &fault.who {
            Who::Plugin(plugin) => GivenUpBy::Plugin(plugin),
            Who::Route(route) => GivenUpBy::Route(route),
        };
        let (cause, reason) = (fault.cause.as_str(), fault.message.as_str());
        Self { by, topic: Some(topic), place: None, cause, reason, attempts: 1, event }
    }

    /// The record; it has the event's key, which orders dead letters as it did events.
    pub(super) fn record(&self) -> Event<'static> {
        let Self { by, topic, place, cause, reason, attempts, event } = *self;
        let is_omitted = place.is_some() && event.value.len() > VALUE_BYTES_MAX;
        let raw = std::str::from_utf8(&event.value).ok().filter(|_| event.value_is_json);
        let raw = raw.filter(|_| !is_omitted);
        // A letter is read by parsers that end at some depth: what is too deep is kept as bytes.
        let raw = raw.filter(|text| decode::check_value(text).is_ok());
        let raw = raw.and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
        let is_base64 = raw.is_none() && !is_omitted;
        let value = Value {
            kind: by.kind(),
            topic: topic.map(TopicName::as_str),
            partition: place.map(|(partition, _)| partition.0),
            offset: place.map(|(_, offset)| offset),
            plugin: if let GivenUpBy::Plugin(plugin) = by { Some(plugin.into()) } else { None },
            route: if let GivenUpBy::Route(route) = by { Some(route.as_str()) } else { None },
            group: if let GivenUpBy::Group(group) = by { Some(group.as_str()) } else { None },
            queue: if let GivenUpBy::Queue(queue) = by { Some(queue) } else { None },
            cause,
            reason,
            attempt: attempts,
            event: Kept {
                id: event.id.as_deref(),
                key: event.key.as_deref(),
                time: event.time.as_deref(),
                content_type: event.content_type.as_deref(),
                headers: event.headers.iter().map(|(name, value)| (&**name, &**value)).collect(),
                value: raw,
                value_base64: is_base64.then(|| STANDARD.encode(&event.value)),
                value_omitted: is_omitted,
            },
        };
        Event {
            key: event.key.as_ref().map(|key| key.clone().into_owned().into()),
            value: state::encode(&value).into(),
            value_is_json: true,
            ..Event::default()
        }
    }
}

/// The value of a record.
#[derive(Serialize)]
struct Value<'a> {
    kind: &'static str,
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    plugin: Option<NamedVersion>,
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<&'a str>,
    cause: &'a str,
    reason: &'a str,
    /// How often it was tried.
    attempt: u32,
    event: Kept<'a>,
}

/// The event, its value byte for byte.
#[derive(Serialize)]
struct Kept<'a> {
    id: Option<&'a str>,
    key: Option<&'a str>,
    time: Option<&'a str>,
    content_type: Option<&'a str>,
    headers: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    /// It is where `topic`, `partition` and `offset` say.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    value_omitted: bool,
}

/// Why an event did not become a dead letter.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// The topic could not be made or found.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The record cannot be placed.
    #[error(transparent)]
    Partition(#[from] PartitionNotFound),
    /// The record cannot be encoded.
    #[error(transparent)]
    Record(#[from] RecordTooLarge),
}

/// Adds events to the dead letters, in the transaction of whoever gives them up.
pub struct DeadLetters {
    catalog: Arc<Catalog>,
    rates: Arc<Rates>,
}

impl DeadLetters {
    /// Makes nothing yet.
    pub fn new(catalog: Arc<Catalog>, rates: Arc<Rates>) -> Self {
        Self { catalog, rates }
    }

    /// Adds dead letters to a transaction, whatever it holds; the topic is made if it is not there.
    ///
    /// # Errors
    ///
    /// The topic could not be made, or a record cannot be encoded.
    pub async fn add(
        &self,
        transaction: &mut Transaction,
        letters: &[DeadLetter<'_>],
    ) -> Result<(), DeadLetterError> {
        if letters.is_empty() {
            return Ok(());
        }
        let topic = own_topic(&self.catalog, &transaction.project, DEAD_LETTER).await?;
        for letter in letters {
            push(&mut transaction.appends, &topic, &letter.record())?;
        }
        Ok(())
    }

    /// Counts what was stored, for the topics' figures.
    pub fn count(&self, receipt: &Receipt) {
        for place in &receipt.appends {
            self.rates.add(place.topic, u64::from(place.count), place.timestamp);
        }
    }
}

/// One of the server's own topics, made if it is not there.
pub(super) async fn own_topic(
    catalog: &Catalog,
    project: &ProjectName,
    name: &str,
) -> Result<Arc<Topic>, CatalogError> {
    let corrupt =
        |error: stream_storage::InvalidName| StoreError::Corrupt { reason: error.to_string() };
    let name = TopicName::parse(name).map_err(corrupt)?;
    let config = TopicConfig { retention_hours: RETENTION_HOURS, ..TopicConfig::default() };
    catalog.ensure_own(project, &name, config).await
}

/// Adds one event where it belongs, to a batch that is there or in one of its own.
fn push(
    appends: &mut Vec<Append>,
    topic: &Topic,
    event: &Event<'_>,
) -> Result<(), DeadLetterError> {
    let places =
        partition::place(std::slice::from_ref(event), topic.config.partitions, &topic.turn)?;
    let Some(&partition) = places.first() else { return Ok(()) };
    let is_there = |append: &&mut Append| append.topic == topic.id && append.partition == partition;
    if let Some(append) = appends.iter_mut().find(is_there) {
        append.index.extend(index::entries(&topic.config.index, event, append.batch.count()));
        append.batch.push(&event.record())?;
        return Ok(());
    }
    let mut batch = RecordBatch::with_capacity(event.byte_len());
    let index = index::entries(&topic.config.index, event, 0).collect();
    batch.push(&event.record())?;
    appends.push(Append { topic: topic.id, partition, batch, index });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::PluginName;
    use crate::stage::{Cause, PluginRef};
    use serde_json::{Value, json};
    use stream_storage::TopicId;

    fn value(event: &Event<'_>) -> String {
        let plugin = PluginRef { name: PluginName::parse("p").unwrap(), version: 3 };
        let fault = Fault {
            who: Who::Plugin(plugin),
            cause: Cause::Timeout,
            message: "\"event\":null".to_owned(),
        };
        let topic = TopicName::parse("orders").unwrap();
        let record = DeadLetter::faulted(event, &topic, &fault).record();
        assert_eq!(record.key, event.key);
        String::from_utf8(record.value.to_vec()).unwrap()
    }

    #[test]
    fn the_event_is_kept_whole_and_its_value_byte_for_byte() {
        let event = Event {
            key: Some("k".into()),
            id: Some("7".into()),
            headers: vec![("a".into(), "1".into())],
            value: br#"{ "n": 1e2 }"#[..].into(),
            value_is_json: true,
            ..Event::default()
        };
        let text = value(&event);
        assert!(text.contains(r#""value":{ "n": 1e2 }"#), "{text}");
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["topic"], "orders");
        assert_eq!((&json["kind"], &json["partition"]), (&json!("plugin"), &Value::Null));
        assert_eq!(json["plugin"], json!({ "name": "p", "version": 3 }));
        assert_eq!((&json["cause"], &json["attempt"]), (&json!("timeout"), &json!(1)));
        assert_eq!(json["reason"], "\"event\":null");
        assert_eq!(json["event"]["headers"], json!({ "a": "1" }));
        assert_eq!((&json["event"]["id"], &json["event"]["time"]), (&json!("7"), &Value::Null));
    }

    #[test]
    fn a_value_that_is_not_json_is_base64() {
        let event = Event { value: b"\xff"[..].into(), ..Event::default() };
        let json: Value = serde_json::from_str(&value(&event)).unwrap();
        assert_eq!(json["event"]["value_base64"], "/w==");
    }

    #[test]
    fn a_record_that_was_given_up_says_where_it_lies_and_is_left_there_if_it_is_huge() {
        let letter = |value: &[u8], by: GivenUpBy<'_>| {
            let event = Event { value: value.to_vec().into(), ..Event::default() };
            let topic = TopicName::parse("orders").unwrap();
            let letter = DeadLetter {
                by,
                topic: Some(&topic),
                place: Some((Partition(2), 7)),
                cause: "nack",
                reason: "r",
                attempts: 5,
                event: &event,
            };
            serde_json::from_slice::<Value>(&letter.record().value).unwrap()
        };
        let group = GroupName::parse("g").unwrap();
        let json = letter(b"\xff", GivenUpBy::Group(&group));
        let expected = json!({
            "kind": "group", "group": "g", "plugin": null, "route": null, "topic": "orders",
            "partition": 2, "offset": 7, "cause": "nack", "reason": "r", "attempt": 5,
            "event": { "id": null, "key": null, "time": null, "content_type": null,
                "headers": {}, "value_base64": "/w==" },
        });
        assert_eq!(json, expected);
        assert_eq!(letter(b"\xff", GivenUpBy::Queue("q"))["queue"], "q");
        for (bytes, is_omitted) in [(VALUE_BYTES_MAX, false), (VALUE_BYTES_MAX + 1, true)] {
            let event = &letter(&vec![0; bytes], GivenUpBy::Queue("q"))["event"];
            assert_eq!(event["value_omitted"].is_boolean(), is_omitted);
            assert_eq!(event["value_base64"].is_null(), is_omitted);
        }
    }

    #[test]
    fn letters_of_one_partition_share_a_batch() {
        let topic = Topic {
            id: TopicId(1),
            project: ProjectName::parse("p").unwrap(),
            name: TopicName::parse(DEAD_LETTER).unwrap(),
            config: TopicConfig::default(),
            created_at: stream_storage::Timestamp(0),
            turn: partition::RoundRobin::default(),
        };
        let mut appends = Vec::new();
        for value in [&b"1"[..], b"2"] {
            let event = Event { value: value.into(), ..Event::default() };
            push(&mut appends, &topic, &event).unwrap();
        }
        assert_eq!((appends.len(), appends[0].batch.count()), (1, 2));
    }
}
