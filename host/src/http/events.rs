//! `…/produce` and `…/events`: one event or many, into the one write path.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::answer::{self, Answer};
use super::auth::{Caller, Publish};
use super::error::ApiError;
use super::params::{IdParam, Params, TopicParam};
use super::{App, body, identity};
use crate::decode;
use crate::heavy::heavy;
use crate::publish::PublishRequest;
use crate::{ack, timestamp};

pub(crate) async fn produce(
    State(app): State<Arc<App>>,
    caller: Caller<Publish>,
    TopicParam(topic): TopicParam,
    params: Params,
    request: Request,
) -> Answer {
    let ack = params.ack()?;
    let headers = request.headers().clone();
    let body = body::read(&app, &caller.project, request).await?;
    let identity = identity::identity(&headers, &topic, &body.bytes)?;
    let event = decode::produce(&body.bytes, &headers, &app.node.limits)?;
    let events = std::slice::from_ref(&event);
    let request = PublishRequest { project: &caller.project, topic: &topic, events, identity, ack };
    let published = app.node.publisher.publish(request).await?;
    let mut told = Map::new();
    told.insert("topic".to_owned(), published.topic.into());
    if let Some(place) = published.places.first() {
        told.insert("partition".to_owned(), place.partition.0.into());
        told.insert("offset".to_owned(), place.base_offset.into());
        told.insert("timestamp".to_owned(), timestamp::format(place.timestamp).into());
    }
    told.insert("ack".to_owned(), ack::as_str(published.ack).into());
    if published.duplicate {
        told.insert("duplicate".to_owned(), true.into());
    }
    Ok(answer::json(StatusCode::OK, &told))
}

pub(crate) async fn publish(
    State(app): State<Arc<App>>,
    caller: Caller<Publish>,
    TopicParam(topic): TopicParam,
    params: Params,
    request: Request,
) -> Answer {
    let ack = params.ack()?;
    let headers = request.headers().clone();
    let body = body::read(&app, &caller.project, request).await?;
    let identity = identity::identity(&headers, &topic, &body.bytes)?;
    let bytes = body.bytes.len();
    let events = heavy(bytes, || decode::events(&body.bytes, &headers, &app.node.limits))?;
    let request =
        PublishRequest { project: &caller.project, topic: &topic, events: &events, identity, ack };
    let published = app.node.publisher.publish(request).await?;
    let partitions: Vec<Value> = published
        .places
        .iter()
        .map(|place| {
            json!({
                "partition": place.partition.0,
                "first_offset": place.base_offset,
                "last_offset": place.base_offset + u64::from(place.count).saturating_sub(1),
            })
        })
        .collect();
    let told = json!({
        "topic": published.topic,
        "count": published.count,
        "partitions": partitions,
        "ack": ack::as_str(published.ack),
        "duplicate": published.duplicate,
    });
    Ok(answer::json(StatusCode::OK, &told))
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
