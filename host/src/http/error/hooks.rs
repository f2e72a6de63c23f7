//! What Hooks refuses.

use serde_json::json;

use super::store::{of_commit, of_store};
use super::{Told, bad_request, conflict, internal, not_found, of_catalog, of_field};
use crate::egress::EgressError;
use crate::hooks::HooksError;
use crate::queue::QueueError;

pub(super) fn of_hooks(error: &HooksError) -> Told {
    match error {
        HooksError::NotFound { .. } => not_found("endpoint-not-found"),
        HooksError::Exists { .. } => conflict("endpoint-exists"),
        HooksError::Full { max } => conflict("too-many-endpoints").with(json!({ "max": max })),
        HooksError::Disabled { .. } => conflict("endpoint-disabled"),
        HooksError::DeliveryNotFound { .. } => not_found("delivery-not-found"),
        HooksError::Pending { .. } => conflict("delivery-pending").retryable(),
        HooksError::Invalid(error) => of_field(error.field),
        HooksError::Url(error) => of_egress(error),
        // The server's owner has to start it with the right key.
        HooksError::Seal(_) => internal(),
        HooksError::Catalog(error) => of_catalog(error),
        HooksError::Queue(error) => of_queue(error),
        HooksError::Commit(error) => of_commit(error),
        HooksError::Store(error) => of_store(error),
    }
}

fn of_egress(error: &EgressError) -> Told {
    match error {
        EgressError::Url { .. } => of_field("url"),
        EgressError::Forbidden { .. } => {
            bad_request("forbidden-url").with(json!({ "field": "url" }))
        }
        EgressError::Resolve { .. } => {
            bad_request("unresolved-url").with(json!({ "field": "url" })).retryable()
        }
        EgressError::Connect { .. }
        | EgressError::Timeout { .. }
        | EgressError::Broken { .. }
        | EgressError::Setup { .. } => internal(),
    }
}

/// What the queue of an endpoint refuses: nobody but the server names one.
fn of_queue(error: &QueueError) -> Told {
    match error {
        QueueError::NotFound { .. }
        | QueueError::Reserved { .. }
        | QueueError::NoSuchJob { .. }
        | QueueError::StaleLease { .. }
        | QueueError::Settings(_) => internal(),
        QueueError::Catalog(error) => of_catalog(error),
        QueueError::Commit(error) => of_commit(error),
        QueueError::Store(error) => of_store(error),
    }
}
