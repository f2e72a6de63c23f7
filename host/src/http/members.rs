//! `…/groups/{group}/members`: joining, heartbeats, records, commits, leaving.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::answer::{self, Answer};
use super::auth::{Caller, Consume};
use super::error::ApiError;
use super::fields::{Fields, required};
use super::params::{GroupParam, MemberParam, Params};
use super::record_json::{Layout, RecordWriter};
use super::room::Room;
use super::{App, body};
use crate::consume::PartitionRecords;
use crate::group::{
    Assigned, Join, Lost, MemberCommit, MemberRecords, MemberView, NACK_DELAY_MAX, Nack,
    PartitionCommit, REASON_BYTES_MAX, Release, Scope,
};
use crate::heavy::heavy;
use crate::name::TopicName;
use crate::pattern::Pattern;
use crate::timestamp;

/// How long a member may be silent unless it says otherwise, and the bounds of what it may say.
const SESSION_MILLIS_DEFAULT: u64 = 30_000;
const SESSION_MILLIS_MIN: u64 = 500;
const SESSION_MILLIS_MAX: u64 = 600_000;

/// Topics and patterns of one member.
const SUBSCRIPTIONS_MAX: usize = 100;

/// The longest name that a member has for itself, in bytes.
const INSTANCE_BYTES_MAX: usize = 128;

/// Heartbeats to a session: two may be lost.
const HEARTBEATS: u32 = 3;

pub(crate) async fn join(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    GroupParam(group): GroupParam,
    request: Request,
) -> Answer {
    let mut fields = body::fields(&app, &caller.project, request).await?;
    let subscriptions = required("subscriptions", fields.texts("subscriptions")?)?;
    if !(1..=SUBSCRIPTIONS_MAX).contains(&subscriptions.len()) {
        let expected = format!("expected 1 to {SUBSCRIPTIONS_MAX} topics or patterns");
        return Err(ApiError::invalid("subscriptions", expected));
    }
    let subscriptions: Result<Vec<_>, _> =
        subscriptions.iter().map(|text| Pattern::parse(text)).collect();
    let millis: Option<u64> = fields.number("session_timeout_ms")?;
    let millis = millis.unwrap_or(SESSION_MILLIS_DEFAULT);
    if !(SESSION_MILLIS_MIN..=SESSION_MILLIS_MAX).contains(&millis) {
        let expected = format!("expected {SESSION_MILLIS_MIN} to {SESSION_MILLIS_MAX}");
        return Err(ApiError::invalid("session_timeout_ms", expected));
    }
    let instance_id = fields.text("instance_id")?;
    if instance_id.as_ref().is_some_and(|id| id.is_empty() || id.len() > INSTANCE_BYTES_MAX) {
        let expected = format!("expected 1 to {INSTANCE_BYTES_MAX} bytes");
        return Err(ApiError::invalid("instance_id", expected));
    }
    fields.finish()?;
    let join = Join {
        subscriptions: subscriptions?,
        session_timeout: Duration::from_millis(millis),
        instance_id,
    };
    let view = app.node.groups.join(&caller.project, &group, join).await?;
    Ok(answer::json(StatusCode::CREATED, &of_member(&view)))
}

pub(crate) async fn heartbeat(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    GroupParam(group): GroupParam,
    MemberParam(member): MemberParam,
    request: Request,
) -> Answer {
    let mut fields = body::fields_if_any(&app, &caller.project, request).await?;
    let mut releases = Vec::new();
    for mut release in fields.objects("release")?.unwrap_or_default() {
        releases.push(Release {
            topic: topic(&mut release)?,
            partition: required("partition", release.number("partition")?)?,
            generation: required("generation", release.number("generation")?)?,
        });
        release.finish()?;
    }
    fields.finish()?;
    let view = app.node.groups.heartbeat(&caller.project, &group, &member, &releases).await?;
    Ok(answer::json(StatusCode::OK, &of_member(&view)))
}

pub(crate) async fn leave(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    GroupParam(group): GroupParam,
    MemberParam(member): MemberParam,
) -> Answer {
    app.node.groups.leave(&caller.project, &group, &member).await?;
    Ok(answer::no_content())
}

pub(crate) async fn commit(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    GroupParam(group): GroupParam,
    MemberParam(member): MemberParam,
    request: Request,
) -> Answer {
    let mut fields = body::fields(&app, &caller.project, request).await?;
    let partitions = partitions(&mut fields)?;
    fields.finish()?;
    let commit = MemberCommit { group, member, partitions };
    app.node.groups.commit_member(&caller.project, commit).await?;
    Ok(answer::no_content())
}

pub(crate) async fn nack(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    GroupParam(group): GroupParam,
    MemberParam(member): MemberParam,
    request: Request,
) -> Answer {
    let mut fields = body::fields(&app, &caller.project, request).await?;
    let nack = Nack {
        group,
        member,
        topic: topic(&mut fields)?,
        partition: required("partition", fields.number("partition")?)?,
        generation: required("generation", fields.number("generation")?)?,
        offset: required("offset", fields.number("offset")?)?,
        delay: fields.number("delay_ms")?.map(Duration::from_millis),
        reason: fields.text("reason")?,
    };
    fields.finish()?;
    if nack.delay.is_some_and(|delay| delay > NACK_DELAY_MAX) {
        let expected = format!("expected at most {}", millis(NACK_DELAY_MAX));
        return Err(ApiError::invalid("delay_ms", expected));
    }
    if nack.reason.as_ref().is_some_and(|reason| reason.len() > REASON_BYTES_MAX) {
        let expected = format!("expected at most {REASON_BYTES_MAX} bytes");
        return Err(ApiError::invalid("reason", expected));
    }
    let (topic, partition, offset) = (nack.topic.clone(), nack.partition, nack.offset);
    let nacked = app.node.groups.nack(&caller.project, nack).await?;
    let told = json!({
        "topic": topic.as_str(),
        "partition": partition,
        "offset": offset,
        "attempts": nacked.attempts,
        "attempts_max": nacked.attempts_max,
        "dead_lettered": nacked.is_dead_lettered,
        "next_offset": nacked.next_offset,
        "held_until": nacked.held_until.map(timestamp::format),
    });
    Ok(answer::json(StatusCode::OK, &told))
}

pub(crate) async fn records(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    GroupParam(group): GroupParam,
    MemberParam(member): MemberParam,
    params: Params,
) -> Answer {
    let groups = &app.node.groups;
    let mut room = Room::take(&app, &caller, params.amount()?)?;
    let read =
        async |amount| groups.records(&caller.project, &group, &member, Scope::All, amount).await;
    let mut read_now = read(room.amount()).await?;
    if read_now.found.is_empty()
        && let Some(first) = room.leave()
    {
        read(first).await?;
        room.enter(&app, &caller)?;
        read_now = read(room.amount()).await?;
    }
    let MemberRecords { found, lost, view } = &read_now;
    let mut out = write_records(found, view)?;
    let next: Vec<Value> = found.iter().filter_map(|part| of_next(part, view)).collect();
    let tail = format!(
        ",\"next\":{},\"lost\":{},\"assignment\":{}}}",
        Value::from(next),
        Value::from(lost.iter().map(of_lost).collect::<Vec<_>>()),
        Value::from(view.assignment.iter().map(of_assigned).collect::<Vec<_>>()),
    );
    out.extend_from_slice(tail.as_bytes());
    let permit = room.into_permit(&out);
    Ok(answer::held("application/json", out, permit))
}

/// `{"records":[…]`, to be gone on with.
fn write_records(found: &[PartitionRecords], view: &MemberView) -> Result<Vec<u8>, ApiError> {
    let segments = found.iter().flat_map(|part| &part.segments);
    let bytes: usize = segments.map(|segment| segment.byte_len()).sum();
    let written = heavy(bytes, || {
        let mut out = Vec::with_capacity(bytes);
        out.extend_from_slice(b"{\"records\":[");
        for (place, part) in found.iter().enumerate() {
            let assigned = view.assignment.iter().find(|assigned| assigned.slot == part.slot);
            let Some(assigned) = assigned else { continue };
            if place > 0 {
                out.push(b',');
            }
            let mut writer = RecordWriter::new(assigned.topic.as_str(), Layout::Array, out)
                .with_tried(assigned.tried());
            part.segments
                .iter()
                .try_for_each(|segment| writer.write(part.slot.partition, segment))?;
            out = writer.finish();
        }
        out.push(b']');
        Ok::<_, stream_storage::StoreError>(out)
    });
    Ok(written?)
}

/// What the member commits once it has processed these records.
fn of_next(part: &PartitionRecords, view: &MemberView) -> Option<Value> {
    let assigned = view.assignment.iter().find(|assigned| assigned.slot == part.slot)?;
    Some(json!({
        "topic": assigned.topic.as_str(),
        "partition": part.slot.partition.0,
        "generation": assigned.generation,
        "next_offset": part.next_offset,
    }))
}

/// A member as it is told of itself.
pub(super) fn of_member(view: &MemberView) -> Value {
    json!({
        "member": view.member.as_str(),
        "assignment": view.assignment.iter().map(of_assigned).collect::<Vec<_>>(),
        "heartbeat_ms": millis(view.session_timeout / HEARTBEATS),
        "session_timeout_ms": millis(view.session_timeout),
    })
}

pub(super) fn of_assigned(assigned: &Assigned) -> Value {
    let mut told = json!({
        "topic": assigned.topic.as_str(),
        "partition": assigned.slot.partition.0,
        "generation": assigned.generation,
        "next_offset": assigned.next_offset,
    });
    if let Some(told) = told.as_object_mut() {
        if assigned.is_revoked {
            told.insert("revoking".to_owned(), true.into());
        }
        if let Some(until) = assigned.held_until {
            told.insert("held_until".to_owned(), timestamp::format(until).into());
        }
    }
    told
}

pub(super) fn of_lost(lost: &Lost) -> Value {
    json!({
        "topic": lost.topic.as_str(),
        "partition": lost.partition.0,
        "committed": lost.committed,
        "earliest": lost.earliest,
        "records": lost.records(),
    })
}

/// `partitions`: what a member commits.
pub(super) fn partitions(fields: &mut Fields) -> Result<Vec<PartitionCommit>, ApiError> {
    let mut partitions = Vec::new();
    for mut partition in required("partitions", fields.objects("partitions")?)? {
        partitions.push(PartitionCommit {
            topic: topic(&mut partition)?,
            partition: required("partition", partition.number("partition")?)?,
            generation: required("generation", partition.number("generation")?)?,
            next_offset: required("next_offset", partition.number("next_offset")?)?,
        });
        partition.finish()?;
    }
    Ok(partitions)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn topic(fields: &mut Fields) -> Result<TopicName, ApiError> {
    Ok(TopicName::parse(&required("topic", fields.text("topic")?)?)?)
}
