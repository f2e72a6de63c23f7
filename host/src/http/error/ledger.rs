//! What a ledger refuses.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::json;

use super::store::{of_commit, of_store};
use super::{Told, internal, not_found, of_field, too_large, unavailable};
use crate::ledger::LedgerError;

pub(super) fn of_ledger(error: &LedgerError) -> Told {
    match error {
        LedgerError::NotFound { .. } => not_found("ledger-not-found"),
        LedgerError::NoEntry { .. } => not_found("entry-not-found"),
        LedgerError::NotPublished { .. } => not_found("ledger-file-not-found"),
        LedgerError::BeyondEnd { size } => {
            of_field("to").with(json!({ "field": "to", "size": size }))
        }
        LedgerError::NotIntegrated { index, size } => unavailable("entry-not-integrated")
            .with(json!({ "index": index, "size": size }))
            .retry_after(Duration::from_secs(1)),
        LedgerError::Stopped { .. } => unavailable("ledger-stopped"),
        LedgerError::Behind { .. } => {
            unavailable("ledger-behind").retry_after(Duration::from_secs(1))
        }
        LedgerError::TooLarge { limit, max, .. } => too_large(limit, *max),
        LedgerError::Damaged { .. } => {
            Told::new(StatusCode::INTERNAL_SERVER_ERROR, "ledger-damaged")
        }
        LedgerError::Objects(_) => unavailable("ledger-store-failed")
            .retryable()
            .hidden("the store that ledgers are written to failed"),
        LedgerError::Seal(_) | LedgerError::Key(_) => internal(),
        LedgerError::Commit(error) => of_commit(error),
        LedgerError::Store(error) => of_store(error),
    }
}
