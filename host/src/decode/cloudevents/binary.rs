//! Binary mode: attributes in headers `ce-…`, data as the body.

use std::borrow::Cow;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use percent_encoding::percent_decode_str;

use super::{check_json, check_required, set_attribute, settle_content_type};
use crate::decode::error::Fault;
use crate::event::Event;
use crate::limit::Limits;

/// The event of a request whose data is `body`. Headers of HTTP are no part of it.
pub(in crate::decode) fn binary<'a>(
    body: &'a [u8],
    headers: &'a HeaderMap,
    limits: &Limits,
) -> Result<Event<'a>, Fault<'a>> {
    let mut event = Event { value: body.into(), ..Event::default() };
    for (header, value) in headers {
        let Some(name) = header.as_str().strip_prefix("ce-") else { continue };
        // Set below, from the one header that says them.
        if matches!(name, "data" | "datacontenttype") {
            let message = "expected data as the body and its type as `content-type`";
            return Err(Fault::malformed(message).field(header.as_str()));
        }
        attribute(value)
            .and_then(|value| set_attribute(&mut event, name, value, limits))
            .map_err(|fault| fault.field(header.as_str()))?;
    }
    check_required(&event)?;
    if body.is_empty() {
        return Ok(event);
    }
    if let Some(content_type) = headers.get(CONTENT_TYPE) {
        event.content_type = Some(ascii(content_type)?.into());
        settle_content_type(&mut event);
    }
    if event.value_is_json {
        check_json(body)?;
    }
    Ok(event)
}

/// A header's value as the attribute it stands for: unquoted, since older versions of the standard
/// quoted what has spaces, then percent-decoded once.
fn attribute(value: &HeaderValue) -> Result<Cow<'_, str>, Fault<'_>> {
    let text = ascii(value)?;
    let decoded = match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        None => percent_decoded(text),
        Some(quoted) => percent_decoded(&unescaped(quoted)).map(|text| text.into_owned().into()),
    };
    decoded.map_err(Fault::malformed)
}

fn ascii(value: &HeaderValue) -> Result<&str, Fault<'_>> {
    value.to_str().map_err(|_| Fault::malformed("expected visible ASCII, the rest percent-encoded"))
}

/// The text of a quoted string: a backslash stands for the character behind it.
fn unescaped(quoted: &str) -> String {
    let mut characters = quoted.chars();
    std::iter::from_fn(|| match characters.next()? {
        '\\' => characters.next(),
        other => Some(other),
    })
    .collect()
}

fn percent_decoded(text: &str) -> Result<Cow<'_, str>, &'static str> {
    let is_escape = |rest: &str| {
        let digits = rest.as_bytes().get(..2).unwrap_or_default();
        digits.len() == 2 && digits.iter().all(u8::is_ascii_hexdigit)
    };
    if !text.split('%').skip(1).all(is_escape) {
        return Err("expected two hexadecimal digits after `%`");
    }
    percent_decode_str(text).decode_utf8().map_err(|_| "percent-decoded text is not UTF-8")
}
