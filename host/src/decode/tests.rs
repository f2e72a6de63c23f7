//! The formats through the two public calls, and the limits that hold for all of them.

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

pub(super) const NDJSON: &str = "application/x-ndjson";
pub(super) const JSON: &str = "application/json";

pub(super) fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let field = |&(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
    };
    fields.iter().map(field).collect()
}

/// The events of a body, so that a test may own them.
pub(super) fn read(content_type: &str, body: &[u8]) -> Result<Vec<Event<'static>>, DecodeError> {
    let headers = headers(&[(CONTENT_TYPE.as_str(), content_type)]);
    read_with(&headers, body, &Limits::default())
}

pub(super) fn read_with(
    headers: &HeaderMap,
    body: &[u8],
    limits: &Limits,
) -> Result<Vec<Event<'static>>, DecodeError> {
    let events = events(body, headers, limits)?;
    Ok(events.into_iter().map(owned).collect())
}

pub(super) fn owned(event: Event<'_>) -> Event<'static> {
    let text = |text: Option<Cow<'_, str>>| text.map(|text| text.into_owned().into());
    let headers = event.headers.into_iter();
    Event {
        key: text(event.key),
        id: text(event.id),
        time: text(event.time),
        content_type: text(event.content_type),
        headers: headers.map(|(n, v)| (n.into_owned().into(), v.into_owned().into())).collect(),
        value: event.value.into_owned().into(),
        value_is_json: event.value_is_json,
        partition: event.partition,
    }
}

/// Asserts that each body, in which `^` marks the byte at fault, is refused for the event `index`
/// with a message (and field) that has `expected` in it.
pub(super) fn assert_malformed(content_type: &str, cases: &[(&str, usize, &str)]) {
    for &(marked, expected_index, expected) in cases {
        let expected_byte = marked.find('^').unwrap();
        let error = read(content_type, marked.replacen('^', "", 1).as_bytes()).unwrap_err();
        let DecodeError::Malformed { index, byte, .. } = error else { panic!("{marked}: {error}") };
        assert_eq!((index, byte), (expected_index, Some(expected_byte)), "{marked}: {error}");
        assert!(error.to_string().contains(expected), "{marked}: {error}");
    }
}

#[test]
fn a_malformed_line_names_its_index_and_byte() {
    let cases = [
        ("n^ope", 0, "expected ident"),
        ("^hello", 0, "expected value"),
        ("^5", 0, "expected an object"),
        ("{\"value\":1}\n{\"value\":1^\n", 1, "EOF while parsing an object"),
        ("{\"value\":1}\n{\"value\":\"a^\n{\"value\":2}", 1, "EOF while parsing a string"),
        ("{\"value\":1}\n\r\n{\"value\":tru^}", 1, "expected ident"),
        ("{\"value\":1}\n{\"value\":[1,^]}", 1, "expected value"),
        ("{\"value\":1} ^{\"value\":2}", 0, "trailing characters"),
        ("{\"value\":1^\n}", 0, "EOF"),
        ("{\"value\":\"a^\tb\"}", 0, "control character"),
        ("{\"value\":\"é\",^}", 0, "trailing comma"),
        ("{\"value\":0^1}", 0, "invalid number"),
        ("{\"value\":\"\\^x\"}", 0, "invalid escape"),
        ("{^value:1}", 0, "key must be a string"),
    ];
    assert_malformed(NDJSON, &cases);
}

#[test]
fn a_malformed_element_names_its_index_and_byte() {
    let cases = [
        ("[{\"value\":1},\n {\"value\":1,\n\"x^", 1, "EOF while parsing a string"),
        ("[{\"value\":1},\n^x]", 1, "expected value"),
        ("[{\"value\":1}\n^{\"value\":2}]", 1, "expected `,` or `]`"),
        ("[{\"value\":1}]\n^,", 1, "trailing characters"),
        ("[{\"value\":1},^]", 1, "trailing comma"),
        ("[{\"value\":1},{\"value\":\"^\n\"}]", 1, "control character"),
        ("[{\"value\":1},{\"value\":2}^", 2, "EOF while parsing a list"),
        ("[{\"value\":1},\n{\"value\":2,^\"x\":1}]", 1, "field `x`: unknown field"),
        ("[{\"value\":1},^2]", 1, "expected an object"),
        (" ^{\"value\":1}", 0, "expected an array of events, got an object"),
        ("^1", 0, "expected an array"),
    ];
    assert_malformed(JSON, &cases);
}

#[test]
fn a_malformed_event_alone_is_event_0() {
    let headers = headers(&[]);
    let limits = Limits::default();
    let cases = [("{\"value\":1} x", 12), (" {\"key\":\"k\"}", 1), ("[{\"value\":1}]", 0)];
    for (body, expected) in cases {
        let error = produce(body.as_bytes(), &headers, &limits).unwrap_err();
        let DecodeError::Malformed { index, byte, .. } = error else { panic!("{error}") };
        assert_eq!((index, byte), (0, Some(expected)), "{body}");
    }
}

#[test]
fn invalid_utf_8_names_the_event_and_the_first_bad_byte() {
    let cases: [(&str, &[u8], usize, usize); 8] = [
        (NDJSON, b"{\"value\":1}\n{\"value\":\"ab\xff\"}\n{\"value\":3}", 1, 24),
        (NDJSON, b"{\"value\":1}\xff\n{\"value\":2}", 0, 11),
        (NDJSON, b"{\"value\":\"\xc3\xa9\xc3\"}", 0, 12),
        (NDJSON, b"\xff", 0, 0),
        (NDJSON, b"{\"value\":1}\nx\n{\"value\":\"\xff\"}", 1, 12),
        (JSON, b"[{\"value\":1},\n{\"value\":\"ab\xff\"}]", 1, 26),
        (JSON, b"[{\"value\":1},{\"x\":1},{\"value\":\"\xff\"}]", 1, 14),
        (JSON, b"[{\"value\":1}]\xff", 1, 13),
    ];
    for (content_type, body, expected_index, expected_byte) in cases {
        let error = read(content_type, body).unwrap_err();
        let DecodeError::Malformed { index, byte, .. } = error else { panic!("{error}") };
        assert_eq!((index, byte), (expected_index, Some(expected_byte)), "{error}");
    }
}

#[test]
fn a_byte_order_mark_is_refused() {
    for content_type in [NDJSON, JSON, "application/cloudevents+json"] {
        let error = read(content_type, "\u{feff}[{\"value\":1}]".as_bytes()).unwrap_err();
        let DecodeError::Malformed { index: 0, byte: Some(0), message, .. } = error else {
            panic!("{error}")
        };
        assert!(message.contains("byte order mark"), "{message}");
    }
}

#[test]
fn lines_may_end_in_crlf_or_not_at_all_and_blank_ones_do_not_count() {
    let bodies =
        ["{\"value\":1}\r\n{\"value\":2}\r\n", "\n \r\n{\"value\":1}\n\n\t\n{\"value\":2}"];
    for body in bodies {
        let events = read(NDJSON, body.as_bytes()).unwrap();
        let values: Vec<&[u8]> = events.iter().map(|event| &*event.value).collect();
        assert_eq!(values, [b"1", b"2"], "{body}");
    }
}

#[test]
fn a_request_without_events_is_empty() {
    let cases = [
        (NDJSON, ""),
        (NDJSON, "\n \r\n"),
        (JSON, ""),
        (JSON, " [ ] "),
        ("application/cloudevents+json", " "),
        ("application/cloudevents-batch+json", "[]"),
    ];
    for (content_type, body) in cases {
        assert_eq!(read(content_type, body.as_bytes()), Err(DecodeError::Empty), "{body}");
    }
    assert_eq!(produce(b" ", &headers(&[]), &Limits::default()), Err(DecodeError::Empty));
}

#[test]
fn a_usual_event_is_borrowed_whole() {
    let body =
        br#"{"key":"k","id":"i","time":"2013-01-01T10:17:00Z","headers":{"a":"b"},"value":[1]}"#;
    let headers = headers(&[]);
    let event = produce(body, &headers, &Limits::default()).unwrap();
    let texts = [&event.key, &event.id, &event.time].map(|text| text.as_ref().unwrap());
    let (name, value) = &event.headers[0];
    for text in texts.into_iter().chain([name, value]) {
        assert!(matches!(text, Cow::Borrowed(_)), "{text}");
    }
    assert!(matches!(event.value, Cow::Borrowed(b"[1]")));
}

#[test]
fn the_trace_context_is_kept_where_a_request_is_about_one_event() {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let line = br#"{"value":1}"#;
    let event = br#"{"specversion":"1.0","id":"1","source":"s","type":"t"}"#;
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "s"),
        ("ce-type", "t"),
        ("traceparent", parent),
    ];
    let limits = Limits::default();
    let structured = [("content-type", "application/cloudevents+json"), ("traceparent", parent)];
    let single = [
        owned(produce(line, &headers(&[("traceparent", parent)]), &limits).unwrap()),
        read_with(&headers(&structured), event, &limits).unwrap().remove(0),
        read_with(&headers(&binary), b"", &limits).unwrap().remove(0),
    ];
    for event in single {
        assert!(event.headers.contains(&("traceparent".into(), parent.into())));
    }
    let many = headers(&[("content-type", NDJSON), ("traceparent", parent)]);
    assert_eq!(read_with(&many, line, &limits).unwrap()[0].headers, []);
}

#[test]
fn the_requests_trace_context_does_not_count_as_a_header() {
    let headers = headers(&[("traceparent", "request")]);
    let limits = Limits { headers_max: 1, ..Limits::default() };
    let event = produce(br#"{"value":1,"headers":{"h":"1"}}"#, &headers, &limits).unwrap();
    assert_eq!(event.headers.len(), 2);
    let body = br#"{"value":1,"headers":{"h":"1","i":"1"}}"#;
    let error = produce(body, &headers, &limits).unwrap_err();
    assert_eq!(error, DecodeError::TooManyHeaders { index: 0, max: 1 });
}

#[test]
fn an_events_own_trace_context_comes_first() {
    let headers = headers(&[("traceparent", "request")]);
    let body = br#"{"value":1,"headers":{"traceparent":"event"}}"#;
    let event = produce(body, &headers, &Limits::default()).unwrap();
    assert_eq!(event.headers, [("traceparent".into(), "event".into())]);
}

#[test]
fn an_event_passes_at_its_limit_and_not_one_byte_over() {
    let limits = Limits { event_bytes_max: 10, ..Limits::default() };
    let headers = headers(&[("content-type", NDJSON)]);
    let at_limit = br#"{"key":"ab","headers":{"c":"d"},"value":123456}"#;
    assert_eq!(read_with(&headers, at_limit, &limits).unwrap().len(), 1);
    let over = b"{\"value\":1}\n{\"key\":\"ab\",\"headers\":{\"c\":\"d\"},\"value\":1234567}";
    let expected = DecodeError::EventTooLarge { index: 1, max: 10, got: 11 };
    assert_eq!(read_with(&headers, over, &limits), Err(expected));
}

#[test]
fn a_request_passes_at_its_count_and_not_one_event_over() {
    let limits = Limits { request_events_max: 2, ..Limits::default() };
    let cases = [
        (NDJSON, "{\"value\":1}\n{\"value\":2}", Ok(2)),
        (NDJSON, "{\"value\":1}\n{\"value\":2}\nnonsense", Err(2)),
        (JSON, "[{\"value\":1},{\"value\":2}]", Ok(2)),
        (JSON, "[{\"value\":1},{\"value\":2},{\"nonsense\":3}]", Err(2)),
    ];
    for (content_type, body, expected) in cases {
        let headers = headers(&[("content-type", content_type)]);
        let count = read_with(&headers, body.as_bytes(), &limits).map(|events| events.len());
        assert_eq!(count, expected.map_err(|max| DecodeError::TooManyEvents { max }), "{body}");
    }
}

#[test]
fn an_event_passes_with_as_many_headers_as_allowed_and_not_one_more() {
    let limits = Limits { headers_max: 2, ..Limits::default() };
    let headers = headers(&[("content-type", NDJSON)]);
    let at_limit = br#"{"value":1,"type":"t","headers":{"a":"1"}}"#;
    assert_eq!(read_with(&headers, at_limit, &limits).unwrap()[0].headers.len(), 2);
    let over = b"{\"value\":1}\n{\"value\":1,\"type\":\"t\",\"headers\":{\"a\":\"1\",\"b\":\"2\"}}";
    let expected = DecodeError::TooManyHeaders { index: 1, max: 2 };
    assert_eq!(read_with(&headers, over, &limits), Err(expected));
}

#[test]
fn deep_nesting_is_refused_without_overflowing_the_stack() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let line = |value: &str| format!("{{\"value\":{value}}}");
    for value in
        [nested(100), nested(50).replace("[]", &nested(50)), format!("\"{}\"", nested(101))]
    {
        assert!(read(NDJSON, line(&value).as_bytes()).is_ok(), "{value}");
    }
    for levels in [101, 100_000] {
        let error = read(NDJSON, line(&nested(levels)).as_bytes()).unwrap_err();
        let DecodeError::Malformed { byte, field, .. } = error else { panic!("{error}") };
        assert_eq!((byte, field.as_deref()), (Some(9 + 100), Some("value")));
    }
    let deep = nested(100_000);
    for (content_type, body) in [
        (NDJSON, deep.clone()),
        (JSON, deep.clone()),
        (JSON, format!("[{{\"key\":{deep}}}]")),
        (NDJSON, format!("{{\"value\":1,\"headers\":{deep}}}")),
        (NDJSON, format!("{{\"value\":1,\"headers\":{{\"a\":{deep}}}}}")),
        (NDJSON, format!("{{\"value\":{}", "{\"a\":".repeat(100_000))),
        ("application/cloudevents+json", format!("{{\"data\":{deep}}}")),
    ] {
        assert!(matches!(read(content_type, body.as_bytes()), Err(DecodeError::Malformed { .. })));
    }
}

#[test]
fn the_sample_of_flights_decodes_as_it_is() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/flights-sample.ndjson");
    let body = std::fs::read(path).unwrap();
    let events = read(NDJSON, &body).unwrap();
    let lines: Vec<serde_json::Value> = body
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(events.len(), 608);
    assert_eq!(events.iter().filter(|event| event.key.is_none()).count(), 40);
    for (event, line) in events.iter().zip(lines) {
        assert_eq!(event.key.as_deref(), line["key"].as_str());
        assert_eq!(event.time.as_deref(), line["time"].as_str());
        assert_eq!(event.headers, [("ce-type".into(), line["type"].as_str().unwrap().into())]);
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&event.value).unwrap(),
            line["value"]
        );
    }
}

prop_compose! {
    fn any_event()(
        key in proptest::option::of(".{0,12}"),
        id in "[^\\x00-\\x1f]{1,12}",
        time in proptest::option::of("20[0-9]{2}-0[1-9]-1[0-9]T0[0-9]:[0-5][0-9]:00(\\.[0-9]{1,6})?Z"),
        extensions in proptest::collection::btree_map("ext[a-z0-9]{1,8}", "[^\\x00-\\x08]{0,12}", 0..5),
        value in any_value(),
    ) -> Event<'static> {
        let mut headers: Vec<(Cow<'_, str>, Cow<'_, str>)> = vec![
            ("ce-type".into(), "order.placed".into()),
            ("ce-specversion".into(), "1.0".into()),
            ("ce-source".into(), "shop/é %25".into()),
        ];
        headers.extend(extensions.into_iter().map(|(name, text)| (format!("ce-{name}").into(), text.into())));
        Event {
            key: key.map(Cow::Owned),
            id: Some(id.into()),
            time: time.map(Cow::Owned),
            headers,
            value: value.into_bytes().into(),
            value_is_json: true,
            ..Event::default()
        }
    }
}

/// JSON texts as no serializer would write them: spaces, exponents, escapes.
fn any_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("1.50e+3".to_owned()),
        Just("-0.0".to_owned()),
        Just("123456789012345678901234567890".to_owned()),
        Just(r#""\u00e9\/\ud83d\ude00 [{""#.to_owned()),
        ".{0,8}".prop_map(|text| serde_json::to_string(&text).unwrap()),
    ];
    leaf.prop_recursive(4, 20, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4)
                .prop_map(|items| format!("[ {} ]", items.join(" ,\t"))),
            proptest::collection::vec(("[a-z\\\\\"]{0,4}", inner), 0..4).prop_map(|members| {
                let member = |(name, value): &(String, String)| {
                    format!("{} : {value}", serde_json::to_string(name).unwrap())
                };
                format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","))
            }),
        ]
    })
}

fn string(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

/// A line of ours, with all `ce-…` headers as plain headers but the type.
fn line_of(event: &Event<'_>) -> String {
    let (_, event_type) = &event.headers[0];
    let headers: Vec<String> = event.headers[1..]
        .iter()
        .map(|(name, value)| format!("{}:{}", string(name), string(value)))
        .collect();
    let mut fields = vec![
        format!("\"type\":{}", string(event_type)),
        format!("\"headers\":{{{}}}", headers.join(",")),
        format!("\"value\":{}", str::from_utf8(&event.value).unwrap()),
    ];
    for (name, text) in [("key", &event.key), ("id", &event.id), ("time", &event.time)] {
        fields.extend(text.as_ref().map(|text| format!("{}:{}", string(name), string(text))));
    }
    format!("{{{}}}", fields.join(", "))
}

fn cloud_event_of(event: &Event<'_>) -> String {
    let mut fields = vec![format!("\"data\": {}", str::from_utf8(&event.value).unwrap())];
    for (name, text) in [("partitionkey", &event.key), ("id", &event.id), ("time", &event.time)] {
        fields.extend(text.as_ref().map(|text| format!("{}:{}", string(name), string(text))));
    }
    for (name, text) in &event.headers {
        fields.push(format!("{}:{}", string(&name["ce-".len()..]), string(text)));
    }
    format!("{{{}}}", fields.join(","))
}

/// What a sender of binary mode has to do with everything outside U+0021–U+007E, `"` and `%`.
fn percent_encoded(text: &str) -> String {
    let encoded = |byte: u8| match byte {
        b'"' | b'%' | ..=0x20 | 0x7f.. => format!("%{byte:02X}"),
        byte => char::from(byte).to_string(),
    };
    text.bytes().map(encoded).collect()
}

fn binary_headers_of(event: &Event<'_>) -> HeaderMap {
    let attributes =
        [("ce-partitionkey", &event.key), ("ce-id", &event.id), ("ce-time", &event.time)];
    let attributes =
        attributes.into_iter().filter_map(|(name, text)| Some((name, text.as_deref()?)));
    let headers = event.headers.iter().map(|(name, text)| (&**name, &**text));
    let all = attributes.chain(headers).chain([("content-type", JSON)]);
    all.map(|(name, text)| {
        let text = if name == "content-type" { text.to_owned() } else { percent_encoded(text) };
        (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(&text).unwrap())
    })
    .collect()
}

/// A header map has an order of its own.
fn sorted(mut event: Event<'static>) -> Event<'static> {
    event.headers.sort();
    event
}

proptest! {
    #[test]
    fn an_event_is_the_same_in_every_format(
        expected in proptest::collection::vec(any_event(), 1..6),
        line_end in prop_oneof![Just("\n"), Just("\r\n"), Just("\n\n")],
    ) {
        let lines: Vec<String> = expected.iter().map(line_of).collect();
        let cloud_events: Vec<String> = expected.iter().map(cloud_event_of).collect();
        let bodies = [
            (NDJSON, lines.join(line_end)),
            (JSON, format!(" [{}] ", lines.join(" ,\n"))),
            ("application/cloudevents-batch+json", format!("[{}]", cloud_events.join(","))),
            ("application/cloudevents+json", cloud_events[0].clone()),
        ];
        for (content_type, body) in bodies {
            let events = read(content_type, body.as_bytes()).unwrap();
            prop_assert_eq!(&*events, &expected[..events.len()], "{}: {}", content_type, body);
        }
        let limits = Limits::default();
        for event in expected {
            let headers = binary_headers_of(&event);
            let events = read_with(&headers, &event.value, &limits).unwrap();
            prop_assert_eq!(events.into_iter().map(sorted).collect::<Vec<_>>(), [sorted(event)]);
        }
    }

    #[test]
    fn random_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..60)) {
        decode_every_way(&body);
    }

    #[test]
    fn random_pieces_of_json_never_panic(
        pieces in proptest::collection::vec(prop_oneof![
            Just("{"), Just("}"), Just("["), Just("]"), Just(","), Just(":"), Just("\n"), Just("\\"),
            Just("\""), Just("\"value\":"), Just("\"headers\":"), Just("\"key\""), Just("\"data\":"),
            Just("\"\\u00"), Just("1e"), Just("null"), Just("é"), Just("\"id\":\"1\""),
        ], 0..30),
    ) {
        decode_every_way(pieces.concat().as_bytes());
    }
}

/// Decodes `body` in every format; a fault lies within the body.
fn decode_every_way(body: &[u8]) {
    let limits = Limits::default();
    let binary = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "s"), ("ce-type", "t")];
    let formats = [
        headers(&[("content-type", NDJSON)]),
        headers(&[("content-type", JSON)]),
        headers(&[("content-type", "application/cloudevents+json")]),
        headers(&[("content-type", "application/cloudevents-batch+json")]),
        headers(&[&binary[..], &[("content-type", JSON)]].concat()),
        headers(&binary),
    ];
    let mut faults: Vec<DecodeError> =
        formats.iter().filter_map(|headers| events(body, headers, &limits).err()).collect();
    faults.extend(produce(body, &headers(&[]), &limits).err());
    for fault in faults {
        if let DecodeError::Malformed { byte: Some(byte), .. } = fault {
            assert!(byte <= body.len(), "{fault}");
        }
    }
}
