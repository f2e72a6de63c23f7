//! `…/groups`: how groups stand, resets and deletion.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde_json::{Value, json};
use stream_storage::Partition;

use super::answer::{self, Answer};
use super::auth::{Caller, Consume, Manage};
use super::error::ApiError;
use super::fields::{Fields, required};
use super::members::of_member;
use super::params::{GroupParam, Params};
use super::{App, body};
use crate::group::{
    ATTEMPTS_DEFAULT, ATTEMPTS_MAX, DescribedMember, Description, Failure, Force, PartitionState,
    ResetTo, Settings, Stuck,
};
use crate::name::TopicName;
use crate::timestamp;

pub(crate) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    params: Params,
) -> Answer {
    let page = app.node.groups.list(&caller.project, &params.page()?).await?;
    let groups: Vec<Value> = page
        .items
        .iter()
        .map(|(name, members)| json!({ "group": name.as_str(), "members": members }))
        .collect();
    Ok(answer::json(StatusCode::OK, &answer::page("groups", &groups, page.next)))
}

pub(crate) async fn get(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    GroupParam(group): GroupParam,
) -> Answer {
    let Description { members, settings, partitions } =
        app.node.groups.describe(&caller.project, &group).await?;
    let lag: u64 = partitions.iter().map(PartitionState::lag).sum();
    let told = json!({
        "group": group.as_str(),
        "attempts_max": settings.attempts_max,
        "members": members.iter().map(of_described).collect::<Vec<_>>(),
        "lag": lag,
        "partitions": partitions.iter().map(of_partition).collect::<Vec<_>>(),
    });
    Ok(answer::json(StatusCode::OK, &told))
}

pub(crate) async fn put(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    GroupParam(group): GroupParam,
    request: Request,
) -> Answer {
    let mut fields = body::fields(&app, &caller.project, request).await?;
    let attempts_max = fields.number("attempts_max")?.unwrap_or(ATTEMPTS_DEFAULT);
    fields.finish()?;
    if !(1..=ATTEMPTS_MAX).contains(&attempts_max) {
        let expected = format!("expected 1 to {ATTEMPTS_MAX}");
        return Err(ApiError::invalid("attempts_max", expected));
    }
    let settings = Settings { attempts_max };
    app.node.groups.configure(&caller.project, &group, settings).await?;
    let told = json!({ "group": group.as_str(), "attempts_max": attempts_max });
    Ok(answer::json(StatusCode::OK, &told))
}

pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    GroupParam(group): GroupParam,
    params: Params,
) -> Answer {
    let force = match params.text("force") {
        None | Some("false") => Force::No,
        Some("true") => Force::Yes,
        Some(_) => return Err(ApiError::invalid("force", "expected `true` or `false`")),
    };
    app.node.groups.delete(&caller.project, &group, force).await?;
    Ok(answer::no_content())
}

pub(crate) async fn reset(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    GroupParam(group): GroupParam,
    request: Request,
) -> Answer {
    let mut fields = body::fields(&app, &caller.project, request).await?;
    let name = TopicName::parse(&required("topic", fields.text("topic")?)?)?;
    let partition: Option<u32> = fields.number("partition")?;
    let to = reset_to(&mut fields)?;
    let force = if fields.flag("force")? { Force::Yes } else { Force::No };
    fields.finish()?;
    let topic = app.node.catalog.get(&caller.project, &name).await?;
    let partitions: Vec<Partition> = match partition {
        Some(partition) => vec![topic.partition(partition)?],
        None => topic.partitions().collect(),
    };
    let places = app.node.groups.reset(&topic, &group, &partitions, to, force).await?;
    let of_place = |(partition, offset): &(Partition, u64)| json!({ "partition": partition.0, "next_offset": offset });
    let told = json!({
        "group": group.as_str(),
        "topic": name.as_str(),
        "partitions": places.iter().map(of_place).collect::<Vec<_>>(),
    });
    Ok(answer::json(StatusCode::OK, &told))
}

/// Exactly one of `offset`, `timestamp` and `to`.
fn reset_to(fields: &mut Fields) -> Result<ResetTo, ApiError> {
    let offset = fields.number("offset")?.map(ResetTo::Offset);
    let time = fields.text("timestamp")?.map(|text| timestamp::parse(&text)).transpose();
    let time = time.map_err(|error| ApiError::invalid("timestamp", error.to_string()))?;
    let word = match fields.text("to")?.as_deref() {
        None => None,
        Some("earliest") => Some(ResetTo::Earliest),
        Some("latest") => Some(ResetTo::Latest),
        Some(_) => return Err(ApiError::invalid("to", "expected `earliest` or `latest`")),
    };
    match (offset, time.map(ResetTo::Time), word) {
        (Some(to), None, None) | (None, Some(to), None) | (None, None, Some(to)) => Ok(to),
        _ => {
            let expected = "expected exactly one of `offset`, `timestamp` and `to`";
            Err(ApiError::invalid("to", expected))
        }
    }
}

fn of_described(member: &DescribedMember) -> Value {
    let mut told = of_member(&member.view);
    if let Some(told) = told.as_object_mut() {
        told.insert("subscriptions".to_owned(), member.subscriptions.clone().into());
        told.insert("joined_at".to_owned(), timestamp::format(member.joined_at).into());
        told.insert("silent_ms".to_owned(), millis(member.silent_for).into());
        if let Some(instance) = &member.instance_id {
            told.insert("instance_id".to_owned(), instance.as_str().into());
        }
    }
    told
}

fn of_partition(state: &PartitionState) -> Value {
    let mut told = json!({
        "topic": state.topic.as_str(),
        "partition": state.partition.0,
        "committed": state.committed,
        "committed_at": state.committed_at.map(timestamp::format),
        "log_start": state.bounds.start,
        "log_end": state.bounds.end,
        "owner": state.owner.as_ref().map(crate::group::MemberId::as_str),
        "generation": state.generation,
        "lag": state.lag(),
        "lag_seconds": state.lag_age.map_or(0.0, |age| age.as_secs_f64()),
    });
    if let Some(told) = told.as_object_mut() {
        if state.lost() > 0 {
            told.insert("lost".to_owned(), state.lost().into());
        }
        if let Some(failed) = &state.failed {
            told.insert("failed".to_owned(), of_failed(failed, state));
        }
        if let Some(stuck) = &state.stuck {
            let (code, message) = why(stuck);
            told.insert("why".to_owned(), json!({ "code": code, "message": message }));
        }
    }
    told
}

fn of_failed(failed: &Failure, state: &PartitionState) -> Value {
    json!({
        "offset": failed.offset,
        "attempts": failed.attempts,
        "dead_lettered": failed.offset < state.next_offset(),
        "reason": failed.reason,
        "held_until": state.held_until.map(timestamp::format),
    })
}

/// Why nothing moves, as a word and for people.
fn why(stuck: &Stuck) -> (&'static str, String) {
    let seconds = |time: &Duration| format!("{:.1} s", time.as_secs_f64());
    match stuck {
        Stuck::Lost => {
            ("lost", "records were trimmed before the group read them: reset it".to_owned())
        }
        Stuck::NoMembers => ("no-members", "the group has no members".to_owned()),
        Stuck::NotSubscribed => ("not-subscribed", "no member subscribes to the topic".to_owned()),
        Stuck::Revoked { since } => {
            ("revoking", format!("the owner has not let go of it for {}", seconds(since)))
        }
        Stuck::Uncommitted { handed_out, silent_for } => (
            "uncommitted",
            format!(
                "the owner holds records before offset {handed_out} that it has not committed, \
                 and was last heard of {} ago",
                seconds(silent_for)
            ),
        ),
        Stuck::NotAsked { silent_for } => (
            "not-asked",
            format!("the owner has asked for no records since {}", seconds(silent_for)),
        ),
        Stuck::Held { failed, until, attempts_max } => (
            "held",
            format!(
                "the record at offset {} has failed {} of {attempts_max} times and is read again \
                 at {}{}",
                failed.offset,
                failed.attempts,
                timestamp::format(*until),
                reason(failed)
            ),
        ),
        Stuck::Pausing { failed, until } => (
            "pausing",
            format!(
                "{} records in a row became dead letters, the last at offset {}; the next is read \
                 at {}{}",
                failed.given_up_in_a_row,
                failed.offset,
                timestamp::format(*until),
                reason(failed)
            ),
        ),
        Stuck::Delivering => ("delivering", "records are on their way to the owner".to_owned()),
    }
}

/// The beginning of what the member said.
fn reason(failed: &Failure) -> String {
    const CHARS_MAX: usize = 200;
    let reason = failed.reason.as_deref().unwrap_or_default();
    let told: String = reason.chars().take(CHARS_MAX).collect();
    if told.is_empty() { told } else { format!(": {told}") }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
