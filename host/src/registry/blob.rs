//! The bytes of components, in chunks under their digest.
//!
//! The row of a component says how many chunks there are, when they were written, and whether they
//! are being removed. Whoever writes or removes chunks has written that row first, and each removal
//! is conditioned on it: an upload of the same bytes takes the row over, and the removal stops.

use std::collections::HashSet;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use stream_storage::{
    CommitError, Expected, ProjectName, Store, StoreError, Timestamp, Transaction, Version,
    Versioned,
};

use super::RegistryError;
use crate::state;

const PREFIX: &str = "component/";

/// Bytes of a chunk: a transaction of its own, far below any engine's limit.
const CHUNK_BYTES: usize = 4 << 20;

/// An upload is over by then: its compiler has minutes.
const ORPHAN_AGE: Duration = Duration::from_secs(60 * 60);

/// The row of a component.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    size: usize,
    chunks: usize,
    written_at: u64,
    #[serde(default)]
    is_leaving: bool,
}

/// The state key of a component's row.
pub(super) fn key(digest: &str) -> String {
    format!("{PREFIX}{digest}")
}

fn chunk_key(digest: &str, number: usize) -> String {
    format!("component-chunk/{digest}/{number:05}")
}

/// Stores a component, and returns the version of its row.
pub(super) async fn write(
    store: &dyn Store,
    now: Timestamp,
    project: &ProjectName,
    digest: &str,
    bytes: &Bytes,
) -> Result<Version, RegistryError> {
    let chunks: Vec<Bytes> = (0..bytes.len())
        .step_by(CHUNK_BYTES)
        .map(|at| bytes.slice(at..bytes.len().min(at + CHUNK_BYTES)))
        .collect();
    let row =
        Stored { size: bytes.len(), chunks: chunks.len(), written_at: now.0, is_leaving: false };
    let mut transaction = Transaction::new(project.clone());
    transaction.put(key(digest), state::encode(&row));
    store.commit(transaction).await?;
    for (number, chunk) in chunks.into_iter().enumerate() {
        let mut transaction = Transaction::new(project.clone());
        transaction.put(chunk_key(digest, number), chunk);
        store.commit(transaction).await?;
    }
    let row = store.get(project, key(digest).as_bytes()).await?;
    let gone = || CommitError::Conflict { key: key(digest).into() };
    Ok(row.ok_or_else(gone)?.version)
}

/// The bytes of a component that is registered.
pub(super) async fn read(
    store: &dyn Store,
    project: &ProjectName,
    digest: &str,
) -> Result<Bytes, StoreError> {
    let missing = || StoreError::Corrupt { reason: format!("component `{digest}` is incomplete") };
    let row = store.get(project, key(digest).as_bytes()).await?.ok_or_else(missing)?;
    let row: Stored = state::decode(key(digest).as_bytes(), &row)?;
    let mut bytes = BytesMut::with_capacity(row.size);
    for number in 0..row.chunks {
        let chunk = store.get(project, chunk_key(digest, number).as_bytes()).await?;
        bytes.extend_from_slice(&chunk.ok_or_else(missing)?.value);
    }
    if bytes.len() == row.size { Ok(bytes.freeze()) } else { Err(missing()) }
}

/// Removes old components of a project that are not `wanted`.
pub(super) async fn sweep(
    store: &dyn Store,
    now: Timestamp,
    project: &ProjectName,
    wanted: &HashSet<String>,
) -> Result<(), RegistryError> {
    let all = state::page(store, project, PREFIX, &state::PageRequest::default()).await?;
    for entry in all.items {
        let digest = state::name_in(&entry.key, PREFIX);
        let row: Stored = state::decode(&entry.key, &entry.versioned)?;
        let age = now.0.saturating_sub(row.written_at);
        let is_old = u128::from(age) >= ORPHAN_AGE.as_millis();
        if wanted.contains(&digest) || !(is_old || row.is_leaving) {
            continue;
        }
        match remove(store, project, &digest, row, &entry.versioned).await {
            // An upload has taken it over.
            Err(RegistryError::Commit(CommitError::Conflict { .. })) => {}
            removed => removed?,
        }
    }
    Ok(())
}

async fn remove(
    store: &dyn Store,
    project: &ProjectName,
    digest: &str,
    row: Stored,
    read: &Versioned,
) -> Result<(), RegistryError> {
    let row = Stored { is_leaving: true, ..row };
    let mut transaction = Transaction::new(project.clone());
    transaction.expect(key(digest), Expected::Version(read.version));
    transaction.put(key(digest), state::encode(&row));
    store.commit(transaction).await?;
    let gone = || CommitError::Conflict { key: key(digest).into() };
    let left = store.get(project, key(digest).as_bytes()).await?.ok_or_else(gone)?;
    if !state::decode::<Stored>(key(digest).as_bytes(), &left)?.is_leaving {
        return Err(gone().into());
    }
    let mut transaction = Transaction::new(project.clone());
    transaction.expect(key(digest), Expected::Version(left.version)).delete(key(digest));
    for number in 0..row.chunks {
        transaction.delete(chunk_key(digest, number));
    }
    store.commit(transaction).await?;
    Ok(())
}
