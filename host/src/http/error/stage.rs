//! What publishing refuses, and what goes wrong with plugins, bindings and routes. A plugin that says
//! no is the caller's 4xx; one that broke is a 502 that names it, and the server's own want of room a
//! 503.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};
use stream_storage::RecordTooLarge;

use super::group::of_group;
use super::queue::of_queue;
use super::store::{of_commit, of_store};
use super::{Told, bad_request, conflict, not_found, of_catalog, of_field, too_large, unavailable};
use crate::partition::PartitionNotFound;
use crate::pipeline::{BoundError, PipelineError, RELOAD_INTERVAL, SchemasError};
use crate::plugin::CheckError;
use crate::publish::{AlongsideError, PublishError};
use crate::registry::RegistryError;
use crate::stage::{Cause, Fault, Paused, Who};

pub(super) fn of_publish(error: &PublishError) -> Told {
    match error {
        PublishError::Catalog(error) => of_catalog(error),
        PublishError::Alongside(AlongsideError::Group(error)) => of_group(error),
        PublishError::Alongside(AlongsideError::Queue(error)) => of_queue(error),
        PublishError::Empty => bad_request("empty-batch"),
        PublishError::Partition(PartitionNotFound { index, .. }) => {
            of_field("partition").with(json!({ "field": "partition", "index": index }))
        }
        PublishError::Record(RecordTooLarge { .. }) => {
            Told::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large")
        }
        PublishError::PayloadMismatch { .. } => {
            Told::new(StatusCode::UNPROCESSABLE_ENTITY, "payload-mismatch")
        }
        PublishError::InFlight { .. } => {
            conflict("request-in-flight").retry_after(Duration::from_secs(1))
        }
        PublishError::Rejected { rejected, .. } => {
            bad_request("events-rejected").with(json!({ "rejected": rejected, "stored": 0 }))
        }
        PublishError::Fault(fault) => of_fault(fault),
        PublishError::Paused { who, paused } => of_paused(who, paused),
        PublishError::TooManyTargets { index, max } => too_large("route_targets", *max)
            .with(json!({ "limit": "route_targets", "max": max, "index": index })),
        PublishError::TooManyTopics { max } => too_large("request_topics", *max),
        PublishError::Commit(error) => of_commit(error),
        PublishError::Store(error) => of_store(error),
    }
}

pub(super) fn of_bound(error: &BoundError) -> Told {
    match error {
        BoundError::Fault(fault) => of_fault(fault),
        BoundError::Paused { who, paused } => of_paused(who, paused),
    }
}

fn of_paused(who: &Who, paused: &Paused) -> Told {
    let details = of_who(who, "reason", &paused.reason);
    unavailable("plugin-paused").with(details).retry_after(paused.retry_after).of_guest()
}

/// `plugin-` or `route-`, and the cause.
fn of_fault(fault: &Fault) -> Told {
    let word = fault.cause.as_str();
    let code = match fault.who {
        Who::Plugin(_) => format!("plugin-{word}"),
        Who::Route(_) => format!("route-{word}"),
    };
    let details = of_who(&fault.who, "cause", word);
    match fault.cause {
        Cause::Busy => Told::new(StatusCode::SERVICE_UNAVAILABLE, code)
            .with(details)
            .retry_after(Duration::from_secs(1)),
        Cause::Unavailable => Told::new(StatusCode::SERVICE_UNAVAILABLE, code)
            .with(details)
            .retry_after(RELOAD_INTERVAL),
        // A busy machine may have been the reason.
        Cause::Timeout => {
            Told::new(StatusCode::BAD_GATEWAY, code).with(details).retryable().of_guest()
        }
        Cause::Memory
        | Cause::Stack
        | Cause::Panic
        | Cause::Trap
        | Cause::Blocked
        | Cause::Answer
        | Cause::Start
        | Cause::MissingTarget => Told::new(StatusCode::BAD_GATEWAY, code).with(details).of_guest(),
    }
}

/// Whose fault it is, and something more about it.
fn of_who(who: &Who, name: &str, value: &str) -> Value {
    match who {
        Who::Plugin(plugin) => {
            let plugin = json!({ "name": plugin.name.as_str(), "version": plugin.version });
            json!({ "plugin": plugin, name: value })
        }
        Who::Route(route) => json!({ "route": route.as_str(), name: value }),
    }
}

pub(super) fn of_registry(error: &RegistryError) -> Told {
    match error {
        RegistryError::NotFound(missing) => match missing.version {
            None => not_found("plugin-not-found"),
            Some(_) => not_found("plugin-version-not-found"),
        },
        RegistryError::Check(CheckError::TooLarge { max, .. }) => too_large("upload_bytes", *max),
        RegistryError::Check(CheckError::Invalid { problem, expected, found }) => {
            bad_request("invalid-component")
                .with(json!({ "problem": problem.as_str(), "expected": expected, "found": found }))
        }
        RegistryError::Check(CheckError::Unavailable { .. }) => {
            unavailable("plugin-unavailable").retry_after(Duration::from_secs(1))
        }
        RegistryError::TooManyVersions { max, .. } => {
            conflict("too-many-versions").with(json!({ "max": max }))
        }
        RegistryError::Commit(error) => of_commit(error),
        RegistryError::Store(error) => of_store(error),
    }
}

pub(super) fn of_pipeline(error: &PipelineError) -> Told {
    match error {
        PipelineError::Topic(error) => of_catalog(error),
        PipelineError::Binding(error) => of_field(error.field),
        PipelineError::Route(error) => of_field(error.field),
        PipelineError::RoleNotExported { role, .. } => {
            bad_request("role-not-exported").with(json!({ "role": role.as_str() }))
        }
        PipelineError::PluginBound { places, .. } => {
            conflict("plugin-bound").with(json!({ "places": places }))
        }
        PipelineError::StaleRevision { current, .. } => {
            conflict("stale-revision").with(json!({ "current": current }))
        }
        PipelineError::BindingsNotFound { .. } => not_found("bindings-not-found"),
        PipelineError::RouteNotFound { .. } => not_found("route-not-found"),
        PipelineError::Fault(fault) => of_fault(fault),
        PipelineError::Registry(error) => of_registry(error),
        PipelineError::Schema(error) => of_schemas(error),
        PipelineError::Commit(error) => of_commit(error),
        PipelineError::Store(error) => of_store(error),
    }
}

fn of_schemas(error: &SchemasError) -> Told {
    match error {
        SchemasError::Schema(error) => {
            of_field("schema").with(json!({ "field": "schema", "path": error.path }))
        }
        SchemasError::Commit(error) => of_commit(error),
        SchemasError::Store(error) => of_store(error),
    }
}
