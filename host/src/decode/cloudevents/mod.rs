//! One CloudEvent 1.0 as one event of ours.
//!
//! | CloudEvent | event |
//! | --- | --- |
//! | `id`, `time` | id, time |
//! | `partitionkey` | key |
//! | `datacontenttype` | content type, unless it is `application/json` |
//! | data | value |
//! | every other attribute | header `ce-<name>` |
//!
//! An event without data has an empty value that is not JSON, and no content type: `null` would be
//! data.

mod binary;
mod structured;

use std::borrow::Cow;

pub(super) use binary::binary;
pub(super) use structured::structured;

use super::error::Fault;
use super::media_type::is_json;
use super::{check_time, json, push_header};
use crate::event::Event;
use crate::limit::Limits;

/// Sets the attribute `name` of `event`, once. The fault names the attribute.
fn set_attribute<'a>(
    event: &mut Event<'a>,
    name: &str,
    value: Cow<'a, str>,
    limits: &Limits,
) -> Result<(), Fault<'a>> {
    let slot = match name {
        "id" => &mut event.id,
        "time" => {
            check_time(&value)?;
            &mut event.time
        }
        "partitionkey" => &mut event.key,
        "datacontenttype" => &mut event.content_type,
        _ => return push_header(event, header_name(name)?, value, limits),
    };
    if slot.is_some() {
        return Err(Fault::malformed("attribute is given twice"));
    }
    *slot = Some(value);
    Ok(())
}

/// The header that keeps the attribute `name`.
fn header_name<'a>(name: &str) -> Result<Cow<'a, str>, Fault<'a>> {
    Ok(match name {
        "source" => SOURCE.into(),
        "specversion" => SPECVERSION.into(),
        "type" => TYPE.into(),
        _ => {
            let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            if name.is_empty() || !name.bytes().all(allowed) {
                let message = "expected an attribute name of lower-case letters and digits";
                return Err(Fault::malformed(message));
            }
            format!("ce-{name}").into()
        }
    })
}

const SOURCE: &str = "ce-source";
const SPECVERSION: &str = "ce-specversion";
const TYPE: &str = "ce-type";

/// Checks that the attributes every CloudEvent must have are there.
fn check_required<'a>(event: &Event<'_>) -> Result<(), Fault<'a>> {
    let header = |name| {
        event.headers.iter().find(|(other, _)| other == name).map(|(_, value)| &**value)
    };
    let required = [
        ("specversion", header(SPECVERSION)),
        ("id", event.id.as_deref()),
        ("source", header(SOURCE)),
        ("type", header(TYPE)),
    ];
    for (name, value) in required {
        let message = match value {
            None => "attribute is missing".to_owned(),
            Some("") => "attribute is empty".to_owned(),
            Some(version) if name == "specversion" && version != "1.0" => {
                format!("expected version `1.0`, got `{version}`")
            }
            Some(_) => continue,
        };
        return Err(Fault::malformed(message).field(name));
    }
    Ok(())
}

/// Marks the value as JSON if the content type says so, and drops a content type that need not be
/// kept.
fn settle_content_type(event: &mut Event<'_>) {
    event.value_is_json = event.content_type.as_deref().is_some_and(is_json);
    event.content_type.take_if(|given| given.eq_ignore_ascii_case("application/json"));
}

/// Checks data in bytes that its content type calls JSON.
fn check_json(data: &[u8]) -> Result<(), Fault<'_>> {
    json::check_value(json::utf8(data).into_result()?)
}
