//! The embedded engine passes the conformance suite.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use async_trait::async_trait;
use stream_storage::conformance::Engine;
use stream_storage::embedded::{EmbeddedConfig, EmbeddedStore};
use stream_storage::{ManualClock, Store, Timestamp};

struct Embedded {
    tail_bytes: usize,
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
}

impl Embedded {
    /// With the newest entries in memory, as it usually is.
    fn new() -> Self {
        Self::with_tail(EmbeddedConfig::new("").tail_bytes)
    }

    /// All that is read is read from the database.
    fn without_tail() -> Self {
        Self::with_tail(0)
    }

    fn with_tail(tail_bytes: usize) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
        Self { tail_bytes, folder: tempfile::tempdir().unwrap(), clock }
    }
}

#[async_trait]
impl Engine for Embedded {
    async fn open(&self) -> Arc<dyn Store> {
        let config = EmbeddedConfig {
            reserve_bytes: 0,
            tail_bytes: self.tail_bytes,
            ..EmbeddedConfig::new(self.folder.path())
        };
        Arc::new(EmbeddedStore::open(config, self.clock()).unwrap())
    }

    fn clock(&self) -> Arc<ManualClock> {
        Arc::clone(&self.clock)
    }
}

mod as_usual {
    use super::*;

    stream_storage::conformance_tests!(Embedded::new());
}

mod without_tail {
    use super::*;

    stream_storage::conformance_tests!(Embedded::without_tail());
}
