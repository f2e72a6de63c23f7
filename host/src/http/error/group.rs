//! What a group refuses.

use serde_json::{Value, json};

use super::store::{of_commit, of_store};
use super::{Told, conflict, internal, not_found, of_catalog, of_consume, of_field};
use crate::group::{Current, GroupError, MemberId};
use crate::publish::DeadLetterError;

pub(super) fn of_group(error: &GroupError) -> Told {
    match error {
        GroupError::BeyondEnd { log_end, .. } => {
            of_field("offset").with(json!({ "field": "offset", "log_end": log_end }))
        }
        GroupError::Backwards { committed, .. } => {
            conflict("offset-backwards").with(json!({ "committed": committed }))
        }
        GroupError::Overtaken { committed, .. } => {
            conflict("offset-backwards").with(json!({ "committed": committed }))
        }
        GroupError::NotHandedOut { .. } => of_field("offset"),
        GroupError::UnknownMember { members, .. } => {
            conflict("unknown-member").with(json!({ "members": ids(members) }))
        }
        GroupError::StaleGeneration { current } => {
            conflict("stale-generation").with(json!({ "current": places(current) }))
        }
        GroupError::NotOwned { current } => {
            conflict("partition-not-owned").with(json!({ "current": places(current) }))
        }
        GroupError::GivenTwice { .. } => of_field("partitions"),
        GroupError::HasMembers { members, .. } => {
            conflict("group-has-members").with(json!({ "members": ids(members) }))
        }
        GroupError::Full { max, .. } => conflict("group-full").with(json!({ "max": max })),
        GroupError::NotFound { .. } => not_found("group-not-found"),
        GroupError::Topic(error) => of_catalog(error),
        GroupError::Partition(_) => of_field("partition"),
        GroupError::DeadLetter(error) => of_dead_letter(error),
        GroupError::Consume(error) => of_consume(error),
        GroupError::Commit(error) => of_commit(error),
        GroupError::Store(error) => of_store(error),
    }
}

pub(super) fn of_dead_letter(error: &DeadLetterError) -> Told {
    match error {
        DeadLetterError::Catalog(error) => of_catalog(error),
        DeadLetterError::Record(_) | DeadLetterError::Partition(_) => internal(),
    }
}

fn ids(members: &[MemberId]) -> Vec<&str> {
    members.iter().map(MemberId::as_str).collect()
}

fn places(current: &[Current]) -> Vec<Value> {
    let place = |place: &Current| {
        json!({
            "topic": place.topic.as_str(),
            "partition": place.partition,
            "generation": place.generation,
            "owned": place.is_owned,
            "next_offset": place.next_offset,
        })
    };
    current.iter().map(place).collect()
}
