//! `…/produce` and `…/events`: one event or many, into the one write path.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use stream_storage::Appended;

use super::answer::{self, Answer};
use super::auth::{Caller, Publish};
use super::error::ApiError;
use super::params::{IdParam, Params, TopicParam};
use super::{App, body, identity};
use crate::decode;
use crate::heavy::heavy;
use crate::publish::{Destination, OnReject, PublishRequest, Published, Refusal, TopicPlaces};
use crate::{ack, timestamp};

pub(crate) async fn produce(
    State(app): State<Arc<App>>,
    caller: Caller<Publish>,
    TopicParam(topic): TopicParam,
    params: Params,
    request: Request,
) -> Answer {
    // Of one event there is no part.
    let (ack, _) = (params.ack()?, params.on_reject()?);
    let (head, body) = request.into_parts();
    let headers = &head.headers;
    let body = body::read(&app, &caller.project, headers, body).await?;
    let identity = identity::identity(headers, topic.as_str(), &body.bytes)?;
    let event = decode::produce(&body.bytes, headers, &app.node.limits)?;
    let events = std::slice::from_ref(&event);
    let request = PublishRequest {
        project: &caller.project,
        destination: Destination::Topic(&topic),
        events,
        identity,
        ack,
        on_reject: OnReject::Refuse,
        alongside: None,
    };
    let published = app.node.publisher.publish(request).await?;
    let place = published.places().first();
    let told = ToldOfOne {
        topic: topic.as_str(),
        partition: place.map(|place| place.partition.0),
        offset: place.map(|place| place.base_offset),
        timestamp: place.map(|place| timestamp::format(place.timestamp)),
        ack: ack::as_str(published.ack),
        duplicate: published.duplicate.then_some(true),
        beside: Beside::of(&published),
    };
    Ok(answer::json(status(&published), &told))
}

/// What the publisher of one event is told.
#[derive(Serialize)]
struct ToldOfOne<'a> {
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    ack: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicate: Option<bool>,
    #[serde(flatten)]
    beside: Beside<'a>,
}

pub(crate) async fn publish(
    State(app): State<Arc<App>>,
    caller: Caller<Publish>,
    TopicParam(topic): TopicParam,
    params: Params,
    request: Request,
) -> Answer {
    let destination = Destination::Topic(&topic);
    let published = publish_to(&app, &caller, &params, destination, request).await?;
    let told = Told {
        topic: published.topic.as_deref().unwrap_or(topic.as_str()),
        count: published.count,
        partitions: partitions(published.places()),
        ack: ack::as_str(published.ack),
        duplicate: published.duplicate,
        beside: Beside::of(&published),
    };
    Ok(answer::json(status(&published), &told))
}

/// What the publisher of many events is told.
#[derive(Serialize)]
struct Told<'a> {
    topic: &'a str,
    count: u64,
    partitions: Value,
    ack: &'static str,
    duplicate: bool,
    #[serde(flatten)]
    beside: Beside<'a>,
}

/// Events that go to the topics of their types.
pub(crate) async fn publish_by_type(
    State(app): State<Arc<App>>,
    caller: Caller<Publish>,
    params: Params,
    request: Request,
) -> Answer {
    let published = publish_to(&app, &caller, &params, Destination::ByType, request).await?;
    let told = json!({
        "count": published.count,
        "topics": published.topics.iter().map(of_topic).collect::<Vec<_>>(),
        "rejected": published.rejected,
        "dead_lettered": published.dead_lettered,
        "unrouted": published.unrouted,
        "dropped": published.dropped,
        "ack": ack::as_str(published.ack),
        "duplicate": published.duplicate,
    });
    Ok(answer::json(status(&published), &told))
}

async fn publish_to(
    app: &App,
    caller: &Caller<Publish>,
    params: &Params,
    destination: Destination<'_>,
    request: Request,
) -> Result<Published, ApiError> {
    let (ack, on_reject) = (params.ack()?, params.on_reject()?);
    let (head, body) = request.into_parts();
    let headers = &head.headers;
    let body = body::read(app, &caller.project, headers, body).await?;
    let scope = match destination {
        Destination::Topic(topic) => topic.as_str(),
        Destination::ByType | Destination::Each(_) => "",
    };
    let identity = identity::identity(headers, scope, &body.bytes)?;
    let bytes = body.bytes.len();
    let events = heavy(bytes, || decode::events(&body.bytes, headers, &app.node.limits))?;
    if let Destination::ByType = destination {
        decode::expect_types(&events)?;
    }
    let project = &caller.project;
    let request = PublishRequest {
        project,
        destination,
        events: &events,
        identity,
        ack,
        on_reject,
        alongside: None,
    };
    Ok(app.node.publisher.publish(request).await?)
}

/// 202 if nothing was stored where it was meant to be; a repeat gets the status of the first.
pub(super) fn status(published: &Published) -> StatusCode {
    if published.count == 0 { StatusCode::ACCEPTED } else { StatusCode::OK }
}

/// What did not go the usual way; nothing of it is said where all did.
#[derive(Serialize)]
struct Beside<'a> {
    /// Where routes have brought copies; the server's own topics are none of theirs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    copies: Vec<Value>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    rejected: &'a [Refusal],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    dead_lettered: &'a [Refusal],
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<u64>,
}

impl<'a> Beside<'a> {
    fn of(published: &'a Published) -> Self {
        let is_copy = |places: &&TopicPlaces| {
            Some(&places.topic) != published.topic.as_ref() && !places.topic.starts_with('_')
        };
        Self {
            copies: published.topics.iter().filter(is_copy).map(of_topic).collect(),
            rejected: &published.rejected,
            dead_lettered: &published.dead_lettered,
            dropped: (published.dropped > 0).then_some(published.dropped),
        }
    }
}

pub(super) fn of_topic(places: &TopicPlaces) -> Value {
    let count: u64 = places.places.iter().map(|place| u64::from(place.count)).sum();
    json!({
        "topic": places.topic,
        "count": count,
        "partitions": partitions(&places.places),
    })
}

fn partitions(places: &[Appended]) -> Value {
    let of_place = |place: &Appended| {
        json!({
            "partition": place.partition.0,
            "first_offset": place.base_offset,
            "last_offset": place.base_offset + u64::from(place.count).saturating_sub(1),
        })
    };
    places.iter().map(of_place).collect()
}

/// How far a producer has come: what it asks after a crash, before it goes on.
pub(crate) async fn producer(
    State(app): State<Arc<App>>,
    caller: Caller<Publish>,
    IdParam(id): IdParam,
) -> Answer {
    let id = identity::check_id("id", id)?;
    let state = app.node.publisher.producer(&caller.project, &id).await?;
    let state = state.ok_or_else(|| ApiError::NotFound { what: "producer", name: id.clone() })?;
    let told = json!({ "id": id, "epoch": state.epoch, "last_seq": state.last_sequence });
    Ok(answer::json(StatusCode::OK, &told))
}
