//! Why a call to a ledger fails.

use stream_storage::{CommitError, StoreError};

use super::note::NoteError;
use super::objects::ObjectsError;
use super::tree::TreeError;
use crate::name::LedgerName;
use crate::secret::SealError;

/// Why a call to a ledger fails.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// There is none of this name.
    #[error("ledger `{ledger}` does not exist")]
    NotFound {
        /// Its name.
        ledger: LedgerName,
    },
    /// It takes no entries and signs nothing, until what is wrong is put right.
    #[error("ledger `{ledger}` has stopped: {reason}")]
    Stopped {
        /// Its name.
        ledger: LedgerName,
        /// What is wrong.
        reason: String,
    },
    /// More is sequenced than is good to have waiting; it takes entries again soon.
    #[error("ledger `{ledger}` has {bytes} bytes of entries to integrate, at most {max} may wait")]
    Behind {
        /// Its name.
        ledger: LedgerName,
        /// Bytes that wait.
        bytes: u64,
        /// Bytes that may.
        max: u64,
    },
    /// The entries of one call are too many, or one is too large for any call.
    #[error("`{limit}` is {got}, at most {max} allowed")]
    TooLarge {
        /// The limit's name.
        limit: &'static str,
        /// What was given.
        got: u64,
        /// What is allowed.
        max: u64,
    },
    /// The ledger has no such entry.
    #[error("ledger `{ledger}` has no entry of {what}")]
    NoEntry {
        /// Its name.
        ledger: LedgerName,
        /// What was looked for.
        what: String,
    },
    /// The entry is sequenced, and not in the published tree yet.
    #[error("the entry has index {index}, the published tree {size} entries")]
    NotIntegrated {
        /// The entry's index.
        index: u64,
        /// The published tree's size.
        size: u64,
    },
    /// Nothing is published yet, or not this.
    #[error("ledger `{ledger}` has published no `{path}`")]
    NotPublished {
        /// Its name.
        ledger: LedgerName,
        /// What was asked for.
        path: String,
    },
    /// The published tree has fewer entries.
    #[error("the published tree has {size} entries")]
    BeyondEnd {
        /// Its size.
        size: u64,
    },
    /// What is published is not what was signed.
    #[error("ledger `{ledger}` is damaged: {reason}")]
    Damaged {
        /// Its name.
        ledger: LedgerName,
        /// What is wrong.
        reason: String,
    },
    /// The private key cannot be sealed or opened.
    #[error("the ledger's key cannot be used: {0}")]
    Seal(#[from] SealError),
    /// The private key is none, or no origin can have this name.
    #[error("the ledger's key cannot be used: {0}")]
    Key(NoteError),
    /// The ledgers' store failed.
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    /// The store refused the write.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LedgerError {
    /// A published tree that could not be read.
    pub(super) fn of_tree(ledger: &LedgerName, error: TreeError<ObjectsError>) -> Self {
        match error {
            TreeError::Files(error) => Self::Objects(error),
            error => Self::Damaged { ledger: ledger.clone(), reason: error.to_string() },
        }
    }
}
