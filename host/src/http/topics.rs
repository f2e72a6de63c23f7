//! `…/topics`: make, list, describe, change, delete; their partitions and figures.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde::Serialize;
use serde_json::json;
use stream_storage::Ack;

use super::answer::{self, Answer};
use super::auth::{Any, Caller, Consume, Manage, ManageNew};
use super::error::ApiError;
use super::fields::{Fields, required};
use super::params::{Params, TopicParam};
use super::{App, body};
use crate::index::IndexKind;
use crate::name::TopicName;
use crate::topic::{Topic, TopicConfig, TopicPatch};
use crate::{ack, timestamp};

#[derive(Serialize)]
struct TopicBody<'a> {
    name: &'a str,
    #[serde(flatten)]
    config: &'a TopicConfig,
    created_at: String,
}

impl<'a> TopicBody<'a> {
    fn of(topic: &'a Topic) -> Self {
        let created_at = timestamp::format(topic.created_at);
        Self { name: topic.name.as_str(), config: &topic.config, created_at }
    }
}

pub(crate) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller<ManageNew>,
    request: Request,
) -> Answer {
    let mut fields = body::fields(&app, &caller.project, request).await?;
    let name = name_of(&mut fields)?;
    let patch = patch_of(&mut fields)?;
    let index = index_of(&mut fields)?;
    fields.finish()?;
    // A topic is new: there are no keys that could move.
    let patch = TopicPatch { accept_key_moves: true, ..patch };
    if patch.partitions == Some(0) {
        return Err(ApiError::invalid("partitions", "expected at least 1"));
    }
    let config = TopicConfig::default().patched(patch, app.node.limits.partitions_max);
    let config = config.map_err(crate::catalog::CatalogError::from)?;
    let config = TopicConfig { index, ..config };
    app.node.projects.ensure(&caller.project).await?;
    let (topic, made) = app.node.catalog.create(&caller.project, name, config).await?;
    Ok(answer::made(made, &TopicBody::of(&topic)))
}

pub(crate) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller<Any>,
    params: Params,
) -> Answer {
    let page = app.node.catalog.list(&caller.project, &params.page()?).await?;
    let topics: Vec<_> = page.items.iter().map(TopicBody::of).collect();
    Ok(answer::json(StatusCode::OK, &answer::page("topics", &topics, page.next)))
}

pub(crate) async fn get(
    State(app): State<Arc<App>>,
    caller: Caller<Any>,
    TopicParam(name): TopicParam,
) -> Answer {
    let topic = app.node.catalog.get(&caller.project, &name).await?;
    Ok(answer::json(StatusCode::OK, &TopicBody::of(&topic)))
}

pub(crate) async fn patch(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    TopicParam(name): TopicParam,
    request: Request,
) -> Answer {
    let mut fields = body::fields(&app, &caller.project, request).await?;
    let mut patch = patch_of(&mut fields)?;
    patch.accept_key_moves = fields.flag("accept_key_moves")?;
    if fields.has("index") {
        let message = "it is set when a topic is made: older records would have no entries";
        return Err(ApiError::invalid("index", message));
    }
    fields.finish()?;
    let topic = app.node.catalog.patch(&caller.project, &name, patch).await?;
    Ok(answer::json(StatusCode::OK, &TopicBody::of(&topic)))
}

pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    TopicParam(name): TopicParam,
) -> Answer {
    app.node.delete_topic(&caller.project, &name).await?;
    Ok(answer::no_content())
}

pub(crate) async fn partitions(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    TopicParam(name): TopicParam,
) -> Answer {
    let topic = app.node.catalog.get(&caller.project, &name).await?;
    let mut partitions = Vec::new();
    for partition in topic.partitions() {
        let bounds = app.node.store.bounds(topic.id, partition).await?;
        partitions.push(json!({
            "partition": partition.0,
            "start_offset": bounds.start,
            "end_offset": bounds.end,
            "bytes": bounds.bytes,
            "last_timestamp": bounds.last_timestamp.map(timestamp::format),
        }));
    }
    Ok(answer::json(StatusCode::OK, &json!({ "partitions": partitions })))
}

pub(crate) async fn stats(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    TopicParam(name): TopicParam,
) -> Answer {
    let node = &app.node;
    let topic = node.catalog.get(&caller.project, &name).await?;
    let (mut events, mut bytes, mut last) = (0_u64, 0_u64, None);
    for partition in topic.partitions() {
        let bounds = node.store.bounds(topic.id, partition).await?;
        events += bounds.end;
        bytes += bounds.bytes;
        last = last.max(bounds.last_timestamp);
    }
    let stats = json!({
        "name": topic.name.as_str(),
        "total_events": events,
        "total_bytes": bytes,
        "events_per_second": node.rates.per_second(topic.id, node.clock.now()),
        "last_event_at": last.map(timestamp::format),
    });
    Ok(answer::json(StatusCode::OK, &stats))
}

/// The name of a topic to make.
fn name_of(fields: &mut Fields) -> Result<TopicName, ApiError> {
    let name = required("name", fields.text("name")?)?;
    let name = TopicName::parse(&name)
        .map_err(|error| ApiError::invalid("name", format!("expected {}", error.expected)))?;
    if name.is_reserved() {
        return Err(ApiError::invalid("name", "names that start with `_` are the server's own"));
    }
    Ok(name)
}

/// The fields that a topic is made with and that can be changed.
fn patch_of(fields: &mut Fields) -> Result<TopicPatch, ApiError> {
    let has_bytes = fields.has("retention_bytes");
    let retention_bytes = fields.number("retention_bytes")?;
    let has_description = fields.has("description");
    let description = fields.text("description")?;
    Ok(TopicPatch {
        partitions: fields.number("partitions")?,
        accept_key_moves: false,
        retention_hours: fields.number("retention_hours")?,
        retention_bytes: has_bytes.then_some(retention_bytes),
        description: has_description.then_some(description),
        ack: ack_of(fields)?,
    })
}

/// What the records of a topic to make can be looked up by.
fn index_of(fields: &mut Fields) -> Result<BTreeSet<IndexKind>, ApiError> {
    let kind = |word: &String| {
        let got: String = word.chars().take(64).collect();
        let unknown = || ApiError::invalid("index", format!("expected `id` or `key`, got `{got}`"));
        IndexKind::parse(word).ok_or_else(unknown)
    };
    fields.texts("index")?.unwrap_or_default().iter().map(kind).collect()
}

fn ack_of(fields: &mut Fields) -> Result<Option<Ack>, ApiError> {
    let invalid = || ApiError::invalid("ack", "expected `durable` or `memory`");
    fields.text("ack")?.map(|word| ack::parse(&word).ok_or_else(invalid)).transpose()
}
