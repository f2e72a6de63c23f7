//! The sealer: seals the memtables that are full, so that they are flushed.
//!
//! With each, fjall looks through all keyspaces for files that no reader needs any more and deletes
//! them, under locks that it holds elsewhere while it syncs: tens of milliseconds when the disk is busy.
//! So the committer does not do it, but asks for it here, and writes on.

use super::shared::Shared;
use crate::StoreError;

/// Seals whenever it is asked to, until the committer ends.
pub(super) fn run(shared: &Shared) {
    while shared.seals.wait(None) {
        let sealed = shared.engine.with(|engine| engine.seal().map_err(StoreError::from));
        if let Err(error) = sealed {
            // What is written next fails too if it has to; files that remain are found the next time.
            tracing::warn!(%error, "cannot seal a memtable and delete what is not needed any more");
        }
    }
}
