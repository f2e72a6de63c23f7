//! One event as a JSON object: an NDJSON line, an element of an array, the body of `produce`.
//!
//! | field | type | meaning |
//! | --- | --- | --- |
//! | `value` | any JSON, required | kept byte for byte, at most 100 levels deep |
//! | `key`, `id` | string | as in [`Event`] |
//! | `time` | string | RFC 3339, kept as written |
//! | `headers` | object of strings | names of 1–256 bytes without control characters |
//! | `type` | string | kept as the header `ce-type` |
//! | `partition` | integer from 0 | where to put it |
//!
//! Any field but `value` may be `null`, which is as if it were not there. Other fields, and a field
//! twice, are refused.

use std::borrow::Cow;

use super::error::Fault;
use super::json::{self, Member};
use super::{check_time, push_header};
use crate::event::Event;
use crate::limit::Limits;

const UNKNOWN: &str = "unknown field, expected one of `key`, `value`, `headers`, `id`, `time`, \
                       `partition`, `type`";

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
}

/// The event that `json` is.
pub(super) fn event<'a>(json: &'a str, limits: &Limits) -> Result<Event<'a>, Fault<'a>> {
    let line = Line::split(json)?;
    let value = line.value.ok_or_else(|| {
        Fault::malformed("field is missing").field("value").at(json.trim_ascii_start())
    })?;
    json::check_nesting(value.value).map_err(|fault| value.locate(fault))?;
    let mut event = Event {
        key: line.key.map(|field| field.text()).transpose()?,
        id: line.id.map(|field| field.text()).transpose()?,
        time: line.time.map(|field| time(&field)).transpose()?,
        value: value.value.get().as_bytes().into(),
        value_is_json: true,
        partition: line.partition.map(|field| partition(&field)).transpose()?,
        ..Event::default()
    };
    if let Some(field) = line.r#type {
        push_header(&mut event, "ce-type".into(), field.text()?, limits)?;
    }
    if let Some(field) = line.headers {
        push_headers(&mut event, &field, limits)?;
    }
    Ok(event)
}

impl<'a> Line<'a> {
    fn split(json: &'a str) -> Result<Self, Fault<'a>> {
        let mut line = Self::default();
        json::members(json, |member| {
            let slot = match &*member.name {
                "key" => &mut line.key,
                "value" => &mut line.value,
                "headers" => &mut line.headers,
                "id" => &mut line.id,
                "time" => &mut line.time,
                "partition" => &mut line.partition,
                "type" => &mut line.r#type,
                _ => return Err(member.refuse_name(UNKNOWN)),
            };
            json::fill(slot, member)
        })?;
        let Self { key, value: _, headers, id, time, partition, r#type } = &mut line;
        for optional in [key, headers, id, time, partition, r#type] {
            optional.take_if(|field| field.is_null());
        }
        Ok(line)
    }
}

fn time<'a>(field: &Member<'a>) -> Result<Cow<'a, str>, Fault<'a>> {
    let time = field.text()?;
    check_time(&time).map_err(|fault| field.locate(fault))?;
    Ok(time)
}

fn partition<'a>(field: &Member<'a>) -> Result<u32, Fault<'a>> {
    let number = field.value.get().parse();
    number.map_err(|_| field.refuse_value("expected a partition, an integer from 0"))
}

fn push_headers<'a>(
    event: &mut Event<'a>,
    field: &Member<'a>,
    limits: &Limits,
) -> Result<(), Fault<'a>> {
    let pushed = json::members(field.value.get(), |header| {
        let value = json::text(header.value);
        value
            .and_then(|value| push_header(event, header.name.clone(), value, limits))
            .map_err(|fault| {
                fault.at(header.value.get()).field(&format!("headers.{}", header.name))
            })
    });
    pushed.map_err(|fault| field.locate(fault))
}
