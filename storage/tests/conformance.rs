//! The embedded engine passes the conformance suite.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use async_trait::async_trait;
use stream_storage::conformance::Engine;
use stream_storage::embedded::{EmbeddedConfig, EmbeddedStore};
use stream_storage::{ManualClock, Store, Timestamp};

struct Embedded {
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
}

impl Embedded {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
        Self { folder: tempfile::tempdir().unwrap(), clock }
    }
}

#[async_trait]
impl Engine for Embedded {
    async fn open(&self) -> Arc<dyn Store> {
        let config = EmbeddedConfig { reserve_bytes: 0, ..EmbeddedConfig::new(self.folder.path()) };
        Arc::new(EmbeddedStore::open(config, self.clock()).unwrap())
    }

    fn clock(&self) -> Arc<ManualClock> {
        Arc::clone(&self.clock)
    }
}

stream_storage::conformance_tests!(Embedded::new());
