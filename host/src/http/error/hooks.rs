//! What Hooks refuses.

use serde_json::json;

use super::connector::of_egress;
use super::queue::of_queue;
use super::store::{of_commit, of_store};
use super::{Told, conflict, not_found, of_catalog, of_field, unavailable};
use crate::hooks::HooksError;

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
        HooksError::Seal(_) => unavailable("secret-unavailable"),
        HooksError::Catalog(error) => of_catalog(error),
        HooksError::Queue(error) => of_queue(error),
        HooksError::Commit(error) => of_commit(error),
        HooksError::Store(error) => of_store(error),
    }
}
