//! Jobs as JSON: a payload that is JSON is copied, not parsed.

use std::io::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use crate::decode;
use crate::json_text::put_text;
use crate::name::QueueName;
use crate::queue::{Claimed, Fate, Job, JobState, JobView, Source};
use crate::timestamp;

/// `{"jobs":[…]}`.
pub(crate) fn claimed(queue: &QueueName, jobs: &[Claimed]) -> Vec<u8> {
    let bytes: usize = jobs.iter().map(|claimed| claimed.job.payload.len() + 512).sum();
    let mut out = Vec::with_capacity(bytes);
    out.extend_from_slice(b"{\"jobs\":[");
    for (place, claimed) in jobs.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        put_job(&mut out, queue, &claimed.job);
        let Claimed { lease, attempt, leased_until, last_error, .. } = claimed;
        put(&mut out, "attempt", &(*attempt).into());
        put(&mut out, "lease", &lease.0.into());
        put(&mut out, "leased_until", &timestamp::format(*leased_until).into());
        put_some(&mut out, "last_error", last_error.as_deref());
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    out
}

/// `{"jobs":[…],"next":…}`.
pub(crate) fn page(queue: &QueueName, jobs: &[JobView], next: Option<&str>) -> Vec<u8> {
    let mut out = b"{\"jobs\":[".to_vec();
    for (place, view) in jobs.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        put_view(&mut out, queue, view);
    }
    out.push(b']');
    put_some(&mut out, "next", next);
    out.push(b'}');
    out
}

/// One job and how it stands.
pub(crate) fn one(queue: &QueueName, view: &JobView) -> Vec<u8> {
    let mut out = Vec::with_capacity(view.job.payload.len() + 512);
    put_view(&mut out, queue, view);
    out
}

fn put_view(out: &mut Vec<u8>, queue: &QueueName, view: &JobView) {
    let JobView { job, state, attempts, last_error, result } = view;
    put_job(out, queue, job);
    put(out, "state", &state.as_str().into());
    put(out, "attempts", &(*attempts).into());
    let time = match state {
        JobState::Behind => None,
        JobState::Waiting { due } => Some(("due_at", due)),
        JobState::Leased { until } => Some(("leased_until", until)),
        JobState::Done { at } => Some(("done_at", at)),
        JobState::Dead { at } => Some(("dead_at", at)),
    };
    if let Some((name, time)) = time {
        put(out, name, &timestamp::format(*time).into());
    }
    put_some(out, "last_error", last_error.as_deref());
    if let Some(result) = result {
        out.extend_from_slice(b",\"result\":");
        out.extend_from_slice(result);
    }
    out.push(b'}');
}

/// What became of a job: its new state, and the time that goes with it.
pub(crate) fn fate(fate: Fate) -> (&'static str, Option<(&'static str, String)>) {
    match fate {
        Fate::Done => ("done", None),
        Fate::Dead => ("dead", None),
        Fate::Again { due } => ("waiting", Some(("due_at", timestamp::format(due)))),
        Fate::Held { until } => ("leased", Some(("leased_until", timestamp::format(until)))),
    }
}

/// `{"id":…,…`, to be gone on with.
fn put_job(out: &mut Vec<u8>, queue: &QueueName, job: &Job) {
    let Job { id, key, unique, payload, content_type, headers, source, enqueued_at } = job;
    // Writing to a vector cannot fail.
    let _ = write!(out, "{{\"id\":\"{id}\",\"queue\":\"{queue}\"");
    put_some(out, "key", key.as_deref());
    put_some(out, "unique", unique.as_deref());
    put(out, "enqueued_at", &timestamp::format(*enqueued_at).into());
    if !headers.is_empty() {
        out.extend_from_slice(b",\"headers\":");
        let _ = serde_json::to_writer(&mut *out, headers);
    }
    if let Some(Source { topic, partition, offset, .. }) = source {
        let source =
            serde_json::json!({ "topic": topic, "partition": partition, "offset": offset });
        put(out, "source", &source);
    }
    put_some(out, "content_type", content_type.as_deref());
    out.extend_from_slice(b",\"payload\":");
    // Whoever put the job there need not have been a client of this API.
    let may_be_json = content_type.as_deref().is_none_or(decode::is_json);
    let text = std::str::from_utf8(payload).ok().filter(|_| may_be_json);
    match text.filter(|text| decode::check_value(text).is_ok()) {
        Some(json) => out.extend_from_slice(json.as_bytes()),
        None => {
            let base64 = BASE64_STANDARD.encode(payload);
            let _ = write!(out, "\"{base64}\",\"encoding\":\"base64\"");
        }
    }
}

fn put_some(out: &mut Vec<u8>, name: &str, text: Option<&str>) {
    if let Some(text) = text {
        let _ = write!(out, ",\"{name}\":");
        put_text(out, text);
    }
}

fn put(out: &mut Vec<u8>, name: &str, value: &Value) {
    let _ = write!(out, ",\"{name}\":{value}");
}
