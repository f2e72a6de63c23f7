//! Why Hooks did not do what it was asked.

use stream_storage::{CommitError, StoreError};

use super::delivery::DeliveryId;
use crate::catalog::CatalogError;
use crate::egress::EgressError;
use crate::name::EndpointName;
use crate::queue::QueueError;
use crate::secret::SealError;

/// A part of an endpoint, or of what is asked of it, that breaks its rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {field}: expected {expected}")]
pub struct InvalidEndpoint {
    /// The field.
    pub field: &'static str,
    /// The rule.
    pub expected: String,
}

/// Why Hooks did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum HooksError {
    /// There is no endpoint of this name.
    #[error("endpoint `{endpoint}` does not exist")]
    NotFound {
        /// Its name.
        endpoint: EndpointName,
    },
    /// There is one of this name.
    #[error("endpoint `{endpoint}` exists")]
    Exists {
        /// Its name.
        endpoint: EndpointName,
    },
    /// The project has as many as it may.
    #[error("the project has {max} endpoints, which is as many as there may be")]
    Full {
        /// The limit.
        max: usize,
    },
    /// The endpoint takes nothing.
    #[error("endpoint `{endpoint}` is disabled")]
    Disabled {
        /// Its name.
        endpoint: EndpointName,
    },
    /// There is no such delivery, or it is no longer kept.
    #[error("endpoint `{endpoint}` has no delivery `{delivery}`")]
    DeliveryNotFound {
        /// The endpoint.
        endpoint: EndpointName,
        /// The delivery.
        delivery: String,
    },
    /// It is under way.
    #[error("delivery `{delivery}` is not finished")]
    Pending {
        /// The delivery.
        delivery: DeliveryId,
    },
    /// A field is refused.
    #[error(transparent)]
    Invalid(#[from] InvalidEndpoint),
    /// The address is refused, or cannot be checked now.
    #[error(transparent)]
    Url(#[from] EgressError),
    /// A secret cannot be sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The topic of news could not be made.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The queue refused.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The store refused the write.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}
