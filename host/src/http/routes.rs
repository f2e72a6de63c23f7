//! `…/routes`: which topics get copies of which events.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::answer::{self, Answer};
use super::auth::{Caller, Inspect, Manage};
use super::bindings::{binding_of, of_binding, on_fault_of};
use super::error::ApiError;
use super::fields::required;
use super::params::RouteParam;
use super::{App, body};
use crate::pattern::Pattern;
use crate::pipeline::{Binding, RouteConfig};

pub(crate) async fn list(State(app): State<Arc<App>>, caller: Caller<Inspect>) -> Answer {
    let routes = app.node.pipelines.routes(&caller.project).await?;
    let routes: Vec<Value> = routes.iter().map(of_route).collect();
    Ok(answer::json(StatusCode::OK, &json!({ "routes": routes })))
}

pub(crate) async fn get(
    State(app): State<Arc<App>>,
    caller: Caller<Inspect>,
    RouteParam(name): RouteParam,
) -> Answer {
    let route = app.node.pipelines.route(&caller.project, &name).await?;
    Ok(answer::json(StatusCode::OK, &of_route(&route)))
}

pub(crate) async fn put(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    RouteParam(name): RouteParam,
    request: Request,
) -> Answer {
    let mut fields = body::fields(&app, &caller.project, request).await?;
    let pattern = required("match", fields.text("match")?)?;
    let to = required("to", fields.texts("to")?)?;
    let plugin = fields.object("plugin")?;
    let on_fault = on_fault_of(&mut fields)?.unwrap_or_default();
    // As `GET` has it, so that a route can be read, changed and put back.
    if fields.text("name")?.is_some_and(|other| other != name.as_str()) {
        return Err(ApiError::invalid("name", "it differs from the name in the path"));
    }
    fields.finish()?;
    let parse = |field: &'static str, text: &String| {
        Pattern::parse(text).map_err(|error| ApiError::invalid(field, error.to_string()))
    };
    let plugin = match plugin {
        // The route's own `on_fault` holds for its plugin, too.
        Some(fields) => {
            let is_given = fields.has("on_fault");
            let binding = binding_of(&app, &caller.project, fields).await?;
            if is_given && binding.on_fault != on_fault {
                let message = "its `on_fault` differs from the route's, which holds for it, too";
                return Err(ApiError::invalid("plugin", message));
            }
            Some(Binding { on_fault, ..binding })
        }
        None => None,
    };
    let route = RouteConfig {
        name,
        pattern: parse("match", &pattern)?,
        to: to.iter().map(|text| parse("to", text)).collect::<Result<_, _>>()?,
        plugin,
        on_fault,
    };
    app.node.pipelines.put_route(&caller.project, &route).await?;
    Ok(answer::json(StatusCode::OK, &of_route(&route)))
}

pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    RouteParam(name): RouteParam,
) -> Answer {
    app.node.pipelines.delete_route(&caller.project, &name).await?;
    Ok(answer::no_content())
}

fn of_route(route: &RouteConfig) -> Value {
    json!({
        "name": route.name.as_str(),
        "match": route.pattern.as_str(),
        "to": route.to.iter().map(Pattern::as_str).collect::<Vec<_>>(),
        "plugin": route.plugin.as_ref().map(of_binding),
        "on_fault": route.on_fault.as_str(),
    })
}
