//! `…/queues`: how queues work and stand, and what becomes of their dead jobs.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::answer::{self, Answer};
use super::auth::{Any, Caller, Manage};
use super::error::ApiError;
use super::fields::{Fields, required};
use super::params::{OwnQueueParam, Params, QueueParam};
use super::{App, body};
use crate::name::QueueName;
use crate::queue::{BackoffSettings, JobId, QueueSettings, QueueView};
use crate::timestamp;

/// Jobs that one call names.
const IDS_MAX: usize = 1_000;

pub(crate) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller<Any>,
    params: Params,
) -> Answer {
    let page = app.node.queues.list(&caller.project, &params.page()?).await?;
    let queues: Vec<Value> =
        page.items.iter().map(|(name, settings)| of_queue(name, settings)).collect();
    Ok(answer::json(StatusCode::OK, &answer::page("queues", &queues, page.next)))
}

pub(crate) async fn get(
    State(app): State<Arc<App>>,
    caller: Caller<Any>,
    QueueParam(queue): QueueParam,
) -> Answer {
    let view = app.node.queues.describe(&caller.project, &queue).await?;
    let QueueView { name, settings, waiting, leased, dead, next_due } = view;
    let told = json!({
        "queue": name.as_str(),
        "settings": settings,
        "waiting": waiting,
        "leased": leased,
        "dead": dead,
        "next_due": next_due.map(timestamp::format),
    });
    Ok(answer::json(StatusCode::OK, &told))
}

pub(crate) async fn put(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    OwnQueueParam(queue): OwnQueueParam,
    request: Request,
) -> Answer {
    let fields = body::fields_if_any(&app, &caller.project, request).await?;
    let settings = settings(fields)?;
    app.node.queues.configure(&caller.project, &queue, &settings).await?;
    Ok(answer::json(StatusCode::OK, &of_queue(&queue, &settings)))
}

pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    OwnQueueParam(queue): OwnQueueParam,
) -> Answer {
    app.node.queues.delete(&caller.project, &queue).await?;
    Ok(answer::no_content())
}

pub(crate) async fn redrive(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    OwnQueueParam(queue): OwnQueueParam,
    request: Request,
) -> Answer {
    let ids = ids(body::fields_if_any(&app, &caller.project, request).await?)?;
    app.node.queues.check(&caller.project, &queue).await?;
    let count = app.node.queues.redrive(&caller.project, &queue, ids.as_deref()).await?;
    Ok(answer::json(StatusCode::OK, &json!({ "redriven": count })))
}

pub(crate) async fn discard(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    OwnQueueParam(queue): OwnQueueParam,
    request: Request,
) -> Answer {
    let ids = ids(body::fields_if_any(&app, &caller.project, request).await?)?;
    app.node.queues.check(&caller.project, &queue).await?;
    let count = app.node.queues.discard(&caller.project, &queue, ids.as_deref()).await?;
    Ok(answer::json(StatusCode::OK, &json!({ "discarded": count })))
}

/// `ids`, each once; all if there are none.
fn ids(mut fields: Fields) -> Result<Option<Vec<JobId>>, ApiError> {
    let ids = fields.texts("ids")?;
    fields.finish()?;
    let Some(ids) = ids else { return Ok(None) };
    if !(1..=IDS_MAX).contains(&ids.len()) {
        return Err(ApiError::invalid("ids", format!("expected 1 to {IDS_MAX} ids")));
    }
    let parse =
        |id: &String| JobId::parse(id).map_err(|error| ApiError::invalid("ids", error.to_string()));
    let mut ids = ids.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    ids.sort_unstable();
    ids.dedup();
    Ok(Some(ids))
}

/// What is not given is as usual.
fn settings(mut fields: Fields) -> Result<QueueSettings, ApiError> {
    let usual = QueueSettings::default();
    let rate = fields.any("rate_per_second").map(|rate| {
        rate.as_f64().ok_or_else(|| ApiError::invalid("rate_per_second", "expected a number"))
    });
    let settings = QueueSettings {
        attempts_max: fields.number("attempts_max")?.unwrap_or(usual.attempts_max),
        backoff: fields.object("backoff")?.map_or(Ok(usual.backoff), backoff)?,
        lease_ms: fields.number("lease_ms")?.unwrap_or(usual.lease_ms),
        concurrency: fields.number("concurrency")?,
        rate_per_second: rate.transpose()?,
        ordered: fields.flag("ordered")?,
        paused: fields.flag("paused")?,
    };
    fields.finish()?;
    Ok(settings)
}

fn backoff(mut fields: Fields) -> Result<BackoffSettings, ApiError> {
    let delays = fields.any("delays_ms");
    let backoff = match delays {
        Some(delays) => {
            let all = delays.as_array().map(|delays| delays.iter().map(Value::as_u64).collect());
            let expected = || ApiError::invalid("delays_ms", "expected a list of milliseconds");
            BackoffSettings::Ladder { delays_ms: all.flatten().ok_or_else(expected)? }
        }
        None => BackoffSettings::Doubling {
            base_ms: required("base_ms", fields.number("base_ms")?)?,
            max_ms: required("max_ms", fields.number("max_ms")?)?,
        },
    };
    // Those of the other form, too.
    fields.finish()?;
    Ok(backoff)
}

fn of_queue(name: &QueueName, settings: &QueueSettings) -> Value {
    json!({ "queue": name.as_str(), "settings": settings })
}
