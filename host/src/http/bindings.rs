//! `…/bindings`: which plugins serve which topics, in which order.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::answer::{self, Answer};
use super::auth::{Caller, Inspect, Manage};
use super::error::ApiError;
use super::fields::{Fields, required};
use super::params::PlaceParam;
use super::plugins::millis;
use super::{App, body};
use crate::name::PluginName;
use crate::pipeline::{Binding, BindingList, BindingPlace, PipelineError};
use crate::registry::RegistryError;
use crate::stage::{OnFault, PluginRef};
use crate::timestamp;
use stream_storage::ProjectName;

pub(crate) async fn list(State(app): State<Arc<App>>, caller: Caller<Inspect>) -> Answer {
    let lists = app.node.pipelines.lists(&caller.project).await?;
    let lists: Vec<Value> = lists.iter().map(of_list).collect();
    Ok(answer::json(StatusCode::OK, &json!({ "bindings": lists })))
}

pub(crate) async fn get(
    State(app): State<Arc<App>>,
    caller: Caller<Inspect>,
    PlaceParam(place): PlaceParam,
) -> Answer {
    let list = app.node.pipelines.list(&caller.project, place).await?;
    if list.is_gone() {
        let BindingPlace { role, pattern } = list.place;
        return Err(PipelineError::BindingsNotFound { role, pattern }.into());
    }
    Ok(answer::json(StatusCode::OK, &of_list(&list)))
}

pub(crate) async fn put(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    PlaceParam(place): PlaceParam,
    request: Request,
) -> Answer {
    let mut fields = body::fields(&app, &caller.project, request).await?;
    let objects = required("bindings", fields.objects("bindings")?)?;
    let revision = fields.number("revision")?;
    fields.finish()?;
    let mut bindings = Vec::with_capacity(objects.len());
    for object in objects {
        bindings.push(binding_of(&app, &caller.project, object).await?);
    }
    let list = app.node.pipelines.bind(&caller.project, place, bindings, revision).await?;
    Ok(answer::json(StatusCode::OK, &of_list(&list)))
}

pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    PlaceParam(place): PlaceParam,
) -> Answer {
    app.node.pipelines.unbind(&caller.project, place).await?;
    Ok(answer::no_content())
}

pub(crate) async fn rollback(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    PlaceParam(place): PlaceParam,
) -> Answer {
    let list = app.node.pipelines.roll_back(&caller.project, place).await?;
    Ok(answer::json(StatusCode::OK, &of_list(&list)))
}

/// A binding as a client writes it; without a version, the newest now.
pub(super) async fn binding_of(
    app: &App,
    project: &ProjectName,
    mut fields: Fields,
) -> Result<Binding, ApiError> {
    let name = PluginName::parse(&required("plugin", fields.text("plugin")?)?)?;
    let version = fields.number("version")?;
    let plugin = app.node.registry.get(project, &name).await?;
    let version = plugin.version(version).map_err(RegistryError::from)?.version;
    let limits = app.node.plugins.config();
    let mut binding = Binding::new(PluginRef { name, version });
    binding.timeout = binding.timeout.min(limits.timeout_max);
    binding.memory = binding.memory.min(limits.memory_max);
    if let Some(config) = fields.any("config") {
        binding.config = config_of(config);
    }
    if let Some(on_fault) = on_fault_of(&mut fields)? {
        binding.on_fault = on_fault;
    }
    if let Some(millis) = fields.number("timeout_ms")? {
        binding.timeout = Duration::from_millis(millis);
    }
    if let Some(memory) = fields.number("memory")? {
        binding.memory = memory;
    }
    binding.fresh = match fields.text("instance")?.as_deref() {
        None | Some("kept") => false,
        Some("fresh") => true,
        Some(other) => {
            let message = format!("expected `kept` or `fresh`, got `{other}`");
            return Err(ApiError::invalid("instance", message));
        }
    };
    fields.finish()?;
    Ok(binding)
}

/// What a plugin gets as its config: a text as it is, any other JSON as text.
pub(super) fn config_of(config: Value) -> String {
    match config {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

pub(super) fn on_fault_of(fields: &mut Fields) -> Result<Option<OnFault>, ApiError> {
    let invalid = |word: &str| {
        let message = format!("expected `reject`, `dead-letter` or `skip`, got `{word}`");
        ApiError::invalid("on_fault", message)
    };
    let word = fields.text("on_fault")?;
    word.map(|word| OnFault::parse(&word).ok_or_else(|| invalid(&word))).transpose()
}

pub(super) fn of_binding(binding: &Binding) -> Value {
    json!({
        "plugin": binding.plugin.name.as_str(),
        "version": binding.plugin.version,
        "config": binding.config,
        "on_fault": binding.on_fault.as_str(),
        "timeout_ms": millis(binding.timeout),
        "memory": binding.memory,
        "instance": if binding.fresh { "fresh" } else { "kept" },
    })
}

fn of_list(list: &BindingList) -> Value {
    let all = |bindings: &Vec<Binding>| bindings.iter().map(of_binding).collect::<Vec<_>>();
    json!({
        "role": list.place.role.as_str(),
        "pattern": list.place.pattern.as_str(),
        "revision": list.revision,
        "bindings": all(&list.bindings),
        "previous": list.previous.iter().map(all).collect::<Vec<_>>(),
        "updated_at": timestamp::format(list.updated_at),
    })
}
