//! What is about the server itself: health, readiness, metrics, the description of its API.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use stream_storage::Health;

use super::App;
use super::answer::{self, Answer};
use super::auth::bearer;
use super::error::ApiError;
use super::server::Peer;

const OPENAPI: &str = include_str!("../../openapi.json");

/// What a proxy on this machine adds when it speaks for somebody else.
const FORWARDED: [HeaderName; 2] =
    [HeaderName::from_static("forwarded"), HeaderName::from_static("x-forwarded-for")];

/// 200 while the process can do its work at all: also with a full disk, since it recovers.
pub(crate) async fn healthz(State(app): State<Arc<App>>) -> Response {
    let (status, told) = match app.node.store.health() {
        Health::Ok | Health::ShuttingDown => (StatusCode::OK, json!({ "status": "ok" })),
        Health::DiskFull { free, reserve } => {
            let store = json!({ "reason": "disk-full", "free": free, "reserve": reserve });
            (StatusCode::OK, json!({ "status": "degraded", "store": store }))
        }
        Health::Poisoned { .. } => {
            let told = json!({ "status": "failed", "reason": "store-poisoned" });
            (StatusCode::SERVICE_UNAVAILABLE, told)
        }
    };
    answer::json(status, &told)
}

/// 200 while the server takes writes.
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> Response {
    let reason = match app.node.store.health() {
        _ if app.node.drain.has_begun() => Some("shutting-down"),
        Health::Ok => None,
        Health::DiskFull { .. } => Some("disk-full"),
        Health::Poisoned { .. } => Some("store-poisoned"),
        Health::ShuttingDown => Some("shutting-down"),
    };
    match reason {
        None => answer::json(StatusCode::OK, &json!({ "status": "ready" })),
        Some(reason) => {
            let told = json!({ "status": "not-ready", "reason": reason });
            answer::json(StatusCode::SERVICE_UNAVAILABLE, &told)
        }
    }
}

/// For any key, or for whoever asks on this machine.
pub(crate) async fn metrics(
    State(app): State<Arc<App>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Answer {
    let is_local = peer.is_some_and(|Extension(Peer(peer))| peer.ip().to_canonical().is_loopback())
        && !FORWARDED.iter().any(|name| headers.contains_key(name));
    // A tenant's key shows the server's figures, and of plugins only its own project's.
    let project = if is_local { None } else { bearer(&app.node.keys, &headers)?.project.clone() };
    let text = app.metrics.text(&app.node, project.as_ref()).await;
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}

pub(crate) async fn openapi() -> Response {
    let kind = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, kind)], OPENAPI).into_response()
}

pub(crate) async fn no_route() -> ApiError {
    ApiError::NoRoute
}

pub(crate) async fn method_not_allowed() -> ApiError {
    ApiError::MethodNotAllowed
}
