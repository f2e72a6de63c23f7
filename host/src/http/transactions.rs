//! `/transactions`: events for any topics and a member's offsets, stored together or not at all.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::answer::{self, Answer};
use super::auth::{Caller, Publish};
use super::error::ApiError;
use super::events::of_topic;
use super::fields::{Fields, required};
use super::members;
use super::params::Params;
use super::{App, body, identity};
use crate::ack;
use crate::auth::Scope;
use crate::decode::{self, DecodeError};
use crate::event::Event;
use crate::group::{MemberCommit, MemberId};
use crate::heavy::heavy;
use crate::limit::Limits;
use crate::name::{GroupName, TopicName};
use crate::publish::{Alongside, Destination, OnReject, PublishRequest};

/// What one topic gets.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Part<'b> {
    topic: String,
    #[serde(borrow)]
    events: &'b RawValue,
}

pub(crate) async fn run(
    State(app): State<Arc<App>>,
    caller: Caller<Publish>,
    params: Params,
    request: Request,
) -> Answer {
    let ack = params.ack()?;
    let headers = request.headers().clone();
    let body = body::with_events(&app, &caller.project, request).await?;
    let identity = identity::identity(&headers, "transaction", &body.bytes)?;
    let (mut fields, [publish]) = Fields::parse_raw(&body.bytes, ["publish"])?;
    let offsets = fields.object("offsets")?.map(offsets).transpose()?;
    fields.finish()?;
    if offsets.is_some() {
        caller.check_scope(&[Scope::Consume])?;
    }
    let (topics, events) = match publish {
        Some(publish) => heavy(body.bytes.len(), || parts(publish, &app.node.limits))?,
        None => (Vec::new(), Vec::new()),
    };
    if events.is_empty() && offsets.is_none() {
        return Err(ApiError::invalid("publish", "there is neither an event nor an offset"));
    }
    let offsets = match offsets {
        Some(commit) => Some(app.node.groups.prepare(&caller.project, commit).await?),
        None => None,
    };
    let request = PublishRequest {
        project: &caller.project,
        destination: Destination::Each(&topics),
        events: &events,
        identity,
        ack,
        on_reject: OnReject::Refuse,
        alongside: offsets.as_ref().map(|offsets| offsets as &dyn Alongside),
    };
    let published = app.node.publisher.publish(request).await?;
    let told = json!({
        "count": published.count,
        "topics": published.topics.iter().map(of_topic).collect::<Vec<_>>(),
        "dead_lettered": published.dead_lettered,
        "dropped": published.dropped,
        "ack": ack::as_str(published.ack),
        "duplicate": published.duplicate,
    });
    Ok(answer::json(StatusCode::OK, &told))
}

fn offsets(mut fields: Fields) -> Result<MemberCommit, ApiError> {
    let group = GroupName::parse(&required("group", fields.text("group")?)?)?;
    let member = MemberId::new(&required("member", fields.text("member")?)?);
    let partitions = members::partitions(&mut fields)?;
    fields.finish()?;
    Ok(MemberCommit { group, member, partitions })
}

/// The events of all parts, each with its topic.
fn parts<'b>(
    publish: &'b RawValue,
    limits: &Limits,
) -> Result<(Vec<TopicName>, Vec<Event<'b>>), ApiError> {
    let expected = "expected a list of `{\"topic\", \"events\": [...]}`";
    let parts: Vec<Part<'b>> = serde_json::from_str(publish.get())
        .map_err(|error| ApiError::invalid("publish", format!("{expected}: {error}")))?;
    let (mut topics, mut events) = (Vec::new(), Vec::new());
    for part in parts {
        let topic = TopicName::parse(&part.topic)?;
        let before = events.len();
        match decode::array(part.events.get().as_bytes(), limits) {
            // The index counts through all parts.
            Err(error) => return Err(error.behind(before).into()),
            Ok(mut of_topic) => events.append(&mut of_topic),
        }
        if events.len() > limits.request_events_max {
            return Err(DecodeError::TooManyEvents { max: limits.request_events_max }.into());
        }
        topics.resize(events.len(), topic);
    }
    Ok((topics, events))
}
