//! Why a publish stored nothing.

use stream_storage::{CommitError, RecordTooLarge, StoreError};

use super::alongside::AlongsideError;
use super::answer::Refusal;
use crate::catalog::CatalogError;
use crate::partition::PartitionNotFound;
use crate::pipeline::BoundError;
use crate::stage::{Fault, Paused, Who};

/// Why a publish stored nothing.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The topic does not exist or takes no events from clients.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// There is no event.
    #[error("there is no event to publish")]
    Empty,
    /// An event asks for a partition that does not exist.
    #[error(transparent)]
    Partition(#[from] PartitionNotFound),
    /// A record cannot be encoded.
    #[error(transparent)]
    Record(#[from] RecordTooLarge),
    /// The key was used for another request.
    #[error("idempotency key `{key}` was used with another payload")]
    PayloadMismatch {
        /// The key.
        key: String,
    },
    /// Another request with the same key is not answered yet.
    #[error("a request with idempotency key `{key}` is under way")]
    InFlight {
        /// The key.
        key: String,
    },
    /// Events were rejected; nothing is stored.
    #[error("{} of {count} events are rejected; nothing was stored", rejected.len())]
    Rejected {
        /// Which, and why.
        rejected: Vec<Refusal>,
        /// How many events there are.
        count: usize,
    },
    /// A stage broke, and its policy is to refuse.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// A stage breaks so often that it is paused.
    #[error("{who} is paused, since it failed too often: {}", paused.reason)]
    Paused {
        /// Which stage.
        who: Who,
        /// Until when, and why.
        paused: Paused,
    },
    /// Routes lead an event to too many topics.
    #[error("routes lead event `{index}` to more than {max} topics")]
    TooManyTargets {
        /// The event's place in the request, from 0.
        index: u32,
        /// The limit.
        max: usize,
    },
    /// The request's types and routes name too many topics.
    #[error("the request's types and routes name more than {max} topics")]
    TooManyTopics {
        /// The limit.
        max: usize,
    },
    /// What was to be stored alongside is refused; nothing is stored.
    #[error(transparent)]
    Alongside(#[from] AlongsideError),
    /// The store refused the write; or does not know, see [`CommitError::Unknown`].
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<BoundError> for PublishError {
    fn from(error: BoundError) -> Self {
        match error {
            BoundError::Fault(fault) => Self::Fault(fault),
            BoundError::Paused { who, paused } => Self::Paused { who, paused },
        }
    }
}
