//! What connectors refuse, and what they do their work with.

use serde_json::json;

use super::group::of_dead_letter;
use super::hooks::of_hooks;
use super::ledger::of_ledger;
use super::queue::of_queue;
use super::stage::{of_bound, of_pipeline};
use super::store::{of_commit, of_store};
use super::{
    Told, bad_request, conflict, internal, not_found, of_catalog, of_consume, of_field, unavailable,
};
use crate::connector::ConnectorError;
use crate::egress::EgressError;

pub(super) fn of_connector(error: &ConnectorError) -> Told {
    match error {
        ConnectorError::NotFound { .. } => not_found("connector-not-found"),
        ConnectorError::TooMany { max } => {
            conflict("too-many-connectors").with(json!({ "max": max }))
        }
        ConnectorError::Draining { .. } => conflict("connector-draining"),
        ConnectorError::Invalid { field, .. } => of_field(field),
        ConnectorError::Egress(error) => of_egress(error),
        ConnectorError::Seal(_) => unavailable("secret-unavailable"),
        ConnectorError::Pipeline(error) => of_pipeline(error),
        ConnectorError::Plugin(error) => of_bound(error),
        ConnectorError::Catalog(error) => of_catalog(error),
        ConnectorError::Partition(_) => of_field("partition"),
        ConnectorError::Consume(error) => of_consume(error),
        ConnectorError::Queue(error) => of_queue(error),
        ConnectorError::Hooks(error) => of_hooks(error),
        ConnectorError::Ledger(error) => of_ledger(error),
        ConnectorError::DeadLetter(error) => of_dead_letter(error),
        ConnectorError::Commit(error) => of_commit(error),
        ConnectorError::Store(error) => of_store(error),
    }
}

pub(super) fn of_egress(error: &EgressError) -> Told {
    match error {
        EgressError::Url { .. } => of_field("url"),
        EgressError::Forbidden { .. } => {
            bad_request("forbidden-url").with(json!({ "field": "url" }))
        }
        EgressError::Resolve { .. } => {
            bad_request("unresolved-url").with(json!({ "field": "url" })).retryable()
        }
        _ => internal(),
    }
}
