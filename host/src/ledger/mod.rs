//! The embedded ledger: events become entries of a Merkle tree that anybody can verify.
//!
//! A ledger of a project is an append-only log of entries in the format of C2SP: tiles and entry
//! bundles (tlog-tiles), Ed25519-signed checkpoints (tlog-checkpoint, signed-note) and receipts
//! (tlog-proof). It is a folder of plain files, and any tool that knows these formats reads it.
//!
//! | module | what it owns |
//! | --- | --- |
//! | [`merkle`], [`tile`] | hashes, proofs; where tiles lie and how they grow; pure |
//! | [`entry`] | what an entry is, byte for byte; bundles |
//! | [`note`], [`receipt`] | signed checkpoints, verifier keys; receipts |
//! | `rows`, `sequence` | sequencing: in the caller's transaction |
//! | `integrate`, `run`, `wake` | integration: in the background |
//! | `objects`, [`tree`] | files: written durably; read as a tree |
//! | `read` | what is served: status, files, receipts, consistency |
//! | [`verify`] | a whole ledger, checked from its files alone |
//!
//! # In two steps
//!
//! *Sequencing* happens in the transaction of whoever delivers the events, with its cursor: dense
//! indexes, the entries in batches of up to 1 MiB a state row, and what finds them again: a row for
//! 1,024 offsets of a partition, and a row an event id. So 4,000 events with ids take about 4,010 state
//! rows, and without ids about ten. A record that has an index gets no other: a replay adds nothing.
//!
//! *Integration* derives everything else, in the background: see `integrate` for its steps and what
//! holds after a crash at each. The entries leave the state when they are published; what finds them
//! stays, and so do files: retention of a topic touches neither.
//!
//! # What is promised
//!
//! No two checkpoints are signed that disagree: before each, the published one is read and must be the
//! one that the store's state remembers, the tiles must have its root, and the new tree must extend
//! it. If any does not hold, the ledger stops: it takes no entries, signs nothing, and says why in its
//! status, until what is wrong is put right. Not noticed are: an old part of the tree that was changed
//! or lost on disk (`verify` finds that), and the store and the folder put back together to the same
//! earlier moment (only somebody who kept a later checkpoint can tell).

pub mod entry;
mod error;
mod integrate;
pub mod merkle;
pub mod note;
mod objects;
mod read;
pub mod receipt;
mod rows;
mod run;
mod sequence;
pub mod tile;
pub mod tree;
pub mod verify;
mod wake;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use stream_storage::{Clock, CommitError, Expected, ProjectName, Store, StoreError, Transaction};

use crate::lock::{read, write};
use crate::name::{LedgerName, TopicName};
use crate::project::Projects;
use crate::secret::{SealError, Sealer, Secret};
use crate::slot::Slot;
use crate::state;

pub use error::LedgerError;
pub use merkle::{Hash, Mark};
pub use note::{NoteError, VerifierKey};
pub use objects::{Objects, ObjectsError};
pub use read::{Consistency, LedgerStatus, Wanted};
pub use receipt::{Receipt, ReceiptError};
pub use sequence::{Appending, BYTES_MAX, ENTRIES_MAX, LedgerEntry};
pub use tile::Tile;
pub use tree::Files;
pub use wake::Health;

use note::Signer;
use rows::StoredLedger;
use wake::{HealthOf, Wake};

/// Where an entry comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The topic's name.
    pub topic: TopicName,
    /// Its id, and the partition.
    pub slot: Slot,
    /// The record's offset.
    pub offset: u64,
}

/// What ledgers are made with.
#[derive(Clone)]
pub struct LedgersConfig {
    /// Where they are written to.
    pub objects: Objects,
    /// What the origins of new ledgers begin with: a host and a path, as in `ledgers.example.com`. A
    /// random name a ledger if `None`.
    pub origin: Option<String>,
}

/// What the ledgers work with.
pub struct LedgersParts {
    /// Where entries are sequenced.
    pub store: Arc<dyn Store>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Whose ledgers there may be.
    pub projects: Arc<Projects>,
    /// Seals private keys.
    pub sealer: Arc<Sealer>,
    /// Where ledgers are written to.
    pub config: LedgersConfig,
}

#[cfg(test)]
impl LedgersConfig {
    /// In memory.
    pub(crate) fn for_tests() -> Self {
        Self { objects: Objects::in_memory(), origin: None }
    }
}

/// One ledger.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    project: ProjectName,
    ledger: LedgerName,
}

/// A ledger that is in use.
struct Opened {
    signer: Signer,
    files: Objects,
}

/// The ledgers of all projects.
pub struct Ledgers {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    projects: Arc<Projects>,
    sealer: Arc<Sealer>,
    config: LedgersConfig,
    opened: RwLock<HashMap<Key, Arc<Opened>>>,
    wake: Arc<Wake>,
    health: HealthOf,
}

impl Ledgers {
    /// Reads nothing yet.
    pub fn new(parts: LedgersParts) -> Self {
        let LedgersParts { store, clock, projects, sealer, config } = parts;
        let opened = RwLock::default();
        let (wake, health) = (Arc::default(), HealthOf::default());
        Self { store, clock, projects, sealer, config, opened, wake, health }
    }

    /// Makes the ledger, with a key of its own, if it does not exist. Durable on return.
    ///
    /// # Errors
    ///
    /// The key cannot be sealed, or the store could not be read or written.
    pub async fn ensure(
        &self,
        project: &ProjectName,
        name: &LedgerName,
    ) -> Result<(), LedgerError> {
        let key = Key { project: project.clone(), ledger: name.clone() };
        if self.open(&key).await?.is_some() {
            return Ok(());
        }
        let row_key = rows::ledger(name);
        let mut transaction = Transaction::new(project.clone());
        transaction.expect(row_key.clone(), Expected::Absent);
        transaction.put(row_key, state::encode(&self.new_row(&key)?));
        match self.store.commit(transaction).await {
            // Somebody else may have made it at the same time: then it is theirs that counts.
            Ok(_) | Err(CommitError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn new_row(&self, key: &Key) -> Result<StoredLedger, LedgerError> {
        let Key { project, ledger } = key;
        let random = || format!("stream-{:016x}", rand::random::<u64>());
        let prefix = self.config.origin.clone().unwrap_or_else(random);
        let origin = format!("{prefix}/projects/{project}/ledgers/{ledger}");
        let private = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
        let private = Secret::new(private.map_err(|_| SealError::System)?.as_ref().to_vec());
        let signer = Signer::new(&origin, private.expose()).map_err(LedgerError::Key)?;
        let sealed = self.sealer.seal(&context(key), &private)?;
        Ok(StoredLedger {
            origin,
            vkey: signer.verifier().to_string(),
            sealed_key: sealed,
            created_at: self.clock.now().0,
        })
    }

    /// The ledger, from memory if it is in use, if it exists.
    async fn open(&self, key: &Key) -> Result<Option<Arc<Opened>>, LedgerError> {
        if let Some(opened) = read(&self.opened).get(key) {
            return Ok(Some(Arc::clone(opened)));
        }
        let row_key = rows::ledger(&key.ledger);
        let row = self.store.get(&key.project, row_key.as_bytes()).await?;
        let Some(row) = row else { return Ok(None) };
        let stored: StoredLedger = state::decode(row_key.as_bytes(), &row)?;
        let damaged = |reason: &str| StoreError::Corrupt {
            reason: format!("state key `{row_key}`: {reason}"),
        };
        let private = self.sealer.open_sealed(&context(key), &stored.sealed_key)?;
        let signer = Signer::new(&stored.origin, private.expose()).map_err(LedgerError::Key)?;
        if signer.verifier().to_string() != stored.vkey {
            return Err(damaged("the two keys are of no pair").into());
        }
        let opened = Arc::new(Opened {
            signer,
            files: self.config.objects.of_ledger(&key.project, &key.ledger),
        });
        write(&self.opened).insert(key.clone(), Arc::clone(&opened));
        Ok(Some(opened))
    }
}

/// What a private key is bound to when it is sealed.
fn context(key: &Key) -> String {
    format!("ledger/{}/{}", key.project, key.ledger)
}
