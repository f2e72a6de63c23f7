//! Why a queue did not do what it was asked.

use stream_storage::{CommitError, StoreError};

use super::job::{JobId, Lease};
use super::settings::InvalidSettings;
use crate::name::QueueName;
use crate::publish::DeadLetterError;

/// Why a queue did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Nobody has made it.
    #[error("queue `{queue}` does not exist")]
    NotFound {
        /// Its name.
        queue: QueueName,
    },
    /// The name is the server's own.
    #[error("invalid queue `{queue}`: names that start with `_` are the server's own")]
    Reserved {
        /// Its name.
        queue: QueueName,
    },
    /// It was never there, is finished, or was deleted.
    #[error("queue `{queue}` has no job `{id}` that is not finished")]
    NoSuchJob {
        /// The queue.
        queue: QueueName,
        /// The job.
        id: JobId,
    },
    /// Somebody else has taken the job, or nobody holds it. Nothing was done.
    #[error("lease `{}` of job `{id}` is over: {}", lease.0, now(*current))]
    StaleLease {
        /// The job.
        id: JobId,
        /// What was shown.
        lease: Lease,
        /// Who holds it now.
        current: Option<Lease>,
    },
    /// The settings are refused.
    #[error(transparent)]
    Settings(#[from] InvalidSettings),
    /// A dead letter could not be made.
    #[error(transparent)]
    DeadLetter(#[from] DeadLetterError),
    /// The store refused the write.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn now(current: Option<Lease>) -> String {
    match current {
        Some(lease) => format!("it is held under lease `{}`", lease.0),
        None => "nobody holds it now".to_owned(),
    }
}
