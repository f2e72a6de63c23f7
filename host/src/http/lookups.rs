//! `…/topics/{topic}/events/{id}` and `…/keys/{key}`: records by what they are indexed by.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use serde_json::json;

use super::App;
use super::answer::{self, Answer};
use super::auth::{Caller, Consume};
use super::error::ApiError;
use super::params::{IdParam, KeyParam, Params, TopicParam};
use super::record_json::{Layout, RecordWriter};
use super::room::Room;
use crate::consume::{Amount, Sought};
use crate::index::IndexKind;
use crate::live::Cursor;
use crate::topic::Topic;

pub(crate) async fn event(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    TopicParam(name): TopicParam,
    IdParam(id): IdParam,
) -> Answer {
    let topic = app.node.catalog.get(&caller.project, &name).await?;
    let bytes_max = app.node.limits.event_bytes_max;
    let room =
        Room::take(&app, &caller, Amount { records_max: 1, bytes_max, wait: Duration::ZERO })?;
    let sought = Sought { topic: topic.indexed(IndexKind::Id)?, kind: IndexKind::Id, text: &id };
    let found = app.node.reader.newest(sought, None).await?.next().await?;
    let Some((cursor, segment)) = found else {
        return Err(ApiError::NotFound { what: "event", name: id });
    };
    let mut writer = RecordWriter::new(name.as_str(), Layout::Array, Vec::new());
    writer.write(cursor.slot.partition, &segment)?;
    let out = writer.finish();
    let permit = room.into_permit(&out);
    Ok(answer::held("application/json", out, permit))
}

pub(crate) async fn by_key(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    TopicParam(name): TopicParam,
    KeyParam(key): KeyParam,
    params: Params,
) -> Answer {
    let topic = app.node.catalog.get(&caller.project, &name).await?;
    let before = before(&params, &topic)?;
    let room = Room::take(&app, &caller, params.amount()?)?;
    let Amount { records_max, bytes_max, .. } = room.amount();
    let sought = Sought { topic: topic.indexed(IndexKind::Key)?, kind: IndexKind::Key, text: &key };
    let mut newest = app.node.reader.newest(sought, before).await?;
    let mut writer = RecordWriter::new(name.as_str(), Layout::Array, b"{\"records\":[".to_vec());
    let (mut records, mut bytes) = (0, 0);
    let (mut last, mut is_full) = (None, false);
    while records < records_max
        && let Some((cursor, segment)) = newest.next().await?
    {
        bytes += segment.byte_len();
        is_full = last.is_some() && bytes > bytes_max;
        if is_full {
            break;
        }
        writer.write(cursor.slot.partition, &segment)?;
        last = Some(cursor);
        records += 1;
    }
    let mut out = writer.finish();
    out.push(b']');
    if let Some(last) = last.filter(|_| is_full || !newest.is_done()) {
        out.extend_from_slice(format!(",\"next\":{}", json!(last.to_string())).as_bytes());
    }
    out.push(b'}');
    let permit = room.into_permit(&out);
    Ok(answer::held("application/json", out, permit))
}

/// Where the last page ended.
fn before(params: &Params, topic: &Topic) -> Result<Option<Cursor>, ApiError> {
    let invalid = || ApiError::invalid("before", "expected the `next` of an answer of this topic");
    let Some(text) = params.text("before") else { return Ok(None) };
    let cursor = text.parse().ok().filter(|cursor: &Cursor| cursor.slot.topic == topic.id);
    cursor.map(Some).ok_or_else(invalid)
}
