//! Events with the same content in one field share a partition; those without it share the first.
//!
//! Config: the name of a field of a JSON value, or a JSON pointer to it: `origin`, `/customer/id`.

use serde_json::Value;
use stream_plugin::{Context, Event};

stream_plugin::partitioner!(partition);

fn partition(context: &Context, event: &Event) -> u32 {
    let value: Value = serde_json::from_slice(event.value()).unwrap_or_default();
    let field = match context.config.as_str() {
        pointer if pointer.starts_with('/') => value.pointer(pointer),
        name => value.get(name),
    };
    match field {
        None | Some(Value::Null) => 0,
        Some(Value::String(text)) => choose(text, context.partitions),
        Some(other) => choose(&other.to_string(), context.partitions),
    }
}

/// FNV-1a, modulo the number of partitions.
fn choose(text: &str, partitions: u32) -> u32 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash % u64::from(partitions)) as u32
}

#[test]
fn events_of_one_field_share_a_partition() {
    let partition = |config: &str, value: &str| {
        let config = config.to_owned();
        let context = Context { config, partitions: 1_000, ..Context::default() };
        partition(&context, &Event::from_value(value.as_bytes()))
    };
    let jfk = partition("origin", r#"{"origin": "JFK", "dest": "ATL"}"#);
    assert_eq!(jfk, partition("/a/1", r#"{"a": [0, "JFK"]}"#));
    assert_ne!(jfk, partition("origin", r#"{"origin": "LGA"}"#));
    assert_ne!(0, partition("flight", r#"{"flight": 2043}"#));
    for without in [r#"{"origin": null}"#, "{}", "[1]", "no JSON"] {
        assert_eq!(0, partition("origin", without), "{without}");
    }
}
