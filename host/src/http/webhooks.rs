//! `…/webhooks`: events sent, and what became of them. As the official package's `hooks` module has
//! it, and more.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use bytes::Bytes;
use serde_json::{Value, json};
use stream_storage::Timestamp;

use super::answer::{self, Answer};
use super::auth::{Caller, Manage, Publish};
use super::error::ApiError;
use super::fields::{Fields, required};
use super::params::{EndpointParam, IdParam, Params};
use super::{App, body};
use crate::hooks::{
    Attempt, Delivery, DeliveryFilter, DeliveryId, DeliveryStatus, DeliveryView, EndpointStats,
    Message, RedeliverRange,
};
use crate::name::{EndpointName, TopicName};
use crate::timestamp;

pub(crate) async fn send(
    State(app): State<Arc<App>>,
    caller: Caller<Publish>,
    request: Request,
) -> Answer {
    let held = body::with_events(&app, &caller.project, request).await?;
    let (mut fields, [payload]) = Fields::parse_raw(&held.bytes, ["payload"])?;
    let payload = required("payload", payload)?;
    let event_type = required("event_type", fields.text("event_type")?)?;
    let event_type = TopicName::parse(&event_type)
        .map_err(|error| ApiError::invalid("event_type", error.to_string()))?;
    if event_type.is_reserved() {
        let message = "types that start with `_` are the server's own";
        return Err(ApiError::invalid("event_type", message));
    }
    let endpoints = fields.texts("endpoints")?.map(|names| {
        let parse = |name: &String| EndpointName::parse(name);
        names.iter().map(parse).collect::<Result<Vec<_>, _>>()
    });
    let endpoints = endpoints.transpose()?;
    fields.finish()?;
    let (max, got) = (app.node.limits.event_bytes_max, payload.get().len());
    if got > max {
        return Err(ApiError::RequestTooLarge { limit: "event_bytes", max });
    }
    let payload = Bytes::copy_from_slice(payload.get().as_bytes());
    let message = Message { event_type, payload, endpoints };
    let sent = app.node.hooks.send(&caller.project, &message).await?;
    let info = |(id, endpoint): &(DeliveryId, EndpointName)| {
        json!({
            "delivery_id": id.to_string(),
            "endpoint_name": endpoint.as_str(),
            "status": DeliveryStatus::Pending.as_str(),
        })
    };
    let deliveries: Vec<Value> = sent.deliveries.iter().map(info).collect();
    let told = json!({ "event_id": sent.event_id, "deliveries": deliveries });
    Ok(answer::json(StatusCode::ACCEPTED, &told))
}

pub(crate) async fn stats(State(app): State<Arc<App>>, caller: Caller<Manage>) -> Answer {
    let all = app.node.hooks.stats(&caller.project).await?;
    let total = all.values().fold(EndpointStats::default(), |sum, stats| sum.plus(stats));
    let by_endpoint: serde_json::Map<String, Value> =
        all.iter().map(|(name, stats)| (name.to_string(), of_stats(stats))).collect();
    let told = json!({
        "tenant_id": caller.project.as_str(),
        "by_endpoint": by_endpoint,
        "total_deliveries": total.deliveries(),
        "successful_deliveries": total.successful,
        "failed_deliveries": total.failed,
        "cancelled_deliveries": total.cancelled,
        "pending_deliveries": total.pending,
        "success_rate": total.success_rate(),
        "avg_duration_ms": total.duration_ms_avg(),
    });
    Ok(answer::json(StatusCode::OK, &told))
}

pub(crate) async fn deliveries(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    EndpointParam(name): EndpointParam,
    params: Params,
) -> Answer {
    let time = |field| params.text(field).map(|text| time_of(field, text)).transpose();
    let filter = DeliveryFilter {
        status: params.text("status").map(status_of).transpose()?,
        since: time("since")?,
        until: time("until")?,
    };
    let request = params.page()?;
    let page = app.node.hooks.deliveries(&caller.project, &name, filter, &request).await?;
    let told: Vec<Value> =
        page.items.iter().map(|(id, delivery)| of_delivery(&name, *id, delivery)).collect();
    Ok(answer::json(StatusCode::OK, &answer::page("deliveries", &told, page.next)))
}

pub(crate) async fn delivery(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    EndpointParam(name): EndpointParam,
    IdParam(id): IdParam,
) -> Answer {
    let view = app.node.hooks.delivery(&caller.project, &name, &id).await?;
    let DeliveryView { id, delivery, attempts, body } = view;
    let mut told = of_delivery(&name, id, &delivery);
    if let Value::Object(told) = &mut told {
        let attempts: Vec<Value> =
            attempts.iter().map(|(number, attempt)| of_attempt(*number, attempt)).collect();
        told.insert("attempts".to_owned(), attempts.into());
        // It was made here, and is JSON.
        let body = body.map(|body| String::from_utf8_lossy(&body).into_owned());
        told.insert("body".to_owned(), body.into());
    }
    Ok(answer::json(StatusCode::OK, &told))
}

pub(crate) async fn redeliver(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    EndpointParam(name): EndpointParam,
    IdParam(id): IdParam,
) -> Answer {
    let hooks = &app.node.hooks;
    let delivery = hooks.redeliver(&caller.project, &name, &id).await?;
    let id = DeliveryId::parse(&id).ok_or_else(|| ApiError::invalid("id", "it is no id"))?;
    Ok(answer::json(StatusCode::ACCEPTED, &of_delivery(&name, id, &delivery)))
}

pub(crate) async fn redeliver_range(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    EndpointParam(name): EndpointParam,
    request: Request,
) -> Answer {
    let mut fields = body::fields_if_any(&app, &caller.project, request).await?;
    let mut time = |field| {
        let text = fields.text(field)?;
        text.map(|text| time_of(field, &text)).transpose()
    };
    let (since, until) = (time("since")?, time("until")?);
    let status = match fields.text("status")?.as_deref().map(status_of).transpose()? {
        None => DeliveryStatus::Failed,
        Some(DeliveryStatus::Pending) => {
            return Err(ApiError::invalid("status", "what is pending is delivered anyway"));
        }
        Some(status) => status,
    };
    fields.finish()?;
    // What is made again now is not to be found again.
    let until = Some(until.unwrap_or_else(|| app.node.clock.now()));
    let range = RedeliverRange { filter: DeliveryFilter { status: Some(status), since, until } };
    let count = app.node.hooks.redeliver_range(&caller.project, &name, range).await?;
    Ok(answer::json(StatusCode::ACCEPTED, &json!({ "redelivered": count })))
}

pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    EndpointParam(name): EndpointParam,
) -> Answer {
    let count = app.node.hooks.cancel(&caller.project, &name).await?;
    Ok(answer::json(StatusCode::OK, &json!({ "cancelled": count })))
}

fn status_of(word: &str) -> Result<DeliveryStatus, ApiError> {
    let expected = "expected `pending`, `success`, `failed` or `cancelled`";
    DeliveryStatus::parse(word).ok_or_else(|| ApiError::invalid("status", expected))
}

fn time_of(field: &'static str, text: &str) -> Result<Timestamp, ApiError> {
    timestamp::parse(text).map_err(|error| ApiError::invalid(field, error.to_string()))
}

fn of_stats(stats: &EndpointStats) -> Value {
    let time = |at: Option<u64>| at.map(|at| timestamp::format(Timestamp(at)));
    json!({
        "deliveries": stats.deliveries(),
        "successful": stats.successful,
        "failed": stats.failed,
        "cancelled": stats.cancelled,
        "pending": stats.pending,
        "attempts": stats.attempts,
        "success_rate": stats.success_rate(),
        "avg_duration_ms": stats.duration_ms_avg(),
        "last_success_at": time(stats.last_success_at),
        "failing_since": time(stats.failing_since),
    })
}

fn of_delivery(endpoint: &EndpointName, id: DeliveryId, delivery: &Delivery) -> Value {
    let time = |at: Option<u64>| at.map(|at| timestamp::format(Timestamp(at)));
    json!({
        "delivery_id": id.to_string(),
        "endpoint_name": endpoint.as_str(),
        "event_id": delivery.event_id,
        "event_type": delivery.event_type,
        "status": delivery.status.as_str(),
        "retry_count": delivery.retries(),
        "created_at": time(Some(delivery.created_at)),
        "finished_at": time(delivery.finished_at),
        "next_attempt_at": time(delivery.next_attempt_at),
        "response_status_code": delivery.status_code,
        "duration_ms": delivery.duration_ms,
        "error_message": delivery.error,
    })
}

fn of_attempt(number: u32, attempt: &Attempt) -> Value {
    json!({
        "number": number,
        "at": timestamp::format(Timestamp(attempt.at)),
        "duration_ms": attempt.duration_ms,
        "response_status_code": attempt.status_code,
        "error_message": attempt.error,
        "response_body": attempt.answer,
        "response_body_cut": attempt.answer_is_cut,
    })
}
