//! What a guest may hold: memory, tables, instances; told to wasmtime whenever it asks for more.

use std::sync::Arc;

use stream_storage::ProjectName;
use wasmtime::ResourceLimiter;

use super::engine::{CORE_INSTANCES_MAX, MEMORIES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX};
use crate::budget::{Budget, Permit};

/// Why a guest got no more memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    /// Its own limit.
    #[error("it needs more than the {max} bytes of memory that it may have")]
    Limit {
        /// The limit.
        max: usize,
    },
    /// The server's.
    #[error("the server has no memory left for plugins now: `{limit}` is {max} bytes")]
    Budget {
        /// Which limit of it.
        limit: &'static str,
        /// Its value.
        max: usize,
    },
}

/// Holds one guest to its limits. All its memories count together.
pub(super) struct Limiter {
    bytes: usize,
    max: usize,
    permit: Permit,
    /// The first refusal, for whoever asks why the guest trapped.
    denied: Option<Denied>,
}

impl Limiter {
    pub(super) fn new(max: usize, budget: &Arc<Budget>, project: ProjectName) -> Self {
        Self { bytes: 0, max, permit: budget.permit(project), denied: None }
    }

    /// Bytes of all memories; they never shrink.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    pub(super) fn denied(&self) -> Option<Denied> {
        self.denied
    }

    fn grow(&mut self, more: usize) -> Result<(), Denied> {
        let bytes = self.bytes.saturating_add(more);
        if bytes > self.max {
            return Err(Denied::Limit { max: self.max });
        }
        let refused = |error: crate::budget::BudgetExhausted| Denied::Budget {
            limit: error.limit,
            max: error.max,
        };
        self.permit.grow_to(bytes).map_err(refused)?;
        self.bytes = bytes;
        Ok(())
    }
}

impl ResourceLimiter for Limiter {
    /// A refusal traps: a guest that is told `-1` gives up by an `unreachable`, which looks like any
    /// other.
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.grow(desired.saturating_sub(current)).map_err(|denied| {
            self.denied.get_or_insert(denied);
            wasmtime::Error::new(denied)
        })?;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX as usize
    }

    fn tables(&self) -> usize {
        TABLES_MAX as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(name: &str) -> ProjectName {
        ProjectName::parse(name).unwrap()
    }

    #[test]
    fn all_memories_count_together() {
        let mut limiter = Limiter::new(100, &Budget::new(1_000, 1_000), project("p"));
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(limiter.memory_growing(0, 40, None).unwrap());
        let error = limiter.memory_growing(40, 41, None).unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&Denied::Limit { max: 100 }));
        assert_eq!((limiter.bytes(), limiter.denied()), (100, Some(Denied::Limit { max: 100 })));
    }

    #[test]
    fn the_servers_memory_is_bounded_and_given_back() {
        let budget = Budget::new(100, 100);
        let mut first = Limiter::new(100, &budget, project("p"));
        assert!(first.memory_growing(0, 80, None).unwrap());
        let mut second = Limiter::new(100, &budget, project("q"));
        assert!(second.memory_growing(0, 40, None).is_err());
        assert!(matches!(second.denied(), Some(Denied::Budget { max: 100, .. })));
        drop(first);
        assert!(second.memory_growing(0, 40, None).unwrap());
    }
}
