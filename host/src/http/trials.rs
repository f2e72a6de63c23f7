//! `…/plugins/{name}/try`: events through a version of a plugin, without storing anything.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use stream_storage::{Record, Segment, StoreError};

use super::answer::{self, Answer};
use super::auth::{Caller, Deploy};
use super::bindings::config_of;
use super::error::ApiError;
use super::fields::{Fields, required};
use super::params::PluginParam;
use super::{App, body};
use crate::auth::Scope;
use crate::catalog::CatalogError;
use crate::consume::{Amount, Start};
use crate::decode;
use crate::event::Event;
use crate::limit::Limits;
use crate::name::TopicName;
use crate::plugin::Outcomes;
use crate::stage::{Change, Context, Fault, Role, Verdict};
use crate::trial::{Said, Trial, TrialRequest, Trials};

/// Bytes of stored events that are tried at once.
const STORED_BYTES_MAX: usize = 4 << 20;

/// What a trial holds in memory for each byte: records, columns twice, and the answer.
const BYTES_FACTOR: usize = 4;

/// Stored events that are tried unless the request says otherwise, and at most.
const EVENTS_DEFAULT: usize = 100;
const EVENTS_MAX: usize = 10_000;

pub(crate) async fn run(
    State(app): State<Arc<App>>,
    caller: Caller<Deploy>,
    PluginParam(name): PluginParam,
    request: Request,
) -> Answer {
    let body = body::with_events(&app, &caller.project, request).await?;
    let (mut fields, [events]) = Fields::parse_raw(&body.bytes, ["events"])?;
    let version = fields.number("version")?;
    let role = role_of(&mut fields)?;
    let config = fields.any("config").map(config_of);
    let topic = TopicName::parse(&required("topic", fields.text("topic")?)?)?;
    let from = fields.object("from")?;
    fields.finish()?;
    let partitions = match app.node.catalog.get(&caller.project, &topic).await {
        Ok(topic) => topic.config.partitions,
        // What is not there yet can be tried all the same.
        Err(CatalogError::NotFound(_)) => 1,
        Err(error) => return Err(error.into()),
    };
    let mut room = app.node.answer_budget.permit(caller.project.clone());
    let (segments, first);
    let (events, offset) = match (events, from) {
        (Some(events), None) => (given(&body.bytes, events, &app.node.limits)?, None),
        (None, Some(from)) => {
            caller.check_scope(&[Scope::Consume])?;
            room.grow_to(BYTES_FACTOR * STORED_BYTES_MAX)?;
            (segments, first) = stored(&app, &caller, &topic, from).await?;
            (events_of(&segments)?, Some(first))
        }
        _ => {
            let message = "expected exactly one of `events` and `from`";
            return Err(ApiError::invalid("events", message));
        }
    };
    if events.is_empty() {
        return Err(ApiError::invalid("from", "there are no events there"));
    }
    let node = &app.node;
    let trials = Trials {
        registry: &node.registry,
        plugins: &node.plugins,
        pipelines: &node.pipelines,
        limits: &node.limits,
    };
    let context = Context { topic, partitions };
    let project = &caller.project;
    let request =
        TrialRequest { project, plugin: &name, version, role, config, context, events: &events };
    let trial = trials.run(request).await?;
    Ok(answer::json(StatusCode::OK, &of_trial(&trial, offset)))
}

/// The events of a request, as they were sent.
fn given<'b>(
    body: &'b [u8],
    events: &'b RawValue,
    limits: &Limits,
) -> Result<Vec<Event<'b>>, ApiError> {
    let text = events.get();
    decode::array(text.as_bytes(), limits).map_err(|error| {
        // Where it lies in the list, and where the list lies in the body.
        let start = text.as_ptr().addr() - body.as_ptr().addr();
        error.moved(start).into()
    })
}

fn role_of(fields: &mut Fields) -> Result<Option<Role>, ApiError> {
    let invalid = |word: &str| {
        let message =
            format!("expected `validate`, `partition`, `route` or `transform`, got `{word}`");
        ApiError::invalid("role", message)
    };
    let word = fields.text("role")?;
    word.map(|word| Role::parse(&word).ok_or_else(|| invalid(&word))).transpose()
}

/// Stored records, and the offset of the first.
async fn stored(
    app: &App,
    caller: &Caller<Deploy>,
    name: &TopicName,
    mut from: Fields,
) -> Result<(Vec<Segment>, u64), ApiError> {
    let partition = required("partition", from.number("partition")?)?;
    let offset = required("offset", from.number("offset")?)?;
    let limit: usize = from.number("limit")?.unwrap_or(EVENTS_DEFAULT);
    from.finish()?;
    if !(1..=EVENTS_MAX).contains(&limit) {
        let message = format!("expected a number from 1 to {EVENTS_MAX}, got `{limit}`");
        return Err(ApiError::invalid("limit", message));
    }
    let topic = app.node.catalog.get(&caller.project, name).await?;
    let partition = topic.partition(partition)?;
    let amount =
        Amount { records_max: limit, bytes_max: STORED_BYTES_MAX, wait: std::time::Duration::ZERO };
    let found = app.node.reader.read(topic.id, partition, Start::Offset(offset), amount).await?;
    Ok((found.segments, offset))
}

fn events_of(segments: &[Segment]) -> Result<Vec<Event<'_>>, ApiError> {
    let mut events = Vec::new();
    for segment in segments {
        for record in segment.records() {
            let corrupt = |error: stream_storage::DecodeError| StoreError::Corrupt {
                reason: format!("near offset {}: {error}", segment.base_offset()),
            };
            let (_, record) = record.map_err(corrupt)?;
            events.push(event_of(record));
        }
    }
    Ok(events)
}

fn event_of(record: Record<'_>) -> Event<'_> {
    let Record { key, id, time, content_type, headers, value, value_is_json } = record;
    Event {
        key: key.map(Into::into),
        id: id.map(Into::into),
        time: time.map(Into::into),
        content_type: content_type.map(Into::into),
        headers: headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        value: value.into(),
        value_is_json,
        partition: None,
    }
}

fn of_trial(trial: &Trial, offset: Option<u64>) -> Value {
    let mut told = of_said(&trial.said, offset);
    told.insert("name".to_owned(), trial.plugin.name.as_str().into());
    told.insert("version".to_owned(), trial.plugin.version.into());
    told.insert("role".to_owned(), trial.role.as_str().into());
    told.insert("config".to_owned(), trial.config.as_str().into());
    if let Some((plugin, place, said)) = &trial.bound {
        let mut bound = of_said(said, offset);
        bound.insert("version".to_owned(), plugin.version.into());
        bound.insert("place".to_owned(), place.as_str().into());
        bound.insert("differs".to_owned(), differences(&told, &bound));
        told.insert("bound".to_owned(), bound.into());
    }
    told.into()
}

/// The indices of events of which the two say different things.
fn differences(one: &Map<String, Value>, other: &Map<String, Value>) -> Value {
    let outcomes = |said: &Map<String, Value>| {
        said.get("outcomes").and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let (one, other) = (outcomes(one), outcomes(other));
    let longer = one.len().max(other.len());
    (0..longer).filter(|index| one.get(*index) != other.get(*index)).collect()
}

fn of_said(said: &Said, offset: Option<u64>) -> Map<String, Value> {
    let mut told = Map::new();
    let outcomes = match &said.outcomes {
        Ok(outcomes) => of_outcomes(outcomes),
        Err(Fault { cause, message, .. }) => {
            let fault = json!({ "cause": cause.as_str(), "message": message });
            told.insert("fault".to_owned(), fault);
            Vec::new()
        }
    };
    let numbered = outcomes.into_iter().enumerate().map(|(index, outcome)| {
        let mut fields = outcome.as_object().cloned().unwrap_or_default();
        fields.insert("index".to_owned(), index.into());
        if let Some(first) = offset {
            fields.insert("offset".to_owned(), (first + index as u64).into());
        }
        Value::Object(fields)
    });
    told.insert("outcomes".to_owned(), numbered.collect());
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    told.insert("time_us".to_owned(), micros(said.usage.time).into());
    told.insert("queued_us".to_owned(), micros(said.usage.queued).into());
    told.insert("memory".to_owned(), said.usage.memory.into());
    told
}

fn of_outcomes(outcomes: &Outcomes) -> Vec<Value> {
    match outcomes {
        Outcomes::Verdicts(verdicts) => verdicts.iter().map(of_verdict).collect(),
        Outcomes::Partitions(partitions) => partitions
            .iter()
            .map(|partition| json!({ "outcome": "partition", "partition": partition }))
            .collect(),
        Outcomes::Topics(topics) => topics
            .iter()
            .map(|topics| {
                let names: Vec<_> = topics.iter().map(TopicName::as_str).collect();
                json!({ "outcome": "route", "topics": names })
            })
            .collect(),
        Outcomes::Changes(changes) => changes.iter().map(of_change).collect(),
    }
}

fn of_verdict(verdict: &Verdict) -> Value {
    match verdict {
        Verdict::Accept => json!({ "outcome": "accept" }),
        Verdict::Reject(reason) => json!({ "outcome": "reject", "reason": reason }),
    }
}

fn of_change(change: &Change) -> Value {
    match change {
        Change::Keep => json!({ "outcome": "keep" }),
        Change::Drop => json!({ "outcome": "drop" }),
        Change::Replace(event) => json!({ "outcome": "replace", "event": of_event(event) }),
    }
}

fn of_event(event: &Event<'_>) -> Value {
    let headers: Map<String, Value> =
        event.headers.iter().map(|(name, value)| (name.to_string(), (&**value).into())).collect();
    let (name, value) = match serde_json::from_slice::<Value>(&event.value) {
        Ok(value) if event.value_is_json => ("value", value),
        _ => ("value_base64", BASE64_STANDARD.encode(&event.value).into()),
    };
    json!({
        "id": event.id,
        "key": event.key,
        "time": event.time,
        "content_type": event.content_type,
        "headers": headers,
        name: value,
    })
}
