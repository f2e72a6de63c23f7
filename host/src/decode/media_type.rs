//! Which format a request is in, by its content type and headers.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

use super::DecodeError;

/// How the body of a request holds its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Ndjson,
    JsonArray,
    CloudEventsBatch,
    /// Structured mode.
    CloudEvent,
    /// Binary mode.
    CloudEventBinary,
}

/// The format of a request to publish many events.
///
/// `application/cloudevents-batch` is looked for first, as it starts with `application/cloudevents`;
/// both before binary mode, whose body may be of any type; and that before the types of our own.
pub(super) fn format(headers: &HeaderMap) -> Result<Format, DecodeError> {
    let (essence, is_utf8) = content_type(headers);
    let is_binary = headers.contains_key("ce-specversion");
    let format = match &*essence {
        "application/cloudevents-batch+json" => Format::CloudEventsBatch,
        "application/cloudevents+json" => Format::CloudEvent,
        // Another format of CloudEvents, such as Avro.
        other if other.starts_with("application/cloudevents") => return Err(unsupported(headers)),
        _ if is_binary => return Ok(Format::CloudEventBinary),
        "application/x-ndjson" | "application/ndjson" => Format::Ndjson,
        "application/json" => Format::JsonArray,
        _ => return Err(unsupported(headers)),
    };
    if is_utf8 { Ok(format) } else { Err(unsupported(headers)) }
}

/// Checks that a request is JSON, or does not say what it is.
pub(crate) fn expect_json(headers: &HeaderMap) -> Result<(), DecodeError> {
    match content_type(headers) {
        (essence, true) if essence == "application/json" || essence.is_empty() => Ok(()),
        _ => Err(DecodeError::UnsupportedMediaType {
            got: given(headers),
            expected: "`application/json`",
        }),
    }
}

/// Checks that a request is WebAssembly, or does not say what it is.
pub(crate) fn expect_wasm(headers: &HeaderMap) -> Result<(), DecodeError> {
    let (essence, _) = content_type(headers);
    // What `curl --data-binary` says where it is not told.
    let unsaid = ["", "application/octet-stream", "application/x-www-form-urlencoded"];
    if essence == "application/wasm" || unsaid.contains(&essence.as_str()) {
        return Ok(());
    }
    let got = given(headers);
    Err(DecodeError::UnsupportedMediaType { got, expected: "`application/wasm`" })
}

/// Whether a media type says that its content is JSON: its subtype is `json` or ends in `+json`.
pub(crate) fn is_json(media_type: &str) -> bool {
    let essence = essence(media_type);
    essence.ends_with("/json") || essence.ends_with("+json")
}

/// The content type without parameters, and whether these allow UTF-8.
fn content_type(headers: &HeaderMap) -> (String, bool) {
    let given = given(headers);
    let is_utf8 = given.split(';').skip(1).all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    });
    (essence(&given), is_utf8)
}

/// The content type as it was sent; empty if there is none.
fn given(headers: &HeaderMap) -> String {
    headers
        .get(CONTENT_TYPE)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .unwrap_or_default()
}

fn essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn unsupported(headers: &HeaderMap) -> DecodeError {
    DecodeError::UnsupportedMediaType {
        got: given(headers),
        expected: "`application/x-ndjson`, `application/json`, `application/cloudevents+json` or \
                   `application/cloudevents-batch+json` in UTF-8, or the header `ce-specversion`",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(content_type: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if !content_type.is_empty() {
            headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_content_type_decides_the_format() {
        let cases = [
            ("application/x-ndjson", Format::Ndjson),
            ("application/ndjson", Format::Ndjson),
            ("Application/X-NDJSON ; charset=UTF-8", Format::Ndjson),
            ("application/json", Format::JsonArray),
            ("application/json;charset=\"utf-8\"", Format::JsonArray),
            ("application/json; profile=x", Format::JsonArray),
            ("application/cloudevents+json; charset=utf-8", Format::CloudEvent),
            ("application/cloudevents-batch+json", Format::CloudEventsBatch),
        ];
        for (content_type, format) in cases {
            assert_eq!(super::format(&headers(content_type)), Ok(format), "{content_type}");
        }
    }

    #[test]
    fn other_content_types_and_charsets_are_refused_by_name() {
        let cases = [
            "",
            "text/plain",
            "application/json5",
            "application/json; charset=latin1",
            "application/x-ndjson; charset=utf-16",
            "application/cloudevents",
            "application/cloudevents+avro",
            "application/cloudevents-batch",
            "application/cloudevents-batch+avro",
        ];
        for content_type in cases {
            let error = super::format(&headers(content_type)).unwrap_err();
            let DecodeError::UnsupportedMediaType { got, .. } = error else { panic!("{error}") };
            assert_eq!(got, content_type);
        }
    }

    #[test]
    fn binary_mode_comes_after_cloudevents_types_and_before_all_others() {
        let cases = [
            ("", Ok(Format::CloudEventBinary)),
            ("image/png", Ok(Format::CloudEventBinary)),
            ("application/json", Ok(Format::CloudEventBinary)),
            ("text/plain; charset=latin1", Ok(Format::CloudEventBinary)),
            ("application/cloudevents+json", Ok(Format::CloudEvent)),
            ("application/cloudevents-batch+json", Ok(Format::CloudEventsBatch)),
        ];
        for (content_type, format) in cases {
            let mut headers = headers(content_type);
            headers.insert("ce-specversion", "1.0".parse().unwrap());
            assert_eq!(super::format(&headers), format, "{content_type}");
        }
    }

    #[test]
    fn one_event_is_json_or_unnamed() {
        for content_type in ["", "application/json", "application/json; charset=utf-8"] {
            assert_eq!(expect_json(&headers(content_type)), Ok(()), "{content_type}");
        }
        for content_type in ["text/plain", "application/x-ndjson", "application/json; charset=x"] {
            assert!(expect_json(&headers(content_type)).is_err(), "{content_type}");
        }
    }

    #[test]
    fn json_is_told_by_the_subtype() {
        for json in ["application/json", "text/json; charset=utf-8", "Application/Vnd.X+JSON"] {
            assert!(is_json(json), "{json}");
        }
        for other in ["", "json", "application/json5", "text/plain; x=/json", "application/xml"] {
            assert!(!is_json(other), "{other}");
        }
    }
}
