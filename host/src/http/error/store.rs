//! What the store refuses, and what is wrong with it.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::json;
use stream_storage::{CommitError, StoreError, TrimError};

use super::{Told, conflict, forbidden, internal, not_found, of_field, too_large, unavailable};

pub(super) fn of_trim(error: &TrimError) -> Told {
    match error {
        TrimError::BeyondEnd { end } => {
            of_field("before").with(json!({ "field": "before", "log_end": end }))
        }
        TrimError::Commit(error) => of_commit(error),
        TrimError::Store(error) => of_store(error),
    }
}

pub(super) fn of_commit(error: &CommitError) -> Told {
    match error {
        CommitError::Conflict { .. } => conflict("conflict").retry_after(Duration::from_secs(1)),
        CommitError::Busy { retry_after } => {
            Told::new(StatusCode::TOO_MANY_REQUESTS, "too-many-bytes").retry_after(*retry_after)
        }
        CommitError::TooLarge { limit, max, .. } => too_large(limit, *max),
        CommitError::Invalid { .. } => internal(),
        CommitError::TopicGone { .. } => not_found("topic-not-found"),
        CommitError::Fenced { current } => {
            forbidden("stale-epoch").with(json!({ "current_epoch": current }))
        }
        CommitError::SequenceGap { expected, received } => conflict("sequence-gap")
            .with(json!({ "expected": expected, "received": received }))
            .retryable(),
        CommitError::PayloadMismatch => {
            Told::new(StatusCode::UNPROCESSABLE_ENTITY, "payload-mismatch")
        }
        CommitError::DiskFull { .. } => {
            Told::new(StatusCode::INSUFFICIENT_STORAGE, "disk-full").retryable()
        }
        CommitError::Poisoned { .. } => {
            unavailable("store-poisoned").hidden("the store has failed and is read-only")
        }
        CommitError::Store(error) => of_store(error),
        CommitError::ShuttingDown => {
            unavailable("shutting-down").retry_after(Duration::from_secs(1))
        }
        CommitError::Unknown { .. } => unavailable("commit-unknown").retryable().hidden(
            "it is not known whether the request was stored; with a producer sequence or an \
             idempotency key it is safe to send it again",
        ),
    }
}

pub(super) fn of_store(error: &StoreError) -> Told {
    match error {
        StoreError::Io { .. } => Told::new(StatusCode::INTERNAL_SERVER_ERROR, "store-unreadable")
            .retryable()
            .hidden("the store cannot be read"),
        StoreError::Corrupt { .. } => Told::new(StatusCode::INTERNAL_SERVER_ERROR, "store-corrupt")
            .hidden("stored bytes are damaged"),
    }
}
