//! Records as JSON, written straight from stored bytes: a value that is JSON is copied, not parsed.

use std::io::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use stream_storage::{Partition, Record, Segment, StoreError};

use crate::json_text::{put_headers, put_text};
use crate::timestamp;

/// How records follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// With commas between them, as the items of an array.
    Array,
    /// Each on a line of its own.
    Lines,
}

/// Writes records of one topic, one after the other.
pub(crate) struct RecordWriter {
    /// The topic as a JSON string.
    topic: Vec<u8>,
    layout: Layout,
    out: Vec<u8>,
    is_first: bool,
    /// A record that was tried before, and which attempt it is now.
    pub(crate) tried: Option<(u64, u32)>,
}

impl RecordWriter {
    /// Writes behind what `out` holds.
    pub(crate) fn new(topic: &str, layout: Layout, out: Vec<u8>) -> Self {
        let mut quoted = Vec::new();
        put_text(&mut quoted, topic);
        Self { topic: quoted, layout, out, is_first: true, tried: None }
    }

    /// The record of this offset is written with the number of the attempt to process it.
    pub(crate) fn with_tried(mut self, tried: Option<(u64, u32)>) -> Self {
        self.tried = tried;
        self
    }

    /// Makes room for the records of segments at once: growing into it copies what is there.
    pub(crate) fn with_room_for(mut self, segments: &[Segment]) -> Self {
        /// Names of fields, offset, timestamp, and what stands between records.
        const AROUND: usize = 120;

        let around = AROUND + self.topic.len();
        let bytes = |segment: &Segment| segment.byte_len() + around * segment.count() as usize;
        self.out.reserve(segments.iter().map(bytes).sum());
        self
    }

    /// Writes all records of a segment.
    ///
    /// # Errors
    ///
    /// A stored record cannot be decoded.
    pub(crate) fn write(
        &mut self,
        partition: Partition,
        segment: &Segment,
    ) -> Result<(), StoreError> {
        let frame = self.frame(partition, segment);
        for record in segment.records() {
            let (offset, record) = decoded(partition, segment, record)?;
            if !self.is_first && self.layout == Layout::Array {
                self.out.push(b',');
            }
            self.is_first = false;
            self.put_record(&frame, offset, &record);
            if self.layout == Layout::Lines {
                self.out.push(b'\n');
            }
        }
        Ok(())
    }

    /// Writes the records of a segment as Server-Sent Events. `id` names each by its offset.
    ///
    /// # Errors
    ///
    /// A stored record cannot be decoded.
    pub(crate) fn write_events<I: std::fmt::Display>(
        &mut self,
        partition: Partition,
        segment: &Segment,
        id: impl Fn(u64) -> I,
    ) -> Result<(), StoreError> {
        let frame = self.frame(partition, segment);
        for record in segment.records() {
            let (offset, record) = decoded(partition, segment, record)?;
            // Writing to a vector cannot fail.
            let _ = write!(self.out, "id: {}\ndata: ", id(offset));
            self.put_record(&frame, offset, &record);
            self.out.extend_from_slice(b"\n\n");
        }
        Ok(())
    }

    /// What was written.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.out
    }

    fn frame(&self, partition: Partition, segment: &Segment) -> Frame {
        Frame::new(&self.topic, partition, &timestamp::format(segment.timestamp()))
    }

    fn put_record(&mut self, frame: &Frame, offset: u64, record: &Record<'_>) {
        let out = &mut self.out;
        out.extend_from_slice(&frame.before_offset);
        out.extend_from_slice(itoa::Buffer::new().format(offset).as_bytes());
        out.extend_from_slice(&frame.behind_offset);
        if let Some((_, attempt)) = self.tried.filter(|(tried, _)| *tried == offset) {
            // Writing to a vector cannot fail.
            let _ = write!(out, ",\"attempt\":{attempt}");
        }
        let optional = [
            (",\"key\":", record.key),
            (",\"id\":", record.id),
            (",\"time\":", record.time),
            (",\"content_type\":", record.content_type),
        ];
        for (name, text) in optional {
            if let Some(text) = text {
                out.extend_from_slice(name.as_bytes());
                put_text(out, text);
            }
        }
        put_headers(out, &record.headers);
        put_value(out, record, self.layout);
        out.push(b'}');
    }
}

/// What all records of a segment have around their offset.
struct Frame {
    before_offset: Vec<u8>,
    behind_offset: Vec<u8>,
}

impl Frame {
    /// `topic` is a JSON string.
    fn new(topic: &[u8], partition: Partition, timestamp: &str) -> Self {
        let partition = format!(",\"partition\":{partition},\"offset\":");
        Self {
            before_offset: [b"{\"topic\":", topic, partition.as_bytes()].concat(),
            behind_offset: format!(",\"timestamp\":\"{timestamp}\"").into_bytes(),
        }
    }
}

/// A record as it was stored, or what is wrong with it.
fn decoded<T, E: std::fmt::Display>(
    partition: Partition,
    segment: &Segment,
    record: Result<T, E>,
) -> Result<T, StoreError> {
    record.map_err(|error| StoreError::Corrupt {
        reason: format!("partition {partition} near {}: {error}", segment.base_offset()),
    })
}

fn put_value(out: &mut Vec<u8>, record: &Record<'_>, layout: Layout) {
    out.extend_from_slice(b",\"value\":");
    if !record.value_is_json {
        let text = BASE64_STANDARD.encode(record.value);
        let _ = write!(out, "\"{text}\",\"encoding\":\"base64\"");
        return;
    }
    let start = out.len();
    out.extend_from_slice(record.value);
    if layout == Layout::Lines {
        // A line break in a JSON text is white space between its parts: in a string it is escaped.
        let mut rest = out.get_mut(start..).unwrap_or_default();
        while let Some(at) = memchr::memchr2(b'\n', b'\r', rest) {
            let (_, line_break) = std::mem::take(&mut rest).split_at_mut(at);
            let Some((line_break, behind)) = line_break.split_first_mut() else { break };
            *line_break = b' ';
            rest = behind;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(record: &Record<'_>, layout: Layout) -> String {
        let mut writer = RecordWriter::new("a.b", layout, Vec::new());
        let frame = Frame::new(b"\"a.b\"", Partition(2), "2026-01-02T03:04:05.678Z");
        writer.put_record(&frame, 7, record);
        String::from_utf8(writer.finish()).unwrap()
    }

    const START: &str =
        r#"{"topic":"a.b","partition":2,"offset":7,"timestamp":"2026-01-02T03:04:05.678Z""#;

    #[test]
    fn a_json_value_keeps_its_bytes() {
        let value = "{\"b\": 1.50,\n \"a\":\"\u{e9}\\n\"}";
        let record = Record { value: value.as_bytes(), value_is_json: true, ..Record::default() };
        assert_eq!(written(&record, Layout::Array), format!("{START},\"value\":{value}}}"));
    }

    #[test]
    fn a_line_break_in_a_value_does_not_break_the_line() {
        let value = b"{\r\n\"a\":\"\\n\"}";
        let record = Record { value, value_is_json: true, ..Record::default() };
        let line = written(&record, Layout::Lines);
        assert_eq!(line, format!("{START},\"value\":{{  \"a\":\"\\n\"}}}}"));
    }

    #[test]
    fn what_is_not_json_is_base64() {
        let record = Record { value: b"\xffhello", ..Record::default() };
        let expected = format!("{START},\"value\":\"/2hlbGxv\",\"encoding\":\"base64\"}}");
        assert_eq!(written(&record, Layout::Array), expected);
    }

    #[test]
    fn only_the_record_that_was_tried_has_an_attempt() {
        let record = Record { value: b"1", value_is_json: true, ..Record::default() };
        let out = |offset| {
            let writer = RecordWriter::new("t", Layout::Array, Vec::new());
            let mut writer = writer.with_tried(Some((7, 3)));
            writer.put_record(&Frame::new(b"\"t\"", Partition(0), "T"), offset, &record);
            let json: serde_json::Value = serde_json::from_slice(&writer.finish()).unwrap();
            json["attempt"].as_u64()
        };
        assert_eq!((out(6), out(7), out(8)), (None, Some(3), None));
    }

    #[test]
    fn every_field_is_written_and_escaped() {
        let record = Record {
            key: Some("k\"\\"),
            id: Some("\u{1}"),
            time: Some("t"),
            content_type: Some("text/plain"),
            headers: vec![("h\"", "1"), ("i", "2")],
            value: b"1",
            value_is_json: true,
        };
        let json: serde_json::Value =
            serde_json::from_str(&written(&record, Layout::Array)).unwrap();
        let expected = serde_json::json!({
            "topic": "a.b", "partition": 2, "offset": 7, "timestamp": "2026-01-02T03:04:05.678Z",
            "key": "k\"\\", "id": "\u{1}", "time": "t", "content_type": "text/plain",
            "headers": {"h\"": "1", "i": "2"}, "value": 1,
        });
        assert_eq!(json, expected);
    }
}
