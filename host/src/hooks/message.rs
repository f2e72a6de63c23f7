//! What receivers see of an event: its id and its body; pure.
//!
//! The body is `{"type", "timestamp", "data"}`, as Standard Webhooks proposes, with the data byte for
//! byte as it was published; data that is not JSON stands under `data_base64` instead.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use stream_storage::Timestamp;

use crate::timestamp;

/// Longer ids are hashed: they travel in a header.
const ID_BYTES_MAX: usize = 200;

/// An event on its way to whoever wants its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookEvent {
    /// Its type: what endpoints' patterns match.
    pub event_type: String,
    /// Names the event: receivers drop a repeat by it. Any text.
    pub id: String,
    /// In an ordered endpoint, events of one key wait for each other.
    pub key: Option<String>,
    /// Its data, JSON as a rule.
    pub payload: Bytes,
    /// When it happened.
    pub timestamp: Timestamp,
}

impl HookEvent {
    /// The value of `webhook-id`. It holds no `.`, which would let somebody move the borders of what
    /// is signed; other signs are percent-encoded, so that two ids never become one.
    pub(super) fn webhook_id(&self) -> String {
        let mut id = String::with_capacity(self.id.len());
        for byte in self.id.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b':' | b'/' | b'@') {
                id.push(char::from(byte));
            } else {
                id.push_str(&format!("%{byte:02X}"));
            }
        }
        if id.is_empty() || id.len() > ID_BYTES_MAX {
            let hash = Sha256::digest(&self.id);
            return hash.iter().fold("sha256:".to_owned(), |id, byte| format!("{id}{byte:02x}"));
        }
        id
    }

    /// The bytes that are signed and sent.
    pub(super) fn body(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.payload.len() + 128);
        out.put_slice(b"{\"type\":");
        put_json(&mut out, &self.event_type);
        out.put_slice(b",\"timestamp\":");
        put_json(&mut out, &timestamp::format(self.timestamp));
        if serde_json::from_slice::<&RawValue>(&self.payload).is_ok() {
            out.put_slice(b",\"data\":");
            out.put_slice(&self.payload);
        } else {
            out.put_slice(b",\"data_base64\":");
            put_json(&mut out, &STANDARD.encode(&self.payload));
        }
        out.put_slice(b"}");
        out.freeze()
    }
}

fn put_json(out: &mut BytesMut, text: &str) {
    out.put_slice(serde_json::Value::from(text).to_string().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::collections::HashSet;

    fn event(id: &str, payload: &'static [u8]) -> HookEvent {
        HookEvent {
            event_type: "order.\"placed\"".to_owned(),
            id: id.to_owned(),
            key: None,
            payload: Bytes::from_static(payload),
            timestamp: Timestamp(1_767_323_045_678),
        }
    }

    #[test]
    fn an_id_has_no_dot_and_stays_itself() {
        let long = "x".repeat(201);
        let ids = ["evt_1", "a.b", "a%2Eb", "a b", "é", "a/1:2", "", &long, "A.B"];
        let seen: HashSet<String> = ids.iter().map(|id| event(id, b"1").webhook_id()).collect();
        assert_eq!(seen.len(), ids.len(), "{seen:?}");
        for id in &seen {
            let is_fine = id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'.');
            assert!(is_fine && (1..=200).contains(&id.len()), "{id}");
        }
        assert_eq!(event("orders/0/15", b"1").webhook_id(), "orders/0/15");
        assert_eq!(event("a.b", b"1").webhook_id(), "a%2Eb");
    }

    #[test]
    fn data_is_kept_byte_for_byte() {
        let body = event("1", b"{ \"n\": 1e2 }").body();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(text.ends_with(r#","data":{ "n": 1e2 }}"#), "{text}");
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["type"], "order.\"placed\"");
        assert_eq!(json["timestamp"], "2026-01-02T03:04:05.678Z");
    }

    #[test]
    fn data_that_is_not_json_is_base64() {
        for payload in [&b"\xff"[..], b"", b"{", b"1 2"] {
            let json: Value = serde_json::from_slice(&event("1", payload).body()).unwrap();
            assert_eq!(json["data_base64"], json!(STANDARD.encode(payload)));
            assert_eq!(json.get("data"), None);
        }
    }
}
