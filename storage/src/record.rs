//! One record and its encoding.
//!
//! | field | bytes | present if |
//! | --- | --- | --- |
//! | flags | 1 | always |
//! | key | varint length + UTF-8 | flag 1 |
//! | id | varint length + UTF-8 | flag 2 |
//! | time | varint length + UTF-8 | flag 4 |
//! | content type | varint length + UTF-8 | flag 8 |
//! | headers | varint count, then per header name and value, each varint length + UTF-8 | flag 16 |
//! | value | the rest | always |
//!
//! Flag 32 says that the value is a JSON text. Other flags are refused.

/// An event as it is stored: borrowed from a request when it is written and from a batch when it is
/// read. Offset, timestamp and commit number are the batch's, not the record's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record<'a> {
    /// What orders it: records of one key share a partition.
    pub key: Option<&'a str>,
    /// The publisher's identity for it, unique within its source.
    pub id: Option<&'a str>,
    /// When it happened, as the publisher said it (RFC 3339).
    pub time: Option<&'a str>,
    /// The media type of `value`, if it is not `application/json` or not known.
    pub content_type: Option<&'a str>,
    /// Names and values, in the order in which they came.
    pub headers: Vec<(&'a str, &'a str)>,
    /// The payload, byte for byte as it was sent.
    pub value: &'a [u8],
    /// Whether `value` is a JSON text; checked by the publisher's side, never guessed here.
    pub value_is_json: bool,
}

/// Stored bytes that are not a record or a batch: damage, or a format of a later version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot decode `{what}`")]
pub struct DecodeError {
    /// The field at which decoding stopped.
    pub what: &'static str,
}

const KEY: u8 = 1;
const ID: u8 = 2;
const TIME: u8 = 4;
const CONTENT_TYPE: u8 = 8;
const HEADERS: u8 = 16;
const VALUE_IS_JSON: u8 = 32;
const KNOWN: u8 = KEY | ID | TIME | CONTENT_TYPE | HEADERS | VALUE_IS_JSON;

impl<'a> Record<'a> {
    /// Appends the encoding to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let flags_at = out.len();
        out.push(0);
        let mut flags = if self.value_is_json { VALUE_IS_JSON } else { 0 };
        let optional =
            [(KEY, self.key), (ID, self.id), (TIME, self.time), (CONTENT_TYPE, self.content_type)];
        for (flag, field) in optional {
            if let Some(text) = field {
                flags |= flag;
                put_text(out, text);
            }
        }
        if !self.headers.is_empty() {
            flags |= HEADERS;
            put_varint(out, self.headers.len());
            for (name, value) in &self.headers {
                put_text(out, name);
                put_text(out, value);
            }
        }
        out.extend_from_slice(self.value);
        if let Some(byte) = out.get_mut(flags_at) {
            *byte = flags;
        }
    }

    /// Reads one record from exactly `bytes`.
    ///
    /// # Errors
    ///
    /// A flag is unknown, a field is cut short, or a text is not UTF-8.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let (&flags, mut rest) = bytes.split_first().ok_or(DecodeError { what: "record flags" })?;
        if flags & !KNOWN != 0 {
            return Err(DecodeError { what: "record flags" });
        }
        let mut field = |flag| {
            if flags & flag == 0 { Ok(None) } else { take_text(&mut rest).map(Some) }
        };
        let key = field(KEY)?;
        let id = field(ID)?;
        let time = field(TIME)?;
        let content_type = field(CONTENT_TYPE)?;
        let mut headers = Vec::new();
        if flags & HEADERS != 0 {
            let count = take_varint(&mut rest)?;
            // A header takes two bytes at least: a count beyond that is damage, not a reservation.
            if count > rest.len() / 2 {
                return Err(DecodeError { what: "header count" });
            }
            headers.reserve_exact(count);
            for _ in 0..count {
                headers.push((take_text(&mut rest)?, take_text(&mut rest)?));
            }
        }
        let value_is_json = flags & VALUE_IS_JSON != 0;
        Ok(Self { key, id, time, content_type, headers, value: rest, value_is_json })
    }
}

#[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn take_varint(rest: &mut &[u8]) -> Result<usize, DecodeError> {
    let mut value = 0_usize;
    // Five groups of seven bits hold any length below 4 GiB, and no batch is larger.
    for shift in [0, 7, 14, 21, 28] {
        let (&byte, tail) = rest.split_first().ok_or(DecodeError { what: "length" })?;
        *rest = tail;
        value |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(DecodeError { what: "length" })
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, DecodeError> {
    let length = take_varint(rest)?;
    let (text, tail) = rest.split_at_checked(length).ok_or(DecodeError { what: "text" })?;
    *rest = tail;
    std::str::from_utf8(text).map_err(|_| DecodeError { what: "text" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_record_reads_back_as_written(
            key in proptest::option::of(".{0,200}"),
            id in proptest::option::of(".{0,20}"),
            time in proptest::option::of(".{0,30}"),
            content_type in proptest::option::of(".{0,30}"),
            headers in proptest::collection::vec((".{0,10}", ".{0,150}"), 0..5),
            value in proptest::collection::vec(any::<u8>(), 0..300),
            value_is_json: bool,
        ) {
            let record = Record {
                key: key.as_deref(),
                id: id.as_deref(),
                time: time.as_deref(),
                content_type: content_type.as_deref(),
                headers: headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect(),
                value: &value,
                value_is_json,
            };
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            prop_assert_eq!(Record::decode(&bytes), Ok(record));
        }

        #[test]
        fn damaged_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::decode(&bytes);
        }
    }

    #[test]
    fn a_flag_of_a_later_version_is_refused() {
        assert_eq!(Record::decode(&[64, b'x']), Err(DecodeError { what: "record flags" }));
    }
}
