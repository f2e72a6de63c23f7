//! The durable ends of partitions, kept in memory once they were asked for.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use super::engine::Engine;
use super::keys::PartitionKey;
use super::keys::end::{self, End};
use crate::StoreError;

/// What readers may see: never a record that is not synced.
///
/// A stored end may be ahead of what is synced, but only of a partition that was appended to since
/// the store was opened, and the committer [gets](Ends::get) a partition's end before it appends.
/// So what is loaded from disk is durable.
#[derive(Debug, Default)]
pub(super) struct Ends(RwLock<HashMap<PartitionKey, End>>);

impl Ends {
    /// The durable end of a partition, read from the disk if it was not asked for before.
    pub(super) fn get(&self, engine: &Engine, partition: PartitionKey) -> Result<End, StoreError> {
        if let Some(end) = self.cached(partition) {
            return Ok(end);
        }
        // Loaded under the lock, so that nothing is appended between the look and the load.
        let mut ends = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(end) = ends.get(&partition) {
            return Ok(*end);
        }
        let stored = engine.meta(&end::key(partition))?;
        let end = stored.as_deref().map(End::decode).transpose()?.unwrap_or_default();
        ends.insert(partition, end);
        Ok(end)
    }

    /// The durable end of a partition, if it was asked for before.
    pub(super) fn cached(&self, partition: PartitionKey) -> Option<End> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&partition).copied()
    }

    /// Lets readers see what is durable now.
    pub(super) fn publish(&self, ends: impl Iterator<Item = (PartitionKey, End)>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).extend(ends);
    }

    /// Forgets the partitions of which `forget` is true.
    pub(super) fn forget(&self, forget: impl Fn(PartitionKey) -> bool) {
        let mut ends = self.0.write().unwrap_or_else(PoisonError::into_inner);
        ends.retain(|partition, _| !forget(*partition));
    }
}
