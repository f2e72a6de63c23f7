//! An event on its way in: decoded from a request, not yet placed in a partition.
//!
//! Knows nothing of the format it came in, nor of the topic it goes to.

use std::borrow::Cow;

use stream_storage::Record;

/// What a client publishes.
///
/// Texts and value are slices of the request wherever the request holds them verbatim; only what had
/// to be unescaped is owned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event<'a> {
    /// What orders it: events of one key share a partition.
    pub key: Option<Cow<'a, str>>,
    /// The publisher's identity for it, unique within its source.
    pub id: Option<Cow<'a, str>>,
    /// When it happened (RFC 3339), as the publisher wrote it.
    pub time: Option<Cow<'a, str>>,
    /// The media type of `value`, if it is not `application/json` or not known.
    pub content_type: Option<Cow<'a, str>>,
    /// Names and values, in the order in which they came; no name twice.
    pub headers: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// The payload, byte for byte as it was sent.
    pub value: Cow<'a, [u8]>,
    /// Whether `value` was checked to be a JSON text.
    pub value_is_json: bool,
    /// The partition the publisher asks for; not known to exist.
    pub partition: Option<u32>,
}

impl<'a> Event<'a> {
    /// The event that a record was made of.
    pub fn of(record: Record<'a>) -> Self {
        let headers = record.headers.into_iter();
        Self {
            key: record.key.map(Cow::Borrowed),
            id: record.id.map(Cow::Borrowed),
            time: record.time.map(Cow::Borrowed),
            content_type: record.content_type.map(Cow::Borrowed),
            headers: headers.map(|(name, value)| (name.into(), value.into())).collect(),
            value: Cow::Borrowed(record.value),
            value_is_json: record.value_is_json,
            partition: None,
        }
    }

    /// What the store keeps of it.
    pub fn record(&self) -> Record<'_> {
        Record {
            key: self.key.as_deref(),
            id: self.id.as_deref(),
            time: self.time.as_deref(),
            content_type: self.content_type.as_deref(),
            headers: self.headers.iter().map(|(name, value)| (&**name, &**value)).collect(),
            value: &self.value,
            value_is_json: self.value_is_json,
        }
    }

    /// Bytes that count against [`event_bytes_max`](crate::limit::Limits::event_bytes_max).
    pub fn byte_len(&self) -> usize {
        let texts = [&self.key, &self.id, &self.time, &self.content_type];
        let texts: usize = texts.into_iter().flatten().map(|text| text.len()).sum();
        let headers: usize =
            self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        texts + headers + self.value.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event<'static> {
        Event {
            key: Some("k".into()),
            id: Some("id".into()),
            time: Some("2013-01-01T10:17:00Z".into()),
            content_type: Some("text/plain".into()),
            headers: vec![("name".into(), "value".into())],
            value: b"hello"[..].into(),
            value_is_json: false,
            partition: Some(3),
        }
    }

    #[test]
    fn every_field_but_the_partition_counts_as_bytes() {
        assert_eq!(event().byte_len(), 1 + 2 + 20 + 10 + 4 + 5 + 5);
        assert_eq!(Event::default().byte_len(), 0);
    }

    #[test]
    fn the_record_has_every_field_but_the_partition() {
        let expected = Record {
            key: Some("k"),
            id: Some("id"),
            time: Some("2013-01-01T10:17:00Z"),
            content_type: Some("text/plain"),
            headers: vec![("name", "value")],
            value: b"hello",
            value_is_json: false,
        };
        assert_eq!(event().record(), expected);
        assert_eq!(Event::of(expected), Event { partition: None, ..event() });
    }
}
