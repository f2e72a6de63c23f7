//! What is stored of Hooks, each row under a key of its own in the project's state:
//!
//! | key | value | meaning |
//! | --- | --- | --- |
//! | `hook-endpoint/{name}` | the endpoint, its secrets sealed | where events go |
//! | `hook-stats/{endpoint id}` | counters | what became of its deliveries |
//! | `hook-delivery/{endpoint id}/{delivery id}` | the delivery | one event on its way there |
//! | `hook-body/{endpoint id}/{delivery id}` | bytes | what was sent, once it is finished |
//! | `hook-attempt/{endpoint id}/{delivery id}/{number}` | the attempt | what came back |
//! | `hook-gone/{endpoint id}` | nothing | the endpoint was deleted, its rows are to follow |
//!
//! While a delivery is not finished, its body is the payload of its job in the queue
//! `_hooks.{endpoint id}`. Delivery ids sort the newest first.

use super::delivery::DeliveryId;
use super::endpoint::EndpointId;
use crate::name::EndpointName;

/// What the names of the endpoints' queues start with.
pub(super) const QUEUE: &str = "_hooks.";
/// What the keys of endpoints start with.
pub(super) const ENDPOINT: &str = "hook-endpoint/";
/// What the keys of deleted endpoints start with.
pub(super) const GONE: &str = "hook-gone/";

/// The key of an endpoint.
pub(super) fn endpoint(name: &EndpointName) -> String {
    format!("{ENDPOINT}{name}")
}

/// The key of an endpoint's counters.
pub(super) fn stats(id: &EndpointId) -> String {
    format!("hook-stats/{id}")
}

/// The key of what is left of a deleted endpoint.
pub(super) fn gone(id: &EndpointId) -> String {
    format!("{GONE}{id}")
}

/// What the keys of an endpoint's deliveries start with.
pub(super) fn deliveries(id: &EndpointId) -> String {
    format!("hook-delivery/{id}/")
}

/// The key of a delivery.
pub(super) fn delivery(endpoint: &EndpointId, id: DeliveryId) -> String {
    format!("{}{id}", deliveries(endpoint))
}

/// What the keys of an endpoint's bodies start with.
pub(super) fn bodies(id: &EndpointId) -> String {
    format!("hook-body/{id}/")
}

/// The key of a finished delivery's body.
pub(super) fn body(endpoint: &EndpointId, id: DeliveryId) -> String {
    format!("{}{id}", bodies(endpoint))
}

/// What the keys of an endpoint's attempts start with.
pub(super) fn all_attempts(id: &EndpointId) -> String {
    format!("hook-attempt/{id}/")
}

/// What the keys of a delivery's attempts start with.
pub(super) fn attempts(endpoint: &EndpointId, id: DeliveryId) -> String {
    format!("{}{id}/", all_attempts(endpoint))
}

/// The key of an attempt.
pub(super) fn attempt(endpoint: &EndpointId, id: DeliveryId, number: u32) -> String {
    format!("{}{number:08x}", attempts(endpoint, id))
}
