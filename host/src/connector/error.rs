//! Why a connector did not do what it was asked.

use std::borrow::Cow;

use stream_storage::{CommitError, StoreError};

use crate::catalog::CatalogError;
use crate::consume::ConsumeError;
use crate::egress::EgressError;
use crate::hooks::HooksError;
use crate::ledger::LedgerError;
use crate::name::ConnectorName;
use crate::pipeline::{BoundError, PipelineError};
use crate::publish::DeadLetterError;
use crate::queue::QueueError;
use crate::secret::SealError;
use crate::topic::NoSuchPartition;

/// Why a connector did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    /// There is none of this name.
    #[error("connector `{name}` does not exist")]
    NotFound {
        /// Its name.
        name: ConnectorName,
    },
    /// There are enough in the project.
    #[error("a project has at most {max} connectors")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// It was changed at the same time.
    #[error("connector `{name}` is on its way out; delete it with `drop`, or wait")]
    Draining {
        /// Its name.
        name: ConnectorName,
    },
    /// A field of what was asked for is refused.
    #[error("invalid {field}: {message}")]
    Invalid {
        /// The field.
        field: Cow<'static, str>,
        /// What is wrong.
        message: String,
    },
    /// The address is refused, or cannot be looked up now.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// The secret cannot be kept or read.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The plugin cannot be used.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The plugin broke.
    #[error(transparent)]
    Plugin(#[from] BoundError),
    /// A topic could not be found or made.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A partition does not exist.
    #[error(transparent)]
    Partition(#[from] NoSuchPartition),
    /// Records cannot be read from there.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// Jobs could not be made.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// Deliveries could not be made.
    #[error(transparent)]
    Hooks(#[from] HooksError),
    /// Entries could not be made.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// What the plugin broke on could not be kept.
    #[error(transparent)]
    DeadLetter(#[from] DeadLetterError),
    /// The store refused the write.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ConnectorError {
    pub(crate) fn invalid(field: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), message: message.into() }
    }
}
