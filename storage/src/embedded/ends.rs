//! The durable ends of all partitions, kept in memory.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use super::engine::Engine;
use super::keys::PartitionKey;
use super::keys::end::{self, End};
use crate::{StoreError, TopicId};

/// What readers may see: never a record that is not synced.
#[derive(Debug)]
pub(super) struct Ends(RwLock<HashMap<PartitionKey, End>>);

impl Ends {
    /// All stored ends. Nothing may be appended meanwhile, and what is stored must be synced before
    /// readers get to see them.
    pub(super) fn load(engine: &Engine) -> Result<Self, StoreError> {
        let mut ends = HashMap::new();
        for guard in engine.meta.prefix(end::PREFIX) {
            let (key, value) = guard.into_inner()?;
            ends.insert(end::parse_key(&key)?, End::decode(&value)?);
        }
        Ok(Self(RwLock::new(ends)))
    }

    /// The durable end of a partition.
    pub(super) fn get(&self, partition: PartitionKey) -> End {
        let ends = self.0.read().unwrap_or_else(PoisonError::into_inner);
        ends.get(&partition).copied().unwrap_or_default()
    }

    /// Lets readers see what is durable now.
    pub(super) fn publish(&self, ends: impl IntoIterator<Item = (PartitionKey, End)>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).extend(ends);
    }

    /// Puts other ends in the place of all, at once.
    pub(super) fn replace(&self, ends: Self) {
        let ends = ends.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = ends;
    }

    /// Forgets the ends of a topic.
    pub(super) fn forget(&self, topic: TopicId) {
        let mut ends = self.0.write().unwrap_or_else(PoisonError::into_inner);
        ends.retain(|(of, _), _| *of != topic);
    }
}
