//! What is stored in the transaction of a publish, or keeps it from being stored.

use async_trait::async_trait;
use serde_json::value::RawValue;
use stream_storage::Transaction;

use crate::group::GroupError;
use crate::queue::QueueError;

/// What is stored in the transaction of a publish, or keeps it from being stored.
#[async_trait]
pub trait Alongside: Send + Sync {
    /// Adds writes and conditions. Called again if a condition no longer held at the commit: what was
    /// added before then did not happen. Returns what a repeat of the request is to be told, JSON of
    /// at most 48 KiB.
    ///
    /// # Errors
    ///
    /// The transaction is not to happen.
    async fn add(
        &self,
        transaction: &mut Transaction,
    ) -> Result<Option<Box<RawValue>>, AlongsideError>;

    /// The transaction is stored.
    async fn done(&self);

    /// An earlier transaction of the same identity was stored, and this one was not.
    async fn repeated(&self);

    /// Nothing was stored. Not called if that is not known.
    async fn refused(&self) {}

    /// Within what an idempotency key is unique, if no topic is named; `None` if it is the project.
    fn scope(&self) -> Option<String> {
        None
    }
}

/// Why nothing is to be stored.
#[derive(Debug, thiserror::Error)]
pub enum AlongsideError {
    /// A group refuses a commit.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// A queue refuses a job, or the end of one.
    #[error(transparent)]
    Queue(#[from] QueueError),
}
