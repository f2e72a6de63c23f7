//! `…/partitions/{n}/records`: read without a group, and trim.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::json;

use super::App;
use super::answer::{self, Answer};
use super::auth::{Caller, Consume, Manage};
use super::error::ApiError;
use super::params::{Params, PartitionParam, TopicParam};
use super::record_json::{Layout, RecordWriter};
use super::room::Room;
use crate::consume::{Amount, Start};
use crate::heavy::heavy;
use crate::timestamp;
use stream_storage::Trim;

/// The offset to read next, where the body has no room for it.
pub(crate) const NEXT_OFFSET: HeaderName = HeaderName::from_static("stream-next-offset");
/// The log end, where the body has no room for it.
pub(crate) const END_OFFSET: HeaderName = HeaderName::from_static("stream-end-offset");

pub(crate) async fn read(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    TopicParam(name): TopicParam,
    partition: PartitionParam,
    params: Params,
    headers: HeaderMap,
) -> Answer {
    let topic = app.node.catalog.get(&caller.project, &name).await?;
    let partition = partition.of(&topic)?;
    let (start, end) = (start(&params)?, end(&params)?);
    let reader = &app.node.reader;
    let (start, amount) = match end {
        None => (start, params.amount()?),
        Some(end) => {
            let start = reader.place(topic.id, partition, start).await?;
            let end = match end {
                Start::Offset(end) if end < start => {
                    let expected = format!("expected the start `{start}` or more, got `{end}`");
                    return Err(ApiError::invalid("end_offset", expected));
                }
                Start::Offset(end) => end,
                // What comes later than this look may be older than its end: it is not waited for.
                time => reader.place(topic.id, partition, time).await?.max(start),
            };
            (Start::Offset(start), bounded(params.amount()?, end - start))
        }
    };
    let mut room = Room::take(&app, &caller, amount)?;
    let mut found = reader.read(topic.id, partition, start, room.amount()).await?;
    if found.segments.is_empty()
        && let Some(first) = room.leave()
    {
        // Where a tail or a time begins is settled when it is first looked at.
        let start = Start::Offset(found.next_offset);
        reader.read(topic.id, partition, start, first).await?;
        room.enter(&app, &caller)?;
        found = reader.read(topic.id, partition, start, room.amount()).await?;
    }
    let layout = if wants_lines(&headers) { Layout::Lines } else { Layout::Array };
    let bytes: usize = found.segments.iter().map(|segment| segment.byte_len()).sum();
    let mut out = Vec::new();
    if layout == Layout::Array {
        out.extend_from_slice(b"{\"records\":[");
    }
    let writer = RecordWriter::new(topic.name.as_str(), layout, out);
    let mut writer = writer.with_room_for(&found.segments);
    heavy(bytes, || {
        found.segments.iter().try_for_each(|segment| writer.write(partition, segment))
    })?;
    let mut out = writer.finish();
    let (next, end) = (found.next_offset, found.end_offset);
    if layout == Layout::Array {
        let tail = format!("],\"next_offset\":{next},\"end_offset\":{end}}}");
        out.extend_from_slice(tail.as_bytes());
        let permit = room.into_permit(&out);
        return Ok(answer::held("application/json", out, permit));
    }
    let permit = room.into_permit(&out);
    let mut response = answer::held("application/x-ndjson", out, permit);
    response.headers_mut().insert(NEXT_OFFSET, HeaderValue::from(next));
    response.headers_mut().insert(END_OFFSET, HeaderValue::from(end));
    Ok(response)
}

pub(crate) async fn trim(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    TopicParam(name): TopicParam,
    partition: PartitionParam,
    params: Params,
) -> Answer {
    let topic = app.node.catalog.get(&caller.project, &name).await?;
    let partition = partition.of(&topic)?;
    let before = params.number("before", 0..=u64::MAX)?;
    let before = before.ok_or_else(|| ApiError::invalid("before", "it is missing"))?;
    let left = app.node.store.trim(topic.id, partition, Trim::Before(before)).await?;
    let told = json!({
        "partition": partition.0,
        "start_offset": left.start,
        "end_offset": left.end,
    });
    Ok(answer::json(StatusCode::OK, &told))
}

/// Exactly one of `offset`, `timestamp` and `tail`.
fn start(params: &Params) -> Result<Start, ApiError> {
    let offset = params.number("offset", 0..=u64::MAX)?.map(Start::Offset);
    let tail = params.number("tail", 0..=u64::MAX)?.map(Start::Tail);
    let time = params.text("timestamp").map(timestamp::parse).transpose();
    let time = time.map_err(|error| ApiError::invalid("timestamp", error.to_string()))?;
    match (offset, time.map(Start::Time), tail) {
        (Some(start), None, None) | (None, Some(start), None) | (None, None, Some(start)) => {
            Ok(start)
        }
        _ => {
            let expected = "expected exactly one of `offset`, `timestamp` and `tail`";
            Err(ApiError::invalid("offset", expected))
        }
    }
}

/// `end_offset` or `until`, where a bounded read stops: neither is read itself.
fn end(params: &Params) -> Result<Option<Start>, ApiError> {
    let offset = params.number("end_offset", 0..=u64::MAX)?.map(Start::Offset);
    let time = params.text("until").map(timestamp::parse).transpose();
    let time = time.map_err(|error| ApiError::invalid("until", error.to_string()))?;
    match (offset, time.map(Start::Time)) {
        (Some(_), Some(_)) => {
            Err(ApiError::invalid("until", "expected one of `end_offset` and `until`"))
        }
        (offset, time) => Ok(offset.or(time)),
    }
}

/// Not more than what the range has left; at its end there is nothing to wait for.
fn bounded(amount: Amount, left: u64) -> Amount {
    let left = usize::try_from(left).unwrap_or(usize::MAX);
    let wait = if left == 0 { Duration::ZERO } else { amount.wait };
    Amount { records_max: amount.records_max.min(left), wait, ..amount }
}

fn wants_lines(headers: &HeaderMap) -> bool {
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let types = accepted.split(',').filter_map(|part| part.split(';').next());
    types.map(str::trim).any(|word| {
        word.eq_ignore_ascii_case("application/x-ndjson")
            || word.eq_ignore_ascii_case("application/ndjson")
    })
}
