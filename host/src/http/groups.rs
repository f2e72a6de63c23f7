//! `…/consume` and `…/offsets`: reading as a group, and its commits.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde_json::json;
use stream_storage::Partition;

use super::answer::{self, Answer};
use super::auth::{Caller, Consume};
use super::fields::required;
use super::params::{Params, TopicParam};
use super::record_json::{Layout, RecordWriter};
use super::room::Room;
use super::{App, body};
use crate::group::{OffsetCommit, Reset};
use crate::heavy::heavy;
use crate::name::GroupName;

pub(crate) async fn consume(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    TopicParam(name): TopicParam,
    params: Params,
) -> Answer {
    let node = &app.node;
    let (group, amount) = (params.group()?, params.amount()?);
    let partition = params.number("partition", 0..=u32::MAX)?;
    let topic = node.catalog.get(&caller.project, &name).await?;
    let mut positions = match partition {
        Some(partition) => {
            let partition = topic.partition(partition)?;
            let position = node.groups.position(&topic, &group, partition).await?;
            BTreeMap::from([(partition, position)])
        }
        None => node.groups.positions(&topic, &group).await?,
    };
    let mut room = Room::take(&app, &caller, amount)?;
    let mut found = node.reader.read_all(topic.id, &positions, room.amount()).await?;
    if found.is_empty()
        && let Some(first) = room.leave()
    {
        node.reader.read_all(topic.id, &positions, first).await?;
        room.enter(&app, &caller)?;
        found = node.reader.read_all(topic.id, &positions, room.amount()).await?;
    }
    let segments = found.iter().flat_map(|part| &part.segments);
    let bytes: usize = segments.map(|segment| segment.byte_len()).sum();
    let mut out = Vec::with_capacity(bytes);
    out.extend_from_slice(b"{\"records\":[");
    let mut writer = RecordWriter::new(topic.name.as_str(), Layout::Array, out);
    heavy(bytes, || {
        found.iter().try_for_each(|part| {
            part.segments.iter().try_for_each(|segment| writer.write(part.partition, segment))
        })
    })?;
    positions.extend(found.iter().map(|part| (part.partition, part.next_offset)));
    let mut out = writer.finish();
    let last = found.last().map(|part| part.next_offset);
    let next = last.or_else(|| positions.values().next().copied()).unwrap_or(0);
    out.extend_from_slice(format!("],\"next_offset\":{next},\"next_offsets\":").as_bytes());
    let positions: BTreeMap<u32, u64> =
        positions.into_iter().map(|(Partition(number), offset)| (number, offset)).collect();
    out.extend_from_slice(json!(positions).to_string().as_bytes());
    out.push(b'}');
    let permit = room.into_permit(&out);
    Ok(answer::held("application/json", out, permit))
}

pub(crate) async fn commit(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    TopicParam(name): TopicParam,
    request: Request,
) -> Answer {
    let mut fields = body::fields(&app, &caller.project, request).await?;
    let group = GroupName::parse(&required("group", fields.text("group")?)?)?;
    let partition = required("partition", fields.number("partition")?)?;
    let offset = required("offset", fields.number("offset")?)?;
    let reset = if fields.flag("reset")? { Reset::Allowed } else { Reset::Refused };
    fields.finish()?;
    let topic = app.node.catalog.get(&caller.project, &name).await?;
    let partition = topic.partition(partition)?;
    let commit = OffsetCommit { partition, offset, reset };
    app.node.groups.commit(&topic, &group, commit).await?;
    Ok(answer::no_content())
}

pub(crate) async fn offsets(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    TopicParam(name): TopicParam,
    params: Params,
) -> Answer {
    let group = params.group()?;
    let topic = app.node.catalog.get(&caller.project, &name).await?;
    let progress = app.node.groups.progress(&topic, &group).await?;
    let offsets: Vec<_> = progress
        .iter()
        .map(|progress| {
            json!({
                "partition": progress.partition.0,
                "offset": progress.offset,
                "log_end": progress.log_end,
                "lag": progress.lag(),
            })
        })
        .collect();
    let told = json!({ "group": group.as_str(), "offsets": offsets });
    Ok(answer::json(StatusCode::OK, &told))
}
