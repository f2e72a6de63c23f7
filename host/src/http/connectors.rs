//! `…/connectors`: what takes events to Worker, Hooks and Ledger.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use stream_storage::Timestamp;

use super::answer::{self, Answer};
use super::auth::{Caller, Inspect, Manage};
use super::bindings::{binding_of, of_binding};
use super::error::ApiError;
use super::fields::{Fields, required};
use super::params::{ConnectorParam, Params};
use super::{App, body};
use crate::connector::{
    ConnectorView, Deletion, From, Kind, LostRecords, PlaceView, Replay, Secret, Settings, Spec,
};
use crate::name::TopicName;
use crate::pattern::Pattern;
use crate::pipeline::Binding;
use crate::queue::{JobId, JobView, QueueView};
use crate::registry::RegistryError;
use crate::stage::{OnFault, Role};
use crate::timestamp;
use stream_storage::ProjectName;

pub(crate) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller<Inspect>,
    params: Params,
) -> Answer {
    let page = app.node.connectors.list(&caller.project, &params.page()?).await?;
    let connectors: Vec<Value> = page.items.iter().map(of_connector).collect();
    Ok(answer::json(StatusCode::OK, &answer::page("connectors", &connectors, page.next)))
}

pub(crate) async fn get(
    State(app): State<Arc<App>>,
    caller: Caller<Inspect>,
    ConnectorParam(name): ConnectorParam,
) -> Answer {
    let view = app.node.connectors.view(&caller.project, &name).await?;
    Ok(answer::json(StatusCode::OK, &of_connector(&view)))
}

pub(crate) async fn put(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    ConnectorParam(name): ConnectorParam,
    request: Request,
) -> Answer {
    let mut fields = body::fields(&app, &caller.project, request).await?;
    let spec = spec_of(&app, &caller.project, &mut fields).await?;
    if fields.text("name")?.is_some_and(|other| other != name.as_str()) {
        return Err(ApiError::invalid("name", "it differs from the name in the path"));
    }
    fields.finish()?;
    // Run to its end, whoever hangs up: what is stored has to be at work.
    let (project, app) = (caller.project.clone(), Arc::clone(&app));
    let put = tokio::spawn(async move { app.node.connectors.put(&project, &name, &spec).await });
    let (view, made) = finished(put).await??;
    Ok(answer::made(made, &of_connector(&view)))
}

pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    ConnectorParam(name): ConnectorParam,
    params: Params,
) -> Answer {
    let deletion = match params.text("mode") {
        None | Some("drain") => Deletion::Drain,
        Some("drop") => Deletion::Drop,
        Some(_) => return Err(ApiError::invalid("mode", "expected `drain` or `drop`")),
    };
    let (project, app) = (caller.project.clone(), Arc::clone(&app));
    let delete =
        tokio::spawn(async move { app.node.connectors.delete(&project, &name, deletion).await });
    match finished(delete).await?? {
        Some(view) => Ok(answer::json(StatusCode::ACCEPTED, &of_connector(&view))),
        None => Ok(answer::no_content()),
    }
}

pub(crate) async fn pause(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    ConnectorParam(name): ConnectorParam,
) -> Answer {
    set_paused(app, caller, name, true).await
}

pub(crate) async fn resume(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    ConnectorParam(name): ConnectorParam,
) -> Answer {
    set_paused(app, caller, name, false).await
}

async fn set_paused(
    app: Arc<App>,
    caller: Caller<Manage>,
    name: crate::name::ConnectorName,
    is_paused: bool,
) -> Answer {
    let project = caller.project.clone();
    let set =
        tokio::spawn(
            async move { app.node.connectors.set_paused(&project, &name, is_paused).await },
        );
    let view = finished(set).await??;
    Ok(answer::json(StatusCode::OK, &of_connector(&view)))
}

pub(crate) async fn replay(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    ConnectorParam(name): ConnectorParam,
    request: Request,
) -> Answer {
    let mut fields = body::fields(&app, &caller.project, request).await?;
    let replay = replay_of(&mut fields)?;
    fields.finish()?;
    let project = caller.project.clone();
    let replay =
        tokio::spawn(async move { app.node.connectors.replay(&project, &name, &replay).await });
    let view = finished(replay).await??;
    Ok(answer::json(StatusCode::OK, &of_connector(&view)))
}

pub(crate) async fn dead_letters(
    State(app): State<Arc<App>>,
    caller: Caller<Inspect>,
    ConnectorParam(name): ConnectorParam,
    params: Params,
) -> Answer {
    let mut page = params.page()?;
    page.limit = page.limit.or(Some(100));
    let dead = app.node.connectors.dead(&caller.project, &name, &page).await?;
    let letters: Vec<Value> = dead.items.iter().map(of_dead).collect();
    Ok(answer::json(StatusCode::OK, &answer::page("dead_letters", &letters, dead.next)))
}

pub(crate) async fn redrive(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    ConnectorParam(name): ConnectorParam,
    request: Request,
) -> Answer {
    let mut fields = body::fields(&app, &caller.project, request).await?;
    let ids = fields.texts("ids")?;
    fields.finish()?;
    let parse = |text: &String| {
        JobId::parse(text).map_err(|error| ApiError::invalid("ids", error.to_string()))
    };
    let ids: Option<Vec<JobId>> =
        ids.map(|ids| ids.iter().map(parse).collect::<Result<_, _>>()).transpose()?;
    let redriven = app.node.connectors.redrive(&caller.project, &name, ids.as_deref()).await?;
    Ok(answer::json(StatusCode::OK, &json!({ "redriven": redriven })))
}

async fn finished<T>(task: tokio::task::JoinHandle<T>) -> Result<T, ApiError> {
    task.await.map_err(|error| ApiError::Internal { inside: error.to_string() })
}

async fn spec_of(app: &App, project: &ProjectName, fields: &mut Fields) -> Result<Spec, ApiError> {
    let kind = required("kind", fields.text("kind")?)?;
    let kind = Kind::parse(&kind).ok_or_else(|| {
        ApiError::invalid("kind", format!("expected `hooks`, `ledger` or `worker`, got `{kind}`"))
    })?;
    let pattern = required("match", fields.text("match")?)?;
    let pattern =
        Pattern::parse(&pattern).map_err(|error| ApiError::invalid("match", error.to_string()))?;
    let plugin = match fields.object("plugin")? {
        Some(plugin) => Some(plugin_of(app, project, plugin).await?),
        None => None,
    };
    let url = fields.text("url")?;
    let secret = fields.text("secret")?.map(Secret);
    let settings = fields.any("settings").unwrap_or_else(|| Value::Object(Map::new()));
    let settings = Settings::parse(settings)?;
    // What a view shows beside, so that it can be changed and put back.
    for name in VIEWED {
        fields.any(name);
    }
    Ok(Spec { kind, pattern, plugin, url, secret, settings })
}

/// A plugin as a route has it, and its role if it does several things.
async fn plugin_of(
    app: &App,
    project: &ProjectName,
    mut fields: Fields,
) -> Result<(Role, Binding), ApiError> {
    let role = fields.text("role")?;
    let has_policy = fields.has("on_fault");
    let mut binding = binding_of(app, project, fields).await?;
    if !has_policy {
        // A record that breaks the plugin each time would hold up all behind it.
        binding.on_fault = OnFault::DeadLetter;
    }
    let plugin = app.node.registry.get(project, &binding.plugin.name).await?;
    let version = plugin.version(Some(binding.plugin.version)).map_err(RegistryError::from)?;
    let roles: Vec<Role> = [Role::Validate, Role::Transform]
        .into_iter()
        .filter(|role| version.roles.contains(role))
        .collect();
    let expected = || {
        ApiError::invalid(
            "plugin.role",
            "expected `validate` or `transform`, one of \
                                                        which the plugin does",
        )
    };
    let role = match (role, roles.as_slice()) {
        (Some(word), roles) => {
            Role::parse(&word).filter(|role| roles.contains(role)).ok_or_else(expected)?
        }
        (None, [role]) => *role,
        (None, _) => return Err(expected()),
    };
    Ok((role, binding))
}

fn replay_of(fields: &mut Fields) -> Result<Replay, ApiError> {
    let topic = fields.text("topic")?.map(|topic| TopicName::parse(&topic)).transpose()?;
    let partition: Option<u32> = fields.number("partition")?;
    let offset: Option<u64> = fields.number("offset")?;
    let from = fields.text("from")?.map(|text| From::parse(&text)).transpose()?;
    match (topic, partition, offset, from) {
        (Some(topic), Some(partition), Some(offset), None) => {
            Ok(Replay::Offset { topic, partition, offset })
        }
        (Some(topic), partition, None, Some(from)) => Ok(Replay::Topic { topic, partition, from }),
        (None, None, None, Some(from)) => Ok(Replay::All(from)),
        _ => Err(ApiError::invalid(
            "from",
            "expected `from` (`earliest`, `latest` or a time), alone or with `topic` and perhaps \
             `partition`; or `topic`, `partition` and `offset`",
        )),
    }
}

/// Fields of a view that are no part of what a connector is to do.
const VIEWED: [&str; 20] = [
    "has_secret",
    "state",
    "created_at",
    "updated_at",
    "topics",
    "warning",
    "lag",
    "cursor",
    "queue",
    "taken",
    "dropped",
    "faulted",
    "sent",
    "failures",
    "last_error",
    "last_error_at",
    "last_success_at",
    "paused_reason",
    "lost",
    "in_flight",
];

fn of_connector(view: &ConnectorView) -> Value {
    let ConnectorView { spec, vitals, .. } = view;
    let plugin = spec.plugin.as_ref().map(|(role, binding)| {
        let mut plugin = of_binding(binding);
        if let Some(plugin) = plugin.as_object_mut() {
            plugin.insert("role".to_owned(), role.as_str().into());
        }
        plugin
    });
    let time = |time: Option<Timestamp>| time.map(timestamp::format);
    let (error_at, error) = vitals.last_error.clone().unzip();
    let mut told = json!({
        "name": view.name.as_str(),
        "kind": spec.kind.as_str(),
        "match": spec.pattern.as_str(),
        "plugin": plugin,
        "url": spec.url,
        "has_secret": view.has_secret,
        "settings": spec.settings,
        "state": view.state.as_str(),
        "created_at": timestamp::format(view.created_at),
        "updated_at": timestamp::format(view.updated_at),
        "topics": view.topics,
        "lag": view.lag(),
        "cursor": view.places.iter().map(of_place).collect::<Vec<_>>(),
        "queue": view.queue.as_ref().map(of_queue),
        "taken": vitals.taken,
        "dropped": vitals.dropped,
        "faulted": vitals.faulted,
        "sent": vitals.sent,
        "failures": vitals.failures,
        "last_error": error,
        "last_error_at": time(error_at),
        "last_success_at": time(vitals.last_success),
        "paused_reason": vitals.paused,
        "lost": vitals.lost.iter().map(of_lost).collect::<Vec<_>>(),
    });
    if view.topics == 0
        && let Some(told) = told.as_object_mut()
    {
        let warning = format!("no topic matches `{}` now", spec.pattern);
        told.insert("warning".to_owned(), warning.into());
    }
    told
}

fn of_place(place: &PlaceView) -> Value {
    json!({
        "topic": place.topic.as_str(),
        "partition": place.partition.0,
        "next_offset": place.next_offset,
        "log_end": place.log_end,
    })
}

fn of_queue(queue: &QueueView) -> Value {
    json!({
        "name": queue.name.as_str(),
        "waiting": queue.waiting,
        "in_flight": queue.leased,
        "dead": queue.dead,
    })
}

fn of_lost(lost: &LostRecords) -> Value {
    json!({
        "topic": lost.topic.as_str(),
        "partition": lost.partition.0,
        "next_offset": lost.next_offset,
        "earliest": lost.earliest,
        "records": lost.earliest.saturating_sub(lost.next_offset),
    })
}

fn of_dead(view: &JobView) -> Value {
    let source = view.job.source.as_ref().map(|source| {
        json!({
            "topic": source.topic,
            "partition": source.partition,
            "offset": source.offset,
        })
    });
    json!({
        "id": view.job.id.to_string(),
        "key": view.job.key,
        "attempts": view.attempts,
        "reason": view.last_error,
        "enqueued_at": timestamp::format(view.job.enqueued_at),
        "source": source,
    })
}
