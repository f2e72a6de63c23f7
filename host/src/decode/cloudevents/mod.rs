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
        return Err(Fault::malformed(TWICE));
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

const TWICE: &str = "attribute is given twice";

const SOURCE: &str = "ce-source";
const SPECVERSION: &str = "ce-specversion";
const TYPE: &str = "ce-type";

/// Checks that the attributes every CloudEvent must have are there.
fn check_required<'a>(event: &Event<'_>) -> Result<(), Fault<'a>> {
    let header =
        |name| event.headers.iter().find(|(other, _)| other == name).map(|(_, value)| &**value);
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

/// The names of the attributes that are set.
fn names<'e>(event: &'e Event<'_>) -> impl Iterator<Item = &'e str> {
    let fields = [
        ("id", &event.id),
        ("time", &event.time),
        ("partitionkey", &event.key),
        ("datacontenttype", &event.content_type),
    ];
    let fields = fields.into_iter().filter_map(|(name, field)| field.is_some().then_some(name));
    fields.chain(event.headers.iter().filter_map(|(name, _)| name.strip_prefix("ce-")))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::DecodeError;
    use crate::decode::tests::{assert_malformed, headers, read, read_with};

    const STRUCTURED: &str = "application/cloudevents+json";
    const BATCH: &str = "application/cloudevents-batch+json";

    fn structured(fields: &str) -> Event<'static> {
        let body = format!(r#"{{"specversion":"1.0","id":"1","source":"s","type":"t"{fields}}}"#);
        read(STRUCTURED, body.as_bytes()).unwrap().remove(0)
    }

    fn try_binary(
        fields: &[(&'static str, &str)],
        body: &[u8],
    ) -> Result<Event<'static>, DecodeError> {
        let required =
            [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "s"), ("ce-type", "t")];
        let headers = headers(&[&required[..], fields].concat());
        read_with(&headers, body, &Limits::default()).map(|mut events| events.remove(0))
    }

    fn binary(fields: &[(&'static str, &str)], body: &[u8]) -> Event<'static> {
        try_binary(fields, body).unwrap()
    }

    fn header<'e>(event: &'e Event<'_>, name: &str) -> Option<&'e str> {
        event.headers.iter().find(|(other, _)| other == name).map(|(_, value)| &**value)
    }

    #[test]
    fn attributes_find_their_fields() {
        let event = structured(
            r#","time":"2013-01-01T10:17:00Z","partitionkey":"k","subject":"x","dataschema":null,
               "traceparent":"00-1","retries":-3,"urgent":true,"datacontenttype":"text/json",
               "data":{ "a" : 1 }"#,
        );
        let headers = [
            ("ce-specversion", "1.0"),
            ("ce-source", "s"),
            ("ce-type", "t"),
            ("ce-subject", "x"),
            ("ce-traceparent", "00-1"),
            ("ce-retries", "-3"),
            ("ce-urgent", "true"),
        ];
        let expected = Event {
            key: Some("k".into()),
            id: Some("1".into()),
            time: Some("2013-01-01T10:17:00Z".into()),
            content_type: Some("text/json".into()),
            headers: headers.map(|(name, value)| (name.into(), value.into())).to_vec(),
            value: br#"{ "a" : 1 }"#[..].into(),
            value_is_json: true,
            partition: None,
        };
        assert_eq!(event, expected);
    }

    #[test]
    fn structured_data_is_kept_as_its_content_type_says() {
        let cases: [(&str, &[u8], bool, Option<&str>); 10] = [
            (r#","data":[ 1 ]"#, b"[ 1 ]", true, None),
            (r#","data":null"#, b"null", true, None),
            (r#","data":"a","datacontenttype":"Application/JSON""#, br#""a""#, true, None),
            (r#","data":1,"datacontenttype":"a/b+json""#, b"1", true, Some("a/b+json")),
            (r#","datacontenttype":"text/xml","data":"<a>\n""#, b"<a>\n", false, Some("text/xml")),
            (r#","data_base64":"//4=","datacontenttype":"a/b""#, b"\xff\xfe", false, Some("a/b")),
            (r#","data_base64":"//4=""#, b"\xff\xfe", false, None),
            (r#","data_base64":"e30=","datacontenttype":"application/json""#, b"{}", true, None),
            (r#","data_base64":null,"data":1"#, b"1", true, None),
            (r#","datacontenttype":"text/plain""#, b"", false, None),
        ];
        for (fields, value, value_is_json, content_type) in cases {
            let event = structured(fields);
            assert_eq!(*event.value, *value, "{fields}");
            assert_eq!(event.value_is_json, value_is_json, "{fields}");
            assert_eq!(event.content_type.as_deref(), content_type, "{fields}");
        }
    }

    #[test]
    fn a_malformed_structured_event_names_the_attribute_and_its_byte() {
        let cases = [
            (
                r#"^{"id":"1","source":"s","type":"t"}"#,
                0,
                "field `specversion`: attribute is missing",
            ),
            (r#"^{"specversion":"1.0","source":"s","type":"t"}"#, 0, "field `id`: attribute is m"),
            (
                r#"^{"specversion":"1.0","id":"","source":"s","type":"t"}"#,
                0,
                "`id`: attribute is e",
            ),
            (r#"^{"specversion":"1.0","id":null,"source":"s","type":"t"}"#, 0, "field `id`: "),
            (r#"^{"specversion":"1.0","id":"1","source":"","type":"t"}"#, 0, "field `source`: "),
            (r#"^{"specversion":"1.0","id":"1","source":"s"}"#, 0, "field `type`: "),
            (r#"^{"specversion":"0.3","id":"1","source":"s","type":"t"}"#, 0, "version `1.0`, got"),
            (r#"{"specversion":^1.0}"#, 0, "field `specversion`: expected a string"),
            (r#"{"id":^1}"#, 0, "field `id`: expected a string, got a number"),
            (r#"{"id":"1","id":^"1"}"#, 0, "field `id`: attribute is given twice"),
            (r#"{"source":"1","source":^"1"}"#, 0, "field `source`: header `ce-source` is given"),
            (r#"{"id":^null,"id":"1"}"#, 0, "field `id`: attribute is given twice"),
            (r#"{"partitionkey":"k","partitionkey":^null}"#, 0, "field `partitionkey`: attribute"),
            (r#"{"subject":^null,"subject":"x"}"#, 0, "field `subject`: attribute is given twice"),
            (r#"{"subject":"x","subject":^null}"#, 0, "field `subject`: attribute is given twice"),
            (r#"{"subject":null,"subject":^null}"#, 0, "field `subject`: attribute is given twice"),
            (r#"{"subject":^null,"sub\u006aect":"x"}"#, 0, "field `subject`: attribute is given t"),
            (r#"{"data":1,^"data":1}"#, 0, "field `data`: field is given twice"),
            (r#"{"time":^"now"}"#, 0, "field `time`: expected an RFC 3339 time"),
            (r#"{"partitionkey":^1}"#, 0, "field `partitionkey`: expected a string"),
            (r#"{"ratio":^1.5}"#, 0, "field `ratio`: expected a string"),
            (r#"{"nested":^{}}"#, 0, "field `nested`: expected a string"),
            (r#"{"myExtension":^"x"}"#, 0, "field `myExtension`: expected an attribute name"),
            (r#"{"":^"x"}"#, 0, "expected an attribute name"),
        ];
        assert_malformed(STRUCTURED, &cases);
        let cases = [
            (r#""data":1,^"data_base64":"""#, 0, "`data` is given too"),
            (r#""data_base64":^"?""#, 0, "field `data_base64`: expected base64"),
            (r#""data_base64":^1"#, 0, "field `data_base64`: expected a string"),
            (r#""datacontenttype":"text/plain","data":^{}"#, 0, "field `data`: expected a string"),
            (r#""datacontenttype":"a/json","data_base64":^"eA==""#, 0, "expected well-formed JSON"),
        ];
        for (fields, index, message) in cases {
            let body =
                format!(r#"{{"specversion":"1.0","id":"1","source":"s","type":"t",{fields}}}"#);
            assert_malformed(STRUCTURED, &[(&body, index, message)]);
        }
    }

    #[test]
    fn so_many_attributes_may_be_null_and_not_one_more() {
        let null = |n: usize| format!(r#","a{n}":null"#);
        let nulls = |count: usize| (0..count).map(null).collect::<String>();
        assert_eq!(structured(&nulls(256)).headers.len(), 3, "source, specversion and type");
        let required = r#"{"specversion":"1.0","id":"1","source":"s","type":"t""#;
        let body = format!("{required}{}}}", nulls(257));
        let error = read(STRUCTURED, body.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("field `a256`: expected at most 256 attributes"), "{error}");
    }

    #[test]
    fn a_malformed_event_of_a_batch_is_named_by_its_index() {
        let event = r#"{"specversion":"1.0","id":"1","source":"s","type":"t"}"#;
        let cases = [
            (format!(r#"[{event},{event}, ^{{"id":"1"}}]"#), 2, "field `specversion`"),
            (format!("^{event}"), 0, "expected an array"),
        ];
        for (body, index, message) in cases {
            assert_malformed(BATCH, &[(&body, index, message)]);
        }
    }

    #[test]
    fn binary_data_is_kept_untouched() {
        let json = "application/json";
        let cases: [(&str, &[u8], bool, Option<&str>); 5] = [
            (json, b" {\"a\":1}\n", true, None),
            ("a/b+json", b"1", true, Some("a/b+json")),
            ("image/png", b"\x89PNG\xff", false, Some("image/png")),
            (
                "application/json; charset=utf-8",
                b"1",
                true,
                Some("application/json; charset=utf-8"),
            ),
            (json, b"", false, None),
        ];
        for (sent, body, value_is_json, content_type) in cases {
            let event = binary(&[("content-type", sent)], body);
            assert_eq!(*event.value, *body, "{sent}");
            assert_eq!(event.value_is_json, value_is_json, "{sent}");
            assert_eq!(event.content_type.as_deref(), content_type, "{sent}");
        }
    }

    #[test]
    fn binary_data_without_a_content_type_is_not_taken_for_json() {
        let event = binary(&[], b"{}");
        assert_eq!((event.value_is_json, event.content_type), (false, None));
    }

    #[test]
    fn only_ce_headers_are_attributes() {
        let event = binary(
            &[("ce-partitionkey", "k"), ("ce-time", "2013-01-01T10:17:00Z"), ("x-other", "1")],
            b"",
        );
        assert_eq!(event.key.as_deref(), Some("k"));
        assert_eq!(event.id.as_deref(), Some("1"));
        assert_eq!(event.time.as_deref(), Some("2013-01-01T10:17:00Z"));
        assert_eq!(event.headers.len(), 3, "source, specversion and type");
    }

    #[test]
    fn binary_attributes_are_unquoted_then_percent_decoded_once() {
        let cases = [
            ("plain", "plain"),
            ("Euro%20%E2%82%AC%20%f0%9f%98%80", "Euro € 😀"),
            ("%2525", "%25"),
            (r#""with \"quotes\" and %22""#, r#"with "quotes" and ""#),
            (r#"half""#, r#"half""#),
            ("", ""),
        ];
        for (sent, expected) in cases {
            let event = binary(&[("ce-subject", sent)], b"");
            assert_eq!(header(&event, "ce-subject"), Some(expected), "{sent}");
        }
    }

    #[test]
    fn a_malformed_binary_attribute_is_named_without_a_byte() {
        let cases = [
            (("ce-subject", "50%"), "ce-subject", "two hexadecimal digits"),
            (("ce-subject", "%4g"), "ce-subject", "two hexadecimal digits"),
            (("ce-subject", "%ff"), "ce-subject", "not UTF-8"),
            (("ce-subject", "é"), "ce-subject", "visible ASCII"),
            (("ce-id", "2"), "ce-id", "given twice"),
            (("ce-type", "t"), "ce-type", "given twice"),
            (("ce-time", "now"), "ce-time", "RFC 3339"),
            (("ce-a-b", "x"), "ce-a-b", "attribute name"),
            (("ce-", "x"), "ce-", "attribute name"),
            (("ce-data", "x"), "ce-data", "expected data as the body"),
            (("ce-datacontenttype", "x"), "ce-datacontenttype", "expected data as the body"),
        ];
        for (field, name, expected) in cases {
            let error = try_binary(&[field], b"x").unwrap_err();
            let DecodeError::Malformed { index, byte, field, message } = error else {
                panic!("{error}")
            };
            assert_eq!((index, byte, field.as_deref()), (0, None, Some(name)));
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_missing_binary_attribute_is_named() {
        let headers = headers(&[("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "s")]);
        let error = read_with(&headers, b"", &Limits::default()).unwrap_err();
        assert_eq!(error.to_string(), "event `0`, field `type`: attribute is missing");
    }

    #[test]
    fn binary_json_must_be_json() {
        let cases: [(&[u8], usize); 4] =
            [(b"{\"a\":}", 5), (b"{}\n1", 3), (b"\"\xff\"", 1), (b" ", 1)];
        for (body, expected) in cases {
            let error = try_binary(&[("content-type", "application/json")], body).unwrap_err();
            let DecodeError::Malformed { index: 0, byte, .. } = error else { panic!("{error}") };
            assert_eq!(byte, Some(expected));
        }
    }
}
