//! `…/plugins`: upload, list, describe and delete plugins, their figures and their logs.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::answer::{self, Answer};
use super::auth::{Any, Caller, Deploy, Inspect};
use super::params::{Params, PluginParam};
use super::{App, body};
use crate::name::PluginName;
use crate::pipeline::{MEMORY_DEFAULT, TIMEOUT_DEFAULT};
use crate::plugin::{BUCKETS, Counters, Outcome};
use crate::registry::{Plugin, PluginVersion, RegistryError};
use crate::stage::{Cause, PluginRef, Role};
use crate::timestamp;

/// Lines of a log unless the request says otherwise, and at most.
const LINES_DEFAULT: usize = 100;
const LINES_MAX: usize = 1_000;

pub(crate) async fn upload(
    State(app): State<Arc<App>>,
    caller: Caller<Deploy>,
    PluginParam(name): PluginParam,
    request: Request,
) -> Answer {
    let held = body::upload(&app, &caller.project, request).await?;
    let (bytes, _permit) = held.into_bytes();
    let (version, made) = app.node.registry.upload(&caller.project, &name, bytes).await?;
    Ok(answer::made(made, &with_limits(&app, of_version(&name, &version))))
}

pub(crate) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller<Any>,
    params: Params,
) -> Answer {
    let page = app.node.registry.list(&caller.project, &params.page()?).await?;
    let of_plugin = |plugin: &Plugin| {
        let newest = plugin.versions.last()?;
        let mut told = of_version(&plugin.name, newest);
        told.insert("versions".to_owned(), plugin.versions.len().into());
        Some(Value::Object(told))
    };
    let plugins: Vec<Value> = page.items.iter().filter_map(of_plugin).collect();
    Ok(answer::json(StatusCode::OK, &answer::page("plugins", &plugins, page.next)))
}

pub(crate) async fn get(
    State(app): State<Arc<App>>,
    caller: Caller<Any>,
    PluginParam(name): PluginParam,
) -> Answer {
    let plugin = app.node.registry.get(&caller.project, &name).await?;
    let newest = plugin.version(None).map_err(RegistryError::from)?;
    let mut told = with_limits(&app, of_version(&name, newest));
    told.insert("versions".to_owned(), versions_of(&plugin));
    let pipelines = &app.node.pipelines;
    told.insert("bound".to_owned(), pipelines.uses_of(&caller.project, &name).await?.into());
    let paused: Vec<Value> = pipelines
        .paused(&caller.project)
        .into_iter()
        .filter(|(_, plugin, _)| plugin.name == name)
        .map(|(place, plugin, paused)| {
            json!({
                "place": place,
                "version": plugin.version,
                "reason": paused.reason,
                "retry_after_ms": millis(paused.retry_after),
            })
        })
        .collect();
    told.insert("paused".to_owned(), paused.into());
    Ok(answer::json(StatusCode::OK, &told))
}

pub(crate) async fn versions(
    State(app): State<Arc<App>>,
    caller: Caller<Any>,
    PluginParam(name): PluginParam,
) -> Answer {
    let plugin = app.node.registry.get(&caller.project, &name).await?;
    Ok(answer::json(StatusCode::OK, &json!({ "versions": versions_of(&plugin) })))
}

pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller<Deploy>,
    PluginParam(name): PluginParam,
) -> Answer {
    app.node.pipelines.delete_plugin(&caller.project, &name).await?;
    Ok(answer::no_content())
}

pub(crate) async fn stats(
    State(app): State<Arc<App>>,
    caller: Caller<Any>,
    PluginParam(name): PluginParam,
) -> Answer {
    let plugin = app.node.registry.get(&caller.project, &name).await?;
    let versions: Vec<Value> = plugin
        .versions
        .iter()
        .map(|version| {
            let plugin = PluginRef { name: name.clone(), version: version.version };
            let counters = app.node.plugins.seen(&caller.project, &plugin).counters();
            of_counters(version.version, &counters)
        })
        .filter(|version| version["calls"] != 0 || version["faults"] != json!({}))
        .collect();
    let told = json!({ "name": name.as_str(), "versions": versions });
    Ok(answer::json(StatusCode::OK, &told))
}

pub(crate) async fn logs(
    State(app): State<Arc<App>>,
    caller: Caller<Inspect>,
    PluginParam(name): PluginParam,
    params: Params,
) -> Answer {
    let limit = params.number("limit", 1..=LINES_MAX)?.unwrap_or(LINES_DEFAULT);
    let plugin = app.node.registry.get(&caller.project, &name).await?;
    let version = params.number("version", 1..=u64::MAX)?;
    let version = plugin.version(version).map_err(RegistryError::from)?.version;
    let plugin = PluginRef { name: name.clone(), version };
    let (lines, dropped) = app.node.plugins.seen(&caller.project, &plugin).log.tail(limit);
    let lines: Vec<Value> = lines
        .iter()
        .map(|line| json!({ "time": timestamp::format(line.time), "text": line.text }))
        .collect();
    let told = json!({
        "name": name.as_str(),
        "version": version,
        "lines": lines,
        "dropped_bytes": dropped,
    });
    Ok(answer::json(StatusCode::OK, &told))
}

/// A role's word in a list.
pub(super) fn role_words(roles: &[Role]) -> Vec<&'static str> {
    roles.iter().map(|role| role.as_str()).collect()
}

fn of_version(name: &PluginName, version: &PluginVersion) -> Map<String, Value> {
    let mut told = Map::new();
    told.insert("name".to_owned(), name.as_str().into());
    told.insert("version".to_owned(), version.version.into());
    told.insert("digest".to_owned(), format!("sha256:{}", version.digest).into());
    told.insert("size".to_owned(), version.size.into());
    told.insert("roles".to_owned(), role_words(&version.roles).into());
    told.insert("created_at".to_owned(), timestamp::format(version.created_at).into());
    told
}

fn versions_of(plugin: &Plugin) -> Value {
    let without_name = |version: &PluginVersion| {
        let mut told = of_version(&plugin.name, version);
        told.remove("name");
        told
    };
    plugin.versions.iter().map(without_name).collect()
}

/// Adds what a binding of it gets, and may ask for.
fn with_limits(app: &App, mut told: Map<String, Value>) -> Map<String, Value> {
    let config = app.node.plugins.config();
    let limits = json!({
        "timeout_ms": millis(TIMEOUT_DEFAULT.min(config.timeout_max)),
        "timeout_ms_max": millis(config.timeout_max),
        "memory": MEMORY_DEFAULT.min(config.memory_max),
        "memory_max": config.memory_max,
    });
    told.insert("limits".to_owned(), limits);
    told
}

fn of_counters(version: u64, counters: &Counters) -> Value {
    let outcomes: Map<String, Value> = Outcome::ALL
        .iter()
        .zip(counters.outcomes)
        .filter(|(_, count)| *count > 0)
        .map(|(outcome, count)| (outcome.as_str().to_owned(), count.into()))
        .collect();
    let faults: Map<String, Value> = Cause::ALL
        .iter()
        .zip(counters.faults)
        .filter(|(_, count)| *count > 0)
        .map(|(cause, count)| (cause.as_str().to_owned(), count.into()))
        .collect();
    let mut below = 0;
    let buckets: Vec<Value> = BUCKETS
        .iter()
        .zip(counters.buckets)
        .map(|(bound, count)| {
            below += count;
            json!({ "le": bound, "count": below })
        })
        .collect();
    json!({
        "version": version,
        "calls": counters.calls,
        "events": counters.events,
        "instances": counters.instances,
        "outcomes": outcomes,
        "faults": faults,
        "latency": {
            "count": counters.calls,
            "sum_seconds": counters.busy.as_secs_f64(),
            "buckets": buckets,
        },
        "queued_seconds": counters.queued.as_secs_f64(),
        "queued_seconds_max": counters.queued_max.as_secs_f64(),
        "memory_peak": counters.memory_peak,
    })
}

pub(super) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
