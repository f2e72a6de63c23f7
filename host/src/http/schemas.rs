//! `…/topics/{t}/schema`: the JSON Schema that a topic's values have to follow.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde_json::{Value, json};
use stream_storage::Timestamp;

use super::answer::{self, Answer};
use super::auth::{Any, Caller, Manage};
use super::error::ApiError;
use super::params::TopicParam;
use super::{App, body};
use crate::name::TopicName;
use crate::pipeline::StoredSchema;
use crate::timestamp;

pub(crate) async fn put(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    TopicParam(name): TopicParam,
    request: Request,
) -> Answer {
    let schema = body::document(&app, &caller.project, request).await?;
    if schema.is_null() {
        return Err(ApiError::invalid("schema", "expected a JSON Schema; `DELETE` removes it"));
    }
    let topic = app.node.catalog.get(&caller.project, &name).await?;
    let set = app.node.pipelines.set_schema(&topic, schema).await?;
    Ok(answer::json(StatusCode::OK, &of_schema(&name, &set)))
}

pub(crate) async fn get(
    State(app): State<Arc<App>>,
    caller: Caller<Any>,
    TopicParam(name): TopicParam,
) -> Answer {
    let versions = versions_of(&app, &caller, &name).await?;
    let newest = versions.last().filter(|newest| !newest.schema.is_null());
    let missing = || ApiError::NotFound { what: "schema", name: name.to_string() };
    Ok(answer::json(StatusCode::OK, &of_schema(&name, newest.ok_or_else(missing)?)))
}

pub(crate) async fn versions(
    State(app): State<Arc<App>>,
    caller: Caller<Any>,
    TopicParam(name): TopicParam,
) -> Answer {
    let versions = versions_of(&app, &caller, &name).await?;
    let versions: Vec<Value> = versions.iter().map(|version| of_schema(&name, version)).collect();
    Ok(answer::json(StatusCode::OK, &json!({ "versions": versions })))
}

pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    TopicParam(name): TopicParam,
) -> Answer {
    let topic = app.node.catalog.get(&caller.project, &name).await?;
    let versions = app.node.pipelines.schemas(&topic).await?;
    if versions.last().is_none_or(|newest| newest.schema.is_null()) {
        return Err(ApiError::NotFound { what: "schema", name: name.to_string() });
    }
    app.node.pipelines.set_schema(&topic, Value::Null).await?;
    Ok(answer::no_content())
}

async fn versions_of(
    app: &App,
    caller: &Caller<Any>,
    name: &TopicName,
) -> Result<Vec<StoredSchema>, ApiError> {
    let topic = app.node.catalog.get(&caller.project, name).await?;
    Ok(app.node.pipelines.schemas(&topic).await?)
}

fn of_schema(topic: &TopicName, schema: &StoredSchema) -> Value {
    json!({
        "topic": topic.as_str(),
        "version": schema.version,
        "schema": schema.schema,
        "created_at": timestamp::format(Timestamp(schema.created_at)),
    })
}
