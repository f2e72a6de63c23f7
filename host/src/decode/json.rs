//! JSON objects and arrays as they stand in the body: each part is a slice of it, so that a value
//! is kept byte for byte and a fault knows its place.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::error::Fault;
use super::scan::{self, Members};

/// How deep a value may nest. Parsers that recurse stop early (`serde_json` at 127, and an answer
/// wraps a value in three more): what is stored must be readable by them.
const NESTING_MAX: usize = scan::NESTING_MAX;

/// A body as text.
pub(super) struct Utf8<'a> {
    /// The text, up to the fault.
    pub(super) text: &'a str,
    /// Why it is not the whole body.
    pub(super) fault: Option<Fault<'a>>,
}

impl<'a> Utf8<'a> {
    pub(super) fn into_result(self) -> Result<&'a str, Fault<'a>> {
        self.fault.map_or(Ok(self.text), Err)
    }
}

/// Reads `body` as UTF-8 without a byte order mark.
pub(super) fn utf8(body: &[u8]) -> Utf8<'_> {
    const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

    if body.starts_with(BYTE_ORDER_MARK) {
        let message = "the body starts with a byte order mark, send UTF-8 without one";
        return Utf8 { text: "", fault: Some(Fault::malformed(message).at(body)) };
    }
    match std::str::from_utf8(body) {
        Ok(text) => Utf8 { text, fault: None },
        Err(error) => {
            let (valid, rest) = body.split_at(error.valid_up_to());
            let text = std::str::from_utf8(valid).unwrap_or_default();
            Utf8 { text, fault: Some(Fault::malformed("invalid UTF-8").at(rest)) }
        }
    }
}

/// A name and its value in an object.
#[derive(Debug)]
pub(super) struct Member<'a> {
    /// As it stands there.
    pub(super) value: &'a str,
    /// With its quotes.
    raw_name: &'a str,
    /// Whether the value is known not to nest too deep.
    is_shallow: bool,
}

impl<'a> Member<'a> {
    /// The name.
    pub(super) fn name(&self) -> Cow<'a, str> {
        // It was read when the member was found.
        text(self.raw_name).unwrap_or_default()
    }

    /// Checks that the value does not nest too deep.
    pub(super) fn check_nesting(&self) -> Result<(), Fault<'a>> {
        if self.is_shallow {
            return Ok(());
        }
        check_nesting(self.value).map_err(|fault| self.locate(fault))
    }

    /// The value, which has to be a string.
    pub(super) fn text(&self) -> Result<Cow<'a, str>, Fault<'a>> {
        text(self.value).map_err(|fault| self.locate(fault))
    }

    /// Whether the value is `null`.
    pub(super) fn is_null(&self) -> bool {
        self.value == "null"
    }

    /// A fault of the name.
    pub(super) fn refuse_name(&self, message: impl Into<String>) -> Fault<'a> {
        Fault::malformed(message).at(self.raw_name).field(&self.name())
    }

    /// A fault of the value.
    pub(super) fn refuse_value(&self, message: impl Into<String>) -> Fault<'a> {
        self.locate(Fault::malformed(message))
    }

    /// Gives `fault` this member's place and name, where it has none.
    pub(super) fn locate(&self, fault: Fault<'a>) -> Fault<'a> {
        fault.at(self.value).field(&self.name())
    }
}

/// Puts `member` where its name belongs.
pub(super) fn fill<'a>(slot: &mut Option<Member<'a>>, member: Member<'a>) -> Result<(), Fault<'a>> {
    if slot.is_some() {
        return Err(member.refuse_name("field is given twice"));
    }
    *slot = Some(member);
    Ok(())
}

/// Calls `each` with name and member for those of the object that `json` is, in order, until one is
/// refused.
pub(super) fn members<'a>(
    json: &'a str,
    mut each: impl FnMut(Cow<'a, str>, Member<'a>) -> Result<(), Fault<'a>>,
) -> Result<(), Fault<'a>> {
    let mut take = |raw_name: &'a str, value, is_shallow| {
        each(text(raw_name)?, Member { value, raw_name, is_shallow })
    };
    let mut found = Members::new();
    if scan::members(json, &mut found).is_some() {
        return found.into_iter().try_for_each(|(name, value)| take(name, value, true));
    }
    let mut fault = None;
    let visitor =
        Object(|name, value| take(name, value, false).map_err(|refused| fault = Some(refused)));
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let walked = deserializer.deserialize_map(visitor).and_then(|()| deserializer.end());
    walked.map_err(|error| fault.unwrap_or_else(|| syntax_fault(json, &error)))
}

/// Calls `each` for the elements of the array that `json` is, in order, until one is refused.
pub(super) fn elements<'a>(
    json: &'a str,
    mut each: impl FnMut(&'a str) -> Result<(), Fault<'a>>,
) -> Result<(), Fault<'a>> {
    if let Some(elements) = scan::elements(json) {
        return elements.into_iter().try_for_each(each);
    }
    let mut fault = None;
    let visitor = Array(|element| each(element).map_err(|refused| fault = Some(refused)));
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let walked = deserializer.deserialize_seq(visitor).and_then(|()| deserializer.end());
    walked.map_err(|error| fault.unwrap_or_else(|| syntax_fault(json, &error)))
}

struct Object<F>(F);

impl<'a, F: FnMut(&'a str, &'a str) -> Result<(), ()>> Visitor<'a> for Object<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            self.0(name.get(), value.get()).map_err(|()| A::Error::custom("refused"))?;
        }
        Ok(())
    }
}

struct Array<F>(F);

impl<'a, F: FnMut(&'a str) -> Result<(), ()>> Visitor<'a> for Array<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut array: A) -> Result<(), A::Error> {
        while let Some(element) = array.next_element::<&RawValue>()? {
            self.0(element.get()).map_err(|()| A::Error::custom("refused"))?;
        }
        Ok(())
    }
}

/// The string that `json` is: a slice of it if nothing in it is escaped.
pub(super) fn text(quoted: &str) -> Result<Cow<'_, str>, Fault<'_>> {
    match quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        // Texts are short: a loop over bytes is over sooner than a search has begun.
        Some(text) if !text.bytes().any(|byte| byte == b'\\') => Ok(Cow::Borrowed(text)),
        Some(_) => match serde_json::from_str(quoted) {
            Ok(text) => Ok(Cow::Owned(text)),
            Err(error) => Err(syntax_fault(quoted, &error)),
        },
        None => {
            let message = format!("expected a string, got {}", kind(quoted));
            Err(Fault::malformed(message).at(quoted))
        }
    }
}

/// What `json` is, in words.
pub(super) fn kind(json: &str) -> &'static str {
    match json.as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// Checks that `json` is one JSON value that can be stored: well-formed, and not too deep.
pub(super) fn check_value(json: &str) -> Result<(), Fault<'_>> {
    if scan::is_value(json) {
        return Ok(());
    }
    match serde_json::from_str::<&RawValue>(json) {
        Ok(value) => check_nesting(value.get()),
        Err(error) => Err(syntax_fault(json, &error)),
    }
}

/// Checks that a well-formed value is not too deep.
fn check_nesting(value: &str) -> Result<(), Fault<'_>> {
    let json = value.as_bytes();
    // Too few brackets, in strings or not, to be too deep: the usual case, told at memory speed.
    if opening_brackets(json) <= NESTING_MAX {
        return Ok(());
    }
    let (mut depth, mut in_string, mut escaped) = (0, false, false);
    for (at, byte) in json.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            _ => {}
        }
        if depth > NESTING_MAX {
            let message = format!("value nests deeper than {NESTING_MAX} levels");
            return Err(Fault::malformed(message).at(json.get(at..).unwrap_or_default()));
        }
    }
    Ok(())
}

/// Counts `[` and `{`, which differ in one bit only. A chunk's count fits a byte, so that the
/// compiler counts sixteen bytes at a time.
fn opening_brackets(json: &[u8]) -> usize {
    let count = |chunk: &[u8]| chunk.iter().map(|byte| u8::from(byte | 0x20 == b'{')).sum::<u8>();
    json.chunks(usize::from(u8::MAX)).map(|chunk| usize::from(count(chunk))).sum()
}

/// What `serde_json` found wrong in `json`, at the byte at fault.
fn syntax_fault<'a>(json: &'a str, error: &serde_json::Error) -> Fault<'a> {
    let message = error.to_string();
    let message = message.rsplit_once(" at line ").map_or(&*message, |(message, _)| message);
    // The column counts the bytes of the line up to and with the one at fault.
    let column_end = line_start(json, error.line()) + error.column();
    let at = if error.is_eof() {
        json.len()
    } else if error.is_data() {
        // Another type than was asked for: `serde_json` points behind the value.
        json.len() - json.trim_ascii_start().len()
    } else if message.starts_with("control character") {
        // Here it points before the byte at fault.
        column_end
    } else {
        column_end.saturating_sub(1)
    };
    Fault::malformed(message).at(json.as_bytes().get(at..).unwrap_or_default())
}

/// Where line `number`, counted from 1, starts.
fn line_start(text: &str, number: usize) -> usize {
    text.split_inclusive('\n').take(number.saturating_sub(1)).map(str::len).sum()
}
