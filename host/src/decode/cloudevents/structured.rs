//! Structured mode: a JSON object of attributes and data.

use std::borrow::Cow;
use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{TWICE, check_json, check_required, names, set_attribute, settle_content_type};
use crate::decode::error::Fault;
use crate::decode::json::{self, Member};
use crate::decode::media_type::is_json;
use crate::event::Event;
use crate::limit::Limits;

/// Attributes of one event that may be `null`: each says nothing, but takes room while it is read.
const NULLS_MAX: usize = 256;

/// The event that `json` is.
pub(in crate::decode) fn structured<'a>(
    json: &'a str,
    limits: &Limits,
) -> Result<Event<'a>, Fault<'a>> {
    let mut event = Event::default();
    let (mut data, mut data_base64) = (None, None);
    let mut nulls = HashMap::new();
    json::members(json, |name, member| match &*name {
        "data" => json::fill(&mut data, member),
        "data_base64" => json::fill(&mut data_base64, member),
        _ if member.is_null() => set_null(&mut nulls, member),
        name => attribute(&member)
            .and_then(|value| set_attribute(&mut event, name, value, limits))
            .map_err(|fault| member.locate(fault)),
    })?;
    // Two that are not null are refused when the second is set, two that are null likewise.
    if let Some(null) = names(&event).find_map(|name| nulls.get(name)) {
        return Err(null.refuse_value(TWICE));
    }
    check_required(&event).map_err(|fault| fault.at(json.trim_ascii_start()))?;
    match (data, data_base64.filter(|member: &Member<'_>| !member.is_null())) {
        (Some(_), Some(base64)) => {
            return Err(base64.refuse_name("`data` is given too, expected one of them"));
        }
        (Some(data), None) => set_data(&mut event, &data)?,
        (None, Some(base64)) => set_base64(&mut event, &base64)?,
        (None, None) => event.content_type = None,
    }
    Ok(event)
}

/// Notes that an attribute is left out: the standard has `null` as another way to do so. It is not
/// given twice either.
fn set_null<'a>(
    nulls: &mut HashMap<Cow<'a, str>, Member<'a>>,
    member: Member<'a>,
) -> Result<(), Fault<'a>> {
    let name = member.name();
    if nulls.contains_key(&name) {
        return Err(member.refuse_value(TWICE));
    }
    if nulls.len() >= NULLS_MAX {
        let message = format!("expected at most {NULLS_MAX} attributes that are `null`");
        return Err(member.refuse_name(message));
    }
    nulls.insert(name, member);
    Ok(())
}

/// An attribute's value as text: attributes are strings, integers and booleans.
fn attribute<'a>(member: &Member<'a>) -> Result<Cow<'a, str>, Fault<'a>> {
    const STRINGS: [&str; 7] =
        ["id", "source", "specversion", "type", "time", "datacontenttype", "partitionkey"];

    let raw = member.value;
    let is_integer = raw.parse::<i64>().is_ok();
    let is_boolean = matches!(raw, "true" | "false");
    if (is_integer || is_boolean) && !STRINGS.contains(&&*member.name()) {
        return Ok(raw.into());
    }
    member.text()
}

/// JSON is kept byte for byte; data of another type is the text of a string.
fn set_data<'a>(event: &mut Event<'a>, data: &Member<'a>) -> Result<(), Fault<'a>> {
    if event.content_type.as_deref().is_none_or(is_json) {
        data.check_nesting()?;
        event.value = data.value.as_bytes().into();
        settle_content_type(event);
        event.value_is_json = true;
        return Ok(());
    }
    event.value = match data.text()? {
        Cow::Borrowed(text) => text.as_bytes().into(),
        Cow::Owned(text) => text.into_bytes().into(),
    };
    Ok(())
}

fn set_base64<'a>(event: &mut Event<'a>, base64: &Member<'a>) -> Result<(), Fault<'a>> {
    let bytes = STANDARD
        .decode(&*base64.text()?)
        .map_err(|error| base64.refuse_value(format!("expected base64: {error}")))?;
    settle_content_type(event);
    if event.value_is_json {
        // The decoded bytes are no part of the body: only the field has a place in it.
        let message = "expected well-formed JSON, as `datacontenttype` says";
        check_json(&bytes).map_err(|_| base64.refuse_value(message))?;
    }
    event.value = bytes.into();
    Ok(())
}
