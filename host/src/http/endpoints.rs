//! `…/webhooks/endpoints`: where events are posted to. As the official package's `hooks` module has
//! it, and more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use stream_storage::Timestamp;

use super::answer::{self, Answer};
use super::auth::{Caller, Manage};
use super::error::ApiError;
use super::fields::{Fields, required};
use super::params::{EndpointParam, Params};
use super::{App, body};
use crate::hooks::sign::{PREFIX, SigningSecret};
use crate::hooks::{Edited, Endpoint, EndpointPatch, EndpointSettings, NewEndpoint};
use crate::name::EndpointName;
use crate::pattern::Pattern;
use crate::timestamp;

/// What stands for a secret once it has been shown.
const MASK: &str = "********";

/// How long an old secret goes on signing, unless the request says otherwise.
const OVERLAP: Duration = Duration::from_secs(24 * 60 * 60);
/// 30 days.
const OVERLAP_SECONDS_MAX: u64 = 30 * 24 * 60 * 60;

pub(crate) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    request: Request,
) -> Answer {
    let mut fields = body::fields(&app, &caller.project, request).await?;
    let new = NewEndpoint {
        name: EndpointName::parse(&required("name", fields.text("name")?)?)?,
        url: required("url", fields.text("url")?)?,
        events: events_of(&mut fields)?.unwrap_or_default(),
        description: fields.text("description")?,
        metadata: metadata_of(&mut fields)?.unwrap_or_default(),
        secret: secret_of(&mut fields)?,
        settings: settings_of(&mut fields, &EndpointSettings::default())?.unwrap_or_default(),
        is_disabled: enabled_of(&mut fields)? == Some(false),
    };
    fields.finish()?;
    let edited = app.node.hooks.create(&caller.project, new).await?;
    Ok(answer::json(StatusCode::CREATED, &with_secret(&edited)))
}

pub(crate) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    params: Params,
) -> Answer {
    let page = app.node.hooks.list(&caller.project, &params.page()?).await?;
    let endpoints: Vec<Value> = page.items.iter().map(of_endpoint).collect();
    Ok(answer::json(StatusCode::OK, &answer::page("endpoints", &endpoints, page.next)))
}

pub(crate) async fn get(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    EndpointParam(name): EndpointParam,
) -> Answer {
    let endpoint = app.node.hooks.get(&caller.project, &name).await?;
    Ok(answer::json(StatusCode::OK, &of_endpoint(&endpoint)))
}

pub(crate) async fn patch(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    EndpointParam(name): EndpointParam,
    request: Request,
) -> Answer {
    let mut fields = body::fields(&app, &caller.project, request).await?;
    let now = app.node.hooks.get(&caller.project, &name).await?;
    let has_description = fields.has("description");
    let description = fields.text("description")?;
    let patch = EndpointPatch {
        url: fields.text("url")?,
        events: events_of(&mut fields)?,
        description: has_description.then_some(description),
        metadata: metadata_of(&mut fields)?,
        enabled: enabled_of(&mut fields)?,
        settings: settings_of(&mut fields, &now.settings)?,
    };
    fields.finish()?;
    let endpoint = app.node.hooks.patch(&caller.project, &name, patch).await?;
    Ok(answer::json(StatusCode::OK, &of_endpoint(&endpoint)))
}

pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    EndpointParam(name): EndpointParam,
) -> Answer {
    app.node.hooks.delete(&caller.project, &name).await?;
    Ok(answer::no_content())
}

pub(crate) async fn rotate(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    EndpointParam(name): EndpointParam,
    request: Request,
) -> Answer {
    let mut fields = body::fields_if_any(&app, &caller.project, request).await?;
    let secret = secret_of(&mut fields)?;
    let overlap = match fields.number("overlap_seconds")? {
        None => OVERLAP,
        Some(seconds @ 0..=OVERLAP_SECONDS_MAX) => Duration::from_secs(seconds),
        Some(_) => {
            let message = format!("expected a number from 0 to {OVERLAP_SECONDS_MAX}");
            return Err(ApiError::invalid("overlap_seconds", message));
        }
    };
    fields.finish()?;
    let edited = app.node.hooks.rotate(&caller.project, &name, secret, overlap).await?;
    Ok(answer::json(StatusCode::OK, &with_secret(&edited)))
}

fn events_of(fields: &mut Fields) -> Result<Option<Vec<Pattern>>, ApiError> {
    let Some(texts) = fields.texts("events")? else { return Ok(None) };
    let parse = |text: &String| {
        Pattern::parse(text).map_err(|error| ApiError::invalid("events", error.to_string()))
    };
    texts.iter().map(parse).collect::<Result<_, _>>().map(Some)
}

fn metadata_of(fields: &mut Fields) -> Result<Option<BTreeMap<String, String>>, ApiError> {
    let Some(value) = fields.any("metadata") else { return Ok(None) };
    let metadata = serde_json::from_value(value);
    metadata
        .map(Some)
        .map_err(|_| ApiError::invalid("metadata", "expected an object whose values are strings"))
}

fn secret_of(fields: &mut Fields) -> Result<Option<SigningSecret>, ApiError> {
    let secret = fields.text("secret")?.map(|text| SigningSecret::parse(&text)).transpose();
    secret.map_err(|error| ApiError::invalid("secret", error.to_string()))
}

fn enabled_of(fields: &mut Fields) -> Result<Option<bool>, ApiError> {
    match fields.any("enabled") {
        None => Ok(None),
        Some(Value::Bool(enabled)) => Ok(Some(enabled)),
        Some(_) => Err(ApiError::invalid("enabled", "expected `true` or `false`")),
    }
}

/// The settings that a request changes; null brings one back to its default, except where it means
/// "none".
fn settings_of(
    fields: &mut Fields,
    now: &EndpointSettings,
) -> Result<Option<EndpointSettings>, ApiError> {
    let Some(given) = fields.any("settings") else { return Ok(None) };
    let invalid = |message: String| ApiError::invalid("settings", message);
    let Value::Object(given) = given else {
        return Err(invalid("expected an object".to_owned()));
    };
    let Ok(Value::Object(mut settings)) = serde_json::to_value(now) else {
        return Err(ApiError::Internal { inside: "settings are no object".to_owned() });
    };
    let may_be_none = ["rate_per_second", "disable_after_ms"];
    for (name, value) in given {
        if value.is_null() && !may_be_none.contains(&name.as_str()) {
            settings.remove(&name);
        } else {
            settings.insert(name, value);
        }
    }
    let settings = serde_json::from_value(Value::Object(settings));
    settings.map(Some).map_err(|error| invalid(error.to_string()))
}

/// An endpoint with its secret, which is shown this once.
fn with_secret(Edited { endpoint, secret }: &Edited) -> Value {
    told(endpoint, secret.text())
}

fn of_endpoint(endpoint: &Endpoint) -> Value {
    told(endpoint, format!("{PREFIX}{MASK}"))
}

fn told(endpoint: &Endpoint, secret: String) -> Value {
    let mut told = json!({
        "endpoint_id": endpoint.id.as_str(),
        "name": endpoint.name.as_str(),
        "url": endpoint.url,
        "secret": secret,
        "events": endpoint.events.iter().map(Pattern::as_str).collect::<Vec<_>>(),
        "enabled": endpoint.is_enabled(),
        "description": endpoint.description,
        "metadata": endpoint.metadata,
        "settings": endpoint.settings,
        "created_at": timestamp::format(endpoint.created_at),
        "updated_at": timestamp::format(endpoint.updated_at),
    });
    if let (Some(disabled), Value::Object(told)) = (endpoint.disabled, &mut told) {
        let mut why = Map::new();
        why.insert("reason".to_owned(), disabled.reason.as_str().into());
        why.insert("at".to_owned(), timestamp::format(Timestamp(disabled.at)).into());
        told.insert("disabled".to_owned(), why.into());
    }
    told
}
