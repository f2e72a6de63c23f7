//! How a publish says that it may be a repeat: the producer headers, or an idempotency key.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName};
use sha2::{Digest, Sha256};

use super::error::ApiError;
use crate::publish::Identity;

const PRODUCER_ID: &str = "producer-id";
const PRODUCER_EPOCH: &str = "producer-epoch";
const PRODUCER_SEQ: &str = "producer-seq";
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The same, ready to be looked for in each request.
static HEADERS: [(&str, HeaderName); 4] =
    [header(PRODUCER_ID), header(PRODUCER_EPOCH), header(PRODUCER_SEQ), header(IDEMPOTENCY_KEY)];

const fn header(name: &'static str) -> (&'static str, HeaderName) {
    (name, HeaderName::from_static(name))
}

/// Longest producer id and idempotency key, in bytes.
const ID_BYTES_MAX: usize = 128;

/// The identity that the headers give, for a publish to the topic `scope`, or to none if it is empty;
/// `None` if they give none.
///
/// # Errors
///
/// Some but not all producer headers are there, both ways are used, or a header breaks its rule.
pub(crate) fn identity(
    headers: &HeaderMap,
    scope: &str,
    body: &[u8],
) -> Result<Option<Identity>, ApiError> {
    let [producer, epoch, sequence, key] = &HEADERS;
    let producer = text(headers, producer)?;
    let epoch = number(headers, epoch)?;
    let sequence = number(headers, sequence)?;
    let key = text(headers, key)?;
    match (producer, epoch, sequence, key) {
        (None, None, None, None) => Ok(None),
        (Some(producer), Some(epoch), Some(sequence), None) => {
            let producer = check_id(PRODUCER_ID, producer.to_owned())?;
            Ok(Some(Identity::Sequence { producer, epoch, sequence }))
        }
        (None, None, None, Some(key)) => {
            let key = check_id(IDEMPOTENCY_KEY, unquote(key)?)?;
            Ok(Some(Identity::Key { key, digest: digest(headers, scope, body) }))
        }
        (.., Some(_)) => Err(ApiError::invalid(
            IDEMPOTENCY_KEY,
            "it cannot be used together with the producer headers",
        )),
        (producer, epoch, _, None) => {
            let missing = match (producer, epoch) {
                (None, _) => PRODUCER_ID,
                (_, None) => PRODUCER_EPOCH,
                _ => PRODUCER_SEQ,
            };
            let all = "`Producer-Id`, `Producer-Epoch` and `Producer-Seq` are given all or none";
            Err(ApiError::invalid(missing, all))
        }
    }
}

/// Checks a producer's id that a client gave.
pub(crate) fn check_id(field: &'static str, id: String) -> Result<String, ApiError> {
    let is_visible = id.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if id.is_empty() || id.len() > ID_BYTES_MAX || !is_visible {
        let message = format!("expected 1–{ID_BYTES_MAX} printable ASCII characters");
        return Err(ApiError::invalid(field, message));
    }
    Ok(id)
}

fn text<'a>(
    headers: &'a HeaderMap,
    (name, header): &(&'static str, HeaderName),
) -> Result<Option<&'a str>, ApiError> {
    let mut values = headers.get_all(header).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(ApiError::invalid(*name, "it is given twice"));
    }
    value.to_str().map(Some).map_err(|_| ApiError::invalid(*name, "expected printable ASCII"))
}

fn number(
    headers: &HeaderMap,
    header: &(&'static str, HeaderName),
) -> Result<Option<u64>, ApiError> {
    let expected = || ApiError::invalid(header.0, "expected a whole number of 0 or more");
    text(headers, header)?.map(|text| text.parse().map_err(|_| expected())).transpose()
}

/// What a structured-field string holds; anything else stands for itself.
fn unquote(text: &str) -> Result<String, ApiError> {
    let Some(rest) = text.strip_prefix('"') else { return Ok(text.to_owned()) };
    let mut key = String::new();
    let mut chars = rest.chars();
    loop {
        match chars.next() {
            Some('"') if chars.as_str().is_empty() => return Ok(key),
            Some('\\') => match chars.next() {
                Some(escaped @ ('"' | '\\')) => key.push(escaped),
                _ => break,
            },
            Some('"') | None => break,
            Some(other) => key.push(other),
        }
    }
    Err(ApiError::invalid(IDEMPOTENCY_KEY, "expected a string in quotes, or a bare one"))
}

/// Of all that makes a publish what it is. Each part is preceded by its length, so that none can
/// reach into the next.
fn digest(headers: &HeaderMap, scope: &str, body: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    let mut add = |part: &[u8]| {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    };
    add(scope.as_bytes());
    add(headers.get(CONTENT_TYPE).map_or(b"", |value| value.as_bytes()));
    add(body);
    // A CloudEvent in binary mode has its attributes in headers.
    let mut attributes: Vec<_> =
        headers.iter().filter(|(name, _)| name.as_str().starts_with("ce-")).collect();
    attributes.sort_by_key(|(name, _)| name.as_str());
    for (name, value) in attributes {
        add(name.as_str().as_bytes());
        add(value.as_bytes());
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn read(headers: &[(&'static str, &'static str)]) -> Result<Option<Identity>, ApiError> {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        identity(&headers.collect(), "t", b"body")
    }

    #[test]
    fn producer_headers_come_all_or_none() {
        let all = [(PRODUCER_ID, "p"), (PRODUCER_EPOCH, "1"), (PRODUCER_SEQ, "2")];
        let expected = Identity::Sequence { producer: "p".to_owned(), epoch: 1, sequence: 2 };
        assert_eq!(read(&all).unwrap(), Some(expected));
        assert_eq!(read(&[]).unwrap(), None);
        for missing in all {
            let some: Vec<_> = all.into_iter().filter(|header| *header != missing).collect();
            match read(&some) {
                Err(ApiError::Invalid { field, .. }) => assert_eq!(field, missing.0),
                other => panic!("{missing:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_key_may_be_quoted_or_bare() {
        let cases = [("abc", "abc"), ("\"abc\"", "abc"), (r#""a\"b\\c""#, r#"a"b\c"#)];
        for (value, expected) in cases {
            match read(&[(IDEMPOTENCY_KEY, value)]).unwrap() {
                Some(Identity::Key { key, .. }) => assert_eq!(key, expected),
                other => panic!("{value}: {other:?}"),
            }
        }
    }

    #[test]
    fn broken_headers_are_refused() {
        let cases: [&[(&str, &str)]; 6] = [
            &[(IDEMPOTENCY_KEY, "\"abc")],
            &[(IDEMPOTENCY_KEY, "\"a\"b\"")],
            &[(IDEMPOTENCY_KEY, "")],
            &[(IDEMPOTENCY_KEY, "k"), (PRODUCER_ID, "p")],
            &[(PRODUCER_ID, "p"), (PRODUCER_EPOCH, "-1"), (PRODUCER_SEQ, "0")],
            &[(PRODUCER_ID, ""), (PRODUCER_EPOCH, "0"), (PRODUCER_SEQ, "0")],
        ];
        for headers in cases {
            assert!(read(headers).is_err(), "{headers:?}");
        }
    }

    #[test]
    fn an_id_has_at_most_128_characters() {
        let at_the_limit = "i".repeat(128);
        for field in [PRODUCER_ID, IDEMPOTENCY_KEY] {
            assert!(check_id(field, at_the_limit.clone()).is_ok(), "{field}");
            let error = check_id(field, format!("{at_the_limit}i")).unwrap_err();
            assert!(error.to_string().contains("1–128"), "{error}");
        }
    }

    #[test]
    fn the_digest_covers_topic_type_attributes_and_body() {
        let with = |name: &'static str, value: &'static str| {
            HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))])
        };
        let all = [
            digest(&HeaderMap::new(), "t", b"ab"),
            digest(&HeaderMap::new(), "u", b"ab"),
            digest(&HeaderMap::new(), "t", b"abc"),
            digest(&with("content-type", "text/plain"), "t", b"ab"),
            digest(&with("ce-id", "1"), "t", b"ab"),
            digest(&with("ce-id", "2"), "t", b"ab"),
        ];
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
