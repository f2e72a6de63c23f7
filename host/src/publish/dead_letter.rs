//! Events that could not be accepted, as records of the dead-letter topic: the event whole, where it
//! was going, and what broke on it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;

use super::answer::NamedVersion;
use crate::event::Event;
use crate::name::TopicName;
use crate::stage::{Fault, Who};
use crate::state;

/// The dead-letter topic of every project.
pub const DEAD_LETTER: &str = "_dead-letter";

/// The topic of events whose type has neither a topic nor a route.
pub const UNROUTED: &str = "_unrouted";

/// Retention of both, in hours: a month, since people look at them.
pub(super) const RETENTION_HOURS: u32 = 30 * 24;

/// The value of a record.
#[derive(Serialize)]
struct DeadLetter<'a> {
    topic: &'a str,
    plugin: Option<NamedVersion>,
    route: Option<&'a str>,
    cause: &'static str,
    reason: &'a str,
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
}

/// The record of an event; it has the event's key, which orders dead letters as it did events.
pub(super) fn record(event: &Event<'_>, topic: &TopicName, fault: &Fault) -> Event<'static> {
    let raw = std::str::from_utf8(&event.value).ok().filter(|_| event.value_is_json);
    let raw = raw.and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
    let (plugin, route) = match &fault.who {
        Who::Plugin(plugin) => (Some(plugin.into()), None),
        Who::Route(name) => (None, Some(name.as_str())),
    };
    let letter = DeadLetter {
        topic: topic.as_str(),
        plugin,
        route,
        cause: fault.cause.as_str(),
        reason: &fault.message,
        attempt: 1,
        event: Kept {
            id: event.id.as_deref(),
            key: event.key.as_deref(),
            time: event.time.as_deref(),
            content_type: event.content_type.as_deref(),
            headers: event.headers.iter().map(|(name, value)| (&**name, &**value)).collect(),
            value: raw,
            value_base64: raw.is_none().then(|| STANDARD.encode(&event.value)),
        },
    };
    Event {
        key: event.key.as_ref().map(|key| key.clone().into_owned().into()),
        value: state::encode(&letter).into(),
        value_is_json: true,
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::PluginName;
    use crate::stage::{Cause, PluginRef};
    use serde_json::{Value, json};

    fn value(event: &Event<'_>) -> String {
        let plugin = PluginRef { name: PluginName::parse("p").unwrap(), version: 3 };
        let fault = Fault {
            who: Who::Plugin(plugin),
            cause: Cause::Timeout,
            message: "\"event\":null".to_owned(),
        };
        let record = record(event, &TopicName::parse("orders").unwrap(), &fault);
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
}
