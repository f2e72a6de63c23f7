//! One event as a JSON object: an NDJSON line, an element of an array, the body of `produce`.
//!
//! | field | type | meaning |
//! | --- | --- | --- |
//! | `value` | any JSON, required | kept byte for byte, at most 100 levels deep |
//! | `encoding` | `base64` | what `value`, a string then, stands for is not JSON |
//! | `content_type` | string | the media type of the value |
//! | `key`, `id` | string | as in [`Event`] |
//! | `time` | string | RFC 3339, kept as written |
//! | `headers` | object of strings | names of 1–256 bytes without control characters |
//! | `type` | string | kept as the header `ce-type` |
//! | `partition` | integer from 0 | where to put it |
//!
//! Any field but `value` may be `null`, which is as if it were not there. Other fields, and a field
//! twice, are refused. A record as it is read has these fields too, so that it can be published again
//! as it is.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::error::Fault;
use super::json::{self, Member};
use super::{check_time, push_header};
use crate::event::Event;
use crate::limit::Limits;

const UNKNOWN: &str = "unknown field, expected one of `key`, `value`, `headers`, `id`, `time`, \
                       `partition`, `type`, `encoding`, `content_type`";

/// The fields, not yet looked into.
#[derive(Default)]
struct Line<'a> {
    key: Option<Member<'a>>,
    value: Option<Member<'a>>,
    headers: Option<Member<'a>>,
    id: Option<Member<'a>>,
    time: Option<Member<'a>>,
    partition: Option<Member<'a>>,
    r#type: Option<Member<'a>>,
    encoding: Option<Member<'a>>,
    content_type: Option<Member<'a>>,
    /// Only where events go to several topics.
    topic: Option<Member<'a>>,
}

/// The event that `json` is.
pub(super) fn event<'a>(json: &'a str, limits: &Limits) -> Result<Event<'a>, Fault<'a>> {
    let mut line = Line::default();
    line.fill(json)?;
    match &line.topic {
        Some(topic) => Err(topic.refuse_name(UNKNOWN)),
        None => line.event(json, limits),
    }
}

/// The event that `json` is, and the topic that it names.
pub(super) fn addressed<'a>(
    json: &'a str,
    limits: &Limits,
) -> Result<(Cow<'a, str>, Event<'a>), Fault<'a>> {
    let mut line = Line::default();
    line.fill(json)?;
    let missing =
        || Fault::malformed("field is missing").field("topic").at(json.trim_ascii_start());
    let topic = line.topic.as_ref().ok_or_else(missing)?.text()?;
    Ok((topic, line.event(json, limits)?))
}

impl<'a> Line<'a> {
    fn event(&self, json: &'a str, limits: &Limits) -> Result<Event<'a>, Fault<'a>> {
        let missing =
            || Fault::malformed("field is missing").field("value").at(json.trim_ascii_start());
        let value = self.value.as_ref().ok_or_else(missing)?;
        let (value, value_is_json) = match &self.encoding {
            Some(encoding) => (decoded(value, encoding)?, false),
            None => {
                value.check_nesting()?;
                (value.value.as_bytes().into(), true)
            }
        };
        let content_type = text(&self.content_type)?;
        let is_usual = |given: &Cow<'_, str>| given.eq_ignore_ascii_case("application/json");
        let mut event = Event {
            key: text(&self.key)?,
            id: text(&self.id)?,
            time: self.time.as_ref().map(time).transpose()?,
            content_type: content_type.filter(|given| !value_is_json || !is_usual(given)),
            value,
            value_is_json,
            partition: self.partition.as_ref().map(partition).transpose()?,
            ..Event::default()
        };
        if let Some(field) = &self.r#type {
            push_header(&mut event, "ce-type".into(), field.text()?, limits)?;
        }
        if let Some(field) = &self.headers {
            push_headers(&mut event, field, limits)?;
        }
        Ok(event)
    }

    /// Takes the members of the object that `json` is.
    fn fill(&mut self, json: &'a str) -> Result<(), Fault<'a>> {
        json::members(json, |name, member| {
            let slot = match &*name {
                "key" => &mut self.key,
                "value" => &mut self.value,
                "headers" => &mut self.headers,
                "id" => &mut self.id,
                "time" => &mut self.time,
                "partition" => &mut self.partition,
                "type" => &mut self.r#type,
                "encoding" => &mut self.encoding,
                "content_type" => &mut self.content_type,
                "topic" => &mut self.topic,
                _ => return Err(member.refuse_name(UNKNOWN)),
            };
            json::fill(slot, member)
        })?;
        let Self { key, headers, id, time, partition, r#type, encoding, content_type, .. } = self;
        for optional in [key, headers, id, time, partition, r#type, encoding, content_type] {
            optional.take_if(|field| field.is_null());
        }
        Ok(())
    }
}

/// The string of a field that is there.
pub(super) fn text<'a>(field: &Option<Member<'a>>) -> Result<Option<Cow<'a, str>>, Fault<'a>> {
    field.as_ref().map(Member::text).transpose()
}

/// What a value stands for that is not JSON.
pub(super) fn decoded<'a>(
    value: &Member<'a>,
    encoding: &Member<'a>,
) -> Result<Cow<'a, [u8]>, Fault<'a>> {
    if encoding.text()? != "base64" {
        return Err(encoding.refuse_value("expected `base64`"));
    }
    let bytes = STANDARD.decode(&*value.text()?);
    bytes.map(Cow::Owned).map_err(|error| value.refuse_value(format!("expected base64: {error}")))
}

fn time<'a>(field: &Member<'a>) -> Result<Cow<'a, str>, Fault<'a>> {
    let time = field.text()?;
    check_time(&time).map_err(|fault| field.locate(fault))?;
    Ok(time)
}

fn partition<'a>(field: &Member<'a>) -> Result<u32, Fault<'a>> {
    let number = field.value.parse();
    number.map_err(|_| field.refuse_value("expected a partition, an integer from 0"))
}

pub(super) fn push_headers<'a>(
    event: &mut Event<'a>,
    field: &Member<'a>,
    limits: &Limits,
) -> Result<(), Fault<'a>> {
    let pushed = json::members(field.value, |name, header| {
        let value = json::text(header.value);
        value
            .and_then(|value| push_header(event, name, value, limits))
            .map_err(|fault| fault.at(header.value).field(&format!("headers.{}", header.name())))
    });
    pushed.map_err(|fault| field.locate(fault))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::tests::{NDJSON, assert_malformed, read};

    fn one(line: &str) -> Event<'static> {
        read(NDJSON, line.as_bytes()).unwrap().remove(0)
    }

    #[test]
    fn every_field_has_its_place() {
        let line = r#"{"type":"order.placed","key":"k","id":"7","time":"2013-01-01T10:17:00.5+01:00",
            "headers":{"b":"1","a":""},"partition":3,"value":{ "a" : 1e2 }}"#;
        let expected = Event {
            key: Some("k".into()),
            id: Some("7".into()),
            time: Some("2013-01-01T10:17:00.5+01:00".into()),
            content_type: None,
            headers: vec![
                ("ce-type".into(), "order.placed".into()),
                ("b".into(), "1".into()),
                ("a".into(), "".into()),
            ],
            value: br#"{ "a" : 1e2 }"#[..].into(),
            value_is_json: true,
            partition: Some(3),
        };
        assert_eq!(one(&line.replace('\n', " ")), expected);
    }

    #[test]
    fn a_value_that_is_not_json_is_base64() {
        let cases: [(&str, &[u8], bool, Option<&str>); 5] = [
            (r#""value":"//4=","encoding":"base64""#, b"\xff\xfe", false, None),
            (r#""encoding":"base64","value":"","content_type":"a/b""#, b"", false, Some("a/b")),
            (r#""value":"//4=","encoding":null"#, br#""//4=""#, true, None),
            (r#""value":1,"content_type":"a/b+json""#, b"1", true, Some("a/b+json")),
            (r#""value":1,"content_type":"Application/JSON""#, b"1", true, None),
        ];
        for (fields, value, value_is_json, content_type) in cases {
            let event = one(&format!("{{{fields}}}"));
            assert_eq!((&*event.value, event.value_is_json), (value, value_is_json), "{fields}");
            assert_eq!(event.content_type.as_deref(), content_type, "{fields}");
        }
    }

    #[test]
    fn null_is_as_if_the_field_were_not_there_but_for_the_value() {
        let line = r#"{"key":null,"id":null,"time":null,"headers":null,"partition":null,"type":null,
            "value":null}"#;
        let expected = Event { value: b"null"[..].into(), value_is_json: true, ..Event::default() };
        assert_eq!(one(&line.replace('\n', " ")), expected);
    }

    #[test]
    fn escapes_are_read_in_names_and_texts_and_kept_in_values() {
        let event = one(r#"{"\u006bey":"\ud83d\ude00\n","value":"\u00e9\/"}"#);
        assert_eq!(event.key.as_deref(), Some("😀\n"));
        assert_eq!(*event.value, *br#""\u00e9\/""#);
    }

    #[test]
    fn a_bad_field_is_named_with_its_byte() {
        let cases = [
            (r#" ^{"key":"a"}"#, 0, "field `value`: field is missing"),
            ("^{}", 0, "field `value`: field is missing"),
            (r#"{"value":1,^"valeu":2}"#, 0, "field `valeu`: unknown field, expected one of `key`"),
            (r#"{"value":1, ^"\u0078":2}"#, 0, "field `x`: unknown field"),
            (r#"{"value":1, ^"value":2}"#, 0, "field `value`: field is given twice"),
            (r#"{"key":null,"value":1,^"key":null}"#, 0, "field `key`: field is given twice"),
            (r#"{"value":1,"key": ^5}"#, 0, "field `key`: expected a string, got a number"),
            (r#"{"value":1,"key":"a\ud800^"}"#, 0, "field `key`: "),
            (r#"{"value":1,"id":^{}}"#, 0, "field `id`: expected a string, got an object"),
            (r#"{"value":1,"type":^true}"#, 0, "field `type`: expected a string, got a boolean"),
            (r#"{"value":1,"time":^[]}"#, 0, "field `time`: expected a string, got an array"),
            (r#"{"value":1,"time":^"2013-01-01"}"#, 0, "field `time`: expected an RFC 3339 time"),
            (r#"{"value":1,"time":^"2013-02-30T00:00:00Z"}"#, 0, "field `time`: expected"),
            (r#"{"value":1,"time":^"2013-01-01T00:00:00"}"#, 0, "field `time`: expected"),
            (r#"{"value":1,"partition":^-1}"#, 0, "field `partition`: expected a partition"),
            (r#"{"value":1,"partition":^1.0}"#, 0, "field `partition`: expected a partition"),
            (r#"{"value":1,"partition":^"1"}"#, 0, "field `partition`: expected a partition"),
            (r#"{"value":1,"partition":^4294967296}"#, 0, "field `partition`: expected"),
            (r#"{"value":"","encoding":^"hex"}"#, 0, "field `encoding`: expected `base64`"),
            (r#"{"value":"","encoding":^1}"#, 0, "field `encoding`: expected a string"),
            (r#"{"value":^"?","encoding":"base64"}"#, 0, "field `value`: expected base64"),
            (r#"{"value":^1,"encoding":"base64"}"#, 0, "field `value`: expected a string"),
            (r#"{"value":1,"content_type":^1}"#, 0, "field `content_type`: expected a string"),
            (r#"{"value":1,"headers":^["a"]}"#, 0, "field `headers`: "),
            (
                r#"{"value":1,"headers":{"a":"1","b":^2}}"#,
                0,
                "field `headers.b`: expected a string",
            ),
            (r#"{"value":1,"headers":{"a":^null}}"#, 0, "field `headers.a`: expected a string"),
            (r#"{"value":1,"headers":{"a":"1","a":^"1"}}"#, 0, "header `a` is given twice"),
            (r#"{"value":1,"headers":{"":^"1"}}"#, 0, "expected a header name of 1–256 bytes"),
            (r#"{"value":1,"headers":{"a\n":^"1"}}"#, 0, "expected a header name of 1–256 bytes"),
            (r#"{"type":"t","value":1,"headers":{"ce-type":^"t"}}"#, 0, "`ce-type` is given twice"),
        ];
        assert_malformed(NDJSON, &cases);
    }

    #[test]
    fn a_header_name_has_at_most_256_bytes() {
        let line = |name: &str| format!(r#"{{"value":1,"headers":{{"{name}":^"1"}}}}"#);
        assert_eq!(one(&line(&"n".repeat(256)).replace('^', "")).headers.len(), 1);
        assert_malformed(NDJSON, &[(&line(&"n".repeat(257)), 0, "1–256 bytes")]);
    }
}
