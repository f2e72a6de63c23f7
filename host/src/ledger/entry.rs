//! What an entry of a ledger is, byte for byte, and how entries are bundled.
//!
//! An entry is a JSON object, of these fields in this order; what an event does not have is left out:
//!
//! | field | what |
//! | --- | --- |
//! | `topic`, `partition`, `offset`, `timestamp` | where and when the record was stored |
//! | `key`, `id`, `time`, `content_type` | as the publisher gave them |
//! | `headers` | names and values, in the order in which they came |
//! | `value` | the JSON, byte for byte as it was published |
//! | `value_base64` | instead of `value`, of what is not JSON |
//!
//! An entry has at most 65,535 bytes. An event that takes more is kept beside the tiles, at
//! `data/<sha256>`, as the same JSON object, and its entry is
//! `{"data_sha256":"…","data_bytes":…,"topic":…,"partition":…,"offset":…}`.

use std::io::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use stream_storage::{Partition, Record, Timestamp};

use super::Source;
use crate::json_text::{put_headers, put_text};
use crate::name::TopicName;
use crate::timestamp;

/// Bytes of an entry: what its length in a bundle can say.
pub const BYTES_MAX: usize = u16::MAX as usize;

/// What the entry of a digest begins with; no other does.
const BY_DIGEST: &[u8] = b"{\"data_sha256\":";

/// The entry of a record, or what its entry is the digest of.
pub fn of(
    record: &Record<'_>,
    topic: &TopicName,
    partition: Partition,
    offset: u64,
    timestamp: Timestamp,
) -> Bytes {
    let mut out = Vec::with_capacity(192 + record.value.len());
    out.extend_from_slice(b"{\"topic\":");
    put_text(&mut out, topic.as_str());
    // Writing to a vector cannot fail, here and below.
    let _ = write!(out, ",\"partition\":{partition},\"offset\":{offset}");
    let _ = write!(out, ",\"timestamp\":\"{}\"", timestamp::format(timestamp));
    let optional = [
        (",\"key\":", record.key),
        (",\"id\":", record.id),
        (",\"time\":", record.time),
        (",\"content_type\":", record.content_type),
    ];
    for (name, text) in optional {
        if let Some(text) = text {
            out.extend_from_slice(name.as_bytes());
            put_text(&mut out, text);
        }
    }
    put_headers(&mut out, &record.headers);
    if record.value_is_json {
        out.extend_from_slice(b",\"value\":");
        out.extend_from_slice(record.value);
    } else {
        let _ = write!(out, ",\"value_base64\":\"{}\"", BASE64_STANDARD.encode(record.value));
    }
    out.push(b'}');
    out.into()
}

/// What goes into the tree, and beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaf {
    /// At most [`BYTES_MAX`].
    pub(super) entry: Bytes,
    /// What the entry is the digest of; empty if it is none.
    pub(super) data: Bytes,
}

impl Leaf {
    /// The entry itself, or that of its digest if it is too long.
    pub(super) fn new(entry: Bytes, source: &Source) -> Self {
        if entry.len() <= BYTES_MAX {
            return Self { entry, data: Bytes::new() };
        }
        let stands_for = ByDigest {
            data_sha256: digest(&entry),
            data_bytes: entry.len() as u64,
            topic: source.topic.as_str().into(),
            partition: source.slot.partition.0,
            offset: source.offset,
        };
        Self { entry: crate::state::encode(&stands_for).into(), data: entry }
    }
}

/// The entry of an event that is too long for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByDigest {
    /// Where the event lies: at `data/` and this, in hex.
    pub data_sha256: String,
    /// How long it is.
    pub data_bytes: u64,
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: u64,
}

impl ByDigest {
    /// What an entry is the digest of, if it is one.
    ///
    /// # Errors
    ///
    /// It begins as one, and is none.
    pub fn parse(entry: &[u8]) -> Result<Option<Self>, serde_json::Error> {
        if !entry.starts_with(BY_DIGEST) {
            return Ok(None);
        }
        let parsed: Self = serde_json::from_slice(entry)?;
        if !is_digest(&parsed.data_sha256) {
            return Err(serde::de::Error::custom("`data_sha256` is no SHA-256 in hex"));
        }
        Ok(Some(parsed))
    }

    /// Whether these are the bytes.
    pub fn is_of(&self, data: &[u8]) -> bool {
        data.len() as u64 == self.data_bytes && digest(data) == self.data_sha256
    }
}

/// SHA-256 in lower case hex.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the text is SHA-256 in lower case hex.
pub fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Appends an entry to a bundle. One that is too long is cut: a [`Leaf`] has none.
pub(super) fn put(bundle: &mut Vec<u8>, entry: &[u8]) {
    let length = u16::try_from(entry.len()).unwrap_or(u16::MAX);
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend(entry.iter().take(usize::from(length)));
}

/// The entries of a bundle; `None` if it does not hold exactly so many.
pub fn unbundle(bundle: &Bytes, width: u16) -> Option<Vec<Bytes>> {
    let (mut at, mut entries) = (0, Vec::with_capacity(width.into()));
    while at < bundle.len() {
        let length = bundle.get(at..at + 2)?.try_into().ok()?;
        let end = at + 2 + usize::from(u16::from_be_bytes(length));
        if end > bundle.len() {
            return None;
        }
        entries.push(bundle.slice(at + 2..end));
        at = end;
    }
    (entries.len() == usize::from(width)).then_some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::Slot;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use stream_storage::TopicId;

    fn entry(record: &Record<'_>) -> String {
        let topic = TopicName::parse("a.b").unwrap();
        let entry = of(record, &topic, Partition(2), 7, Timestamp(1_767_323_045_678));
        String::from_utf8(entry.to_vec()).unwrap()
    }

    const START: &str =
        r#"{"topic":"a.b","partition":2,"offset":7,"timestamp":"2026-01-02T03:04:05.678Z""#;

    #[test]
    fn a_json_value_keeps_its_bytes() {
        let value = "{\"b\": 1.50,\n \"a\":\"\u{e9}\\n\"}";
        let record = Record { value: value.as_bytes(), value_is_json: true, ..Record::default() };
        assert_eq!(entry(&record), format!("{START},\"value\":{value}}}"));
    }

    #[test]
    fn every_field_is_written_and_escaped() {
        let record = Record {
            key: Some("k\"\\"),
            id: Some("\u{1}"),
            time: Some("t"),
            content_type: Some("text/plain"),
            headers: vec![("h\"", "1"), ("i", "2")],
            value: b"\xff",
            value_is_json: false,
        };
        let json: Value = serde_json::from_str(&entry(&record)).unwrap();
        let expected = json!({
            "topic": "a.b", "partition": 2, "offset": 7, "timestamp": "2026-01-02T03:04:05.678Z",
            "key": "k\"\\", "id": "\u{1}", "time": "t", "content_type": "text/plain",
            "headers": {"h\"": "1", "i": "2"}, "value_base64": "/w==",
        });
        assert_eq!(json, expected);
    }

    fn source() -> Source {
        let slot = Slot::new(TopicId(1), Partition(2));
        Source { topic: TopicName::parse("a.b").unwrap(), slot, offset: 7 }
    }

    #[test]
    fn only_what_is_too_long_is_kept_by_its_digest() {
        let longest = Bytes::from(vec![b' '; BYTES_MAX]);
        let leaf = Leaf::new(longest.clone(), &source());
        assert_eq!((leaf.entry, leaf.data), (longest, Bytes::new()));
        let longer = Bytes::from(vec![b' '; BYTES_MAX + 1]);
        let leaf = Leaf::new(longer.clone(), &source());
        let by_digest = ByDigest::parse(&leaf.entry).unwrap().unwrap();
        assert!(by_digest.is_of(&longer) && !by_digest.is_of(&longer[1..]));
        assert_eq!((by_digest.topic.as_str(), by_digest.offset), ("a.b", 7));
        assert_eq!(leaf.data, longer);
        assert_eq!(ByDigest::parse(b"{\"topic\":\"a\"}").unwrap(), None);
        for bad in [
            "{\"data_sha256\":",
            "{\"data_sha256\":\"../x\",\"data_bytes\":1,\"topic\":\"a\",\
                                          \"partition\":0,\"offset\":0}",
        ] {
            assert!(ByDigest::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_bundle_reads_back_as_it_was_put(
            entries in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20),
        ) {
            let mut bundle = Vec::new();
            for entry in &entries {
                put(&mut bundle, entry);
            }
            let width = u16::try_from(entries.len()).unwrap();
            let bundle = Bytes::from(bundle);
            let read = unbundle(&bundle, width).unwrap();
            prop_assert!(read.iter().eq(&entries));
            prop_assert_eq!(unbundle(&bundle, width + 1), None);
            if !bundle.is_empty() {
                prop_assert_eq!(unbundle(&bundle.slice(..bundle.len() - 1), width), None);
            }
        }
    }
}
