//! Jobs as JSON: one object, or `{"jobs": [...]}` of such.
//!
//! | field | type | meaning |
//! | --- | --- | --- |
//! | `payload` | any JSON, required | kept byte for byte, at most 100 levels deep |
//! | `encoding` | `base64` | what `payload`, a string then, stands for is not JSON |
//! | `content_type` | string | the media type of the payload |
//! | `key`, `unique` | string | as in [`NewJob`](crate::queue::NewJob) |
//! | `due_at` | string | RFC 3339: not before then |
//! | `delay_ms` | integer from 0 | not before so much time has passed |
//! | `headers` | object of strings | as those of an event |
//!
//! Any field but `payload` may be `null`, which is as if it were not there. Other fields, and a field
//! twice, are refused.

use std::borrow::Cow;
use std::time::Duration;

use stream_storage::Timestamp;

use super::error::Fault;
use super::json::{self, Member};
use super::line::{decoded, push_headers, text};
use super::{Batch, DecodeError};
use crate::event::Event;
use crate::limit::Limits;
use crate::timestamp;

const UNKNOWN: &str = "unknown field, expected one of `payload`, `key`, `unique`, `due_at`, \
                       `delay_ms`, `headers`, `encoding`, `content_type`, or `jobs` alone";

/// What payloads are that are not JSON, unless they say so.
const BYTES: &str = "application/octet-stream";

/// A job to enqueue.
#[derive(Debug)]
pub(crate) struct DecodedJob<'a> {
    /// What it has in common with an event: key, headers, content type, and the payload as value.
    pub(crate) event: Event<'a>,
    /// While an unfinished job of the queue has it, there is no second one.
    pub(crate) unique: Option<Cow<'a, str>>,
    /// When it is due.
    pub(crate) due: Due,
}

/// When a job is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Now,
    At(Timestamp),
    In(Duration),
}

/// The jobs of a request to enqueue some, at most `jobs_max`. `body` is unpacked already.
///
/// # Errors
///
/// The body holds no job, a job is malformed, or a limit is passed. The error is about the first job
/// at fault.
pub(crate) fn jobs<'a>(
    body: &'a [u8],
    limits: &Limits,
    jobs_max: usize,
) -> Result<Vec<DecodedJob<'a>>, DecodeError> {
    let mut batch = Batch::new(body, limits);
    let mut rest = Vec::new();
    let read = json::utf8(body).into_result().and_then(|text| {
        let draft = Draft::split(text)?;
        let Some(list) = &draft.jobs else {
            rest.push(draft.push(&mut batch)?);
            return Ok(());
        };
        draft.refuse_others()?;
        let pushed = json::elements(list.value, |element| {
            if rest.len() >= jobs_max {
                return Err(Fault::TooManyEvents { max: jobs_max });
            }
            let draft = Draft::split(element)?;
            if let Some(jobs) = &draft.jobs {
                return Err(jobs.refuse_name(UNKNOWN));
            }
            rest.push(draft.push(&mut batch)?);
            Ok(())
        });
        pushed.map_err(|fault| list.locate(fault))
    });
    let events = batch.finish(read)?;
    let job = |(event, (unique, due))| DecodedJob { event, unique, due };
    Ok(events.into_iter().zip(rest).map(job).collect())
}

/// The fields, not yet looked into.
#[derive(Default)]
struct Draft<'a> {
    text: &'a str,
    payload: Option<Member<'a>>,
    key: Option<Member<'a>>,
    unique: Option<Member<'a>>,
    due_at: Option<Member<'a>>,
    delay_ms: Option<Member<'a>>,
    headers: Option<Member<'a>>,
    encoding: Option<Member<'a>>,
    content_type: Option<Member<'a>>,
    jobs: Option<Member<'a>>,
}

impl<'a> Draft<'a> {
    fn split(text: &'a str) -> Result<Self, Fault<'a>> {
        let mut draft = Self { text, ..Self::default() };
        json::members(text, |name, member| {
            let slot = match &*name {
                "payload" => &mut draft.payload,
                "key" => &mut draft.key,
                "unique" => &mut draft.unique,
                "due_at" => &mut draft.due_at,
                "delay_ms" => &mut draft.delay_ms,
                "headers" => &mut draft.headers,
                "encoding" => &mut draft.encoding,
                "content_type" => &mut draft.content_type,
                "jobs" => &mut draft.jobs,
                _ => return Err(member.refuse_name(UNKNOWN)),
            };
            json::fill(slot, member)
        })?;
        let Self { key, unique, due_at, delay_ms, headers, encoding, content_type, .. } =
            &mut draft;
        for optional in [key, unique, due_at, delay_ms, headers, encoding, content_type] {
            optional.take_if(|field| field.is_null());
        }
        Ok(draft)
    }

    /// A list of jobs has nothing beside it.
    fn refuse_others(&self) -> Result<(), Fault<'a>> {
        let Self {
            payload, key, unique, due_at, delay_ms, headers, encoding, content_type, ..
        } = self;
        let others = [payload, key, unique, due_at, delay_ms, headers, encoding, content_type];
        match others.into_iter().flatten().next() {
            Some(other) => Err(other.refuse_name("expected it in each of the `jobs`")),
            None => Ok(()),
        }
    }

    /// Adds what the job has in common with an event to `batch`; returns the rest.
    fn push(self, batch: &mut Batch<'a, '_>) -> Result<(Option<Cow<'a, str>>, Due), Fault<'a>> {
        let payload = self.payload.ok_or_else(|| {
            Fault::malformed("field is missing").field("payload").at(self.text.trim_ascii_start())
        })?;
        let content_type = self.content_type.as_ref().map(Member::text).transpose()?;
        let mut event = Event { key: text(&self.key)?, ..Event::default() };
        match (&self.encoding, &self.content_type, content_type) {
            (Some(encoding), _, content_type) => {
                event.value = decoded(&payload, encoding)?;
                event.content_type = Some(content_type.unwrap_or(BYTES.into()));
            }
            (None, Some(field), Some(given)) if !super::is_json(&given) => {
                let expected = "expected a type of JSON, or the payload with `encoding` `base64`";
                return Err(field.refuse_value(expected));
            }
            (None, _, content_type) => {
                payload.check_nesting()?;
                event.value = payload.value.as_bytes().into();
                event.value_is_json = true;
                event.content_type =
                    content_type.filter(|given| !given.eq_ignore_ascii_case("application/json"));
            }
        }
        if let Some(field) = &self.headers {
            push_headers(&mut event, field, batch.limits)?;
        }
        let unique = text(&self.unique)?;
        let (got, max) = (unique.as_deref().map_or(0, str::len), batch.limits.event_bytes_max);
        let got = got.saturating_add(event.byte_len());
        if got > max {
            return Err(Fault::EventTooLarge { max, got });
        }
        let due = due(self.due_at.as_ref(), self.delay_ms.as_ref())?;
        batch.push(event)?;
        Ok((unique, due))
    }
}

fn due<'a>(at: Option<&Member<'a>>, delay: Option<&Member<'a>>) -> Result<Due, Fault<'a>> {
    match (at, delay) {
        (None, None) => Ok(Due::Now),
        (Some(at), None) => {
            let time = timestamp::parse(&at.text()?);
            time.map(Due::At).map_err(|error| at.refuse_value(error.to_string()))
        }
        (None, Some(delay)) => {
            let millis = delay.value.parse().map(Duration::from_millis);
            let expected = "expected milliseconds, an integer from 0";
            millis.map(Due::In).map_err(|_| delay.refuse_value(expected))
        }
        (Some(_), Some(delay)) => {
            Err(delay.refuse_name("expected `due_at` or `delay_ms`, got both"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Vec<DecodedJob<'_>>, DecodeError> {
        jobs(body.as_bytes(), &Limits { event_bytes_max: 100, ..Limits::default() }, 2)
    }

    #[test]
    fn a_job_stands_alone_or_in_a_list() {
        let one =
            r#"{"payload":{ "a" : 1.50 },"key":"k","unique":"u","delay_ms":5,"headers":{"h":"1"}}"#;
        for body in [one.to_owned(), format!(r#"{{"jobs":[{one}]}}"#)] {
            let jobs = read(&body).unwrap();
            let [job] = jobs.as_slice() else { panic!("{jobs:?}") };
            assert_eq!(&*job.event.value, br#"{ "a" : 1.50 }"#);
            assert_eq!((job.event.key.as_deref(), job.unique.as_deref()), (Some("k"), Some("u")));
            assert_eq!(job.due, Due::In(Duration::from_millis(5)));
            assert_eq!(job.event.headers, [("h".into(), "1".into())]);
        }
        let jobs = r#"{"jobs":[{"payload":null,"key":null},{"payload":2,"due_at":"1970-01-01T00:00:01Z"}]}"#;
        let jobs = read(jobs).unwrap();
        assert_eq!((&*jobs[0].event.value, jobs[0].due), (&b"null"[..], Due::Now));
        assert_eq!(jobs[1].due, Due::At(Timestamp(1_000)));
    }

    #[test]
    fn a_payload_that_is_not_json_is_base64_and_has_a_type() {
        let cases = [
            (r#"{"payload":"/w==","encoding":"base64"}"#, &b"\xff"[..], Some(BYTES)),
            (r#"{"payload":"eA==","encoding":"base64","content_type":"a/b"}"#, b"x", Some("a/b")),
            (r#"{"payload":1,"content_type":"a/b+json"}"#, b"1", Some("a/b+json")),
            (r#"{"payload":1,"content_type":"application/json"}"#, b"1", None),
        ];
        for (body, payload, content_type) in cases {
            let job = read(body).unwrap().remove(0);
            assert_eq!(
                (&*job.event.value, job.event.content_type.as_deref()),
                (payload, content_type)
            );
        }
    }

    #[test]
    fn a_payload_may_nest_in_a_list_as_deep_as_alone() {
        for (levels, is_taken) in [(100, true), (101, false)] {
            let payload = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
            let alone = format!(r#"{{"payload":{payload}}}"#);
            for body in [&alone, &format!(r#"{{"jobs":[{alone}]}}"#)] {
                let read = jobs(body.as_bytes(), &Limits::default(), 1);
                assert_eq!(read.is_ok(), is_taken, "{levels} levels: {read:?}");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let big = format!(r#"{{"payload":"{}"}}"#, "x".repeat(99));
        let two = format!(r#"{{"unique":"{}","payload":"{}"}}"#, "u".repeat(50), "x".repeat(50));
        let cases = [
            ("{}", "payload"),
            (r#"{"payload":1,"pay":1}"#, "pay"),
            (r#"{"jobs":[{"payload":1},{}]}"#, "payload"),
            (r#"{"jobs":[{"payload":1,"jobs":[]}]}"#, "jobs"),
            (r#"{"jobs":[],"payload":1}"#, "payload"),
            (r#"{"jobs":1}"#, "jobs"),
            (r#"{"payload":1,"key":1}"#, "key"),
            (r#"{"payload":1,"delay_ms":-1}"#, "delay_ms"),
            (r#"{"payload":1,"delay_ms":1,"due_at":"2026-01-01T00:00:00Z"}"#, "delay_ms"),
            (r#"{"payload":1,"due_at":"tomorrow"}"#, "due_at"),
            (r#"{"payload":1,"content_type":"text/plain"}"#, "content_type"),
            (r#"{"payload":1,"headers":{"a":1}}"#, "headers.a"),
        ];
        for (body, expected) in cases {
            match read(body) {
                Err(DecodeError::Malformed { field, .. }) => {
                    assert_eq!(field.as_deref(), Some(expected), "{body}");
                }
                other => panic!("{body}: {other:?}"),
            }
        }
        for body in [big, two] {
            assert!(matches!(read(&body), Err(DecodeError::EventTooLarge { index: 0, .. })));
        }
        let many = r#"{"jobs":[{"payload":1},{"payload":1},{"payload":1}]}"#;
        assert!(matches!(read(many), Err(DecodeError::TooManyEvents { max: 2 })));
        assert!(matches!(read(r#"{"jobs":[]}"#), Err(DecodeError::Empty)));
    }
}
