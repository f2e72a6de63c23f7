//! Sequencing: entries get their indexes in the caller's transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use stream_storage::{Expected, ProjectName, Store, StoreError, Transaction};

use super::entry::Leaf;
use super::error::LedgerError;
use super::rows::{self, Batches, Head, Place};
use super::wake::Wake;
use super::{Key, Ledgers, Source};
use crate::name::LedgerName;
use crate::state;

/// Entries of one call: each may need a place row and an id row, and a transaction holds 8,192 rows;
/// what is left is the caller's, and for batch rows.
pub const ENTRIES_MAX: usize = 4_000;

/// Bytes of entries of one call: a transaction holds 64 MiB.
pub const BYTES_MAX: usize = 48 << 20;

/// Bytes that may wait to be integrated. Beyond that the log is the buffer.
const BACKLOG_BYTES_MAX: u64 = 256 << 20;

/// An entry to be.
#[derive(Debug, Clone)]
pub struct LedgerEntry {
    /// Where it comes from.
    pub source: Source,
    /// The event's id, if it has one.
    pub id: Option<String>,
    /// What [`entry::of`](super::entry::of) made of the record.
    pub entry: Bytes,
}

/// Entries that are sequenced once the caller's transaction is committed. When this is dropped,
/// integration looks for them.
#[must_use = "integration begins when the outcome of the commit is told"]
pub struct Appending {
    key: Option<Key>,
    wake: Arc<Wake>,
    /// How many entries are new; the others have been sequenced before.
    pub added: usize,
    /// The index of the first new one.
    pub first: u64,
}

impl Appending {
    /// Says whether the transaction was committed; a commit of unknown outcome was.
    pub fn done(mut self, committed: bool) {
        if !committed {
            self.key = None;
        }
    }
}

impl Drop for Appending {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.wake.mark(key);
        }
    }
}

impl Ledgers {
    /// Adds to the caller's transaction what sequences `entries`, in their order, each once: one
    /// whose topic id, partition and offset have an index already is left out. Nothing has happened
    /// when this returns but that the ledger exists. If the transaction is refused with a conflict,
    /// the caller reads again and calls this anew; a ledger can be in a transaction once.
    ///
    /// # Errors
    ///
    /// The ledger has stopped or is behind, the entries are too many or too large, or the store could
    /// not be read; then the transaction is as it was.
    pub async fn append(
        &self,
        transaction: &mut Transaction,
        project: &ProjectName,
        name: &LedgerName,
        entries: Vec<LedgerEntry>,
    ) -> Result<Appending, LedgerError> {
        check(&entries)?;
        self.ensure(project, name).await?;
        let key = Key { project: project.clone(), ledger: name.clone() };
        if let Some(reason) = self.health.stopped(&key) {
            return Err(LedgerError::Stopped { ledger: name.clone(), reason });
        }
        let (mut head, expected) = self.head(&key).await?;
        self.check_backlog(&key, head).await?;
        let first = head.next;
        let (mut places, mut ids) = (BTreeMap::new(), BTreeMap::new());
        let mut batches = Batches::default();
        for LedgerEntry { source, id, entry } in entries {
            let place = self.place(project, name, &source, &mut places).await?;
            if place.index(source.offset).is_some() {
                continue;
            }
            place.insert(source.offset, head.next);
            if let Some(id) = id {
                ids.insert(rows::id(name, &id, source.slot.topic), head.next);
            }
            batches.push(head.next, &Leaf::new(entry, &source));
            head.next += 1;
        }
        let added = usize::try_from(head.next - first).unwrap_or(usize::MAX);
        let mut appending = Appending { key: None, wake: Arc::clone(&self.wake), added, first };
        if added == 0 {
            return Ok(appending);
        }
        for (first, row) in batches.finish() {
            head.bytes += row.len() as u64;
            transaction.put(rows::batch(name, first), row);
        }
        for (key, place) in places {
            transaction.put(key, state::encode(&place));
        }
        for (key, index) in ids {
            transaction.put(key, state::encode(&index));
        }
        transaction.expect(rows::head(name), expected);
        transaction.put(rows::head(name), state::encode(&head));
        appending.key = Some(key);
        Ok(appending)
    }

    async fn check_backlog(&self, key: &Key, head: Head) -> Result<(), LedgerError> {
        let (tree, _) = self.tree(key).await?;
        let bytes = head.bytes.saturating_sub(tree.bytes);
        if bytes <= BACKLOG_BYTES_MAX {
            return Ok(());
        }
        // Who waits for room wakes whoever makes it.
        self.wake.mark(key.clone());
        let ledger = key.ledger.clone();
        Err(LedgerError::Behind { ledger, bytes, max: BACKLOG_BYTES_MAX })
    }

    /// The place row of an offset: from those of this call, or from the store.
    async fn place<'p>(
        &self,
        project: &ProjectName,
        name: &LedgerName,
        source: &Source,
        places: &'p mut BTreeMap<String, Place>,
    ) -> Result<&'p mut Place, StoreError> {
        let key = rows::place(name, source);
        if !places.contains_key(&key) {
            let row = self.store.get(project, key.as_bytes()).await?;
            let place = row.map(|row| state::decode(key.as_bytes(), &row)).transpose()?;
            places.insert(key.clone(), place.unwrap_or_default());
        }
        Ok(places.entry(key).or_default())
    }
}

/// A row, and that it is still as it was read; as it begins if it is not there.
pub(super) async fn load<R: Default + DeserializeOwned>(
    store: &dyn Store,
    project: &ProjectName,
    key: &str,
) -> Result<(R, Expected), StoreError> {
    Ok(match store.get(project, key.as_bytes()).await? {
        Some(row) => (state::decode(key.as_bytes(), &row)?, Expected::Version(row.version)),
        None => (R::default(), Expected::Absent),
    })
}

fn check(entries: &[LedgerEntry]) -> Result<(), LedgerError> {
    let too_large = |limit, got: usize, max: usize| LedgerError::TooLarge {
        limit,
        got: got as u64,
        max: max as u64,
    };
    if entries.len() > ENTRIES_MAX {
        return Err(too_large("ledger_entries", entries.len(), ENTRIES_MAX));
    }
    let bytes: usize = entries.iter().map(|entry| entry.entry.len()).sum();
    if bytes > BYTES_MAX {
        return Err(too_large("ledger_bytes", bytes, BYTES_MAX));
    }
    Ok(())
}
