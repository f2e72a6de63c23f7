//! Replaces fields of JSON objects by `"[redacted]"`; the other fields keep their bytes.
//!
//! Config: the names of the fields, top level: `["card", "email"]`. A value that may be JSON but
//! cannot be read is a fault: it might hide a field.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use stream_plugin::{Context, Event, Outcome, OwnedEvent};

stream_plugin::transformer!(redact, names);

fn names(context: &Context) -> Vec<String> {
    serde_json::from_str(&context.config).expect("the config is a list of names")
}

fn redact(names: &Vec<String>, event: &Event) -> Outcome {
    if event.content_type().is_some_and(|content_type| !content_type.contains("json")) {
        return Outcome::Keep;
    }
    let mut fields: BTreeMap<String, &RawValue> = match serde_json::from_slice(event.value()) {
        Ok(fields) => fields,
        Err(error) if error.is_data() => return Outcome::Keep, // JSON, but not an object
        Err(error) => panic!("expected JSON: {error}"),
    };
    let redacted = serde_json::from_str(r#""[redacted]""#).expect("it is JSON");
    let mut found = false;
    for name in names {
        if let Some(field) = fields.get_mut(name) {
            *field = redacted;
            found = true;
        }
    }
    if !found {
        return Outcome::Keep;
    }
    let value = serde_json::to_vec(&fields).expect("names and JSON values are JSON");
    Outcome::Replace(OwnedEvent { value, ..event.to_owned() })
}

#[test]
fn fields_with_these_names_are_replaced() {
    let names = ["card".to_owned(), "email".to_owned()].to_vec();
    let redact = |value: &str| redact(&names, &Event::from_value(value.as_bytes()));
    let deep = format!(r#"{{"a":{}1.0{},"card":1}}"#, "[".repeat(999), "]".repeat(999));
    let replaced = deep.replace("\"card\":1", "\"card\":\"[redacted]\"");
    for (value, expected) in [
        (r#"{"total":1e2,"card":{"no":1}}"#, r#"{"card":"[redacted]","total":1e2}"#),
        (r#"{"card":1,"email":2,"card":3}"#, r#"{"card":"[redacted]","email":"[redacted]"}"#),
        (&deep, &replaced),
    ] {
        let value_of = OwnedEvent { value: expected.into(), ..OwnedEvent::default() };
        assert_eq!(redact(value), Outcome::Replace(value_of));
    }
    for kept in [r#"{"total":1,"in":{"card":1}}"#, "[\"card\"]", "\"card\""] {
        assert_eq!(redact(kept), Outcome::Keep);
    }
}
