//! `…/topics/{topic}/consume` and `…/offsets`: reading one topic as a group, and its commits.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde_json::json;
use stream_storage::Partition;

use super::answer::{self, Answer};
use super::auth::{Caller, Consume};
use super::error::ApiError;
use super::fields::required;
use super::params::{Params, TopicParam};
use super::record_json::{Layout, RecordWriter};
use super::room::Room;
use super::{App, body};
use crate::consume::{Amount, ConsumeError, PartitionRecords};
use crate::group::{
    Assigned, Current, GroupError, Lost, MemberCommit, MemberId, MemberRecords, OffsetCommit,
    PartitionCommit, Reset, Scope,
};
use crate::heavy::heavy;
use crate::name::GroupName;
use crate::slot::Slot;
use crate::topic::Topic;

pub(crate) async fn consume(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    TopicParam(name): TopicParam,
    params: Params,
) -> Answer {
    let (group, amount) = (params.group()?, params.amount()?);
    let partition = params.number("partition", 0..=u32::MAX)?;
    let topic = app.node.catalog.get(&caller.project, &name).await?;
    let partition = partition.map(|partition| topic.partition(partition)).transpose()?;
    let of = Of { topic: &topic, group: &group, partition, member: member(&params) };
    let mut room = Room::take(&app, &caller, amount)?;
    let mut read = of.read(&app, room.amount()).await?;
    if read.found.is_empty()
        && let Some(first) = room.leave()
    {
        of.read(&app, first).await?;
        room.enter(&app, &caller)?;
        read = of.read(&app, room.amount()).await?;
    }
    let Read { found, mut positions, generations, tried } = read;
    let segments = found.iter().flat_map(|part| &part.segments);
    let bytes: usize = segments.map(|segment| segment.byte_len()).sum();
    let mut out = Vec::with_capacity(bytes);
    out.extend_from_slice(b"{\"records\":[");
    let mut writer = RecordWriter::new(topic.name.as_str(), Layout::Array, out);
    heavy(bytes, || {
        found.iter().try_for_each(|part| {
            writer.tried = tried.get(&part.slot).copied();
            part.segments.iter().try_for_each(|segment| writer.write(part.slot.partition, segment))
        })
    })?;
    positions.extend(found.iter().map(|part| (part.slot, part.next_offset)));
    let mut out = writer.finish();
    let last = found.last().map(|part| part.next_offset);
    let next = last.or_else(|| positions.values().next().copied()).unwrap_or(0);
    let tail =
        format!("],\"next_offset\":{next},\"next_offsets\":{}", json!(by_partition(positions)));
    out.extend_from_slice(tail.as_bytes());
    if let Some(generations) = generations {
        let tail = format!(",\"generations\":{}", json!(by_partition(generations)));
        out.extend_from_slice(tail.as_bytes());
    }
    out.push(b'}');
    let permit = room.into_permit(&out);
    Ok(answer::held("application/json", out, permit))
}

/// What is consumed, and by whom.
struct Of<'a> {
    topic: &'a Topic,
    group: &'a GroupName,
    partition: Option<Partition>,
    member: Option<MemberId>,
}

/// What was read.
struct Read {
    found: Vec<PartitionRecords>,
    /// Where it was read from.
    positions: BTreeMap<Slot, u64>,
    /// The numbers of the ownerships, for a member.
    generations: Option<BTreeMap<Slot, u64>>,
    /// Records that a member has failed on, and which attempt it is now.
    tried: BTreeMap<Slot, (u64, u32)>,
}

impl Of<'_> {
    async fn read(&self, app: &App, amount: Amount) -> Result<Read, ApiError> {
        let (project, groups) = (&self.topic.project, &app.node.groups);
        if let Some(member) = &self.member {
            let scope = match self.partition {
                Some(partition) => Scope::Partition(Slot::new(self.topic.id, partition)),
                None => Scope::Topic(self.topic.id),
            };
            let read = groups.records(project, self.group, member, scope, amount).await?;
            return self.of_member(read);
        }
        let slots = match self.partition {
            Some(partition) => vec![partition],
            None => self.topic.partitions().collect(),
        };
        let slots = slots.into_iter().map(|partition| Slot::new(self.topic.id, partition));
        let positions = groups.positions(project, self.group, slots).await?;
        let found = app.node.reader.read_all(&positions, amount).await?;
        Ok(Read { found, positions, generations: None, tried: BTreeMap::new() })
    }

    /// Only what the member owns; a partition that it asked for has to be among it.
    fn of_member(&self, read: MemberRecords) -> Result<Read, ApiError> {
        let MemberRecords { found, lost, view } = read;
        if let Some(lost) = lost.first() {
            let Lost { partition, committed, earliest, .. } = *lost;
            return Err(ConsumeError::Trimmed { partition, offset: committed, earliest }.into());
        }
        let asked = |assigned: &&Assigned| {
            assigned.slot.topic == self.topic.id
                && self.partition.is_none_or(|partition| assigned.slot.partition == partition)
        };
        let owned: Vec<&Assigned> = view.assignment.iter().filter(asked).collect();
        if let Some(partition) = self.partition.filter(|_| owned.is_empty()) {
            let current = Current {
                topic: self.topic.name.clone(),
                partition: partition.0,
                generation: 0,
                is_owned: false,
                next_offset: None,
            };
            return Err(GroupError::NotOwned { current: vec![current] }.into());
        }
        let positions = owned.iter().map(|owned| (owned.slot, owned.next_offset)).collect();
        let generations = owned.iter().map(|owned| (owned.slot, owned.generation)).collect();
        let tried = owned.iter().filter_map(|owned| Some((owned.slot, owned.tried()?))).collect();
        Ok(Read { found, positions, generations: Some(generations), tried })
    }
}

fn member(params: &Params) -> Option<MemberId> {
    params.text("member").map(MemberId::new)
}

fn by_partition(places: BTreeMap<Slot, u64>) -> BTreeMap<u32, u64> {
    places.into_iter().map(|(slot, number)| (slot.partition.0, number)).collect()
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
    let member = fields.text("member")?;
    let generation = fields.number("generation")?;
    fields.finish()?;
    if let Some(member) = member {
        let generation = required("generation", generation)?;
        let commit = PartitionCommit { topic: name, partition, generation, next_offset: offset };
        let member = MemberId::new(&member);
        let commit = MemberCommit { group, member, partitions: vec![commit] };
        app.node.groups.commit_member(&caller.project, commit).await?;
        return Ok(answer::no_content());
    }
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
