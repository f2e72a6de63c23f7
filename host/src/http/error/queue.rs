//! What a queue refuses.

use serde_json::json;

use super::group::of_dead_letter;
use super::store::{of_commit, of_store};
use super::{Told, conflict, not_found, of_field};
use crate::queue::QueueError;

pub(super) fn of_queue(error: &QueueError) -> Told {
    match error {
        QueueError::NotFound { .. } => not_found("queue-not-found"),
        QueueError::Reserved { .. } => of_field("queue"),
        QueueError::NoSuchJob { .. } => not_found("job-not-found"),
        // Who holds it is told as `null` too: `with` would leave that out.
        QueueError::StaleLease { id, current, .. } => conflict("stale-lease").with(json!({
            "current": { "id": id.to_string(), "lease": current.map(|lease| lease.0) },
        })),
        QueueError::Settings(error) => of_field(error.field),
        QueueError::DeadLetter(error) => of_dead_letter(error),
        QueueError::Commit(error) => of_commit(error),
        QueueError::Store(error) => of_store(error),
    }
}
